//! Looks at what comes into the streams, live, without a group: nothing is delivered to anybody, nothing is
//! acknowledged, and workers do not notice.
//!
//! A sample: a look takes a few entries at most, and what came in meanwhile is passed over and
//! counted, so that a fast stream costs its server and a slow line no more than a slow one.

use std::{sync::Arc, time::Duration};

use passerby_shared::{
    Detection, EntryId, StreamKey,
    redis_connection::{RedisLink, RedisTimeouts},
};
use redis::{Value, aio::MultiplexedConnection, from_redis_value};
use serde::Serialize;

use super::{
    OpsError, Target,
    decoded::{self, EntryRows},
};
use crate::reply;

/// Entries of a stream that one look reads.
const MAX_LOOKED_AT: usize = 20;
/// Rows of one entry that are handed out.
const MAX_ROWS: usize = 10_000;
/// Longest wait of one look.
const BLOCK: Duration = Duration::from_millis(500);

/// Which detections.
#[derive(Debug, Clone, Default)]
pub struct TapFilter {
    /// Only of this camera.
    pub camera_id: Option<String>,
    /// Only of this session.
    pub session_id: Option<String>,
    /// Only of this track.
    pub track_id: Option<i64>,
}

impl TapFilter {
    fn has(&self, row: &Detection) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        };
        is(&self.camera_id, &row.camera_id)
            && is(&self.session_id, &row.session_id)
            && self
                .track_id
                .is_none_or(|track| row.track_id == Some(track))
    }
}

/// One thing that came in.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Tapped {
    /// The stream.
    pub stream: String,
    /// The entry.
    pub entry_id: EntryId,
    /// The row; `None` where something is wrong with the entry.
    pub detection: Option<Detection>,
    /// Why the entry, or some of its rows, cannot be stored.
    pub problem: Option<String>,
}

/// What was seen so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TapCounts {
    /// Entries that were read.
    pub entries: u64,
    /// Entries that were passed over, as far as the server counts.
    pub skipped: u64,
    /// Detections in the entries that were read.
    pub rows: u64,
    /// Of these, those that were asked for.
    pub matched: u64,
}

/// A look into the streams that goes on.
#[derive(Debug)]
pub struct Tap {
    link: RedisLink,
    filter: TapFilter,
    streams: Vec<Tapping>,
    counts: TapCounts,
}

#[derive(Debug)]
struct Tapping {
    stream: Arc<StreamKey>,
    /// The last entry looked at, or passed over.
    last: EntryId,
    /// Entries ever added when that was so; `None` where the server does not count.
    added: Option<u64>,
}

impl Tap {
    /// Begins with what comes in from now on.
    ///
    /// # Errors
    ///
    /// [`OpsError`] when Redis cannot be reached or refuses.
    pub async fn start(target: &Target, filter: TapFilter) -> Result<Self, OpsError> {
        let mut tap = Self {
            link: RedisLink::new(target.link.url().clone(), RedisTimeouts::default()),
            filter,
            streams: Vec::new(),
            counts: TapCounts::default(),
        };
        let connection = tap.link.get().await?;
        for stream in &target.streams {
            let (last, added) = newest(connection, stream).await?;
            tap.streams.push(Tapping {
                stream: Arc::new(stream.clone()),
                last,
                added,
            });
        }
        Ok(tap)
    }

    /// What was seen so far.
    pub fn counts(&self) -> TapCounts {
        self.counts
    }

    /// Passes over what came in and was not looked at.
    ///
    /// # Errors
    ///
    /// As [`Tap::start`].
    pub async fn skip_to_now(&mut self) -> Result<(), OpsError> {
        let connection = self.link.get().await?;
        for tapping in &mut self.streams {
            let (last, added) = newest(connection, &tapping.stream).await?;
            if let (Some(before), Some(now)) = (tapping.added, added) {
                self.counts.skipped += now.saturating_sub(before);
            }
            (tapping.last, tapping.added) = (last, added);
        }
        Ok(())
    }

