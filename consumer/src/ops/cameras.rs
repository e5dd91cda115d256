//! What arrives from each camera, by a sample of the newest entries.
//!
//! Nothing in Redis counts rows by camera. The end of each stream is read and decoded, a few entries of it, so
//! that the numbers cost the same however much comes in; they are an estimate, the better the more evenly
//! cameras send.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use redis::Value;
use serde::Serialize;

use super::{
    OpsError, Target,
    decoded::{self, EntryRows},
};
use crate::reply;

/// Entries that a sample reads, of all streams together, or one of each where there are more streams.
const MAX_ENTRIES: usize = 40;
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
    let count = (MAX_ENTRIES / target.streams.len().max(1)).max(1);
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
        let shared = Arc::new(stream.clone());
        let value: Value = redis::cmd("XREVRANGE")
            .arg(stream)
            .arg("+")
            .arg(since_ms)
            .arg("COUNT")
            .arg(count)
            .query_async(connection)
            .await
            .map_err(OpsError::redis("read the newest entries", stream))?;
        let entries = reply::claimed_entries(value, &shared)?;
        let is_cut = entries.len() >= count;
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
        for entry in entries {
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
