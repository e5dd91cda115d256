//! Writes detections into a table beside `detections`, to be compared with it.
//!
//! All that one run writes is one transaction, and the table must be empty when it begins: a run that dies
//! leaves nothing, and one that is repeated after it has succeeded is refused, so that no row is in the table
//! twice. Entries that are in the stream twice are told apart by their keys, in a temporary table of the
//! transaction. None of Passerby's own tables is ever written to.

use std::collections::HashSet;

use bytes::Bytes;
use passerby_shared::IdempotencyKey;
use tokio_postgres::Statement;
use uuid::Uuid;

use super::{
    Store, StoreError,
    connection::{Connection, answer},
    copy::{COPY_DETECTIONS, CopyIn},
    pieces::Piece,
};

/// The name as its quoted parts; fails for what is no name.
const QUOTED: &str = "
SELECT string_agg(quote_ident(part), '.' ORDER BY nth), count(*)
FROM unnest(parse_ident($1)) WITH ORDINALITY AS parts (part, nth)";

/// Every table of Passerby's schema: those that stand beside `detections` under names of ours, and all
/// partitions.
const IS_OURS: &str = "
WITH RECURSIVE ours AS (
    SELECT to_regclass('detections')::oid AS oid
    UNION
    SELECT inhrelid FROM pg_inherits JOIN ours ON inhparent = ours.oid
)
SELECT relkind::text,
       pg_class.oid IN (SELECT oid FROM ours)
       OR relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'detections'::regclass)
          AND relname = ANY ($2)
FROM pg_class
WHERE pg_class.oid = to_regclass($1)";

const OURS: [&str; 9] = [
    "tracks",
    "sessions",
    "session_sources",
    "ledger",
    "ledger_horizon",
    "dead_letters",
    "books",
    "detections_default",
    "passerby_schema_history",
];

/// Columns of `detections` that the table has not, or has with another type.
const MISSING: &str = "
SELECT wanted.attname::text || ' ' || format_type(wanted.atttypid, wanted.atttypmod)
FROM pg_attribute AS wanted
LEFT JOIN pg_attribute AS found
       ON found.attrelid = to_regclass($1)
      AND found.attname = wanted.attname
      AND found.atttypid = wanted.atttypid
      AND NOT found.attisdropped
WHERE wanted.attrelid = 'detections'::regclass
  AND wanted.attnum > 0
  AND NOT wanted.attisdropped
  AND found.attname IS NULL
ORDER BY wanted.attnum";

const BEGIN: &str = "
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL synchronous_commit = on;
SET LOCAL lock_timeout = '5s';
SET LOCAL idle_in_transaction_session_timeout = '5min';
CREATE TEMPORARY TABLE replayed_entries (idempotency_key uuid PRIMARY KEY) ON COMMIT DROP";

const ENTER: &str = "
INSERT INTO replayed_entries
SELECT unnest($1::uuid[])
ON CONFLICT DO NOTHING
RETURNING idempotency_key";

/// A table that is being written to: all of it, or nothing.
#[derive(Debug)]
pub struct ComparisonTable {
    connection: Connection,
    name: String,
    enter: Statement,
    copy: Statement,
}

