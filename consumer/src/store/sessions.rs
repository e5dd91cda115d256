//! Sessions and their summaries.
//!
//! A transaction that writes rows of a session holds its row in `sessions` FOR KEY SHARE until it
//! ends. Making a summary takes three steps: it takes the row FOR UPDATE for a moment, which waits for
//! the rows that are being committed, and leaves a mark; it counts, holding nothing; and it notes the
//! result if its mark still stands. Rows that come after the mark wipe it out, and the result with it:
//! a summary counts everything that is stored, whatever the order of commits, and no writer waits for
//! the counting.

mod list;

use std::{collections::BTreeSet, time::Duration};

pub use list::{ListedSession, SessionFilter};

use chrono::{DateTime, Utc};
use passerby_shared::{Session, SessionSummary};
use tokio_postgres::{Client, Row, types::ToSql};

use super::{
    Store, StoreError,
    books::{Written, keep_and_commit},
    connection::{Prepared, within},
    ledger::BEGIN,
};

/// Of those that exist, which, and whether they have a finished summary or one that is being made.
pub(super) const HOLD_SESSIONS: &str = "
SELECT session_id, summarized_at IS NOT NULL
FROM sessions
WHERE session_id = ANY($1)
ORDER BY session_id
FOR KEY SHARE";

const CREATE: &str = "
INSERT INTO sessions (session_id)
SELECT session_id FROM unnest($1::text[]) AS s (session_id)
ORDER BY session_id
ON CONFLICT (session_id) DO NOTHING";

/// Before rows are changed one by one: in the order in which everybody changes them.
const LOCK: &str = "
SELECT FROM sessions
WHERE session_id = ANY($1)
ORDER BY session_id
FOR NO KEY UPDATE";

const MARK_OUT_OF_DATE: &str = "
UPDATE sessions
SET summarized_at = NULL, people = NULL, outdated_at = now()
WHERE session_id = ANY($1)";

/// What is still to be done for the sessions that a transaction writes rows of.
#[derive(Debug, Default)]
pub(super) struct Joining {
    /// There is no row of these yet.
    missing: Vec<String>,
    /// The summaries of these are to be marked as out of date.
    summarized: Vec<String>,
}

impl Joining {
    pub(super) fn is_done(&self) -> bool {
        self.missing.is_empty() && self.summarized.is_empty()
    }

    /// Makes the rows that do not exist, marks finished summaries as out of date, and notes what was
    /// announced: at any time before the transaction ends.
    ///
    /// All transactions do this after they have entered their keys into the ledger and before they write
    /// tracks; and all make rows before they change any, both in the order of their IDs. So no two wait for
    /// each other.
    pub(super) async fn finish(
        mut self,
        client: &Client,
        prepared: &Prepared,
        mut announced: Vec<&Session>,
    ) -> Result<(), tokio_postgres::Error> {
        // What is said of one session keeps its order.
        announced.sort_by_key(|session| &session.session_id);
        let of_announced = || announced.iter().map(|session| session.session_id.as_str());
        let wanted: BTreeSet<&str> = self
            .missing
            .iter()
            .map(String::as_str)
            .chain(of_announced())
            .collect();
        if !wanted.is_empty() {
            let wanted = Vec::from_iter(wanted);
            client.execute(CREATE, &[&wanted]).await?;
        }
        if !self.missing.is_empty() {
            // A row that another transaction made in between is not held by the insert.
            let made = hold(client, prepared, &self.missing).await?;
            self.summarized.extend(made.summarized);
        }
        let changing: BTreeSet<&str> = self
            .summarized
            .iter()
            .map(String::as_str)
            .chain(of_announced())
            .collect();
        if changing.len() > 1 {
            let changing = Vec::from_iter(changing);
            client.execute(LOCK, &[&changing]).await?;
        }
        if !self.summarized.is_empty() {
            client
                .execute(MARK_OUT_OF_DATE, &[&self.summarized])
                .await?;
        }
        for session in announced {
            announce(client, session).await?;
        }
        Ok(())
    }
}

/// Begins to join the sessions that a transaction writes rows of: holds those that exist. It takes one
/// statement, in the packet of BEGIN if it is polled with that.
pub(super) async fn join(
    client: &Client,
    prepared: &Prepared,
    session_ids: &BTreeSet<&str>,
) -> Result<Joining, tokio_postgres::Error> {
    if session_ids.is_empty() {
        return Ok(Joining::default());
    }
    let wanted: Vec<&str> = session_ids.iter().copied().collect();
    hold(client, prepared, &wanted).await
}

async fn hold<T: AsRef<str> + ToSql + Sync>(
    client: &Client,
    prepared: &Prepared,
    wanted: &[T],
) -> Result<Joining, tokio_postgres::Error> {
    let held = client.query(&prepared.hold_sessions, &[&wanted]).await?;
    let exist: BTreeSet<&str> = held.iter().map(|row| row.get(0)).collect();
    let is_missing = |id: &&str| !exist.contains(id);
    Ok(Joining {
        missing: wanted
            .iter()
            .map(AsRef::as_ref)
            .filter(is_missing)
            .map(str::to_owned)
            .collect(),
        summarized: held
            .iter()
            .filter(|row| row.get(1))
            .map(|row| row.get(0))
            .collect(),
    })
}

