//! What became of a file: in words, and for machines.

use chrono::{DateTime, Utc};
use passerby_consumer::store::SourceRecord;
use passerby_shared::SessionSummary;
use serde::Serialize;

/// How a file ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// Read and checked; nothing was to be stored.
    Reported,
    /// Everything in it is stored.
    Stored,
    /// It was finished before; nothing was read.
    AlreadyFinished,
    /// Everything is in the stream; no worker has stored all of it yet.
    InStream,
    /// Stopped before its end.
    Interrupted,
}

/// What became of a file.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct FileSummary {
    pub(crate) file: String,
    pub(crate) session_id: String,
    pub(crate) camera_id: String,
    pub(crate) outcome: Outcome,
    /// Good lines.
    pub(crate) rows: u64,
    /// Bad lines, skipped.
    pub(crate) bad_lines: u64,
    /// Rows whose confidence was outside 0…1 and was cut to it.
    pub(crate) clamped: u64,
    /// Rows stored now.
    pub(crate) stored: u64,
    /// Rows that were stored before.
    pub(crate) already_stored: u64,
    /// Tracks seen.
    pub(crate) tracks: u64,
    /// People in the session, once it ended.
    pub(crate) people: Option<SessionSummary>,
    #[serde(skip)]
    pub(crate) last_time: Option<DateTime<Utc>>,
}

impl FileSummary {
    pub(crate) fn new(record: &SourceRecord) -> Self {
        Self {
            file: record.name.clone(),
            session_id: record.session_id.clone(),
            camera_id: record.camera_id.clone(),
            outcome: Outcome::Interrupted,
            rows: 0,
            bad_lines: 0,
            clamped: 0,
            stored: 0,
            already_stored: 0,
            tracks: 0,
            people: None,
            last_time: None,
        }
    }
}