impl Store {
    /// Begins to write into a table, which is empty or made now.
    ///
    /// # Errors
    ///
    /// [`StoreError::Comparison`] for a table that cannot be written to; nothing was changed then.
    pub async fn begin_comparison(
        &mut self,
        name: &str,
        create: bool,
    ) -> Result<ComparisonTable, StoreError> {
        // Of its own: it holds a transaction for as long as the run takes.
        let connection = Connection::open(self.url(), self.timeouts()).await?;
        let client = &connection.client;
        let failed = || StoreError::statement(format!("prepare table `{name}`"));
        client.batch_execute(BEGIN).await.map_err(failed())?;
        let (quoted, n_parts): (Option<String>, i64) = client
            .query_one(QUOTED, &[&name])
            .await
            .map(|row| (row.get(0), row.get(1)))
            .map_err(failed())?;
        let refuse = |what: &str| StoreError::Comparison {
            table: name.to_owned(),
            what: what.to_owned(),
        };
        let quoted = quoted
            .filter(|_| n_parts <= 2)
            .ok_or_else(|| refuse("is no name of a table: expected name, or schema.name"))?;
        let found = client
            .query_opt(IS_OURS, &[&quoted, &OURS.as_slice()])
            .await
            .map_err(failed())?;
        match found.map(|row| (row.get::<_, String>(0), row.get::<_, Option<bool>>(1))) {
            Some((_, Some(true) | None)) => {
                return Err(refuse("is one of Passerby's own: name another"));
            }
            Some(_) if create => {
                return Err(refuse(
                    "is there already: leave out --create, or name another",
                ));
            }
            Some((kind, _)) if kind != "r" => {
                return Err(refuse("is no ordinary table"));
            }
            Some(_) => {}
            None if create => {
                client
                    .batch_execute(&format!("CREATE TABLE {quoted} (LIKE detections)"))
                    .await
                    .map_err(failed())?;
            }
            None => {
                return Err(refuse(
                    "is not there: make it, as with CREATE TABLE … (LIKE detections), or add --create",
                ));
            }
        }
        // Nobody else writes to it, and two runs do not both find it empty.
        client
            .batch_execute(&format!("LOCK TABLE {quoted} IN EXCLUSIVE MODE"))
            .await
            .map_err(failed())?;
        let missing = client.query(MISSING, &[&quoted]).await.map_err(failed())?;
        if !missing.is_empty() {
            let columns: Vec<String> = missing.iter().map(|row| row.get(0)).collect();
            return Err(refuse(&format!(
                "has not the columns of detections: {} missing or of another type",
                columns.join(", ")
            )));
        }
        let is_empty: bool = client
            .query_one(&format!("SELECT NOT EXISTS (SELECT FROM {quoted})"), &[])
            .await
            .map_err(failed())?
            .get(0);
        if !is_empty {
            return Err(refuse(
                "is not empty, and its rows could be written a second time: truncate it, or name another",
            ));
        }
        let copy = COPY_DETECTIONS.replacen("detections", &quoted, 1);
        let (enter, copy) = futures_util::try_join!(client.prepare(ENTER), client.prepare(&copy))
            .map_err(failed())?;
        Ok(ComparisonTable {
            connection,
            name: name.to_owned(),
            enter,
            copy,
        })
    }
}

impl ComparisonTable {
    /// Writes the rows of entries whose keys were not written in this run, and returns how many entries and
    /// rows those are.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses. Nothing of the run is kept then.
    pub async fn write(
        &mut self,
        entries: Vec<(IdempotencyKey, Bytes)>,
    ) -> Result<(u64, u64), StoreError> {
        let keys: Vec<Uuid> = entries.iter().map(|(key, _)| key.as_uuid()).collect();
        let entered = answer(
            self.connection.silence,
            "note entries",
            self.connection.client.query(&self.enter, &[&keys]),
        )
        .await?;
        let mut new: HashSet<Uuid> = entered.iter().map(|row| row.get(0)).collect();
        let n_new = new.len() as u64;
        let pieces: Vec<Piece> = entries
            .into_iter()
            .filter(|(key, _)| new.remove(&key.as_uuid()))
            .flat_map(|(_, rows)| Piece::all_of(rows))
            .collect();
        if pieces.is_empty() {
            return Ok((n_new, 0));
        }
        let doing = format!("copy into `{}`", self.name);
        let copy = CopyIn::begin(&self.connection, doing, &self.copy).await?;
        Ok((n_new, copy.send(pieces).await?))
    }

    /// Keeps all that was written.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses. When the connection broke, all or nothing
    /// was kept: the table is empty, or it is not.
    pub async fn commit(self) -> Result<(), StoreError> {
        let committing = self.connection.client.batch_execute("COMMIT");
        answer(self.connection.silence, "commit", committing).await
    }
}
