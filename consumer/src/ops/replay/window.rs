//! What of a span of time is still in a stream, and reads it page by page without disturbing any group.

use std::{collections::HashSet, sync::Arc};

use chrono::{DateTime, Utc};
use passerby_shared::{EntryId, StreamKey, backlog};
use redis::{Value, streams::StreamInfoGroupsReply};

use super::{ReplayFilter, bounds};
use crate::{
    ops::{OpsError, Target},
    reply::{self, Delivered},
};

/// Entries read at a time.
const PAGE: usize = 200;

/// The part of a stream that a replay reads.
#[derive(Debug, Clone, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StreamWindow {
    /// The stream.
    pub stream: String,
    /// Where it begins.
    pub first: EntryId,
    /// Where it ends: at what was delivered last, at the latest.
    pub last: EntryId,
    /// Entries in the whole stream.
    pub entries_in_stream: u64,
    /// Entries of the stream that are not delivered yet; 0 where the span of time ends before them.
    pub undelivered: u64,
    /// What of the span of time is gone.
    pub gap: Option<Gap>,
}

/// A part of a span of time of which entries were, or may have been, trimmed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Gap {
    /// The stream.
    pub stream: String,
    /// From the beginning of what was asked for
    pub from: DateTime<Utc>,
    /// up to the stream's first entry; or to now, when it holds none.
    pub to: DateTime<Utc>,
}

impl StreamWindow {
    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.first > self.last
    }

    /// Its length.
    pub fn ms(&self) -> u64 {
        self.last.ms.saturating_sub(self.first.ms)
    }
}

/// Looks what of a span of time is in the streams.
///
/// # Errors
///
/// [`OpsError`] when Redis cannot be reached or refuses; also when there is no such group, since nothing was
/// ever delivered then.
pub async fn replay_windows(
    target: &mut Target,
    filter: &ReplayFilter,
) -> Result<Vec<StreamWindow>, OpsError> {
    let mut windows = Vec::new();
    for stream in target.streams.clone() {
        windows.push(window(target, &stream, filter).await?);
    }
    Ok(windows)
}

async fn window(
    target: &mut Target,
    stream: &StreamKey,
    filter: &ReplayFilter,
) -> Result<StreamWindow, OpsError> {
    const DOING: &str = "look into the stream";
    let group = target.group.clone();
    let connection = target.link.get().await?;
    // Asks whether there is a group, in words that everybody knows.
    let _: Value = redis::cmd("XPENDING")
        .arg(stream)
        .arg(&group)
        .query_async(connection)
        .await
        .map_err(OpsError::redis(DOING, stream))?;
    let (groups, length, first, info): (StreamInfoGroupsReply, u64, Value, Value) = redis::pipe()
        .cmd("XINFO")
        .arg("GROUPS")
        .arg(stream)
        .cmd("XLEN")
        .arg(stream)
        .cmd("XRANGE")
        .arg(stream)
        .arg("-")
        .arg("+")
        .arg("COUNT")
        .arg(1)
        .cmd("XINFO")
        .arg("STREAM")
        .arg(stream)
        .query_async(connection)
        .await
        .map_err(OpsError::redis(DOING, stream))?;
    let key = Arc::new(stream.clone());
    let first_entry = reply::claimed_entries(first, &key)?
        .first()
        .map(|entry| entry.origin.id);
    let delivered = groups
        .groups
        .iter()
        .find(|found| found.name == group)
        .and_then(|found| found.last_delivered_id.parse().ok())
        .unwrap_or(EntryId::MIN);
    let backlog = backlog::measure(connection, stream, &group)
        .await
        .map_err(OpsError::redis("measure the backlog", stream))?;
    let (asked_first, asked_last) = bounds(filter);
    let gap = filter
        .from
        .filter(|_| first_entry.is_none_or(|first| first > asked_first))
        .filter(|_| n_ever_added(&info).is_none_or(|n_added| n_added > length))
        .map(|from| Gap {
            stream: stream.to_string(),
            from,
            to: time(first_entry.map_or(backlog.now_ms, |first| first.ms)),
        })
        .filter(|gap| filter.to.is_none_or(|to| gap.from < to));
    Ok(StreamWindow {
        stream: stream.to_string(),
        first: first_entry.map_or(asked_first, |first| first.max(asked_first)),
        last: match first_entry {
            Some(_) => asked_last.min(delivered),
            None => EntryId::MIN,
        },
        entries_in_stream: length,
        undelivered: if asked_last > delivered {
            backlog.undelivered
        } else {
            0
        },
        gap,
    })
}

