//! What files were read into a session, so that none is stored twice.

use chrono::{DateTime, Utc};

use super::{Store, StoreError, connection::within};

/// One file read into a session, and how its rows were made.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceRecord {
    /// The session.
    pub session_id: String,
    /// SHA-256 of the file.
    pub digest: [u8; 32],
    /// The file's name, without its folder.
    pub name: String,
    /// The camera its rows were given.
    pub camera_id: String,
    /// The channel its rows were given.
    pub channel_id: i32,
    /// Frames a second, from which times were made.
    pub fps: f64,
    /// Time of the first frame.
    pub start_time: DateTime<Utc>,
}

/// What is known of a source.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceState {
    /// It was not seen before; it is noted now.
    New,
    /// It was begun before and not finished. Times count from the first attempt's start.
    Begun {
        /// The start time that the rows stored so far were made with.
        start_time: DateTime<Utc>,
    },
    /// Everything in it is stored.
    Finished {
        /// How many rows that was.
        n_rows: i64,
    },
}

/// A file that was read into the session before, in another way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "session `{session_id}` already holds `{name}` {what}: give it a session of its own \
     (--session-id)"
)]
pub struct SourceMismatch {
    session_id: String,
    name: String,
    what: String,
}

const NOTE: &str = "
INSERT INTO session_sources (session_id, digest, name, camera_id, channel_id, fps, start_time)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (session_id, digest) DO NOTHING";

const FIND: &str = "
SELECT digest, name, camera_id, channel_id, fps, start_time, n_rows
FROM session_sources
WHERE session_id = $1 AND (digest = $2 OR (name = $3 AND camera_id = $4))
ORDER BY digest = $2 DESC
LIMIT 1";

const FINISH: &str = "
UPDATE session_sources SET n_rows = $3, finished_at = now()
WHERE session_id = $1 AND digest = $2";

impl Store {
    /// Begins to read a source into a session, or says that it was read before.
    ///
    /// `start_time_given` tells whether the source's start time was asked for, or may be that of an
    /// earlier attempt.
    ///
    /// # Errors
    ///
    /// [`StoreError::Source`] when the session holds the same file with other cameras, times or
    /// rates, or another version of the file: storing it would count people twice.
    pub async fn begin_source(
        &mut self,
        source: &SourceRecord,
        start_time_given: bool,
    ) -> Result<SourceState, StoreError> {
        let connection = self.begin().await?;
        let done = within("begin a source", self.limit(), async {
            let failed = || StoreError::statement("note a source in `session_sources`");
            let SourceRecord {
                session_id,
                name,
                camera_id,
                channel_id,
                fps,
                start_time,
                ..
            } = source;
            let digest = source.digest.as_slice();
            let client = &connection.client;
            let find = async || {
                client
                    .query_opt(FIND, &[session_id, &digest, name, camera_id])
                    .await
            };
            let row = match find().await.map_err(failed())? {
                Some(row) => row,
                None => {
                    let noted = connection
                        .client
                        .execute(
                            NOTE,
                            &[
                                session_id, &digest, name, camera_id, channel_id, fps, start_time,
                            ],
                        )
                        .await
                        .map_err(failed())?;
                    if noted == 1 {
                        return Ok(SourceState::New);
                    }
                    // Somebody else noted it in between, perhaps in another way.
                    match find().await.map_err(failed())? {
                        Some(row) => row,
                        None => return Ok(SourceState::New),
                    }
                }
            };
            let stored = SourceRecord {
                session_id: session_id.clone(),
                digest: row.get::<_, &[u8]>(0).try_into().unwrap_or_default(),
                name: name.clone(),
                camera_id: row.get(2),
                channel_id: row.get(3),
                fps: row.get(4),
                start_time: row.get(5),
            };
            refuse_difference(source, &stored, row.get(1), start_time_given)?;
            Ok(match row.get::<_, Option<i64>>(6) {
                Some(n_rows) => SourceState::Finished { n_rows },
                None => SourceState::Begun {
                    start_time: stored.start_time,
                },
            })
        })
        .await;
        self.end(connection, done)
    }

    /// Notes that everything in a source is stored.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn finish_source(
        &mut self,
        session_id: &str,
        digest: &[u8; 32],
        n_rows: i64,
    ) -> Result<(), StoreError> {
        let connection = self.begin().await?;
        let done = within("finish a source", self.limit(), async {
            connection
                .client
                .execute(FINISH, &[&session_id, &digest.as_slice(), &n_rows])
                .await
                .map(drop)
                .map_err(StoreError::statement(
                    "note a source's end in `session_sources`",
                ))
        })
        .await;
        self.end(connection, done)
    }
}

fn refuse_difference(
    wanted: &SourceRecord,
    stored: &SourceRecord,
    stored_name: &str,
    start_time_given: bool,
) -> Result<(), SourceMismatch> {
    let what = if stored.digest != wanted.digest {
        "with other content".to_owned()
    } else if stored.camera_id != wanted.camera_id {
        format!("as camera `{}`", stored.camera_id)
    } else if stored.channel_id != wanted.channel_id {
        format!("as channel {}", stored.channel_id)
    } else if (stored.fps - wanted.fps).abs() > 1e-9 {
        format!("with {} frames a second", stored.fps)
    } else if start_time_given && stored.start_time != wanted.start_time {
        format!(
            "starting at {}",
            stored.start_time.format("%Y-%m-%dT%H:%M:%S%.6fZ")
        )
    } else {
        return Ok(());
    };
    Err(SourceMismatch {
        session_id: wanted.session_id.clone(),
        name: stored_name.to_owned(),
        what,
    })
}
