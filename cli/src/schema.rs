//! The JSON schemas of what the commands print with `--json`.
//!
//! Each is derived from the type that is printed. `docs/schemas/` holds them for people and programs; the
//! tests hold that folder equal to what stands here, and every output that they see to its schema.

use passerby_consumer::{
    ops::{
        ClaimReport, ConsumersReport, DoctorReport, EntryReport, PendingReport, Tapped, TrimReport,
    },
    store::{Demographics, MigrationReport},
};
use passerby_producer::spool::Inspection;
use passerby_shared::Detection;
use schemars::{JsonSchema, Schema, generate::SchemaSettings};

use crate::commands::{
    config, consumers, demo, ingest, pause, query, replay, spool, status, support_bundle,
};

/// The schemas, by command: words joined by `-`, as in `spool-inspect`. A command that prints a
/// table's rows prints one value a line, and its schema is that of a line.
pub fn all() -> Vec<(&'static str, Schema)> {
    vec![
        ("claim", of::<ClaimReport>()),
        ("config-show", of::<config::Settings>()),
        ("consumers-list", of::<ConsumersReport>()),
        ("consumers-retire", of::<consumers::RetireReport>()),
        ("demo", of::<demo::report::Report>()),
        ("doctor", of::<DoctorReport>()),
        ("entry", of::<EntryReport>()),
        ("ingest", of::<ingest::IngestReport>()),
        ("migrate", of::<MigrationReport>()),
        ("pause", of::<pause::Steered>()),
        ("pending", of::<PendingReport>()),
        ("query-demographics", of::<Demographics>()),
        ("query-detections", of::<Detection>()),
        ("query-tracks", of::<query::ListedTrack>()),
        ("replay", of::<replay::Replayed>()),
        ("resume", of::<pause::Steered>()),
        ("spool-drain", of::<spool::Drained>()),
        ("spool-inspect", of::<Inspection>()),
        ("status", of::<status::Printed>()),
        ("support-bundle", of::<support_bundle::Bundled>()),
        ("tap", of::<Tapped>()),
        ("trim", of::<Vec<TrimReport>>()),
    ]
}

/// As a value is written, not as it might be read: a field that is always there is required.
fn of<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<T>()
}
