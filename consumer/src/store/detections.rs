//! Detections: COPY in, streamed queries out.

use std::ops::Range;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::{Stream, TryStreamExt};
use passerby_shared::{Detection, IdempotencyKey};
use tokio_postgres::{Row, types::ToSql};

use super::{CommitReport, Store, StoreError};
use crate::batch::BatchBuilder;

/// Which detections, beside their time.
#[derive(Debug, Clone, Default)]
pub struct DetectionFilter {
    /// Only this camera.
    pub camera_id: Option<String>,
    /// Only this session.
    pub session_id: Option<String>,
    /// Only this track.
    pub track_id: Option<i64>,
    /// At most so many.
    pub limit: Option<i64>,
}

impl DetectionFilter {
    /// The detections of one camera.
    pub fn camera(camera_id: impl Into<String>) -> Self {
        Self {
            camera_id: Some(camera_id.into()),
            ..Self::default()
        }
    }
}

const SELECT: &str = "
SELECT timestamp, session_id, camera_id, channel_id, detection_id, track_id, confidence,
       bbox_x, bbox_y, bbox_width, bbox_height, gender, gender_confidence, frame_number, degraded
FROM detections
WHERE timestamp >= $1 AND timestamp < $2";

impl Store {
    /// Stores detections as one COPY in one transaction and returns how many.
    ///
    /// Calling it again stores them again: [`Store::insert_entries_once`] does not.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] for the first invalid row, with nothing stored. After any other error
    /// nothing was stored either, unless the connection broke during COMMIT.
    pub async fn insert_detections(&mut self, detections: &[Detection]) -> Result<u64, StoreError> {
        let report = self
            .insert_entries_once(&[(IdempotencyKey::generate(), detections)])
            .await?;
        Ok(report.detections)
    }

    /// Stores entries, each under its idempotency key, in one transaction. An entry whose key was
    /// used before writes nothing, so the same call may be repeated after any error.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] for the first invalid row, counted over all entries, with nothing
    /// stored; else what the server said.
    pub async fn insert_entries_once(
        &mut self,
        entries: &[(IdempotencyKey, &[Detection])],
    ) -> Result<CommitReport, StoreError> {
        let all = entries.iter().flat_map(|(_, detections)| *detections);
        for (row_idx, detection) in all.enumerate() {
            detection
                .validate()
                .map_err(|source| StoreError::Invalid { row_idx, source })?;
        }
        let mut batch = BatchBuilder::default();
        for (key, detections) in entries {
            if !batch.contains(*key) {
                batch.push_entry(*key, detections);
            }
        }
        let (settled, report) = self
            .commit(&batch.build())
            .await
            .map_err(|error| error.error)?;
        drop(settled); // there is nothing to acknowledge
        Ok(report)
    }

    /// The detections of a span of time, oldest first, as a stream that reads no faster than it is
    /// polled. The stream takes the store's connection along and ends it; the store makes a new one.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses; the stream ends with one when the
    /// connection breaks.
    pub async fn query_detections_by_time(
        &mut self,
        range: Range<DateTime<Utc>>,
        filter: &DetectionFilter,
    ) -> Result<impl Stream<Item = Result<Detection, StoreError>> + use<>, StoreError> {
        let mut sql = SELECT.to_owned();
        let mut params: Vec<Box<dyn ToSql + Sync + Send>> =
            vec![Box::new(range.start), Box::new(range.end)];
        // Only the conditions that are asked for, so that the planner sees which index fits.
        let mut and = |column: &str, value: Option<Box<dyn ToSql + Sync + Send>>| {
            if let Some(value) = value {
                params.push(value);
                sql.push_str(&format!("\n  AND {column} = ${}", params.len()));
            }
        };
        and(
            "camera_id",
            filter.camera_id.clone().map(|v| Box::new(v) as _),
        );
        and(
            "session_id",
            filter.session_id.clone().map(|v| Box::new(v) as _),
        );
        and("track_id", filter.track_id.map(|v| Box::new(v) as _));
        sql.push_str("\nORDER BY timestamp, camera_id, detection_id");
        if let Some(limit) = filter.limit {
            params.push(Box::new(limit));
            sql.push_str(&format!("\nLIMIT ${}", params.len()));
        }
        let connection = self.begin().await?;
        let rows = connection
            .client
            .query_raw(&sql, params)
            .await
            .map_err(StoreError::statement("query `detections`"))?;
        Ok(rows
            .and_then(move |row| {
                // Dropping a client ends its connection.
                let _alive = &connection;
                std::future::ready(from_row(&row))
            })
            .map_err(|error| StoreError::statement("read a row of `detections`")(error)))
    }

    /// COPYs rows that are encoded already, in a transaction of their own, without ledger: what raw
    /// COPY costs, for benchmarks.
    #[doc(hidden)]
    pub async fn copy_raw(&mut self, tuples: Bytes) -> Result<u64, StoreError> {
        let mut connection = self.begin().await?;
        let done = connection.copy_raw(tuples).await;
        self.end(connection, done)
    }
}

fn from_row(row: &Row) -> Result<Detection, tokio_postgres::Error> {
    Ok(Detection {
        timestamp: row.try_get(0)?,
        session_id: row.try_get(1)?,
        camera_id: row.try_get(2)?,
        channel_id: row.try_get(3)?,
        detection_id: row.try_get(4)?,
        track_id: row.try_get(5)?,
        confidence: row.try_get(6)?,
        bbox_x: row.try_get(7)?,
        bbox_y: row.try_get(8)?,
        bbox_width: row.try_get(9)?,
        bbox_height: row.try_get(10)?,
        gender: row
            .try_get::<_, Option<&str>>(11)?
            .and_then(|text| text.parse().ok()),
        gender_confidence: row.try_get(12)?,
        frame_number: row.try_get(13)?,
        degraded: row.try_get(14)?,
    })
}
