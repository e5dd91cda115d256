//! The idempotency keys of committed entries.
//!
//! A key in the ledger means: the rows of this entry are stored. Keys go in within the transaction of
//! the rows. A second transaction with the same key waits for the first one's end; if that committed,
//! the second finds the key taken. So uniqueness alone fences off a worker that was thought dead.

use bytes::{Bytes, BytesMut};
use chrono::Utc;
use passerby_shared::IdempotencyKey;
use tokio_postgres::{Client, error::SqlState};
use uuid::Uuid;

use super::{
    Store, StoreError,
    connection::within,
    copy::{LEDGER_FIELDS, put_bytes, put_i32, put_i64, put_optional, put_text, put_timestamp},
};
use crate::batch::Batch;
use bytes::BufMut;

/// Encodes the ledger rows of a batch's entries for COPY, sorted by key so that two transactions
/// with entries in common meet them in the same order and cannot deadlock.
pub(super) fn encode(batch: &Batch) -> Bytes {
    let now = Utc::now().timestamp_micros();
    let mut order: Vec<_> = batch.entries().iter().collect();
    order.sort_unstable_by_key(|entry| entry.key);
    let mut out = BytesMut::with_capacity(order.len() * 96);
    for entry in order {
        let origin = entry.origin.as_ref();
        out.put_i16(LEDGER_FIELDS);
        put_bytes(&mut out, entry.key.as_bytes());
        put_optional(&mut out, origin.map(|o| o.stream.as_str()), put_text);
        put_optional(&mut out, origin.map(|o| o.id.ms.cast_signed()), put_i64);
        put_optional(&mut out, origin.map(|o| o.id.seq.cast_signed()), put_i64);
        put_i32(&mut out, i32::try_from(entry.n_rows).unwrap_or(i32::MAX));
        put_timestamp(&mut out, now);
    }
    out.freeze()
}

/// Whether an error says that a key is in the ledger already.
pub(super) fn is_taken(error: &StoreError) -> bool {
    error.db_error().is_some_and(|db| {
        *db.code() == SqlState::UNIQUE_VIOLATION && db.constraint() == Some("ledger_pkey")
    })
}

const INSERT_NEW: &str = "
INSERT INTO ledger (idempotency_key, stream, entry_ms, entry_seq, n_rows, committed_at)
SELECT *, now()
FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::integer[]) AS entries (idempotency_key)
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
    let streams: Vec<Option<&str>> = entries
        .iter()
        .map(|e| e.origin.as_ref().map(|o| o.stream.as_str()))
        .collect();
    let ms: Vec<Option<i64>> = entries
        .iter()
        .map(|e| e.origin.as_ref().map(|o| o.id.ms.cast_signed()))
        .collect();
    let seq: Vec<Option<i64>> = entries
        .iter()
        .map(|e| e.origin.as_ref().map(|o| o.id.seq.cast_signed()))
        .collect();
    let n_rows: Vec<i32> = entries
        .iter()
        .map(|e| i32::try_from(e.n_rows).unwrap_or(i32::MAX))
        .collect();
    let rows = client
        .query(INSERT_NEW, &[&keys, &streams, &ms, &seq, &n_rows])
        .await?;
    Ok(rows
        .iter()
        .map(|row| IdempotencyKey::from(row.get::<_, Uuid>(0)))
        .collect())
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
