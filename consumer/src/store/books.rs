//! The books: how many rows were stored, counted in the transactions that store them.
//!
//! A transaction adds to a row of its connection's own, in the packet of its COMMIT: that costs no round
//! trip, and no two transactions wait for each other. The sums over all rows are exact in every snapshot.
//!
//! A row is left behind after [`COMMITS_PER_ROW`] commits, since Postgres keeps its old versions as long as
//! somebody's query may want to see them, and looks through them at each update. Workers fold rows that are
//! left behind into one for each key prefix: several Redis servers may feed one database, each with a prefix and
//! producers of its own.

use std::time::Duration;

use chrono::{DateTime, Utc};
use passerby_shared::KeyPrefix;
use serde::Serialize;
use tokio_postgres::{Client, Row, types::ToSql};
use uuid::Uuid;

use super::{
    Store, StoreError,
    connection::{Prepared, within},
};
use crate::batch::{Batch, BatchEntry};

/// Commits of one connection that add to the same row.
const COMMITS_PER_ROW: u32 = 500;

/// `passerby.is_in_transaction` guards the books as it guards the ledger's keys.
pub(super) const KEEP_BOOKS: &str = "
INSERT INTO books AS b (writer, started_at, last_commit_at, entries, duplicates, detections, tracks,
                        sessions, dead_rows, rows_foreign, rows_requeued, rows_direct, key_prefix)
SELECT $1::uuid, clock_timestamp(), clock_timestamp(), $2::bigint, $3::bigint, $4::bigint, $5::bigint,
       $6::bigint, $7::bigint, $8::bigint, $9::bigint, $10::bigint, $11::text
WHERE current_setting('passerby.is_in_transaction')::boolean
ON CONFLICT (writer) DO UPDATE
SET last_commit_at = excluded.last_commit_at,
    entries        = b.entries + excluded.entries,
    duplicates     = b.duplicates + excluded.duplicates,
    detections     = b.detections + excluded.detections,
    tracks         = b.tracks + excluded.tracks,
    sessions       = b.sessions + excluded.sessions,
    dead_rows      = b.dead_rows + excluded.dead_rows,
    rows_foreign   = b.rows_foreign + excluded.rows_foreign,
    rows_requeued  = b.rows_requeued + excluded.rows_requeued,
    rows_direct    = b.rows_direct + excluded.rows_direct";

/// Dropped detections are booked by whoever drops them, `$1` of them, in the same transaction.
pub(super) const BOOK_DROPPED: &str = "
INSERT INTO books AS b (writer, is_folded, started_at, detections_dropped)
VALUES ('00000000-0000-0000-0000-000000000000', true, clock_timestamp(), $1)
ON CONFLICT (writer) DO UPDATE
SET detections_dropped = b.detections_dropped + excluded.detections_dropped";

/// Rows in use are left alone: whoever adds to one would wait.
const FOLD: &str = "
WITH folded AS (
    DELETE FROM books
    WHERE writer IN (
        SELECT writer
        FROM books
        WHERE NOT is_folded
          AND last_commit_at < clock_timestamp() - $1 * interval '1 second'
        ORDER BY writer
        LIMIT 10000
        FOR UPDATE SKIP LOCKED
    )
    RETURNING *
)
INSERT INTO books AS b (writer, started_at, last_commit_at, began_empty, entries, duplicates, detections,
                        tracks, sessions, dead_rows, rows_foreign, rows_requeued, rows_direct,
                        detections_dropped, key_prefix, is_folded)
SELECT CASE key_prefix WHEN '' THEN '00000000-0000-0000-0000-000000000000'::uuid
       ELSE left(encode(sha256(convert_to(key_prefix, 'UTF8')), 'hex'), 32)::uuid END,
       min(started_at), max(last_commit_at), bool_and(began_empty),
       sum(entries), sum(duplicates), sum(detections), sum(tracks), sum(sessions), sum(dead_rows),
       sum(rows_foreign), sum(rows_requeued), sum(rows_direct), sum(detections_dropped), key_prefix, true
