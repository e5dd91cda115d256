//! The idempotency keys of committed entries.
//!
//! A key in the ledger means: the rows of this entry are stored. Keys go in within the transaction of
//! the rows. A second transaction with the same key waits for the first one's end; if that committed,
//! the second finds the key taken. So uniqueness alone fences off a worker that was thought dead.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use passerby_shared::IdempotencyKey;
use tokio_postgres::{Client, Statement, error::SqlState, types::ToSql};
use uuid::Uuid;

use super::{DeadLetter, Store, StoreError, connection::within};
use crate::batch::{Batch, Origin};

/// Whether an error says that a key is in the ledger already.
pub(super) fn is_taken(error: &StoreError) -> bool {
    error.db_error().is_some_and(|db| {
        *db.code() == SqlState::UNIQUE_VIOLATION && db.constraint() == Some("ledger_pkey")
    })
}

macro_rules! enter_keys {
    ($condition:literal, $on_conflict:literal) => {
        concat!(
            "INSERT INTO ledger (idempotency_key, stream, entry_ms, entry_seq, n_rows, made_at, committed_at)
             SELECT *, now()
             FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::integer[], $6::timestamptz[])
                  AS entries (idempotency_key) ",
            $condition,
            "ORDER BY idempotency_key ",
            $on_conflict
        )
    };
}

/// Sorted by key, so that two transactions with entries in common meet them in the same order and cannot
/// deadlock.
///
/// It leaves in the packet of BEGIN. Should that have failed, as when somebody cancelled it, keys would be
/// committed without their rows; the setting of the transaction, which is not there then, refuses them.
pub(super) const ENTER_KEYS: &str = enter_keys!(
    "WHERE current_setting('passerby.is_in_transaction')::boolean ",
    ""
);

/// What the transaction sets for [`ENTER_KEYS`].
pub(super) const IS_IN_TRANSACTION: &str = "SET LOCAL passerby.is_in_transaction = true";

/// Begins a transaction that is no batch's.
pub(super) const BEGIN: &str = "BEGIN; SET LOCAL passerby.is_in_transaction = true";

const ENTER_NEW_KEYS: &str = enter_keys!(
    "",
    "ON CONFLICT (idempotency_key) DO NOTHING RETURNING idempotency_key"
);

/// Enters the keys of a batch, of which none may be in the ledger yet.
pub(super) async fn enter(
    client: &Client,
    statement: &Statement,
    batch: &Batch,
) -> Result<u64, tokio_postgres::Error> {
    let keys = Keys::of(batch);
    client.execute(statement, &keys.params()).await
}

/// Enters the keys that are not in the ledger yet and returns them.
pub(super) async fn enter_new(
    client: &Client,
    batch: &Batch,
) -> Result<Vec<IdempotencyKey>, tokio_postgres::Error> {
    let keys = Keys::of(batch);
    let rows = client.query(ENTER_NEW_KEYS, &keys.params()).await?;
    Ok(rows
        .iter()
        .map(|row| IdempotencyKey::from(row.get::<_, Uuid>(0)))
        .collect())
}

/// What the ledger is told of a batch's entries, a column each.
struct Keys<'a> {
    keys: Vec<Uuid>,
    origins: Columns<'a>,
    n_rows: Vec<i32>,
    made_at: Vec<Option<DateTime<Utc>>>,
}

impl<'a> Keys<'a> {
    fn of(batch: &'a Batch) -> Self {
        let entries = batch.entries();
        Self {
            keys: entries.iter().map(|entry| entry.key.as_uuid()).collect(),
            origins: columns(entries.iter().map(|entry| entry.origin.as_ref())),
            n_rows: entries
                .iter()
                .map(|entry| i32::try_from(entry.n_rows).unwrap_or(i32::MAX))
                .collect(),
            made_at: entries.iter().map(|entry| entry.made_at).collect(),
        }
    }

