//! What can never be stored as it is, kept with the reason.

mod count;
mod discard;
mod filter;
mod query;
mod requeue;

use passerby_shared::{
    IdempotencyKey,
    wire::{EntryFields, Sources},
};
use tokio_postgres::{
    Client,
    types::{Json, ToSql},
};
use uuid::Uuid;

pub use count::DeadLetterCount;
pub use discard::Discard;
pub use filter::DeadLetterFilter;
pub use query::{DeadLetterRecord, LetterState};
pub use requeue::TakenLetters;

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
    /// All reasons, in order.
    pub const ALL: [Self; 6] = [
        Self::Undecodable,
        Self::InvalidRow,
        Self::Refused,
        Self::Lost,
        Self::TooOld,
        Self::Panic,
    ];

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

/// How many dead letters have which reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReasonCounts([usize; Reason::ALL.len()]);

impl ReasonCounts {
    pub(super) fn of(letters: &[&DeadLetter]) -> Self {
        let mut counts = Self::default();
        for letter in letters {
            counts.0[letter.reason as usize] += 1;
        }
        counts
    }

    /// Of all reasons together.
    pub fn total(&self) -> usize {
        self.0.iter().sum()
    }

    /// Of each, in the order of [`Reason::ALL`].
    pub fn counts(&self) -> [usize; Reason::ALL.len()] {
        self.0
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] + other.0[at]))
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
                          reason, message, sqlstate, fields, camera_ids, session_ids)
SELECT now(), stream, entry_id, idempotency_key, row_idx, kind, reason, message, sqlstate, fields,
       ARRAY(SELECT jsonb_array_elements_text(camera_ids)),
       ARRAY(SELECT jsonb_array_elements_text(session_ids))
FROM unnest($1::text[], $2::text[], $3::uuid[], $4::integer[], $5::text[],
            $6::text[], $7::text[], $8::text[], $9::bytea[], $10::jsonb[], $11::jsonb[])
     AS letters (stream, entry_id, idempotency_key, row_idx, kind, reason, message, sqlstate, fields,
                 camera_ids, session_ids)";

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
    let sources: Vec<Sources> = letters.iter().map(|l| sources_of(&l.fields)).collect();
    // Arrays of different lengths, which an array of arrays cannot hold.
    let camera_ids: Vec<_> = sources.iter().map(|s| Json(&s.camera_ids)).collect();
    let session_ids: Vec<_> = sources.iter().map(|s| Json(&s.session_ids)).collect();
    let params: [&(dyn ToSql + Sync); 11] = [
        &streams,
        &entry_ids,
        &keys,
        &rows,
        &kinds,
        &reasons,
        &messages,
        &sqlstates,
        &fields,
        &camera_ids,
        &session_ids,
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

/// The cameras and sessions that a letter is about, as far as they can be read.
fn sources_of(fields: &RawFields) -> Sources {
    let pairs = fields.iter().map(|(name, value)| (&name[..], &value[..]));
    EntryFields::parse(pairs)
        .map(|entry| Sources::of(entry.kind, entry.payload))
        .unwrap_or_default()
}

fn decode_fields(bytes: &[u8]) -> RawFields {
    let flat: Vec<serde_bytes::ByteBuf> = rmp_serde::from_slice(bytes).unwrap_or_default();
    let (pairs, _) = flat.as_chunks::<2>();
    pairs
        .iter()
        .map(|[name, value]| (name.to_vec().into(), value.to_vec().into()))
        .collect()
}
