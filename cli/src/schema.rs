//! The JSON schemas of what the commands print with `--json`.
//!
//! Each is derived from the type that is printed. `docs/schemas/` holds them for people and programs; the
//! tests hold that folder equal to what stands here, and every output that they see to its schema.

use passerby_consumer::{
    ops::{
        ClaimReport, ConsumersReport, DoctorReport, EntryReport, PartitionsDropped, PartitionsMade,
        PendingReport, Tapped, TrimReport,
    },
    store::{Demographics, ListedSession, MigrationReport, Partitions},
};
use passerby_producer::spool::Inspection;
use passerby_shared::Detection;
use schemars::{JsonSchema, Schema, generate::SchemaSettings};

use crate::commands::{
    config, consumers, dead_letters, demo, ingest, ledger, pause, query, replay, sessions, spool,
    status, support_bundle,
};

/// The schemas, by command: words joined by `-`, as in `spool-inspect`. A command that prints a
/// table's rows prints one value a line, and its schema is that of a line.
pub fn all() -> Vec<(&'static str, Schema)> {
    vec![
        ("claim", of::<ClaimReport>()),
        ("config-show", of::<config::Settings>()),
        ("consumers-list", of::<ConsumersReport>()),
        ("consumers-retire", of::<consumers::RetireReport>()),
        ("dead-letters-discard", of::<dead_letters::Discarded>()),
        ("dead-letters-list", of::<dead_letters::ListedLetter>()),
        ("dead-letters-requeue", of::<dead_letters::Requeued>()),
        ("dead-letters-show", of::<dead_letters::ShownLetter>()),
        ("demo", of::<demo::report::Report>()),
        ("doctor", of::<DoctorReport>()),
        ("entry", of::<EntryReport>()),
        ("ingest", of::<ingest::IngestReport>()),
        ("ledger-prune", of::<ledger::LedgerPruned>()),
        ("ledger-stats", of::<ledger::LedgerStats>()),
        ("migrate", of::<MigrationReport>()),
        ("partitions-drop", of::<PartitionsDropped>()),
        ("partitions-ensure", of::<PartitionsMade>()),
        ("partitions-list", of::<Partitions>()),
        ("partitions-repair", of::<PartitionsMade>()),
        ("pause", of::<pause::Steered>()),
        ("pending", of::<PendingReport>()),
        ("query-demographics", of::<Demographics>()),
        ("query-detections", of::<Detection>()),
        ("query-tracks", of::<query::ListedTrack>()),
        ("replay", of::<replay::Replayed>()),
        ("resume", of::<pause::Steered>()),
        ("sessions-close", of::<sessions::ClosedSession>()),
        ("sessions-list", of::<ListedSession>()),
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
