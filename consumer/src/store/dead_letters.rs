//! What can never be stored as it is, kept with the reason.

use chrono::{DateTime, Utc};
use passerby_shared::IdempotencyKey;
use tokio_postgres::{Client, Row, types::ToSql};
use uuid::Uuid;

use super::{Store, StoreError, connection::within};
use crate::batch::{Origin, RawFields};

/// Why something was dead-lettered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The entry's structure is broken, or its version too new.
    Undecodable,
    /// A row's value is outside what is allowed.
    InvalidRow,
    /// Postgres refused the row.
    Refused,
    /// The entry was trimmed or deleted in Redis before it was stored.
    Lost,
    /// The entry is older than what the ledger remembers: whether it was stored nobody can tell.
    TooOld,
    /// Decoding the entry panicked: a bug of ours, reported here instead of stopping the stream.
    Panic,
}

impl Reason {
    /// The text in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::InvalidRow => "invalid-row",
            Self::Refused => "refused",
            Self::Lost => "lost",
            Self::TooOld => "too-old",
            Self::Panic => "panic",
        }
    }

    /// The entry's data is at fault, and not what happened to it.
    pub(crate) const fn is_of_the_data(self) -> bool {
        !matches!(self, Self::Lost | Self::TooOld)
    }
}

/// A row, or a whole entry, that cannot be stored.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Where the entry stood in Redis.
    pub origin: Origin,
    /// The entry's idempotency key.
    pub key: IdempotencyKey,
    /// The row within the entry; `None` for the whole entry.
    pub row_idx: Option<usize>,
    /// The kind of the rows, where it could be read.
    pub kind: Option<&'static str>,
    /// Why.
    pub reason: Reason,
    /// What is wrong, for people.
    pub message: String,
    /// What Postgres said, if it was Postgres.
    pub sqlstate: Option<String>,
    /// The entry's fields; for a row, with a payload that holds this row alone.
    pub fields: RawFields,
}

const INSERT: &str = "
INSERT INTO dead_letters (dead_lettered_at, stream, entry_id, idempotency_key, row_idx, kind,
                          reason, message, sqlstate, fields)
SELECT now(), s.*
FROM unnest($1::text[], $2::text[], $3::uuid[], $4::integer[], $5::text[],
            $6::text[], $7::text[], $8::text[], $9::bytea[]) AS s";

pub(super) async fn insert(
    client: &Client,
    letters: &[&DeadLetter],
) -> Result<u64, tokio_postgres::Error> {
    let streams: Vec<&str> = letters.iter().map(|l| l.origin.stream.as_str()).collect();
    let entry_ids: Vec<String> = letters.iter().map(|l| l.origin.id.to_string()).collect();
    let keys: Vec<Uuid> = letters.iter().map(|l| l.key.as_uuid()).collect();
    let rows: Vec<Option<i32>> = letters
        .iter()
        .map(|l| l.row_idx.and_then(|i| i32::try_from(i).ok()))
        .collect();
    let kinds: Vec<Option<&str>> = letters.iter().map(|l| l.kind).collect();
    let reasons: Vec<&str> = letters.iter().map(|l| l.reason.as_str()).collect();
    // A foreign text may be quoted in a message, and Postgres cannot store a NUL.
    let messages: Vec<String> = letters
        .iter()
        .map(|l| l.message.replace('\0', "\u{fffd}"))
        .collect();
    let sqlstates: Vec<Option<&str>> = letters.iter().map(|l| l.sqlstate.as_deref()).collect();
    let fields: Vec<Vec<u8>> = letters.iter().map(|l| encode_fields(&l.fields)).collect();
    let params: [&(dyn ToSql + Sync); 9] = [
        &streams, &entry_ids, &keys, &rows, &kinds, &reasons, &messages, &sqlstates, &fields,
    ];
    client.execute(INSERT, &params).await
}

/// The fields as a MessagePack array `[name, value, name, value, …]` of binary: a map could not hold
/// a field twice, and a stream entry can.
fn encode_fields(fields: &RawFields) -> Vec<u8> {
    let flat: Vec<&serde_bytes::Bytes> = fields
        .iter()
        .flat_map(|(name, value)| [name, value])
        .map(|b| serde_bytes::Bytes::new(b))
        .collect();
    rmp_serde::to_vec(&flat).expect("bytes are always encodable")
}

fn decode_fields(bytes: &[u8]) -> RawFields {
    let flat: Vec<serde_bytes::ByteBuf> = rmp_serde::from_slice(bytes).unwrap_or_default();
    let (pairs, _) = flat.as_chunks::<2>();
    pairs
        .iter()
        .map(|[name, value]| (name.to_vec(), value.to_vec()))
        .collect()
}

