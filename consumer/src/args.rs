//! What is typed to start a worker.

use std::{
    convert::Infallible,
    fmt,
    num::{NonZeroU16, NonZeroUsize},
    str::FromStr,
    time::Duration,
};

use clap::{Args, builder::BoolishValueParser};
use passerby_shared::{KeyPrefix, redis_connection::RedisUrl};

use crate::{ConsumerName, InvalidConfig, WorkerConfig, store::DatabaseUrl};

/// An address as it was typed. It is read later: clap repeats a value that it cannot read, and with
/// it the password.
#[derive(Clone)]
struct TypedUrl(String);

impl TypedUrl {
    fn parse<T: FromStr<Err: fmt::Display>>(
        &self,
        given_by: &'static str,
    ) -> Result<T, MissingUrl> {
        self.0.parse().map_err(|error: T::Err| MissingUrl::Invalid {
            given_by,
            problem: error.to_string(),
        })
    }
}

impl FromStr for TypedUrl {
    type Err = Infallible;

    fn from_str(s: &str) -> Result<Self, Infallible> {
        Ok(Self(s.to_owned()))
    }
}

impl fmt::Debug for TypedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TypedUrl(…)")
    }
}

/// Where Redis is.
#[derive(Debug, Clone, Args)]
pub struct RedisUrlArgs {
    /// Redis server: redis://[user:password@]host[:port][/db], rediss:// for TLS.
    ///
    /// Falls back to REDIS_URL.
    #[arg(
        long,
        env = "PASSERBY_REDIS_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    redis_url: Option<TypedUrl>,
}

impl RedisUrlArgs {
    /// The server's address, with its fallback.
    ///
    /// # Errors
    ///
    /// [`MissingUrl`] when neither flag nor environment names it, or what they name is no URL.
    pub fn redis_url(&self) -> Result<RedisUrl, MissingUrl> {
        match &self.redis_url {
            Some(url) => url.parse("--redis-url"),
            None => fallback("redis-url", "PASSERBY_REDIS_URL", "REDIS_URL"),
        }
    }
}

/// Where the streams are; shared by the worker and by the commands of `passerby`.
#[derive(Debug, Clone, Args)]
pub struct RedisArgs {
    #[command(flatten)]
    server: RedisUrlArgs,
    /// What every key in Redis begins with; must be the same for producers and workers.
    #[arg(
        long,
        env = "PASSERBY_KEY_PREFIX",
        value_name = "PREFIX",
        default_value = "passerby"
    )]
    pub key_prefix: KeyPrefix,
    /// Number of streams; must be the same for producers and workers.
    #[arg(long, env = "PASSERBY_SHARDS", value_name = "N", default_value = "1")]
    pub shards: NonZeroU16,
    /// Consumer group that all workers share.
    #[arg(
        long,
        env = "PASSERBY_GROUP",
        value_name = "NAME",
        default_value = "passerby"
    )]
    pub group: String,
}

impl RedisArgs {
    /// The server's address, with its fallback.
    ///
    /// # Errors
    ///
    /// [`MissingUrl`] when neither flag nor environment names it, or what they name is no URL.
    pub fn redis_url(&self) -> Result<RedisUrl, MissingUrl> {
        self.server.redis_url()
    }
}

/// Where Postgres is.
#[derive(Debug, Clone, Args)]
pub struct DatabaseArgs {
    /// Postgres database: postgresql://[user[:password]@]host[:port]/database.
    ///
    /// Falls back to DATABASE_URL.
    #[arg(
        long,
        env = "PASSERBY_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    database_url: Option<TypedUrl>,
}

impl DatabaseArgs {
    /// The database's address, with its fallback.
    ///
    /// # Errors
    ///
    /// [`MissingUrl`] when neither flag nor environment names it, or what they name is no URL.
    pub fn database_url(&self) -> Result<DatabaseUrl, MissingUrl> {
        match &self.database_url {
            Some(url) => url.parse("--database-url"),
            None => fallback("database-url", "PASSERBY_DATABASE_URL", "DATABASE_URL"),
        }
    }
}