FROM folded
GROUP BY key_prefix
ORDER BY key_prefix
ON CONFLICT (writer) DO UPDATE
SET last_commit_at     = greatest(b.last_commit_at, excluded.last_commit_at),
    began_empty        = b.began_empty AND excluded.began_empty,
    entries            = b.entries + excluded.entries,
    duplicates         = b.duplicates + excluded.duplicates,
    detections         = b.detections + excluded.detections,
    tracks             = b.tracks + excluded.tracks,
    sessions           = b.sessions + excluded.sessions,
    dead_rows          = b.dead_rows + excluded.dead_rows,
    rows_foreign       = b.rows_foreign + excluded.rows_foreign,
    rows_requeued      = b.rows_requeued + excluded.rows_requeued,
    rows_direct        = b.rows_direct + excluded.rows_direct,
    detections_dropped = b.detections_dropped + excluded.detections_dropped";

/// Worth it only where there are many rows; whoever counts sees the old ones or their sum.
const FOLD_DEAD_LETTER_COUNTS: &str = "
WITH folded AS (
    DELETE FROM dead_letter_counts
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM dead_letter_counts LIMIT 100000 FOR UPDATE SKIP LOCKED))
      AND (SELECT count(*) FROM (SELECT FROM dead_letter_counts LIMIT 101) AS counts) > 100
    RETURNING *
)
INSERT INTO dead_letter_counts (reason, written, waiting)
SELECT reason, sum(written), sum(waiting)
FROM folded
GROUP BY reason";

/// The sums of what one Redis brought and of what came through none, and the dead letters by reason, in one
/// snapshot.
const READ: &str = "
SELECT min(started_at), max(last_commit_at), bool_and(began_empty), sum(entries)::bigint,
       sum(duplicates)::bigint, sum(detections)::bigint, sum(tracks)::bigint, sum(sessions)::bigint,
       sum(dead_rows)::bigint, sum(rows_foreign)::bigint, sum(rows_requeued)::bigint,
       sum(rows_direct)::bigint, sum(detections_dropped)::bigint, clock_timestamp()
FROM books
WHERE key_prefix IN ($1, '')";

const READ_DEAD_LETTERS: &str = "
SELECT reason, sum(written)::bigint, sum(waiting)::bigint
FROM dead_letter_counts
GROUP BY reason
HAVING sum(written) <> 0 OR sum(waiting) <> 0
ORDER BY sum(waiting) DESC, reason";

/// What one transaction wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Written {
    pub(super) entries: usize,
    pub(super) duplicates: usize,
    pub(super) detections: u64,
    pub(super) tracks: usize,
    pub(super) sessions: usize,
    /// Rows of the entries, good and bad.
    pub(super) rows: usize,
    pub(super) rows_foreign: usize,
    pub(super) rows_requeued: usize,
    pub(super) rows_direct: usize,
}

impl Written {
    /// The entries of a batch that were included, of which `detections` were copied, while the `too_old`
    /// became dead letters as they are.
    pub(super) fn of(
        batch: &Batch,
        included: &[usize],
        too_old: &[usize],
        detections: u64,
    ) -> Self {
        let mut written = Self {
            entries: included.len() + too_old.len(),
            duplicates: batch.entries().len() - included.len() - too_old.len(),
            detections,
            ..Self::default()
        };
        for &at in included {
            let entry = &batch.entries()[at];
            written.tracks += entry.tracks.len();
            written.sessions += entry.sessions.len();
            written.take_in(entry);
        }
        for &at in too_old {
            written.take_in(&batch.entries()[at]);
        }
        written
    }

    fn take_in(&mut self, entry: &BatchEntry) {
        self.rows += entry.n_rows;
        if entry.origin.is_none() {
            self.rows_direct += entry.n_rows;
        } else if entry.is_requeued {
            self.rows_requeued += entry.n_rows;
        } else if entry.is_foreign() {
            self.rows_foreign += entry.n_rows;
        }
    }
}

