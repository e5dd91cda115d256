//! What a worker needs to know, checked.

use std::{
    fmt,
    num::{NonZeroU16, NonZeroUsize},
    str::FromStr,
    time::Duration,
};

use passerby_shared::{KeyPrefix, redis_connection::RedisUrl};
use uuid::Uuid;

use crate::store::{DatabaseUrl, StoreTimeouts};

/// What a worker needs to know.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Where the streams are.
    pub redis_url: RedisUrl,
    /// Where the rows go.
    pub database_url: DatabaseUrl,
    /// What the keys in Redis begin with.
    pub key_prefix: KeyPrefix,
    /// How many streams there are; must be the producers' number.
    pub shards: NonZeroU16,
    /// The consumer group that all workers share.
    pub group: String,
    /// This worker's name in the group: no two processes may share one.
    pub consumer: ConsumerName,
    /// A batch is committed when it holds so many rows,
    pub batch_rows: NonZeroUsize,
    /// or so many bytes,
    pub batch_bytes: NonZeroUsize,
    /// or when its first entry has waited so long.
    pub linger: Duration,
    /// Postgres connections that commit at the same time.
    pub committers: NonZeroUsize,
    /// Longest wait for new entries before looking at shutdown again.
    pub block: Duration,
    /// An entry whose consumer has shown no sign of life for so long is taken over.
    pub min_idle: Duration,
    /// How long acknowledged entries stay in the stream, for replay.
    pub trim_grace: Option<Duration>,
    /// Longest time to finish what was read when told to stop.
    pub grace_period: Duration,
    /// Stop when nothing is left to do.
    pub drain: bool,
    /// Bring the schema to this program's version at start.
    pub migrate: bool,
    /// How long to wait for Postgres.
    pub store_timeouts: StoreTimeouts,
}

impl WorkerConfig {
    /// The defaults for two servers.
    pub fn new(redis_url: RedisUrl, database_url: DatabaseUrl) -> Self {
        const fn size(n: usize) -> NonZeroUsize {
            NonZeroUsize::new(n).expect("not zero")
        }
        Self {
            redis_url,
            database_url,
            key_prefix: KeyPrefix::default(),
            shards: NonZeroU16::MIN,
            group: "passerby".to_owned(),
            consumer: ConsumerName::generate(),
            batch_rows: size(5_000),
            batch_bytes: size(4 << 20),
            linger: Duration::from_millis(10),
            committers: size(2),
            block: Duration::from_secs(1),
            min_idle: Duration::from_secs(30),
            trim_grace: Some(Duration::from_secs(15 * 60)),
            grace_period: Duration::from_secs(25),
            drain: false,
            migrate: true,
            store_timeouts: StoreTimeouts::default(),
        }
    }

    /// Checks what only holds together.
    ///
    /// # Errors
    ///
    /// Names the fields that contradict each other, or the one out of range.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let no = |what: String| Err(InvalidConfig(what));
        if self.group.is_empty() || self.group.len() > 64 {
            return no(format!("group `{}` must have 1…64 bytes", self.group));
        }
        if self.block.is_zero() || self.block > Duration::from_secs(60) {
            return no(format!(
                "block ({:?}) must be more than 0 and at most 60 s",
                self.block
            ));
        }
        if self.block >= self.grace_period {
            return no(format!(
                "block ({:?}) must be shorter than grace-period ({:?}): a worker that waits for \
                 entries looks at shutdown only then",
                self.block, self.grace_period
            ));
        }
        if self.min_idle < Duration::from_millis(100) {
            return no(format!(
                "min-idle ({:?}) must be at least 100 ms",
                self.min_idle
            ));
        }
        if self.committers.get() > 64 {
            return no(format!(
                "committers ({}) must be at most 64",
                self.committers
            ));
        }
        if self.batch_rows.get() > 1_000_000 {
            return no(format!(
                "batch-rows ({}) must be at most 1000000",
                self.batch_rows
            ));
        }
        if self.linger > Duration::from_secs(60) {
            return no(format!("linger ({:?}) must be at most 60 s", self.linger));
        }
        Ok(())
    }
}

/// Settings that do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidConfig(String);

/// The name of one consumer in its group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConsumerName(String);

/// A text that is no consumer name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no consumer name: 1…64 printable characters without white space")]
pub struct InvalidConsumerName(String);

impl ConsumerName {
    /// A name of the form `<host>-<8 hex digits>`, new for each process: two processes with one name
    /// would share their pending entries. It is kept short, since Redis writes it to its log with
    /// every entry delivered.
    pub fn generate() -> Self {
        let host = std::env::var("HOSTNAME")
            .ok()
            .or_else(|| std::fs::read_to_string("/etc/hostname").ok())
            .unwrap_or_default();
        let host: String = host
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
            .take(16)
            .collect();
        let host = if host.is_empty() {
            "worker".to_owned()
        } else {
            host
        };
        // The tail of a version 7 UUID is random; its head is the time.
        let random = Uuid::now_v7().simple().to_string();
        Self(format!("{host}-{}", &random[24..]))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ConsumerName {
    type Err = InvalidConsumerName;

    fn from_str(s: &str) -> Result<Self, InvalidConsumerName> {
        if s.is_empty() || s.len() > 64 || s.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(InvalidConsumerName(s.chars().take(64).collect()));
        }
        Ok(Self(s.to_owned()))
    }
}

impl fmt::Display for ConsumerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
