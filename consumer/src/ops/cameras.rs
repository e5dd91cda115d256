//! What arrives from each camera, by a sample of the newest entries.
//!
//! Nothing in Redis counts rows by camera. The end of each stream is read and decoded, a few entries of it, so
//! that the numbers cost the same however much comes in; they are an estimate, the better the more evenly
//! cameras send.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use passerby_shared::StreamKey;
use redis::{Value, aio::MultiplexedConnection};
use serde::Serialize;

use super::{
    OpsError, Target,
    decoded::{self, EntryRows},
};
use crate::reply::{self, Delivered};

/// Entries that a sample reads, of all streams together, or [`FIRST`] of each where there are many streams.
const MAX_ENTRIES: usize = 40;
/// Entries of a stream that are read first; they tell how large its entries are.
const FIRST: usize = 4;
/// Bytes that a sample reads, of all streams together, unless the first entries are larger.
const MAX_BYTES: usize = 256 << 10;
/// Older entries say nothing of what arrives now.
const LATELY_MS: u64 = 10_000;
/// Rows of an entry that are counted.
const MAX_ROWS: usize = 10_000;

/// What arrives.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CameraSample {
    /// Entries that were looked at.
    pub entries: u64,
    /// The longest time that the entries of a stream span, in seconds.
    pub seconds: f64,
    /// Whether more came in in the last ten seconds than was looked at.
    pub is_cut: bool,
    /// The cameras, by name.
    pub cameras: Vec<CameraArrivals>,
}

/// What arrives from one camera.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CameraArrivals {
    /// The camera.
    pub camera_id: String,
    /// Detections in the sample.
    pub rows: u64,
    /// Detections a second, by the sample.
    pub rows_per_second: f64,
    /// When the newest of them was captured.
    pub last_captured_at: Option<DateTime<Utc>>,
}

/// Samples the ends of the streams.
///
/// # Errors
///
/// [`OpsError`] when Redis cannot be reached or refuses.
///
/// # Cancel safety
///
/// Cancel safe: nothing is changed.
pub async fn cameras(target: &mut Target) -> Result<CameraSample, OpsError> {
    let n_streams = target.streams.len().max(1);
    let max_entries = (MAX_ENTRIES / n_streams).max(FIRST);
    let max_bytes = MAX_BYTES / n_streams;
    let mut sample = CameraSample::default();
    let mut found = BTreeMap::<String, CameraArrivals>::new();
    let connection = target.link.get().await?;
    let (seconds, micros): (u64, u64) = redis::cmd("TIME")
        .query_async(connection)
        .await
        .map_err(OpsError::command("ask for the time"))?;
    let now_ms = seconds * 1_000 + micros / 1_000;
    let since_ms = now_ms.saturating_sub(LATELY_MS);
    for stream in &target.streams {
        let (entries, is_cut) =
            read_tail(connection, stream, since_ms, max_entries, max_bytes).await?;
        // A sample that was cut short is of the time that it spans.
        let oldest_ms = entries.last().map_or(now_ms, |entry| entry.origin.id.ms);
        let span_ms = if is_cut {
            now_ms.saturating_sub(oldest_ms).max(1)
        } else {
            LATELY_MS
        };
        let seconds = std::time::Duration::from_millis(span_ms).as_secs_f64();
        sample.entries += entries.len() as u64;
        sample.seconds = sample.seconds.max(seconds);
        sample.is_cut |= is_cut;
        // The oldest of those that were cut off only says since when the others came.
        let n_counted = entries.len() - usize::from(is_cut);
        for entry in entries.into_iter().take(n_counted) {
            let Some(fields) = &entry.fields else {
                continue;
            };
            let (_, rows) = decoded::decode(&entry.origin, fields, MAX_ROWS);
            let EntryRows::Detections(rows) = rows else {
                continue;
            };
            for row in rows {
                let camera =
                    found
                        .entry(row.camera_id)
                        .or_insert_with_key(|camera_id| CameraArrivals {
                            camera_id: camera_id.clone(),
                            rows: 0,
                            rows_per_second: 0.0,
                            last_captured_at: None,
                        });
                camera.rows += 1;
                camera.rows_per_second += 1.0 / seconds;
                camera.last_captured_at = camera.last_captured_at.max(Some(row.timestamp));
            }
        }
    }
    sample.cameras = found.into_values().collect();
    Ok(sample)
}

/// The newest entries of a stream, newest first, and whether older ones were left that came in since then.
async fn read_tail(
    connection: &mut MultiplexedConnection,
    stream: &StreamKey,
    since_ms: u64,
    max_entries: usize,
    max_bytes: usize,
) -> Result<(Vec<Delivered>, bool), OpsError> {
    let mut entries = read_back(connection, stream, "+", since_ms, FIRST).await?;
    let Some(last) = entries.last().filter(|_| entries.len() == FIRST) else {
        return Ok((entries, false));
    };
    let below = format!("({}", last.origin.id);
    let fields = entries.iter().filter_map(|entry| entry.fields.as_ref());
    let n_bytes: usize = fields
        .flatten()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    let size = (n_bytes / entries.len()).max(1);
    let more = (max_bytes.saturating_sub(n_bytes) / size).min(max_entries - entries.len());
    if more == 0 {
        return Ok((entries, true));
    }
    let older = read_back(connection, stream, &below, since_ms, more).await?;
    let is_cut = older.len() == more;
    entries.extend(older);
    Ok((entries, is_cut))
}

async fn read_back(
    connection: &mut MultiplexedConnection,
    stream: &StreamKey,
    from: &str,
    since_ms: u64,
    count: usize,
) -> Result<Vec<Delivered>, OpsError> {
    let value: Value = redis::cmd("XREVRANGE")
        .arg(stream)
        .arg(from)
        .arg(since_ms)
        .arg("COUNT")
        .arg(count)
        .query_async(connection)
        .await
        .map_err(OpsError::redis("read the newest entries", stream))?;
    Ok(reply::claimed_entries(value, &Arc::new(stream.clone()))?)
}
