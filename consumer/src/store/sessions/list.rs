//! Lists sessions, and tells when rows of one last came in.

use chrono::{DateTime, Utc};
use tokio_postgres::types::ToSql;

use super::{SessionRecord, from_row};
use crate::store::{Store, StoreError, connection::within};

/// Which sessions.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// Only those that nobody has ended.
    pub open: bool,
    /// Only those that have ended.
    pub closed: bool,
    /// Only those that have ended and have no summary, or one that is out of date.
    pub without_summary: bool,
    /// Only those with a row of this camera.
    pub camera_id: Option<String>,
    /// At most so many.
    pub limit: i64,
}

/// A session, with what is known of its tracks.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListedSession {
    /// The session.
    #[serde(flatten)]
    pub session: SessionRecord,
    /// When its first track began.
    pub first_track_at: Option<DateTime<Utc>>,
    /// When its last track was seen last.
    pub last_track_at: Option<DateTime<Utc>>,
    /// Its tracks, as the pipeline reports them.
    pub tracks: i64,
}

/// Tracks are few beside detections, and the primary key finds those of a session.
const LIST: &str = "
SELECT session_id, started_at, ended_at, source, detections, people, male, female, unknown,
       summarized_at, first_track_at, last_track_at, n_tracks
FROM sessions
CROSS JOIN LATERAL (
    SELECT min(start_time) AS first_track_at, max(end_time) AS last_track_at, count(*) AS n_tracks
    FROM tracks
    WHERE tracks.session_id = sessions.session_id
) AS seen
WHERE (NOT $1::boolean OR ended_at IS NULL)
  AND (NOT $2::boolean OR ended_at IS NOT NULL)
  AND (NOT $3::boolean OR ended_at IS NOT NULL AND people IS NULL)
  AND ($4::text IS NULL
       OR EXISTS (SELECT FROM tracks
                  WHERE tracks.session_id = sessions.session_id AND tracks.camera_id = $4)
       OR EXISTS (SELECT FROM detections
                  WHERE detections.session_id = sessions.session_id AND detections.camera_id = $4))
ORDER BY coalesce(started_at, first_track_at, ended_at) DESC NULLS LAST, session_id
LIMIT $5";

const LAST_ROW: &str = "
SELECT greatest(
    (SELECT max(timestamp) FROM detections WHERE session_id = $1),
    (SELECT max(end_time) FROM tracks WHERE session_id = $1)
)";

impl Store {
    /// The sessions that match, the latest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn list_sessions(
        &mut self,
        filter: &SessionFilter,
    ) -> Result<Vec<ListedSession>, StoreError> {
        let connection = self.begin().await?;
        let done = within("list sessions", self.limit(), async {
            let SessionFilter {
                open,
                closed,
                without_summary,
                camera_id,
                limit,
            } = filter;
            let params: [&(dyn ToSql + Sync); 5] =
                [open, closed, without_summary, camera_id, limit];
            connection
                .client
                .query(LIST, &params)
                .await
                .map_err(StoreError::statement("list `sessions`"))
        })
        .await;
        let rows = self.end(connection, done)?;
        Ok(rows
            .iter()
            .map(|row| ListedSession {
                session: from_row(row),
                first_track_at: row.get(10),
                last_track_at: row.get(11),
                tracks: row.get(12),
            })
            .collect())
    }

    /// The time of a session's last row, by its own clock.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn last_row_of_session(
        &mut self,
        session_id: &str,
    ) -> Result<Option<DateTime<Utc>>, StoreError> {
        let connection = self.begin().await?;
        let done = within("look for a session's last row", self.limit(), async {
            let row = connection.client.query_one(LAST_ROW, &[&session_id]).await;
            let row = row.map_err(StoreError::statement("look for a session's last row"))?;
            Ok(row.get(0))
        })
        .await;
        self.end(connection, done)
    }
}
