//! What a worker needs to know, checked.

use std::{
    fmt,
    num::{NonZeroU16, NonZeroUsize},
    str::FromStr,
    time::Duration,
};

use passerby_shared::{
    KeyPrefix, host_name,
    redis_connection::{RedisTimeouts, RedisUrl},
};
use uuid::Uuid;

use crate::{
    ledger_keeper::SETTLING,
    store::{DatabaseUrl, StoreTimeouts},
};

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
    /// How long the ledger remembers what was stored; `None` for ever.
    pub ledger_retention: Option<Duration>,
    /// How long detections are kept, in whole days; `None` for ever.
    pub retention: Option<Duration>,
    /// A consumer that holds nothing and has not been heard of for so long is removed from the group.
    pub consumer_expiry: Duration,
    /// Stop when more than so many percent of the entries read lately cannot be stored; 100 for never.
    pub dead_letter_limit: u8,
    /// Stop when nothing is left to do.
    pub drain: bool,
    /// Bring the schema to this program's version at start.
    pub migrate: bool,
    /// A server that has been silent for so long, where an answer is due, is given up: the same work
    /// is tried again on a new connection.
    pub server_timeout: Duration,
    /// A batch that takes so long, from the delivery of its first entry to its acknowledgement, is worth a
    /// warning that says what it was slow at.
    pub slow_batch: Duration,
    /// Look at both servers so often, on connections of its own, for metrics and health; `None` for never.
    pub observe: Option<Duration>,
    /// A loop of the worker that is at the same thing for so long is stuck, and the worker no longer
    /// [live](crate::Health::check_live); `None` for twice all the time-outs that bound it.
    pub stuck_after: Option<Duration>,
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
            linger: Duration::from_millis(2),
            committers: size(2),
            block: Duration::from_secs(1),
            min_idle: Duration::from_secs(30),
            trim_grace: Some(Duration::from_secs(15 * 60)),
            grace_period: Duration::from_secs(25),
            ledger_retention: Some(Duration::from_secs(7 * 86_400)),
            retention: None,
            consumer_expiry: Duration::from_secs(3_600),
            dead_letter_limit: 50,
            drain: false,
            migrate: true,
            server_timeout: StoreTimeouts::default().silence,
            slow_batch: Duration::from_secs(1),
            observe: None,
            stuck_after: None,
        }
    }

    /// How long to wait for Postgres.
    pub(crate) fn store_timeouts(&self) -> StoreTimeouts {
        let defaults = StoreTimeouts::default();
        StoreTimeouts {
            connect: defaults.connect.min(self.server_timeout),
            silence: self.server_timeout,
            operation: defaults.operation.max(self.server_timeout),
        }
    }

    /// How long to wait for Redis.
    pub(crate) fn redis_timeouts(&self) -> RedisTimeouts {
        RedisTimeouts {
            connect: RedisTimeouts::default().connect.min(self.server_timeout),
            response: self.server_timeout,
        }
    }

    /// A loop of the worker that is at the same thing for so long is stuck.
    pub(crate) fn stuck_after(&self) -> Duration {
        let store = self.store_timeouts();
        let bounded = store.operation + 2 * store.connect + self.block + self.server_timeout;
        self.stuck_after.unwrap_or(2 * bounded)
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
        if !(Duration::from_millis(100)..=Duration::from_secs(600)).contains(&self.server_timeout) {
            return no(format!(
                "server-timeout ({:?}) must be 100 ms…600 s",
                self.server_timeout
            ));
        }
        // Whatever is in the stream may be delivered again, and the ledger must know it then.
        let least = self.trim_grace.unwrap_or_default() + 2 * SETTLING;
        if let Some(retention) = self.ledger_retention
            && retention < least
        {
            return no(format!(
                "ledger-retention ({retention:?}) must be at least two hours more than trim-grace \
                 ({:?}), which keeps entries for replay",
                self.trim_grace.unwrap_or_default()
            ));
        }
        if self
            .retention
            .is_some_and(|r| r < Duration::from_secs(86_400))
        {
            return no(
                "retention must be at least one day: detections are dropped by the day".to_owned(),
            );
        }
        if !(1..=100).contains(&self.dead_letter_limit) {
            return no(format!(
                "dead-letter-limit ({}) must be 1…100 percent",
                self.dead_letter_limit
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
        let host: String = host_name()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_network_is_noticed_within_15_s_by_default() {
        let config = WorkerConfig::new(
            "redis://localhost".parse().unwrap(),
            "postgresql://localhost/passerby".parse().unwrap(),
        );
        config.check().unwrap();
        let limit = Duration::from_secs(15);
        assert!(config.block + config.server_timeout <= limit);
        assert!(config.store_timeouts().silence <= limit);
        // An attempt at Postgres may take twice its time: the socket, then TLS and authentication.
        assert!(config.store_timeouts().connect * 2 <= limit);
        assert!(config.redis_timeouts().connect <= limit);
        let producers = RedisTimeouts::default();
        assert!(producers.connect <= limit && producers.response <= limit);
    }
}
