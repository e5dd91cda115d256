//! What an entry keeps through every resend and redelivery.

use std::{fmt, str::FromStr};

use uuid::{Uuid, Version};

use crate::{EntryId, StreamKey};

/// Namespace of the keys that are derived and not made by a producer.
///
/// Itself the version 5 UUID of the name `passerby` in the OID namespace of RFC 9562.
const NAMESPACE: Uuid = Uuid::from_u128(0x20a1_3f0e_6e8c_5096_a226_873b_e6f5_b437);

/// The name under which the ledger remembers that an entry has been stored.
///
/// A producer makes one before the first attempt to send and keeps it through every resend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdempotencyKey(Uuid);

impl IdempotencyKey {
    /// Makes a new key: a version 7 UUID, whose first 48 bits are the time.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The key of an entry that came without one: derived from where it stands in Redis.
    pub fn derived_from_entry(stream: &StreamKey, entry_id: EntryId) -> Self {
        Self::derived_from(
            "entry",
            &[stream.as_str().as_bytes(), entry_id.to_string().as_bytes()],
        )
    }

    /// Derives a key from what it stands for, so that doing the same thing again makes the same key.
    ///
    /// A version 5 UUID (RFC 9562) over `purpose` and `parts`, each ended by its length.
    pub fn derived_from(purpose: &str, parts: &[&[u8]]) -> Self {
        let mut name = Vec::with_capacity(128);
        for part in [purpose.as_bytes()].iter().chain(parts) {
            name.extend_from_slice(part);
            name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        }
        Self(Uuid::new_v5(&NAMESPACE, &name))
    }

    /// Reads a key from an entry's field: 16 bytes, or a UUID as text.
    ///
    /// # Errors
    ///
    /// [`InvalidIdempotencyKey`] when it is neither.
    pub fn from_field(field: &[u8]) -> Result<Self, InvalidIdempotencyKey> {
        Uuid::from_slice(field)
            .ok()
            .or_else(|| Uuid::try_parse_ascii(field).ok())
            .map(Self)
            .ok_or(InvalidIdempotencyKey {
                n_bytes: field.len(),
            })
    }

    /// When the key was made, in milliseconds since the Unix epoch; `None` for a key that is not a
    /// version 7 UUID.
    pub fn made_at_ms(&self) -> Option<u64> {
        if self.0.get_version() != Some(Version::SortRand) {
            return None;
        }
        let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
        Some(seconds * 1_000 + u64::from(nanos) / 1_000_000)
    }

    /// The key's 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The key as a UUID.
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for IdempotencyKey {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl serde::Serialize for IdempotencyKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for IdempotencyKey {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "IdempotencyKey".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "What an entry keeps through every resend and redelivery.",
            "type": "string",
            "format": "uuid",
        })
    }
}

/// Bytes that are no idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the idempotency key has {n_bytes} bytes: expected 16 bytes, or a UUID as text")]
pub struct InvalidIdempotencyKey {
    n_bytes: usize,
}

impl FromStr for IdempotencyKey {
    type Err = InvalidIdempotencyKey;

    fn from_str(s: &str) -> Result<Self, InvalidIdempotencyKey> {
        Self::from_field(s.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_key_depends_on_every_part_and_on_where_parts_end() {
        let key = |parts: &[&[u8]]| IdempotencyKey::derived_from("test", parts);
        assert_eq!(key(&[b"ab", b"c"]), key(&[b"ab", b"c"]));
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
        assert_ne!(
            key(&[b"ab"]),
            IdempotencyKey::derived_from("other", &[b"ab"])
        );
    }

    #[test]
    fn a_key_is_read_as_bytes_and_as_text() {
        let key = IdempotencyKey::generate();
        assert_eq!(IdempotencyKey::from_field(key.as_bytes()), Ok(key));
        assert_eq!(key.to_string().parse(), Ok(key));
        assert!(IdempotencyKey::from_field(b"short").is_err());
    }
}