    fn params(&self) -> [&(dyn ToSql + Sync); 6] {
        let (streams, ms, seq) = &self.origins;
        [&self.keys, streams, ms, seq, &self.n_rows, &self.made_at]
    }
}

/// Stream, milliseconds and number of entries, a column each.
type Columns<'a> = (Vec<Option<&'a str>>, Vec<Option<i64>>, Vec<Option<i64>>);

fn columns<'a>(origins: impl Iterator<Item = Option<&'a Origin>>) -> Columns<'a> {
    let mut columns = Columns::default();
    for origin in origins {
        columns.0.push(origin.map(|o| o.stream.as_str()));
        columns.1.push(origin.map(|o| o.id.ms.cast_signed()));
        columns.2.push(origin.map(|o| o.id.seq.cast_signed()));
    }
    columns
}

/// The range of `entry_ms` stands there for the BRIN index.
const STORED_ENTRIES: &str = "
SELECT lost.n
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::uuid[])
     WITH ORDINALITY AS lost (stream, entry_ms, entry_seq, idempotency_key, n)
WHERE EXISTS (
    SELECT FROM ledger
    WHERE ledger.entry_ms BETWEEN $5 AND $6
      AND ledger.stream = lost.stream
      AND ledger.entry_ms = lost.entry_ms
      AND ledger.entry_seq = lost.entry_seq
      AND ledger.idempotency_key <> lost.idempotency_key
)";

/// Of entries whose fields Redis has lost, those that were stored before that: by index, ascending.
/// Their true keys are lost as well; but the ledger knows where an entry stood.
pub(super) async fn stored_entries(
    client: &Client,
    lost: &[&DeadLetter],
) -> Result<Vec<usize>, tokio_postgres::Error> {
    let keys: Vec<Uuid> = lost.iter().map(|letter| letter.key.as_uuid()).collect();
    let (streams, ms, seq) = columns(lost.iter().map(|letter| Some(&letter.origin)));
    let (first, last) = (ms.iter().flatten().min(), ms.iter().flatten().max());
    let rows = client
        .query(STORED_ENTRIES, &[&streams, &ms, &seq, &keys, &first, &last])
        .await?;
    let mut stored: Vec<usize> = rows
        .iter()
        .filter_map(|row| usize::try_from(row.get::<_, i64>(0) - 1).ok())
        .collect();
    stored.sort_unstable();
    Ok(stored)
}

impl Store {
    /// Those of `keys` that are in the ledger.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn known_keys(
        &mut self,
        keys: &[IdempotencyKey],
    ) -> Result<HashSet<IdempotencyKey>, StoreError> {
        let connection = self.begin().await?;
        let uuids: Vec<Uuid> = keys.iter().map(|key| key.as_uuid()).collect();
        let done = within("look into the ledger", self.limit(), async {
            let rows = connection
                .client
                .query(
                    "SELECT idempotency_key FROM ledger WHERE idempotency_key = ANY($1)",
                    &[&uuids],
                )
                .await
                .map_err(StoreError::statement("look into the ledger"))?;
            Ok(rows
                .iter()
                .map(|row| row.get::<_, Uuid>(0).into())
                .collect())
        })
        .await;
        self.end(connection, done)
    }

    /// How many of `keys` are in the ledger.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn count_in_ledger(&mut self, keys: &[IdempotencyKey]) -> Result<usize, StoreError> {
        let connection = self.begin().await?;
        let uuids: Vec<Uuid> = keys.iter().map(|key| key.as_uuid()).collect();
        let done = within("look into the ledger", self.limit(), async {
            let row = connection
                .client
                .query_one(
                    "SELECT count(*) FROM ledger WHERE idempotency_key = ANY($1)",
                    &[&uuids],
                )
                .await
                .map_err(StoreError::statement("look into the ledger"))?;
            Ok(usize::try_from(row.get::<_, i64>(0)).unwrap_or(0))
        })
        .await;
        self.end(connection, done)
    }
}