/// A row of `dead_letters`.
#[derive(Debug, Clone)]
pub struct DeadLetterRecord {
    /// The letter's number.
    pub id: i64,
    /// When it was written.
    pub dead_lettered_at: DateTime<Utc>,
    /// The stream it came from.
    pub stream: String,
    /// The entry it is, or was in.
    pub entry_id: String,
    /// The entry's idempotency key.
    pub key: IdempotencyKey,
    /// The row within the entry; `None` for the whole entry.
    pub row_idx: Option<i32>,
    /// The kind of the rows, where it could be read.
    pub kind: Option<String>,
    /// See [`Reason::as_str`].
    pub reason: String,
    /// What is wrong, for people.
    pub message: String,
    /// What Postgres said, if it was Postgres.
    pub sqlstate: Option<String>,
    /// The entry's fields; for a row, with a payload that holds this row alone.
    pub fields: RawFields,
    /// When it was last put back into its stream.
    pub requeued_at: Option<DateTime<Utc>>,
    /// The idempotency key it was put back with.
    pub requeued_key: Option<IdempotencyKey>,
}

/// Which dead letters.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterFilter {
    /// Only these numbers; all when empty.
    pub ids: Vec<i64>,
    /// Only this reason.
    pub reason: Option<String>,
    /// Only those that were not put back yet.
    pub not_requeued: bool,
    /// Only those with a greater number.
    pub after: i64,
    /// Only those with no greater number.
    pub up_to: Option<i64>,
    /// At most so many.
    pub limit: i64,
}

const QUERY: &str = "
SELECT id, dead_lettered_at, stream, entry_id, idempotency_key, row_idx, kind, reason, message,
       sqlstate, fields, requeued_at, requeued_key
FROM dead_letters
WHERE (cardinality($1::bigint[]) = 0 OR id = ANY($1))
  AND ($2::text IS NULL OR reason = $2)
  AND (NOT $3::boolean OR requeued_at IS NULL)
  AND id > $4
  AND ($5::bigint IS NULL OR id <= $5)
ORDER BY id
LIMIT $6";

impl Store {
    /// The dead letters that match, oldest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn query_dead_letters(
        &mut self,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<DeadLetterRecord>, StoreError> {
        let connection = self.begin().await?;
        let done = within("query dead letters", self.limit(), async {
            let DeadLetterFilter {
                ids,
                reason,
                not_requeued,
                after,
                up_to,
                limit,
            } = filter;
            connection
                .client
                .query(QUERY, &[ids, reason, not_requeued, after, up_to, limit])
                .await
                .map_err(StoreError::statement("query `dead_letters`"))
        })
        .await;
        Ok(self.end(connection, done)?.iter().map(from_row).collect())
    }

    /// The number of the newest dead letter; 0 when there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn last_dead_letter(&mut self) -> Result<i64, StoreError> {
        let connection = self.begin().await?;
        let done = within("look for the newest dead letter", self.limit(), async {
            let row = connection
                .client
                .query_one("SELECT coalesce(max(id), 0) FROM dead_letters", &[])
                .await
                .map_err(StoreError::statement("query `dead_letters`"))?;
            Ok(row.get(0))
        })
        .await;
        self.end(connection, done)
    }

    /// Notes that a dead letter was put back into its stream.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn mark_requeued(&mut self, id: i64, key: IdempotencyKey) -> Result<(), StoreError> {
        let connection = self.begin().await?;
        let done = within("mark a dead letter", self.limit(), async {
            connection
                .client
                .execute(
                    "UPDATE dead_letters SET requeued_at = now(), requeued_key = $2 WHERE id = $1",
                    &[&id, &key.as_uuid()],
                )
                .await
                .map(drop)
                .map_err(StoreError::statement("update a row of `dead_letters`"))
        })
        .await;
        self.end(connection, done)
    }
}

fn from_row(row: &Row) -> DeadLetterRecord {
    DeadLetterRecord {
        id: row.get(0),
        dead_lettered_at: row.get(1),
        stream: row.get(2),
        entry_id: row.get(3),
        key: row.get::<_, Uuid>(4).into(),
        row_idx: row.get(5),
        kind: row.get(6),
        reason: row.get(7),
        message: row.get(8),
        sqlstate: row.get(9),
        fields: decode_fields(row.get(10)),
        requeued_at: row.get(11),
        requeued_key: row.get::<_, Option<Uuid>>(12).map(Into::into),
    }
}
