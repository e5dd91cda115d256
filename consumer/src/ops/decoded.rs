//! What an entry holds, decoded for people. Nothing is stored, and what cannot be read is said.

use std::{collections::BTreeSet, panic::AssertUnwindSafe};

use chrono::{DateTime, Utc};
use passerby_shared::{
    Detection, ErrorChain, IdempotencyKey, Session, StreamKey, Track,
    wire::{self, BadRow, EntryFields, Kind, Undecodable},
};
use redis::{Value, aio::MultiplexedConnection};
use serde::Serialize;

use super::OpsError;
use crate::{
    batch::{Origin, RawFields},
    decoder::FIELD_REQUEUED,
    reply::{self, Delivered},
};

/// Cameras and sessions that are named.
const MAX_NAMES: usize = 10;

/// What an entry holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DecodedEntry {
    /// Its key in the ledger.
    pub idempotency_key: IdempotencyKey,
    /// Whether that is derived from where the entry stands, as its producer gave none.
    pub key_is_derived: bool,
    /// `detections`, `tracks` or `sessions`; `None` when it cannot be read.
    pub kind: Option<&'static str>,
    /// Bytes of its fields.
    pub bytes: u64,
    /// Rows in it, bad ones included.
    pub rows: u64,
    /// Rows that cannot be stored.
    pub bad_rows: u64,
    /// The cameras of the rows, at most ten of them.
    pub camera_ids: Vec<String>,
    /// The sessions of the rows, at most ten of them.
    pub session_ids: Vec<String>,
    /// When the first of the rows was captured.
    pub first_captured_at: Option<DateTime<Utc>>,
    /// When the last of the rows was captured.
    pub last_captured_at: Option<DateTime<Utc>>,
    /// The dead letter that it was put back from.
    pub requeued_from: Option<String>,
    /// Why it, or the first of its bad rows, cannot be stored.
    pub problem: Option<String>,
}

/// The good rows of an entry.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum EntryRows {
    /// Of detections.
    Detections(Vec<Detection>),
    /// Of tracks.
    Tracks(Vec<Track>),
    /// Of sessions.
    Sessions(Vec<Session>),
}

impl EntryRows {
    fn none(kind: Kind) -> Self {
        match kind {
            Kind::Detections => Self::Detections(Vec::new()),
            Kind::Tracks => Self::Tracks(Vec::new()),
            Kind::Sessions => Self::Sessions(Vec::new()),
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Detections(rows) => rows.len(),
            Self::Tracks(rows) => rows.len(),
            Self::Sessions(rows) => rows.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Decodes an entry; at most `max_rows` of its good rows are kept.
pub(super) fn decode(
    origin: &Origin,
    fields: &RawFields,
    max_rows: usize,
) -> (DecodedEntry, EntryRows) {
    let pairs = || fields.iter().map(|(name, value)| (&name[..], &value[..]));
    let given = wire::key_of(pairs());
    let requeued = fields
        .iter()
        .find(|(name, _)| name == FIELD_REQUEUED.as_bytes());
    let mut entry = DecodedEntry {
        idempotency_key: given
            .unwrap_or_else(|| IdempotencyKey::derived_from_entry(&origin.stream, origin.id)),
        key_is_derived: given.is_none(),
        kind: None,
        bytes: fields
            .iter()
            .map(|(name, value)| (name.len() + value.len()) as u64)
            .sum(),
        rows: 0,
        bad_rows: 0,
        camera_ids: Vec::new(),
        session_ids: Vec::new(),
        first_captured_at: None,
        last_captured_at: None,
        requeued_from: requeued.map(|(_, id)| String::from_utf8_lossy(id).into_owned()),
        problem: None,
    };
    let parsed = match EntryFields::parse(pairs()) {
        Ok(parsed) => parsed,
        Err(error) => {
            entry.problem = Some(ErrorChain(&error).to_string());
            return (entry, EntryRows::none(Kind::Detections));
        }
    };
    entry.kind = Some(kind_name(parsed.kind));
    let mut seen = Seen::new(parsed.kind, max_rows);
    // As where entries are stored: a bug in decoding costs no more than the entry.
    let decoded = std::panic::catch_unwind(AssertUnwindSafe(|| {
        seen.decode(parsed.kind, parsed.payload)
    }));
    match decoded {
        Ok(Ok(())) => entry.problem = seen.problem.take(),
        Ok(Err(error)) => {
            entry.problem = Some(ErrorChain(&error).to_string());
            seen.rows = EntryRows::none(parsed.kind);
        }
        Err(_) => {
            entry.problem = Some("decoding it panics: a bug of this program".to_owned());
            seen.rows = EntryRows::none(parsed.kind);
        }
    }
    (entry.rows, entry.bad_rows) = (seen.n_rows, seen.n_bad);
    entry.camera_ids = seen.cameras.into_iter().collect();
    entry.session_ids = seen.sessions.into_iter().collect();
    (entry.first_captured_at, entry.last_captured_at) = (seen.first, seen.last);
    (entry, seen.rows)
}

/// What rows are called.
pub(super) const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Detections => "detections",
        Kind::Tracks => "tracks",
        Kind::Sessions => "sessions",
    }
}

struct Seen {
    rows: EntryRows,
    max_rows: usize,
    n_rows: u64,
    n_bad: u64,
    cameras: BTreeSet<String>,
    sessions: BTreeSet<String>,
    first: Option<DateTime<Utc>>,
    last: Option<DateTime<Utc>>,
    problem: Option<String>,
}

impl Seen {
    fn new(kind: Kind, max_rows: usize) -> Self {
        Self {
            rows: EntryRows::none(kind),
            max_rows,
            n_rows: 0,
            n_bad: 0,
            cameras: BTreeSet::new(),
            sessions: BTreeSet::new(),
            first: None,
            last: None,
            problem: None,
        }
    }