/// The row that a connection adds to.
#[derive(Debug)]
pub(super) struct BooksRow {
    writer: Uuid,
    key_prefix: String,
    n_commits: u32,
}

/// The row that a transaction adds to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer<'a> {
    id: Uuid,
    key_prefix: &'a str,
}

impl BooksRow {
    pub(super) fn new() -> Self {
        Self {
            writer: Uuid::now_v7(),
            key_prefix: String::new(),
            n_commits: 0,
        }
    }

    /// The row for the next transaction, of what came from the Redis with this key prefix.
    pub(super) fn next<'a>(&mut self, key_prefix: &'a str) -> Writer<'a> {
        if self.n_commits == COMMITS_PER_ROW || self.key_prefix != key_prefix {
            *self = Self {
                key_prefix: key_prefix.to_owned(),
                ..Self::new()
            };
        }
        self.n_commits += 1;
        Writer {
            id: self.writer,
            key_prefix,
        }
    }
}

/// Adds to the books and commits, in one packet.
///
/// # Errors
///
/// Nothing is committed, or it is not known whether: as for `COMMIT` alone.
pub(super) async fn keep_and_commit(
    client: &Client,
    prepared: &Prepared,
    writer: Writer<'_>,
    written: Written,
) -> Result<(), tokio_postgres::Error> {
    let big = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let detections = written.detections.cast_signed();
    let stored = detections + big(written.tracks) + big(written.sessions);
    let counts = [
        big(written.entries),
        big(written.duplicates),
        detections,
        big(written.tracks),
        big(written.sessions),
        big(written.rows) - stored,
        big(written.rows_foreign),
        big(written.rows_requeued),
        big(written.rows_direct),
    ];
    let mut params: [&(dyn ToSql + Sync); 11] = [&writer.key_prefix; 11];
    params[0] = &writer.id;
    for (param, count) in params[1..].iter_mut().zip(&counts) {
        *param = count;
    }
    // Polled together they leave together, in this order. Of a transaction that has failed COMMIT makes a
    // ROLLBACK and no error, so that the first answer counts.
    let (kept, committed) = futures_util::join!(
        client.execute(&prepared.keep_books, &params),
        client.batch_execute("COMMIT"),
    );
    kept?;
    committed
}

/// The books as Postgres keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StoreBooks {
    /// Since when they are kept.
    pub since: DateTime<Utc>,
    /// Nothing had been stored before that.
    pub began_empty: bool,
    /// When something was last committed.
    pub last_commit_at: Option<DateTime<Utc>>,
    /// Entries whose keys were new to the ledger.
    pub entries: u64,
    /// Entries that the ledger knew: nothing was written for them.
    pub duplicates: u64,
    /// Detections stored, of this Redis and of none.
    pub detections: u64,
    /// Snapshots of tracks taken in.
    pub tracks: u64,
    /// What pipelines said of sessions, taken in.
    pub sessions: u64,
    /// Rows in dead letters, as far as they could be counted.
    pub dead_rows: u64,
    /// Rows of entries whose keys no producer of ours made, or that had none: of programs that keep no books.
    pub rows_foreign: u64,
    /// Rows that were put back from the dead letters.
    pub rows_requeued: u64,
    /// Rows stored through the library, or by `passerby ingest` without Redis.
    pub rows_direct: u64,
    /// Detections that retention dropped.
    pub detections_dropped: u64,
    /// Dead letters by reason, the most first.
    pub dead_letters: Vec<ReasonCount>,
    /// The server's clock when the books were read.
    pub now: DateTime<Utc>,
}

/// How many dead letters there are of one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReasonCount {
    /// See [`Reason::as_str`](super::Reason::as_str).
    pub reason: String,
    /// Letters ever written.
    pub written: u64,
    /// Letters that are there and were neither put back nor discarded.
    pub waiting: u64,
}