/// An address that nobody gave.
#[derive(Debug, thiserror::Error)]
pub enum MissingUrl {
    /// Neither flag nor environment.
    #[error("no --{flag}: give it, or set {variable} (or {fallback})")]
    Missing {
        /// The flag.
        flag: &'static str,
        /// Its variable.
        variable: &'static str,
        /// The variable that many environments have.
        fallback: &'static str,
    },
    /// What was given cannot be read.
    #[error("{given_by}: {problem}")]
    Invalid {
        /// The flag or variable.
        given_by: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

fn fallback<T: FromStr<Err: fmt::Display>>(
    flag: &'static str,
    variable: &'static str,
    fallback: &'static str,
) -> Result<T, MissingUrl> {
    let text = std::env::var(fallback)
        .ok()
        .filter(|text| !text.is_empty())
        .ok_or(MissingUrl::Missing {
            flag,
            variable,
            fallback,
        })?;
    text.parse().map_err(|error: T::Err| MissingUrl::Invalid {
        given_by: fallback,
        problem: error.to_string(),
    })
}

/// Switches of a worker, as typed.
#[derive(Debug, Clone, Args)]
pub struct WorkerArgs {
    /// Where the streams are.
    #[command(flatten)]
    pub redis: RedisArgs,
    /// Where the rows go.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// This worker's name in its group; no two processes may share one [default: host and 8 random
    /// hex digits].
    #[arg(long, env = "PASSERBY_CONSUMER", value_name = "NAME")]
    consumer: Option<ConsumerName>,
    /// Rows in one transaction. More is faster until about 10000 and keeps rows waiting longer.
    #[arg(
        long,
        env = "PASSERBY_BATCH_ROWS",
        value_name = "N",
        default_value = "5000"
    )]
    batch_rows: NonZeroUsize,
    /// Bytes in one transaction; bounds the worker's memory to a few times this number.
    #[arg(
        long,
        env = "PASSERBY_BATCH_BYTES",
        value_name = "N",
        default_value = "4194304"
    )]
    batch_bytes: NonZeroUsize,
    /// Longest wait for a batch to fill. More makes larger batches and rows visible later.
    #[arg(long, env = "PASSERBY_LINGER", value_name = "TIME", default_value = "2ms",
          value_parser = parse_duration)]
    linger: Duration,
    /// Postgres connections that commit at the same time.
    #[arg(
        long,
        env = "PASSERBY_COMMITTERS",
        value_name = "N",
        default_value = "2"
    )]
    committers: NonZeroUsize,
    /// Longest wait for new entries before looking at shutdown again.
    #[arg(long, env = "PASSERBY_BLOCK", value_name = "TIME", default_value = "1s",
          value_parser = parse_duration)]
    block: Duration,
    /// Take over entries whose worker has shown no sign of life for so long.
    #[arg(long, env = "PASSERBY_MIN_IDLE", value_name = "TIME", default_value = "30s",
          value_parser = parse_duration)]
    min_idle: Duration,
    /// How long stored entries stay in the stream, for replay.
    #[arg(long, env = "PASSERBY_TRIM_GRACE", value_name = "TIME", default_value = "15m",
          value_parser = parse_duration)]
    trim_grace: Duration,
    /// Never remove stored entries from the stream: somebody else does.
    #[arg(long, env = "PASSERBY_NO_TRIM", value_parser = BoolishValueParser::new())]
    no_trim: bool,
    /// How long the ledger remembers what was stored. An entry that comes back later, as from a producer
    /// that was cut off for longer, becomes the dead letter `too-old` instead of being stored twice.
    #[arg(long, env = "PASSERBY_LEDGER_RETENTION", value_name = "TIME", default_value = "7d",
          value_parser = parse_duration)]
    ledger_retention: Duration,
    /// Keep detections for so long, in whole days, and drop older ones [default: for ever].
    #[arg(long, env = "PASSERBY_RETENTION", value_name = "TIME", value_parser = parse_duration)]
    retention: Option<Duration>,
    /// Remove a consumer from the group that holds nothing and has not been heard of for so long.
    #[arg(long, env = "PASSERBY_CONSUMER_EXPIRY", value_name = "TIME", default_value = "1h",
          value_parser = parse_duration)]
    consumer_expiry: Duration,
    /// Longest time to finish what was read when told to stop.
    #[arg(long, env = "PASSERBY_GRACE_PERIOD", value_name = "TIME", default_value = "25s",
          value_parser = parse_duration)]
    grace_period: Duration,
    /// Give up a server that has been silent for so long where an answer is due, and try again on a new
    /// connection. Less notices a dead network sooner and takes a slow server for one.
    #[arg(long, env = "PASSERBY_SERVER_TIMEOUT", value_name = "TIME", default_value = "12s",
          value_parser = parse_duration)]
    server_timeout: Duration,
    /// Stop when more than so many percent of the last 200 entries cannot be stored: then something else
    /// than an entry is wrong. 100 dead-letters whatever comes.
    #[arg(
        long,
        env = "PASSERBY_DEAD_LETTER_LIMIT",
        value_name = "PERCENT",
        default_value = "50"
    )]
    dead_letter_limit: u8,
    /// Warn of a batch that takes so long from its delivery to its acknowledgement, and say what it was slow
    /// at.
    #[arg(long, env = "PASSERBY_SLOW_BATCH", value_name = "TIME", default_value = "1s",
          value_parser = parse_duration)]
    slow_batch: Duration,
    /// Stop when nothing is left to do: no new entry, and none pending with any worker.
    #[arg(long, env = "PASSERBY_DRAIN", value_parser = BoolishValueParser::new())]
    drain: bool,
    /// Do not bring the schema to this program's version at start; stop if it is older.
    #[arg(long, env = "PASSERBY_NO_MIGRATE", value_parser = BoolishValueParser::new())]
    no_migrate: bool,
}

