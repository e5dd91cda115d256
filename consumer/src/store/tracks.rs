//! Tracks: the newest snapshot of each stands in the table.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use chrono::{DateTime, Utc};
use passerby_shared::{Track, TrackId, TrajectoryPoint};
use tokio_postgres::{Client, Row};

use super::{
    Store, StoreError,
    books::{Written, keep_and_commit},
    connection::within,
    ledger::BEGIN,
    sessions,
};

/// Newer is the later `end_time`, then the greater `detection_count`: [`Track::merge`] in SQL. What
/// is older than the table, or equal to it, changes nothing.
const UPSERT: &str = "
INSERT INTO tracks AS t (session_id, camera_id, track_id, start_time, end_time, detection_count,
                         avg_confidence, gender, gender_confidence, degraded, trajectory)
SELECT session_id, camera_id, track_id, start_time, end_time, detection_count,
       avg_confidence, gender, gender_confidence, degraded, trajectory::jsonb
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[], $5::timestamptz[],
            $6::bigint[], $7::real[], $8::text[], $9::real[], $10::boolean[], $11::text[])
     AS s (session_id, camera_id, track_id, start_time, end_time, detection_count,
           avg_confidence, gender, gender_confidence, degraded, trajectory)
ORDER BY session_id, camera_id, track_id
ON CONFLICT (session_id, camera_id, track_id) DO UPDATE
SET start_time        = excluded.start_time,
    end_time          = excluded.end_time,
    detection_count   = excluded.detection_count,
    avg_confidence    = excluded.avg_confidence,
    gender            = excluded.gender,
    gender_confidence = excluded.gender_confidence,
    degraded          = excluded.degraded,
    trajectory        = excluded.trajectory
WHERE (excluded.end_time, excluded.detection_count) > (t.end_time, t.detection_count)";

/// Merges snapshots, so that one statement never meets a track twice (which Postgres refuses), and
/// sorts them, so that two transactions cannot deadlock.
pub(super) fn merged<'a>(tracks: impl IntoIterator<Item = &'a Track>) -> Vec<Track> {
    let mut merged = BTreeMap::<TrackId, Track>::new();
    for track in tracks {
        let id = track.id();
        let newest = match merged.remove(&id) {
            Some(other) => other.merge(track.clone()),
            None => track.clone(),
        };
        merged.insert(id, newest);
    }
    merged.into_values().collect()
}

/// Upserts merged tracks and returns how many rows changed.
pub(super) async fn upsert(
    client: &Client,
    tracks: &[Track],
) -> Result<u64, tokio_postgres::Error> {
    let column = |f: fn(&Track) -> &str| tracks.iter().map(f).collect::<Vec<_>>();
    let sessions = column(|t| &t.session_id);
    let cameras = column(|t| &t.camera_id);
    let ids: Vec<i64> = tracks.iter().map(|t| t.track_id).collect();
    let starts: Vec<DateTime<Utc>> = tracks.iter().map(|t| t.start_time).collect();
    let ends: Vec<DateTime<Utc>> = tracks.iter().map(|t| t.end_time).collect();
    let counts: Vec<i64> = tracks.iter().map(|t| t.detection_count).collect();
    let confidences: Vec<Option<f32>> = tracks.iter().map(|t| t.avg_confidence).collect();
    let genders: Vec<Option<&str>> = tracks
        .iter()
        .map(|t| t.gender.map(passerby_shared::Gender::as_str))
        .collect();
    let gender_confidences: Vec<Option<f32>> = tracks.iter().map(|t| t.gender_confidence).collect();
    let degraded: Vec<bool> = tracks.iter().map(|t| t.degraded).collect();
    let trajectories: Vec<String> = tracks
        .iter()
        .map(|t| trajectory_json(&t.trajectory))
        .collect();
    client
        .execute(
            UPSERT,
            &[
                &sessions,
                &cameras,
                &ids,
                &starts,
                &ends,
                &counts,
                &confidences,
                &genders,
                &gender_confidences,
                &degraded,
                &trajectories,
            ],
        )
        .await
}

fn trajectory_json(points: &[TrajectoryPoint]) -> String {
    let points: Vec<(u32, f32, f32)> = points.iter().map(|p| (p.offset_ms, p.x, p.y)).collect();
    serde_json::to_string(&points).expect("a valid track's points are finite numbers")
}