    fn decode(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Undecodable> {
        match kind {
            Kind::Detections => wire::decode_detections(payload, |row_idx, row| match row {
                Ok(row) => {
                    let at = DateTime::from_timestamp_micros(row.timestamp_us);
                    self.note(Some(row.camera_id), row.session_id, at, at);
                    let max_rows = self.max_rows;
                    if let EntryRows::Detections(rows) = &mut self.rows
                        && rows.len() < max_rows
                    {
                        rows.extend(row.to_detection());
                    }
                }
                Err(bad) => self.bad(row_idx, &bad),
            }),
            Kind::Tracks => wire::decode_tracks(payload, |row_idx, row| match row {
                Ok(row) => {
                    let (start, end) = (Some(row.start_time), Some(row.end_time));
                    self.note(Some(&row.camera_id), &row.session_id, start, end);
                    let max_rows = self.max_rows;
                    if let EntryRows::Tracks(rows) = &mut self.rows
                        && rows.len() < max_rows
                    {
                        rows.push(row);
                    }
                }
                Err(bad) => self.bad(row_idx, &bad),
            }),
            Kind::Sessions => wire::decode_sessions(payload, |row_idx, row| match row {
                Ok(row) => {
                    self.note(None, &row.session_id, row.started_at, row.ended_at);
                    let max_rows = self.max_rows;
                    if let EntryRows::Sessions(rows) = &mut self.rows
                        && rows.len() < max_rows
                    {
                        rows.push(row);
                    }
                }
                Err(bad) => self.bad(row_idx, &bad),
            }),
        }
        .map(|_n_rows| ())
    }

    fn note(
        &mut self,
        camera: Option<&str>,
        session: &str,
        first: Option<DateTime<Utc>>,
        last: Option<DateTime<Utc>>,
    ) {
        self.n_rows += 1;
        if let Some(camera) = camera {
            name(&mut self.cameras, camera);
        }
        name(&mut self.sessions, session);
        self.first = self.first.into_iter().chain(first).min();
        self.last = self.last.into_iter().chain(last).max();
    }

    fn bad(&mut self, row_idx: usize, bad: &BadRow) {
        self.n_rows += 1;
        self.n_bad += 1;
        self.problem
            .get_or_insert_with(|| format!("row {row_idx}: {}", bad.invalid));
    }
}

fn name(names: &mut BTreeSet<String>, one: &str) {
    if names.len() < MAX_NAMES && !names.contains(one) {
        names.insert(one.to_owned());
    }
}

/// Reads entries by their IDs; those that are gone are left out.
pub(super) async fn read(
    connection: &mut MultiplexedConnection,
    stream: &std::sync::Arc<StreamKey>,
    ids: &[passerby_shared::EntryId],
) -> Result<Vec<Delivered>, OpsError> {
    let mut pipe = redis::pipe();
    for id in ids {
        pipe.cmd("XRANGE").arg(stream.as_ref()).arg(*id).arg(*id);
    }
    let found: Vec<Value> = pipe
        .query_async(connection)
        .await
        .map_err(OpsError::redis("read entries", stream))?;
    let mut entries = Vec::new();
    for value in found {
        entries.extend(reply::claimed_entries(value, stream)?);
    }
    Ok(entries)
}