const ANNOUNCE: &str = "
INSERT INTO sessions AS s (session_id, source, started_at, ended_at)
VALUES ($1, $2, $3, $4)
ON CONFLICT (session_id) DO UPDATE
SET source        = coalesce(excluded.source, s.source),
    started_at    = coalesce(excluded.started_at, s.started_at),
    ended_at      = coalesce(excluded.ended_at, s.ended_at),
    summarized_at = CASE WHEN excluded.ended_at IS NULL THEN s.summarized_at END,
    people        = CASE WHEN excluded.ended_at IS NULL THEN s.people END";

async fn announce(client: &Client, session: &Session) -> Result<u64, tokio_postgres::Error> {
    let Session {
        session_id,
        started_at,
        ended_at,
        source,
    } = session;
    client
        .execute(ANNOUNCE, &[session_id, source, started_at, ended_at])
        .await
}

/// A row of `sessions`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionRecord {
    /// What the pipeline said of it.
    #[serde(flatten)]
    pub session: Session,
    /// Its summary; `None` before it ended, and while rows came in after it was made.
    pub summary: Option<SessionSummary>,
}

/// Or being counted by somebody else just now.
const IS_SUMMARIZED: &str = "
SELECT people IS NOT NULL OR coalesce(summarized_at > now() - interval '2 minutes', false)
FROM sessions
WHERE session_id = $1
FOR UPDATE";

const MARK: &str = "
UPDATE sessions SET summarized_at = clock_timestamp(), people = NULL
WHERE session_id = $1
RETURNING summarized_at";

/// People are the tracks that were reported, and those that detections are on. A track's reported
/// gender goes before the vote of its detections; a draw is no verdict.
const SUMMARIZE: &str = "
WITH rows AS MATERIALIZED (
    SELECT camera_id, track_id, timestamp, gender, gender_confidence
    FROM detections
    WHERE session_id = $1
), seen AS (
    SELECT camera_id, track_id,
           coalesce(sum(coalesce(gender_confidence, 1)) FILTER (WHERE gender = 'male'), 0)    AS male,
           coalesce(sum(coalesce(gender_confidence, 1)) FILTER (WHERE gender = 'female'), 0)  AS female,
           coalesce(sum(coalesce(gender_confidence, 1)) FILTER (WHERE gender = 'unknown'), 0) AS unknown
    FROM rows
    WHERE track_id IS NOT NULL
    GROUP BY camera_id, track_id
), people AS (
    SELECT coalesce(t.gender, CASE
               WHEN male > female AND male > unknown THEN 'male'
               WHEN female > male AND female > unknown THEN 'female'
               ELSE 'unknown' END) AS gender
    FROM seen
    FULL JOIN (SELECT camera_id, track_id, gender FROM tracks WHERE session_id = $1) AS t
        USING (camera_id, track_id)
)
UPDATE sessions
SET detections    = (SELECT count(*) FROM rows),
    people        = (SELECT count(*) FROM people),
    male          = (SELECT count(*) FROM people WHERE gender = 'male'),
    female        = (SELECT count(*) FROM people WHERE gender = 'female'),
    unknown       = (SELECT count(*) FROM people WHERE gender = 'unknown'),
    started_at    = coalesce(started_at, (SELECT min(timestamp) FROM rows)),
    ended_at      = coalesce(ended_at, (SELECT max(timestamp) FROM rows), now()),
    summarized_at = now()
WHERE session_id = $1 AND summarized_at = $2
RETURNING detections, people, male, female, unknown";

/// Rows came in while a session was counted that nobody has said to have ended: for a worker to find it.
const NOTE_END: &str = "
UPDATE sessions
SET ended_at = coalesce(ended_at, (SELECT max(timestamp) FROM detections WHERE session_id = $1), now())
WHERE session_id = $1 AND ended_at IS NULL";

/// A mark without a result is that of somebody who is counting, or died of it.
const UNSUMMARIZED: &str = "
SELECT session_id FROM sessions
WHERE ended_at IS NOT NULL
  AND people IS NULL
  AND (summarized_at IS NULL OR summarized_at < now() - interval '2 minutes')
  AND (outdated_at IS NULL OR outdated_at <= now() - $1 * interval '1 second')
ORDER BY ended_at
LIMIT 100";

impl Store {
    /// Notes what a pipeline says of a session.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] for an invalid session, else what the server said.
    pub async fn announce_session(&mut self, session: &Session) -> Result<(), StoreError> {
        session
            .validate()
            .map_err(|source| StoreError::Invalid { row_idx: 0, source })?;
        let mut connection = self.begin().await?;
        let done = within("announce a session", self.limit(), async {
            let failed = || StoreError::statement("upsert a row into `sessions`");
            let prepared = connection.prepared().await?;
            let books_row = connection.books.next("");
            let client = &connection.client;
            client.batch_execute(BEGIN).await.map_err(failed())?;
            announce(client, session).await.map_err(failed())?;
            let written = Written {
                sessions: 1,
                rows: 1,
                rows_direct: 1,
                ..Written::default()
            };
            keep_and_commit(client, &prepared, books_row, written)
                .await
                .map_err(failed())
        })
        .await;
        self.end(connection, done)
    }