    /// Waits a moment for something to come in, and returns what was asked for of it.
    ///
    /// # Errors
    ///
    /// [`OpsError`] when Redis cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: what was read is lost. It comes back within half a second.
    pub async fn next(&mut self) -> Result<Vec<Tapped>, OpsError> {
        let mut command = redis::cmd("XREAD");
        command
            .arg("COUNT")
            .arg(MAX_LOOKED_AT)
            .arg("BLOCK")
            .arg(u64::try_from(BLOCK.as_millis()).unwrap_or(u64::MAX))
            .arg("STREAMS");
        for tapping in &self.streams {
            command.arg(tapping.stream.as_ref());
        }
        for tapping in &self.streams {
            command.arg(tapping.last);
        }
        let connection = self.link.get().await?;
        let read: Result<Value, _> = command.query_async(connection).await;
        let value = match read {
            Ok(value) => value,
            Err(error) => {
                self.link.judge(&error);
                let first = StreamKey::from_name(
                    self.streams
                        .first()
                        .map_or("", |tapping| tapping.stream.as_str()),
                );
                return Err(OpsError::redis("read what comes in", &first)(error));
            }
        };
        let keys: Vec<_> = self.streams.iter().map(|t| Arc::clone(&t.stream)).collect();
        let mut tapped = Vec::new();
        for entry in reply::read_reply(value, &keys, false)? {
            let Some(tapping) = self
                .streams
                .iter_mut()
                .find(|tapping| tapping.stream == entry.origin.stream)
            else {
                continue;
            };
            tapping.last = entry.origin.id;
            tapping.added = tapping.added.map(|n| n + 1);
            self.counts.entries += 1;
            let Some(fields) = &entry.fields else {
                continue;
            };
            let (about, rows) = decoded::decode(&entry.origin, fields, MAX_ROWS);
            let one = |detection, problem| Tapped {
                stream: entry.origin.stream.to_string(),
                entry_id: entry.origin.id,
                detection,
                problem,
            };
            if about.problem.is_some() {
                tapped.push(one(None, about.problem));
            }
            if let EntryRows::Detections(rows) = rows {
                self.counts.rows += rows.len() as u64;
                let before = tapped.len();
                tapped.extend(
                    rows.into_iter()
                        .filter(|row| self.filter.has(row))
                        .map(|row| one(Some(row), None)),
                );
                self.counts.matched += (tapped.len() - before) as u64;
            }
        }
        Ok(tapped)
    }
}

/// The newest ID, and how many entries were ever added, which Redis counts from 7 on. A stream that is not there
/// begins at 0.
async fn newest(
    connection: &mut MultiplexedConnection,
    stream: &StreamKey,
) -> Result<(EntryId, Option<u64>), OpsError> {
    let asked: Result<Value, redis::RedisError> = redis::cmd("XINFO")
        .arg("STREAM")
        .arg(stream)
        .query_async(connection)
        .await;
    let value = match asked {
        Ok(value) => value,
        Err(error) if error.to_string().contains("no such key") => {
            return Ok((EntryId::MIN, Some(0)));
        }
        Err(error) => return Err(OpsError::redis("look at the stream", stream)(error)),
    };
    let Value::Array(flat) = value else {
        return Err(reply::unexpected("XINFO STREAM", &value.into()).into());
    };
    let (mut last, mut added) = (EntryId::MIN, None);
    let mut flat = flat.into_iter();
    while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
        match from_redis_value::<String>(name).as_deref() {
            Ok("last-generated-id") => {
                last = from_redis_value::<String>(value)
                    .ok()
                    .and_then(|id| id.parse().ok())
                    .unwrap_or(EntryId::MIN);
            }
            Ok("entries-added") => added = from_redis_value::<u64>(value).ok(),
            _ => {}
        }
    }
    Ok((last, added))
}
