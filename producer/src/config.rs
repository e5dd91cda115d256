//! What a producer needs to know, checked.

use std::{
    num::{NonZeroU16, NonZeroUsize},
    time::Duration,
};

use passerby_shared::{
    KeyPrefix,
    redis_connection::{RedisTimeouts, RedisUrl},
};

use crate::{
    cache::CacheConfig, overflow::Overflow, saturation::SaturationConfig, spool::SpoolConfig,
};

/// Most bytes in one entry's payload. A worker reads an entry whole, and Redis has a thread of one.
pub const MAX_ENTRY_BYTES: usize = 1 << 20;

/// What a producer needs to know.
///
/// Bytes of rows are those that they take in memory, about 200 for a detection; in an entry the same
/// detection takes about 45.
#[derive(Debug, Clone)]
pub struct ProducerConfig {
    /// Where the streams are.
    pub redis_url: RedisUrl,
    /// How long to wait for Redis before an attempt counts as failed.
    pub redis_timeouts: RedisTimeouts,
    /// What the keys in Redis begin with.
    pub key_prefix: KeyPrefix,
    /// How many streams there are; must be the workers' number.
    pub shards: NonZeroU16,
    /// Rows are flushed when so many are buffered, and no entry holds more: 1000.
    pub max_rows: NonZeroUsize,
    /// Rows are flushed when they take so many bytes, and no entry holds more unless a single row
    /// does: 256 KiB, at most [`MAX_ENTRY_BYTES`].
    pub max_bytes: NonZeroUsize,
    /// Rows are flushed when the first of them has waited so long: 15 ms.
    ///
    /// The rows of a frame, and of all cameras that deliver one in that time, share an entry. An entry
    /// costs the store about as much as ten rows do, so a shorter delay is paid for there; a longer one
    /// makes every row visible later.
    pub max_delay: Duration,
    /// Most rows in memory, those being sent included: 100 000, at least twice `max_rows`.
    pub buffer_rows: NonZeroUsize,
    /// Most bytes of rows in memory, those being sent included: 64 MiB, at least twice `max_bytes`.
    pub buffer_bytes: NonZeroUsize,
    /// What happens to a row for which there is no room.
    pub overflow: Overflow,
    /// Wait after the first failed attempt to publish: 50 ms. It doubles from attempt to attempt;
    /// each wait is spread at random over the upper half of that.
    pub retry_min: Duration,
    /// Longest wait between two attempts to publish: 5 s. There is no last attempt.
    pub retry_max: Duration,
    /// Where accepted rows are kept on disk, so that they outlive this process: `None` by default.
    pub spool: Option<SpoolConfig>,
    /// How long published entries are remembered, to be sent again when Redis turns out to be another
    /// server than before, or the same one started anew: 10 s; zero for never.
    ///
    /// A Redis that crashes loses what its append-only file did not get (a second, with
    /// `appendfsync everysec`), a failover what was not replicated. What survived is stored once.
    pub resend_window: Duration,
    /// Most bytes of payload that are remembered for that: 8 MiB. The oldest entries are forgotten
    /// first.
    pub resend_bytes: usize,
    /// When the store counts as saturated, and what happens then; `None` for never.
    pub saturation: Option<SaturationConfig>,
    /// The track cache.
    pub cache: CacheConfig,
}

impl ProducerConfig {
    /// The defaults for a server.
    pub fn new(redis_url: RedisUrl) -> Self {
        const fn size(n: usize) -> NonZeroUsize {
            NonZeroUsize::new(n).expect("not zero")
        }
        Self {
            redis_url,
            redis_timeouts: RedisTimeouts::default(),
            key_prefix: KeyPrefix::default(),
            shards: NonZeroU16::MIN,
            max_rows: size(1000),
            max_bytes: size(256 << 10),
            max_delay: Duration::from_millis(15),
            buffer_rows: size(100_000),
            buffer_bytes: size(64 << 20),
            overflow: Overflow::default(),
            retry_min: Duration::from_millis(50),
            retry_max: Duration::from_secs(5),
            spool: None,
            resend_window: Duration::from_secs(10),
            resend_bytes: 8 << 20,
            saturation: Some(SaturationConfig::default()),
            cache: CacheConfig::default(),
        }
    }