impl StoreBooks {
    /// Rows stored, of all kinds.
    pub fn rows_stored(&self) -> u64 {
        self.detections + self.tracks + self.sessions
    }

    /// Rows that came from producers through a stream, for the first time, and are settled: stored or
    /// dead-lettered.
    pub fn rows_of_producers(&self) -> u64 {
        (self.rows_stored() + self.dead_rows)
            .saturating_sub(self.rows_foreign + self.rows_requeued + self.rows_direct)
    }

    /// Dead letters that are there and were neither put back nor discarded.
    pub fn dead_letters_waiting(&self) -> u64 {
        self.dead_letters.iter().map(|count| count.waiting).sum()
    }
}

impl Store {
    /// Reads the books of what came from the Redis with this key prefix, and of what came through none, in one
    /// snapshot. Dead letters and detections that retention dropped are those of the whole database.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn books(&mut self, key_prefix: &KeyPrefix) -> Result<StoreBooks, StoreError> {
        let key_prefix = key_prefix.to_string();
        let params: [&(dyn ToSql + Sync); 1] = [&key_prefix];
        let connection = self.begin().await?;
        let done = within("read the books", self.limit(), async {
            let client = &connection.client;
            // A statement that is not prepared takes two round trips: its second half would leave after COMMIT.
            let (read, read_dead_letters) =
                futures_util::try_join!(client.prepare(READ), client.prepare(READ_DEAD_LETTERS))
                    .map_err(StoreError::statement("read `books`"))?;
            // Polled together they leave together, in this order.
            let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
            let (begun, books, letters, ended) = futures_util::join!(
                client.batch_execute(begin),
                client.query_one(&read, &params),
                client.query(&read_dead_letters, &[]),
                client.batch_execute("COMMIT"),
            );
            begun.map_err(StoreError::statement("begin"))?;
            let books = books.map_err(StoreError::statement("read `books`"))?;
            let letters = letters.map_err(StoreError::statement("read `dead_letter_counts`"))?;
            ended.map_err(StoreError::statement("end"))?;
            Ok(from_rows(&books, &letters))
        })
        .await;
        self.end(connection, done)
    }

    /// Folds what connections left behind that have committed nothing for `quiet`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses; nothing is changed then.
    pub async fn fold_books(&mut self, quiet: Duration) -> Result<(), StoreError> {
        let connection = self.begin().await?;
        let done = within("fold the books", self.limit(), async {
            let client = &connection.client;
            client
                .execute(FOLD, &[&quiet.as_secs_f64()])
                .await
                .map_err(StoreError::statement("fold rows of `books`"))?;
            client
                .execute(FOLD_DEAD_LETTER_COUNTS, &[])
                .await
                .map_err(StoreError::statement("fold rows of `dead_letter_counts`"))?;
            Ok(())
        })
        .await;
        self.end(connection, done)
    }
}

fn from_rows(books: &Row, letters: &[Row]) -> StoreBooks {
    let count = |at: usize| {
        let n: Option<i64> = books.get(at);
        n.map_or(0, |n| n.max(0).cast_unsigned())
    };
    let now: DateTime<Utc> = books.get(13);
    StoreBooks {
        since: books.get::<_, Option<_>>(0).unwrap_or(now),
        last_commit_at: books.get(1),
        began_empty: books.get::<_, Option<_>>(2).unwrap_or(false),
        entries: count(3),
        duplicates: count(4),
        detections: count(5),
        tracks: count(6),
        sessions: count(7),
        dead_rows: count(8),
        rows_foreign: count(9),
        rows_requeued: count(10),
        rows_direct: count(11),
        detections_dropped: count(12),
        dead_letters: letters
            .iter()
            .map(|row| ReasonCount {
                reason: row.get(0),
                written: row.get::<_, i64>(1).max(0).cast_unsigned(),
                waiting: row.get::<_, i64>(2).max(0).cast_unsigned(),
            })
            .collect(),
        now,
    }
}