/// Which tracks.
#[derive(Debug, Clone, Default)]
pub struct TrackFilter {
    /// Only this session.
    pub session_id: Option<String>,
    /// Only this camera.
    pub camera_id: Option<String>,
    /// Only this number.
    pub track_id: Option<i64>,
    /// Only those that began then.
    pub started: Option<Range<DateTime<Utc>>>,
    /// At most so many.
    pub limit: Option<i64>,
}

const QUERY: &str = "
SELECT session_id, camera_id, track_id, start_time, end_time, detection_count, avg_confidence,
       gender, gender_confidence, degraded, trajectory::text
FROM tracks
WHERE ($1::text IS NULL OR session_id = $1)
  AND ($2::text IS NULL OR camera_id = $2)
  AND ($3::bigint IS NULL OR track_id = $3)
  AND ($5::timestamptz IS NULL OR start_time >= $5)
  AND ($6::timestamptz IS NULL OR start_time < $6)
ORDER BY start_time, session_id, camera_id, track_id
LIMIT $4";

impl Store {
    /// Stores the snapshot of one track unless a newer one stands there already; `true` when the
    /// table changed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] for an invalid track, else what the server said.
    pub async fn upsert_track(&mut self, track: &Track) -> Result<bool, StoreError> {
        Ok(self.bulk_upsert_tracks(std::slice::from_ref(track)).await? == 1)
    }

    /// Stores snapshots of tracks, the newest of each, and returns how many rows of the table
    /// changed. Doing it again changes none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] for the first invalid track, with nothing stored; else what the server
    /// said.
    pub async fn bulk_upsert_tracks(&mut self, tracks: &[Track]) -> Result<u64, StoreError> {
        for (row_idx, track) in tracks.iter().enumerate() {
            track
                .validate()
                .map_err(|source| StoreError::Invalid { row_idx, source })?;
        }
        let merged = merged(tracks);
        let session_ids: BTreeSet<&str> = merged.iter().map(|t| &*t.session_id).collect();
        let mut connection = self.begin().await?;
        let done = within("upsert tracks", self.limit(), async {
            let failed =
                || StoreError::statement(format!("upsert {} rows into `tracks`", merged.len()));
            let prepared = connection.prepared().await?;
            let books_row = connection.books.next("");
            let client = &connection.client;
            client.batch_execute(BEGIN).await.map_err(failed())?;
            let joining = sessions::join(client, &prepared, &session_ids)
                .await
                .map_err(failed())?;
            joining
                .finish(client, &prepared, Vec::new())
                .await
                .map_err(failed())?;
            let n_rows = upsert(client, &merged).await.map_err(failed())?;
            let written = Written {
                tracks: tracks.len(),
                rows: tracks.len(),
                rows_direct: tracks.len(),
                ..Written::default()
            };
            keep_and_commit(client, &prepared, books_row, written)
                .await
                .map_err(failed())?;
            Ok(n_rows)
        })
        .await;
        self.end(connection, done)
    }

    /// The tracks that match, by start.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn query_tracks(&mut self, filter: &TrackFilter) -> Result<Vec<Track>, StoreError> {
        let connection = self.begin().await?;
        let done = within("query tracks", self.limit(), async {
            let rows = connection
                .client
                .query(
                    QUERY,
                    &[
                        &filter.session_id,
                        &filter.camera_id,
                        &filter.track_id,
                        &filter.limit,
                        &filter.started.as_ref().map(|span| span.start),
                        &filter.started.as_ref().map(|span| span.end),
                    ],
                )
                .await
                .map_err(StoreError::statement("query `tracks`"))?;
            rows.iter()
                .map(from_row)
                .collect::<Result<_, _>>()
                .map_err(StoreError::statement("read a row of `tracks`"))
        })
        .await;
        self.end(connection, done)
    }
}

fn from_row(row: &Row) -> Result<Track, tokio_postgres::Error> {
    let trajectory: Vec<(u32, f32, f32)> =
        serde_json::from_str(row.try_get(10)?).unwrap_or_default();
    Ok(Track {
        session_id: row.try_get(0)?,
        camera_id: row.try_get(1)?,
        track_id: row.try_get(2)?,
        start_time: row.try_get(3)?,
        end_time: row.try_get(4)?,
        detection_count: row.try_get(5)?,
        avg_confidence: row.try_get(6)?,
        gender: row
            .try_get::<_, Option<&str>>(7)?
            .and_then(|text| text.parse().ok()),
        gender_confidence: row.try_get(8)?,
        degraded: row.try_get(9)?,
        trajectory: trajectory
            .into_iter()
            .map(|(offset_ms, x, y)| TrajectoryPoint { offset_ms, x, y })
            .collect(),
    })
}
