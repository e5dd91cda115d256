//! The wire format of a stream entry, version 1.
//!
//! `docs/wire-format.md` describes it for strangers; the test vectors beside this crate
//! (`shared/test-vectors/`) pin it down to the byte. Two forms of payload are read:
//!
//! * the **compact** form, which [`encode_detections`] and its like write: rows are positional,
//!   grouped by what they share, and times, ids and frame numbers are differences to the row before;
//! * the **plain** form, an array of maps with the column names, which anybody can write.
//!
//! Decoding splits and does not fail as a whole: a row that cannot be stored is handed out beside
//! the good ones as a [`BadRow`], and only an entry whose structure is broken is [`Undecodable`].

mod compact_row;
mod cursor;
mod decode;
mod encode;
mod inspect;
mod plain;
mod plain_row;
mod quick;
mod sources;
mod value;

use std::str::FromStr;

pub use cursor::Malformed;
pub use decode::{BadRow, Undecodable, decode_detections, decode_sessions, decode_tracks};
pub use encode::{encode_detections, encode_sessions, encode_tracks};
pub use inspect::{Broken, InspectedField, InspectedValue, inspect};
pub use plain::encode_plain_detections;
pub use sources::Sources;

use crate::{EntryId, IdempotencyKey, StreamKey};

/// The wire version that this library writes, and the highest it reads.
pub const WIRE_VERSION: u64 = 1;

/// Name of the field with the wire version.
pub const FIELD_VERSION: &str = "v";
/// Name of the field with the kind of the rows.
pub const FIELD_KIND: &str = "k";
/// Name of the field with the idempotency key.
pub const FIELD_KEY: &str = "i";
/// Name of the field with the payload.
pub const FIELD_PAYLOAD: &str = "p";
/// Name of the optional field with the W3C `traceparent`.
pub const FIELD_TRACEPARENT: &str = "tp";

/// What the rows of an entry are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Kind {
    /// `d`: [`crate::Detection`]s.
    #[default]
    Detections,
    /// `t`: [`crate::Track`] snapshots.
    Tracks,
    /// `s`: [`crate::Session`] announcements.
    Sessions,
}

impl Kind {
    /// The letter on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Detections => "d",
            Self::Tracks => "t",
            Self::Sessions => "s",
        }
    }
}

impl FromStr for Kind {
    type Err = Undecodable;

    fn from_str(s: &str) -> Result<Self, Undecodable> {
        match s {
            "d" => Ok(Self::Detections),
            "t" => Ok(Self::Tracks),
            "s" => Ok(Self::Sessions),
            other => Err(Undecodable::UnknownKind(other.chars().take(16).collect())),
        }
    }
}

/// The fields of one entry, as they were read from Redis: borrowed, and not yet trusted.
#[derive(Debug, Clone, Copy)]
pub struct EntryFields<'a> {
    /// What the rows are.
    pub kind: Kind,
    /// The key the producer gave; `None` when a stranger left it out.
    pub key: Option<IdempotencyKey>,
    /// The MessagePack payload.
    pub payload: &'a [u8],
    /// The W3C `traceparent`, as text.
    pub traceparent: Option<&'a [u8]>,
}

impl<'a> EntryFields<'a> {
    /// Reads the fields of an entry, ignoring those it does not know. Of a field that is there
    /// twice, the last one counts.
    ///
    /// # Errors
    ///
    /// [`Undecodable`] when the version is newer than this library, the kind or the key cannot be
    /// read, or there is no payload.
    pub fn parse(
        fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<Self, Undecodable> {
        let (mut version, mut kind, mut key) = (None, None, None);
        let (mut payload, mut traceparent) = (None, None);
        for (name, value) in fields {
            match name {
                b"v" => version = Some(value),
                b"k" => kind = Some(value),
                b"i" => key = Some(value),
                b"p" => payload = Some(value),
                b"tp" => traceparent = Some(value),
                _ => {}
            }
        }
        // The version first, wherever it stands: a later one may mean something else by the rest.
        version.map_or(Ok(()), check_version)?;
        Ok(Self {
            kind: kind.map_or(Ok(Kind::default()), |kind| {
                String::from_utf8_lossy(kind).parse()
            })?,
            key: key.map(IdempotencyKey::from_field).transpose()?,
            payload: payload.ok_or(Undecodable::NoPayload)?,
            traceparent,
        })
    }

    /// The entry's idempotency key: the producer's, or the one derived from where it stands.
    pub fn key_or_derived(&self, stream: &StreamKey, entry_id: EntryId) -> IdempotencyKey {
        self.key
            .unwrap_or_else(|| IdempotencyKey::derived_from_entry(stream, entry_id))
    }
}

/// The idempotency key among an entry's fields, however broken the rest of the entry is.
pub fn key_of<'a>(
    fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Option<IdempotencyKey> {
    fields
        .into_iter()
        .filter(|(name, _)| *name == b"i")
        .last()
        .and_then(|(_, value)| IdempotencyKey::from_field(value).ok())
}

fn check_version(value: &[u8]) -> Result<(), Undecodable> {
    let text = String::from_utf8_lossy(value);
    match text.parse::<u64>() {
        Ok(1..=WIRE_VERSION) => Ok(()),
        Ok(version) if version > WIRE_VERSION => Err(Undecodable::TooNew { version }),
        _ => Err(Undecodable::BadVersion(text.chars().take(16).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fields: &[(&str, &str)], expected: &str) {
        let fields = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
        let said = EntryFields::parse(fields)
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default();
        assert_eq!(said, expected);
    }

    #[test]
    fn an_entry_that_cannot_be_read_says_why() {
        check(&[("p", "")], "");
        check(&[("p", ""), ("unknown", "x")], "");
        check(&[], "the entry has no payload: field `p` is missing");
        check(&[("v", "x"), ("p", "")], "`x` is no wire version");
        check(&[("v", "0"), ("p", "")], "`0` is no wire version");
        check(&[("k", "x"), ("p", "")], "kind `x` is none of d, t, s");
        check(
            &[("i", "short"), ("p", "")],
            "the idempotency key has 5 bytes: expected 16 bytes, or a UUID as text",
        );
    }

    #[test]
    fn a_newer_version_is_named_before_what_only_it_understands() {
        check(
            &[("k", "x"), ("i", "y"), ("v", "3")],
            "wire version 3 is newer than this worker, which reads up to 1",
        );
    }

    #[test]
    fn a_key_is_the_same_whether_or_not_the_rest_can_be_read() {
        let (first, last) = (IdempotencyKey::generate(), IdempotencyKey::generate());
        let fields = [
            (&b"i"[..], &first.as_bytes()[..]),
            (b"i", last.as_bytes()),
            (b"p", b""),
        ];
        assert_eq!(EntryFields::parse(fields).unwrap().key, Some(last));
        assert_eq!(key_of(fields), Some(last));
    }
}
