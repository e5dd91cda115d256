//! Where an entry's rows are: the ledger's line, dead letters, and rows found again by what they hold.

use std::time::Duration;

use chrono::{DateTime, Utc};
use passerby_shared::{Detection, EntryId, IdempotencyKey, Session, StreamKey, Track};
use serde::Serialize;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Store, StoreError, connection::within};

/// Dead letters that are named.
const MAX_LETTERS: i64 = 20;

/// What the ledger has of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LedgerEntry {
    /// The key.
    pub idempotency_key: IdempotencyKey,
    /// The stream; `None` when the rows did not come through one.
    pub stream: Option<String>,
    /// The entry.
    pub entry_id: Option<EntryId>,
    /// Rows that were stored.
    pub n_rows: i32,
    /// When.
    pub committed_at: DateTime<Utc>,
}

/// A dead letter of an entry, in few words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EntryLetter {
    /// Its number.
    pub id: i64,
    /// The row; `None` for the whole entry.
    pub row: Option<i32>,
    /// See [`Reason::as_str`](super::Reason::as_str).
    pub reason: String,
    /// What is wrong, for people.
    pub message: String,
    /// When it was put back into its stream.
    pub requeued_at: Option<DateTime<Utc>>,
}

/// Rows of an entry that are in a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FoundRows {
    /// The table, or its partition.
    pub table: String,
    /// How many of the rows it has.
    pub n_rows: i64,
}

const BY_KEY: &str = "
SELECT idempotency_key, stream, entry_ms, entry_seq, n_rows, committed_at
FROM ledger
WHERE idempotency_key = $1";

/// Keys of version 7 are ordered by the time they were made at: the primary key has it.
const BY_ENTRY: &str = "
SELECT idempotency_key, stream, entry_ms, entry_seq, n_rows, committed_at
FROM ledger
WHERE idempotency_key BETWEEN $1 AND $2
  AND stream = $3 AND entry_ms = $4 AND entry_seq = $5
LIMIT 1";

const LETTERS: &str = "
SELECT id, row_idx, reason, message, requeued_at
FROM dead_letters
WHERE (idempotency_key = $1 OR requeued_key = $1 OR stream = $2 AND entry_id = $3)
ORDER BY id
LIMIT $4";

/// Times, cameras, sessions and numbers of rows: detections have no key.
const DETECTIONS: &str = "
SELECT d.tableoid::regclass::text, count(DISTINCT wanted.n)
FROM unnest($1::timestamptz[], $2::text[], $3::text[], $4::bigint[])
     WITH ORDINALITY AS wanted (timestamp, camera_id, session_id, detection_id, n)
JOIN detections d USING (timestamp, camera_id, session_id, detection_id)
WHERE d.timestamp BETWEEN $5 AND $6
GROUP BY 1
ORDER BY 1";

const TRACKS: &str = "
SELECT 'tracks', count(*)
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS wanted (session_id, camera_id, track_id)
JOIN tracks USING (session_id, camera_id, track_id)
HAVING count(*) > 0";

const SESSIONS: &str = "
SELECT 'sessions', count(*)
FROM unnest($1::text[]) AS wanted (session_id)
JOIN sessions USING (session_id)
HAVING count(*) > 0";

impl Store {
    /// What the ledger has under a key.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when Postgres cannot be reached or refuses.
    pub async fn ledger_by_key(
        &mut self,
        key: IdempotencyKey,
    ) -> Result<Option<LedgerEntry>, StoreError> {
        let connection = self.begin().await?;
        let done = within("look into the ledger", self.limit(), async {
            let row = connection
                .client
                .query_opt(BY_KEY, &[&key.as_uuid()])
                .await
                .map_err(StoreError::statement("look into `ledger`"))?;
            row.map(|row| ledger_entry(&row)).transpose()
        })
        .await;
        self.end(connection, done)
    }

    /// What the ledger has of an entry whose key was made by a producer within `before` of being sent. The
    /// ledger is not searched further.
    ///
    /// # Errors
    ///
    /// As [`Store::ledger_by_key`].
    pub async fn ledger_by_entry(
        &mut self,
        stream: &StreamKey,
        entry_id: EntryId,
        before: Duration,
    ) -> Result<Option<LedgerEntry>, StoreError> {
        // The clocks of the producer and of Redis may differ.
        const SKEW_MS: u64 = 10_000;
        let (Ok(ms), Ok(seq)) = (i64::try_from(entry_id.ms), i64::try_from(entry_id.seq)) else {
            return Ok(None);
        };
        let before_ms = u64::try_from(before.as_millis()).unwrap_or(u64::MAX);
        let from = bound(
            entry_id
                .ms
                .saturating_sub(before_ms.saturating_add(SKEW_MS)),
            0,
        );
        let until = bound(entry_id.ms.saturating_add(SKEW_MS), u128::MAX);
        let connection = self.begin().await?;
        let done = within("look into the ledger", self.limit(), async {
            let row = connection
                .client
                .query_opt(BY_ENTRY, &[&from, &until, &stream.as_str(), &ms, &seq])
                .await
                .map_err(StoreError::statement("look into `ledger`"))?;
            row.map(|row| ledger_entry(&row)).transpose()
        })
        .await;
        self.end(connection, done)
    }