/// Arguments that do not make a worker.
#[derive(Debug, thiserror::Error)]
pub enum InvalidArgs {
    /// A server is not named.
    #[error(transparent)]
    Url(#[from] MissingUrl),
    /// Settings contradict each other.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
}

impl TryFrom<WorkerArgs> for WorkerConfig {
    type Error = InvalidArgs;

    fn try_from(args: WorkerArgs) -> Result<Self, InvalidArgs> {
        let defaults = Self::new(args.redis.redis_url()?, args.database.database_url()?);
        let config = Self {
            key_prefix: args.redis.key_prefix,
            shards: args.redis.shards,
            group: args.redis.group,
            consumer: args.consumer.unwrap_or_else(ConsumerName::generate),
            batch_rows: args.batch_rows,
            batch_bytes: args.batch_bytes,
            linger: args.linger,
            committers: args.committers,
            block: args.block,
            min_idle: args.min_idle,
            trim_grace: (!args.no_trim).then_some(args.trim_grace),
            grace_period: args.grace_period,
            server_timeout: args.server_timeout,
            ledger_retention: Some(args.ledger_retention),
            retention: args.retention,
            consumer_expiry: args.consumer_expiry,
            dead_letter_limit: args.dead_letter_limit,
            slow_batch: args.slow_batch,
            drain: args.drain,
            migrate: !args.no_migrate,
            ..defaults
        };
        config.check()?;
        Ok(config)
    }
}

/// Longest time that can be typed: sums with the time of day stay far from any limit.
const MAX_DURATION: Duration = Duration::from_secs(3_653 * 86_400);

/// Reads a time such as `10ms`, `1.5s`, `15m`, `2h`, `3d`.
///
/// # Errors
///
/// Says what is expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected =
        || format!("`{text}` is no time: expected a number with ms, s, m, h or d, as 30s");
    let digits = text
        .find(|c: char| c.is_ascii_alphabetic())
        .ok_or_else(expected)?;
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(expected()),
    };
    let number: f64 = number.trim().parse().map_err(|_| expected())?;
    match Duration::try_from_secs_f64(number * seconds) {
        Ok(time) if time <= MAX_DURATION => Ok(time),
        Ok(_) => Err(format!("`{text}` is longer than ten years")),
        Err(_) => Err(expected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit() {
        assert_eq!(parse_duration("10ms"), Ok(Duration::from_millis(10)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2d"), Ok(Duration::from_secs(172_800)));
        for text in ["", "10", "ten s", "-1s", "1e300d", "5 parsecs"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