    /// Checks what only holds together.
    ///
    /// # Errors
    ///
    /// Names the fields that contradict each other, or the one out of range.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let no = |what: String| Err(InvalidConfig(what));
        if self.max_rows.get() > 100_000 {
            return no(format!(
                "max_rows ({}) must be at most 100000",
                self.max_rows
            ));
        }
        if !(4096..=MAX_ENTRY_BYTES).contains(&self.max_bytes.get()) {
            return no(format!(
                "max_bytes ({}) must be 4096…{MAX_ENTRY_BYTES}",
                self.max_bytes
            ));
        }
        if self.buffer_rows.get() / 2 < self.max_rows.get() {
            return no(format!(
                "buffer_rows ({}) must be at least twice max_rows ({}): one half is sent while the \
                 other fills",
                self.buffer_rows, self.max_rows
            ));
        }
        if self.buffer_bytes.get() / 2 < self.max_bytes.get() {
            return no(format!(
                "buffer_bytes ({}) must be at least twice max_bytes ({}): one half is sent while \
                 the other fills",
                self.buffer_bytes, self.max_bytes
            ));
        }
        if self.max_delay > Duration::from_secs(60) {
            return no(format!(
                "max_delay ({:?}) must be at most 60 s",
                self.max_delay
            ));
        }
        if self.retry_min < Duration::from_millis(1) || self.retry_min > self.retry_max {
            return no(format!(
                "retry_min ({:?}) must be at least 1 ms and at most retry_max ({:?})",
                self.retry_min, self.retry_max
            ));
        }
        if self.retry_max > Duration::from_secs(300) {
            return no(format!(
                "retry_max ({:?}) must be at most 300 s",
                self.retry_max
            ));
        }
        if self.redis_timeouts.response.is_zero() || self.redis_timeouts.connect.is_zero() {
            return no("redis_timeouts must be longer than zero".to_owned());
        }
        if let Some(spool) = &self.spool {
            spool.check().map_err(InvalidConfig)?;
            if spool.segment_bytes / 2 < self.max_bytes.get() as u64 {
                return no(format!(
                    "spool.segment_bytes ({}) must be at least twice max_bytes ({}): a segment holds \
                     whole flushes",
                    spool.segment_bytes, self.max_bytes
                ));
            }
        }
        if let Some(saturation) = &self.saturation {
            saturation.check().map_err(InvalidConfig)?;
        }
        self.cache.check().map_err(InvalidConfig)
    }
}

/// Settings that do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidConfig(String);

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn config() -> ProducerConfig {
        ProducerConfig::new("redis://localhost".parse().unwrap())
    }

    pub(crate) fn size(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).unwrap()
    }

    fn check(change: impl FnOnce(&mut ProducerConfig), expected: &str) {
        let mut config = config();
        change(&mut config);
        let said = config.check().err().map(|e| e.to_string());
        let said = said.unwrap_or_default();
        assert!(
            said.starts_with(expected) && said.is_empty() == expected.is_empty(),
            "{said}"
        );
    }

    #[test]
    fn an_error_names_the_fields_that_contradict_each_other() {
        check(|_| {}, "");
        check(
            |c| c.buffer_rows = size(1999),
            "buffer_rows (1999) must be at least twice max_rows (1000)",
        );
        check(
            |c| c.buffer_bytes = size(300 << 10),
            "buffer_bytes (307200) must be at least twice max_bytes (262144)",
        );
        check(
            |c| c.max_bytes = size(2 << 20),
            "max_bytes (2097152) must be 4096…1048576",
        );
        check(|c| c.max_rows = size(100_001), "max_rows (100001)");
        check(|c| c.max_delay = Duration::from_secs(61), "max_delay (61s)");
        check(
            |c| c.retry_min = Duration::from_secs(6),
            "retry_min (6s) must be at least 1 ms and at most retry_max (5s)",
        );
        check(
            |c| c.redis_timeouts.response = Duration::ZERO,
            "redis_timeouts",
        );
        check(
            |c| c.cache.read_timeout = Duration::ZERO,
            "cache.read_timeout (0ns)",
        );
        let spool = |change: fn(&mut SpoolConfig)| {
            move |c: &mut ProducerConfig| {
                let mut spool = SpoolConfig::new("dir");
                change(&mut spool);
                c.spool = Some(spool);
            }
        };
        check(spool(|_| {}), "");
        check(spool(|s| s.dir.clear()), "spool.dir is empty");
        check(
            spool(|s| s.max_bytes = 40 << 20),
            "spool.max_bytes (41943040) must be at least three times spool.segment_bytes (16777216)",
        );
        check(
            spool(|s| s.segment_bytes = 128 << 10),
            "spool.segment_bytes (131072) must be at least twice max_bytes (262144)",
        );
        check(spool(|s| s.ring_bytes = 1), "spool.ring_bytes (1)");
        check(
            |c| c.saturation.as_mut().unwrap().low_water = 10_000,
            "saturation.low_water (10000) must be less than saturation.high_water (10000)",
        );
        check(
            spool(|s| s.fsync = crate::spool::Fsync::Interval(Duration::ZERO)),
            "spool.fsync (0ns)",
        );
    }
}