    /// The dead letters of an entry, the first of them.
    ///
    /// # Errors
    ///
    /// As [`Store::ledger_by_key`].
    pub async fn letters_of(
        &mut self,
        key: Option<IdempotencyKey>,
        entry: Option<(&StreamKey, EntryId)>,
    ) -> Result<Vec<EntryLetter>, StoreError> {
        let key = key.map(IdempotencyKey::as_uuid);
        let stream = entry.map(|(stream, _)| stream.as_str());
        let entry_id = entry.map(|(_, id)| id.to_string());
        let connection = self.begin().await?;
        let done = within("look for dead letters", self.limit(), async {
            let rows = connection
                .client
                .query(LETTERS, &[&key, &stream, &entry_id, &MAX_LETTERS])
                .await
                .map_err(StoreError::statement("query `dead_letters`"))?;
            let letter = |row: &Row| {
                Ok(EntryLetter {
                    id: row.try_get(0)?,
                    row: row.try_get(1)?,
                    reason: row.try_get(2)?,
                    message: row.try_get(3)?,
                    requeued_at: row.try_get(4)?,
                })
            };
            rows.iter()
                .map(letter)
                .collect::<Result<_, _>>()
                .map_err(StoreError::statement("read a row of `dead_letters`"))
        })
        .await;
        self.end(connection, done)
    }

    /// How many of these detections are stored, by partition.
    ///
    /// # Errors
    ///
    /// As [`Store::ledger_by_key`].
    pub async fn find_detections(
        &mut self,
        rows: &[Detection],
    ) -> Result<Vec<FoundRows>, StoreError> {
        let times: Vec<DateTime<Utc>> = rows.iter().map(|row| row.timestamp).collect();
        let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) else {
            return Ok(Vec::new());
        };
        let cameras: Vec<&str> = rows.iter().map(|row| &*row.camera_id).collect();
        let sessions: Vec<&str> = rows.iter().map(|row| &*row.session_id).collect();
        let ids: Vec<i64> = rows.iter().map(|row| row.detection_id).collect();
        let connection = self.begin().await?;
        let done = within("look for detections", self.limit(), async {
            let found = connection
                .client
                .query(
                    DETECTIONS,
                    &[&times, &cameras, &sessions, &ids, first, last],
                )
                .await
                .map_err(StoreError::statement("query `detections`"))?;
            found_rows(&found)
        })
        .await;
        self.end(connection, done)
    }

    /// How many of these tracks are stored.
    ///
    /// # Errors
    ///
    /// As [`Store::ledger_by_key`].
    pub async fn find_tracks(&mut self, rows: &[Track]) -> Result<Vec<FoundRows>, StoreError> {
        let sessions: Vec<&str> = rows.iter().map(|row| &*row.session_id).collect();
        let cameras: Vec<&str> = rows.iter().map(|row| &*row.camera_id).collect();
        let ids: Vec<i64> = rows.iter().map(|row| row.track_id).collect();
        let connection = self.begin().await?;
        let done = within("look for tracks", self.limit(), async {
            let found = connection
                .client
                .query(TRACKS, &[&sessions, &cameras, &ids])
                .await
                .map_err(StoreError::statement("query `tracks`"))?;
            found_rows(&found)
        })
        .await;
        self.end(connection, done)
    }

    /// How many of these sessions are noted.
    ///
    /// # Errors
    ///
    /// As [`Store::ledger_by_key`].
    pub async fn find_sessions(&mut self, rows: &[Session]) -> Result<Vec<FoundRows>, StoreError> {
        let ids: Vec<&str> = rows.iter().map(|row| &*row.session_id).collect();
        let connection = self.begin().await?;
        let done = within("look for sessions", self.limit(), async {
            let found = connection
                .client
                .query(SESSIONS, &[&ids])
                .await
                .map_err(StoreError::statement("query `sessions`"))?;
            found_rows(&found)
        })
        .await;
        self.end(connection, done)
    }
}

/// A UUID of version 7 made at that time, the smallest or the greatest.
fn bound(ms: u64, rest: u128) -> Uuid {
    const REST_BITS: u32 = 80;
    let ms = u128::from(ms.min((1 << 48) - 1));
    Uuid::from_u128(ms << REST_BITS | rest >> (u128::BITS - REST_BITS))
}

fn ledger_entry(row: &Row) -> Result<LedgerEntry, StoreError> {
    let read = || {
        let ms: Option<i64> = row.try_get(2)?;
        let seq: Option<i64> = row.try_get(3)?;
        Ok(LedgerEntry {
            idempotency_key: row.try_get::<_, Uuid>(0)?.into(),
            stream: row.try_get(1)?,
            entry_id: ms.zip(seq).and_then(|(ms, seq)| {
                Some(EntryId {
                    ms: ms.try_into().ok()?,
                    seq: seq.try_into().ok()?,
                })
            }),
            n_rows: row.try_get(4)?,
            committed_at: row.try_get(5)?,
        })
    };
    read().map_err(StoreError::statement("read a row of `ledger`"))
}

fn found_rows(rows: &[Row]) -> Result<Vec<FoundRows>, StoreError> {
    let found = |row: &Row| {
        Ok(FoundRows {
            table: row.try_get(0)?,
            n_rows: row.try_get(1)?,
        })
    };
    rows.iter()
        .map(found)
        .collect::<Result<_, _>>()
        .map_err(StoreError::statement("read how many rows there are"))
}
