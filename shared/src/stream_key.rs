//! The names of the keys in Redis.

use std::{fmt, num::NonZeroU16, str::FromStr};

/// What every key of one installation begins with; `passerby` unless configured otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyPrefix(String);

/// A prefix that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no key prefix: 1…64 characters without white space, `{{` and `}}`")]
pub struct InvalidKeyPrefix(String);

impl FromStr for KeyPrefix {
    type Err = InvalidKeyPrefix;

    fn from_str(s: &str) -> Result<Self, InvalidKeyPrefix> {
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '{' || c == '}';
        if s.is_empty() || s.len() > 64 || s.contains(bad) {
            return Err(InvalidKeyPrefix(s.chars().take(64).collect()));
        }
        Ok(Self(s.to_owned()))
    }
}

impl Default for KeyPrefix {
    fn default() -> Self {
        Self("passerby".to_owned())
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl KeyPrefix {
    /// The stream of one shard: `passerby:stream:{N}`. The braces are Redis Cluster's hash tag.
    pub fn stream(&self, shard: u16) -> StreamKey {
        StreamKey(format!("{}:stream:{{{shard}}}", self.0))
    }

    /// The streams of all shards.
    pub fn streams(&self, shards: NonZeroU16) -> Vec<StreamKey> {
        (0..shards.get()).map(|shard| self.stream(shard)).collect()
    }

    /// The spools of producers that may still bring old entries: `passerby:spools`, a hash from a spool's
    /// ID to the time, in milliseconds since the Unix epoch, of the oldest entry it has not published.
    pub fn spools(&self) -> String {
        format!("{}:spools", self.0)
    }

    /// What producers tell of themselves: `passerby:producers`, a hash from a producer's ID to its books; see
    /// [`ProducerRecord`](crate::books::ProducerRecord).
    pub fn producers(&self) -> String {
        format!("{}:producers", self.0)
    }

    /// What was folded of a producer that ended without a word: `passerby:producers:folded:<id>`, as JSON, for
    /// the case that it was only cut off.
    pub fn producer_folded(&self, producer_id: &str) -> String {
        format!("{}:producers:folded:{producer_id}", self.0)
    }

    /// What workers tell of themselves: `passerby:workers`, a hash from the consumer's name to its presence, as
    /// JSON.
    pub fn workers(&self) -> String {
        format!("{}:workers", self.0)
    }

    /// Groups that are not to read: `passerby:paused`, a hash from the group's name to who paused it, and why,
    /// as JSON.
    pub fn paused(&self) -> String {
        format!("{}:paused", self.0)
    }

    /// A cached track: `passerby:track:{<session>}:<track>`.
    pub fn track(&self, session_id: &str, track_id: i64) -> String {
        format!("{}:track:{{{session_id}}}:{track_id}", self.0)
    }

    /// A cached embedding: `passerby:embedding:{<session>}:<track>`.
    pub fn embedding(&self, session_id: &str, track_id: i64) -> String {
        format!("{}:embedding:{{{session_id}}}:{track_id}", self.0)
    }

    /// The tracks last cached in a session: `passerby:tracks:{<session>}`, a sorted set.
    pub fn recent_tracks(&self, session_id: &str) -> String {
        format!("{}:tracks:{{{session_id}}}", self.0)
    }

    /// The last detections of a camera: `passerby:recent:{<camera>}`, a list.
    pub fn recent_detections(&self, camera_id: &str) -> String {
        format!("{}:recent:{{{camera_id}}}", self.0)
    }
}

/// The Redis key of one shard's stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey(String);

impl StreamKey {
    /// Takes a key as it was stored or typed.
    pub fn from_name(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key prefix it was made with; empty for a key that was not made by [`KeyPrefix::stream`].
    pub fn key_prefix(&self) -> &str {
        let parts = self.0.rsplit_once(":stream:{");
        parts.map_or("", |(key_prefix, _)| key_prefix)
    }
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl redis::ToRedisArgs for StreamKey {
    fn write_redis_args<W: ?Sized + redis::RedisWrite>(&self, out: &mut W) {
        out.write_arg(self.0.as_bytes());
    }
}

impl redis::ToSingleRedisArg for StreamKey {}

/// The shard of a camera: FNV-1a (64 bit) of its id modulo the number of shards.
///
/// All producers of an installation must agree on it: it keeps one camera's entries in order.
pub fn shard_of(id: &str, shards: NonZeroU16) -> u16 {
    if shards == NonZeroU16::MIN {
        return 0; // as is any number modulo 1
    }
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    #[expect(
        clippy::cast_possible_truncation,
        reason = "smaller than `shards`, a u16"
    )]
    let shard = (hash % u64::from(shards.get())) as u16;
    shard
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_documented() {
        let prefix = KeyPrefix::default();
        assert_eq!(prefix.stream(3).as_str(), "passerby:stream:{3}");
        let other: KeyPrefix = "a:stream:b".parse().unwrap();
        assert_eq!(other.stream(3).key_prefix(), "a:stream:b");
        assert_eq!(prefix.track("s", 7), "passerby:track:{s}:7");
        assert!("has space".parse::<KeyPrefix>().is_err());
        assert!("".parse::<KeyPrefix>().is_err());
    }

    #[test]
    fn a_camera_stays_on_its_shard() {
        let shards = NonZeroU16::new(4).unwrap();
        // FNV-1a test vectors of its authors: "" and "a".
        assert_eq!(
            shard_of("", NonZeroU16::MAX),
            (0xcbf2_9ce4_8422_2325_u64 % 65_535) as u16
        );
        assert_eq!(
            shard_of("a", NonZeroU16::MAX),
            (0xaf63_dc4c_8601_ec8c_u64 % 65_535) as u16
        );
        assert_eq!(shard_of("cam-001", shards), shard_of("cam-001", shards));
    }
}
