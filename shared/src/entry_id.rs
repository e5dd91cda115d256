//! The ID Redis gives a stream entry.

use std::{fmt, str::FromStr};

/// A stream entry's ID, `<unix ms>-<seq>`, ordered as Redis orders it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct EntryId {
    /// Milliseconds since the Unix epoch, by the Redis server's clock.
    pub ms: u64,
    /// Number within the millisecond.
    pub seq: u64,
}

impl EntryId {
    /// The smallest ID.
    pub const MIN: Self = Self { ms: 0, seq: 0 };
    /// The greatest ID.
    pub const MAX: Self = Self {
        ms: u64::MAX,
        seq: u64::MAX,
    };

    /// The ID that follows this one.
    #[must_use]
    pub fn next(self) -> Self {
        match self.seq.checked_add(1) {
            Some(seq) => Self { ms: self.ms, seq },
            None => Self {
                ms: self.ms.saturating_add(1),
                seq: 0,
            },
        }
    }

    /// Reads an ID from a reply of Redis.
    ///
    /// # Errors
    ///
    /// [`InvalidEntryId`] when the bytes are not `<ms>-<seq>`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidEntryId> {
        std::str::from_utf8(bytes)
            .ok()
            .and_then(|s| s.parse().ok())
            .ok_or_else(|| {
                InvalidEntryId(String::from_utf8_lossy(bytes).chars().take(64).collect())
            })
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl serde::Serialize for EntryId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for EntryId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "EntryId".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A stream entry's ID: milliseconds since the Unix epoch, and a number within them.",
            "type": "string",
            "pattern": "^[0-9]+-[0-9]+$",
        })
    }
}

/// A text that is no entry ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no entry ID: expected <milliseconds>-<sequence>, as in 1792000000000-0")]
pub struct InvalidEntryId(String);

impl FromStr for EntryId {
    type Err = InvalidEntryId;

    fn from_str(s: &str) -> Result<Self, InvalidEntryId> {
        let parsed = s.split_once('-').and_then(|(ms, seq)| {
            let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
            (digits(ms) && digits(seq)).then_some(())?;
            Some(Self {
                ms: ms.parse().ok()?,
                seq: seq.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| InvalidEntryId(s.chars().take(64).collect()))
    }
}

impl redis::ToRedisArgs for EntryId {
    fn write_redis_args<W: ?Sized + redis::RedisWrite>(&self, out: &mut W) {
        out.write_arg_fmt(self);
    }
}

impl redis::ToSingleRedisArg for EntryId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_as_redis_orders_them() {
        let id = |s: &str| s.parse::<EntryId>().unwrap();
        assert!(id("9-0") < id("10-0"));
        assert!(id("10-9") < id("10-10"));
        assert_eq!(id("7-18446744073709551615").next(), id("8-0"));
        assert_eq!(id("1792000000000-3").to_string(), "1792000000000-3");
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "1",
            "1-",
            "-1",
            "a-1",
            "1-2-3",
            "+1-2",
            "18446744073709551616-0",
        ] {
            assert!(text.parse::<EntryId>().is_err(), "{text}");
        }
    }
}
