//! The idempotency keys of committed entries.
//!
//! A key in the ledger means: the rows of this entry are stored. Keys go in within the transaction of
//! the rows. A second transaction with the same key waits for the first one's end; if that committed,
//! the second finds the key taken. So uniqueness alone fences off a worker that was thought dead.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use passerby_shared::IdempotencyKey;
use tokio_postgres::{Client, error::SqlState};
use uuid::Uuid;

use super::{
    DeadLetter, Store, StoreError,
    connection::within,
    copy::{LEDGER_FIELDS, put_bytes, put_i32, put_i64, put_optional, put_text, put_timestamp},
};
use crate::batch::{Batch, Origin};
use bytes::BufMut;

/// Encodes the ledger rows of a batch's entries for COPY, sorted by key so that two transactions
/// with entries in common meet them in the same order and cannot deadlock.
pub(super) fn encode(batch: &Batch) -> Bytes {
    let now = Utc::now().timestamp_micros();
    let mut order: Vec<_> = batch.entries().iter().collect();
    order.sort_unstable_by_key(|entry| entry.key);
    let mut out = Vec::with_capacity(order.len() * 96);
    for entry in order {
        let origin = entry.origin.as_ref();
        out.put_i16(LEDGER_FIELDS);
        put_bytes(&mut out, entry.key.as_bytes());
        put_optional(&mut out, origin.map(|o| o.stream.as_str()), put_text);
        put_optional(&mut out, origin.map(|o| o.id.ms.cast_signed()), put_i64);
        put_optional(&mut out, origin.map(|o| o.id.seq.cast_signed()), put_i64);
        put_i32(&mut out, i32::try_from(entry.n_rows).unwrap_or(i32::MAX));
        put_timestamp(&mut out, now);
        put_optional(&mut out, entry.made_at, |out, at| {
            put_timestamp(out, at.timestamp_micros())
        });
    }
    out.into()
}

/// Whether an error says that a key is in the ledger already.
pub(super) fn is_taken(error: &StoreError) -> bool {
    error.db_error().is_some_and(|db| {
        *db.code() == SqlState::UNIQUE_VIOLATION && db.constraint() == Some("ledger_pkey")
    })
}

const INSERT_NEW: &str = "
INSERT INTO ledger (idempotency_key, stream, entry_ms, entry_seq, n_rows, made_at, committed_at)
SELECT *, now()
FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::integer[], $6::timestamptz[])
     AS entries (idempotency_key)
ORDER BY idempotency_key
ON CONFLICT (idempotency_key) DO NOTHING
RETURNING idempotency_key";

/// Enters the keys that are not in the ledger yet and returns them.
pub(super) async fn insert_new(
    client: &Client,
    batch: &Batch,
) -> Result<Vec<IdempotencyKey>, tokio_postgres::Error> {
    let entries = batch.entries();
    let keys: Vec<Uuid> = entries.iter().map(|e| e.key.as_uuid()).collect();
    let (streams, ms, seq) = columns(entries.iter().map(|entry| entry.origin.as_ref()));
    let n_rows: Vec<i32> = entries
        .iter()
        .map(|e| i32::try_from(e.n_rows).unwrap_or(i32::MAX))
        .collect();
    let made_at: Vec<Option<DateTime<Utc>>> = entries.iter().map(|e| e.made_at).collect();
    let rows = client
        .query(INSERT_NEW, &[&keys, &streams, &ms, &seq, &n_rows, &made_at])
        .await?;
    Ok(rows
        .iter()
        .map(|row| IdempotencyKey::from(row.get::<_, Uuid>(0)))
        .collect())
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