    /// Makes a session's summary from what is stored, and notes its end if nobody has.
    ///
    /// Returns `None` when there is no such session, or when rows came in while it was counted: the
    /// next worker to look makes its summary.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn summarize_session(
        &mut self,
        session_id: &str,
    ) -> Result<Option<SessionSummary>, StoreError> {
        self.summarize(session_id, Existing::Replace).await
    }

    async fn summarize(
        &mut self,
        session_id: &str,
        existing: Existing,
    ) -> Result<Option<SessionSummary>, StoreError> {
        let mut connection = self.begin().await?;
        let done = within("summarize a session", self.limit(), async {
            let failed = || StoreError::statement(format!("summarize session `{session_id}`"));
            let transaction = connection.client.transaction().await.map_err(failed())?;
            transaction.batch_execute(LIMITS).await.map_err(failed())?;
            let held = transaction
                .query_opt(IS_SUMMARIZED, &[&session_id])
                .await
                .map_err(failed())?;
            if existing == Existing::Keep && held.is_some_and(|row| row.get(0)) {
                return Ok(None);
            }
            let marked = transaction
                .query_opt(MARK, &[&session_id])
                .await
                .map_err(failed())?;
            transaction.commit().await.map_err(failed())?;
            let Some(mark) = marked.map(|row| row.get::<_, DateTime<Utc>>(0)) else {
                return Ok(None);
            };
            let transaction = connection.client.transaction().await.map_err(failed())?;
            transaction.batch_execute(LIMITS).await.map_err(failed())?;
            let row = transaction
                .query_opt(SUMMARIZE, &[&session_id, &mark])
                .await
                .map_err(failed())?;
            if row.is_none() {
                transaction
                    .execute(NOTE_END, &[&session_id])
                    .await
                    .map_err(failed())?;
            }
            transaction.commit().await.map_err(failed())?;
            Ok(row.and_then(|row| summary(&row, 0)))
        })
        .await;
        self.end(connection, done)
    }

    /// Makes the summaries of sessions that have ended and had no new rows for `quiet`, and returns
    /// how many.
    ///
    /// # Errors
    ///
    /// The last [`StoreError`] met; the other sessions' summaries are made all the same.
    pub async fn summarize_ended_sessions(&mut self, quiet: Duration) -> Result<usize, StoreError> {
        let connection = self.begin().await?;
        let done = within("look for ended sessions", self.limit(), async {
            connection
                .client
                .query(UNSUMMARIZED, &[&quiet.as_secs_f64()])
                .await
                .map_err(StoreError::statement("look for ended sessions"))
        })
        .await;
        let rows = self.end(connection, done)?;
        let mut n_summaries = 0;
        let mut failure = None;
        for row in &rows {
            // All workers look for ended sessions: one of them makes each summary.
            match self.summarize(row.get(0), Existing::Keep).await {
                Ok(made) => n_summaries += usize::from(made.is_some()),
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(n_summaries), Err)
    }

    /// A session, if there is one of that name.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn session(&mut self, session_id: &str) -> Result<Option<SessionRecord>, StoreError> {
        let connection = self.begin().await?;
        let done = within("read a session", self.limit(), async {
            connection
                .client
                .query_opt(
                    "SELECT session_id, started_at, ended_at, source, detections, people, male, \
                     female, unknown, summarized_at FROM sessions WHERE session_id = $1",
                    &[&session_id],
                )
                .await
                .map_err(StoreError::statement("read a row of `sessions`"))
        })
        .await;
        let row = self.end(connection, done)?;
        Ok(row.as_ref().map(from_row))
    }
}

/// Columns as [`Store::session`] asks for them.
fn from_row(row: &Row) -> SessionRecord {
    SessionRecord {
        session: Session {
            session_id: row.get(0),
            started_at: row.get(1),
            ended_at: row.get(2),
            source: row.get(3),
        },
        summary: row
            .get::<_, Option<DateTime<Utc>>>(9)
            .and_then(|_| summary(row, 4)),
    }
}

/// What the client gives up after, the server is not to go on with.
const LIMITS: &str = "SET LOCAL statement_timeout = '55s'; SET LOCAL lock_timeout = '5s'";

/// What to do about a summary that is there already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    Keep,
    Replace,
}

fn summary(row: &Row, at: usize) -> Option<SessionSummary> {
    Some(SessionSummary {
        detections: row.get::<_, Option<i64>>(at)?,
        people: row.get::<_, Option<i64>>(at + 1)?,
        male: row.get::<_, Option<i64>>(at + 2)?,
        female: row.get::<_, Option<i64>>(at + 3)?,
        unknown: row.get::<_, Option<i64>>(at + 4)?,
    })
}