fn time(ms: u64) -> DateTime<Utc> {
    i64::try_from(ms)
        .ok()
        .and_then(DateTime::from_timestamp_millis)
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// Entries that were ever added, where the server counts them: from Redis 7.0 on. When they are as many as
/// there are, none was ever trimmed.
fn n_ever_added(info: &Value) -> Option<u64> {
    let Value::Array(flat) = info else {
        return None;
    };
    let (pairs, _) = flat.as_chunks::<2>();
    pairs.iter().find_map(|[name, value]| match (name, value) {
        (Value::BulkString(name), Value::Int(n)) if name == b"entries-added" => {
            u64::try_from(*n).ok()
        }
        _ => None,
    })
}

/// Reads a window page by page.
pub(super) struct Reading {
    stream: Arc<StreamKey>,
    begin: u64,
    next: Option<EntryId>,
    last: EntryId,
}

/// Entries of a window.
pub(super) struct Page {
    pub(super) entries: Vec<Delivered>,
    /// Those that are pending.
    pub(super) pending: HashSet<EntryId>,
}

impl Page {
    pub(super) fn n_pending(&self) -> u64 {
        let is_pending = |entry: &&Delivered| self.pending.contains(&entry.origin.id);
        self.entries.iter().filter(is_pending).count() as u64
    }
}

impl Reading {
    pub(super) fn new(window: &StreamWindow) -> Self {
        Self {
            stream: Arc::new(StreamKey::from_name(window.stream.clone())),
            begin: window.first.ms,
            next: (!window.is_empty()).then_some(window.first),
            last: window.last,
        }
    }

    /// Milliseconds of the window that were read.
    pub(super) fn ms_behind(&self) -> u64 {
        let next = self.next.unwrap_or(self.last);
        next.ms.saturating_sub(self.begin)
    }

    /// The next page, which is never empty; `None` at the end.
    pub(super) async fn next(&mut self, target: &mut Target) -> Result<Option<Page>, OpsError> {
        const DOING: &str = "read entries";
        let Some(next) = self.next else {
            return Ok(None);
        };
        let stream = &self.stream;
        let group = target.group.clone();
        let connection = target.link.get().await?;
        let entries: Value = redis::cmd("XRANGE")
            .arg(stream.as_ref())
            .arg(next)
            .arg(self.last)
            .arg("COUNT")
            .arg(PAGE)
            .query_async(connection)
            .await
            .map_err(OpsError::redis(DOING, stream))?;
        let entries = reply::claimed_entries(entries, stream)?;
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            self.next = None;
            return Ok(None);
        };
        let (first, last) = (first.origin.id, last.origin.id);
        let pending: Vec<(String, String, u64, u64)> = redis::cmd("XPENDING")
            .arg(stream.as_ref())
            .arg(group)
            .arg(first)
            .arg(last)
            .arg(PAGE)
            .query_async(connection)
            .await
            .map_err(OpsError::redis("list pending entries", stream))?;
        self.next = (entries.len() == PAGE && last < self.last).then(|| last.next());
        Ok(Some(Page {
            entries,
            pending: (pending.iter())
                .filter_map(|(id, ..)| id.parse().ok())
                .collect(),
        }))
    }
}
