//! `passerby top`: everything at a glance, live.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use passerby_consumer::{
    args::{DatabaseArgs, RedisArgs, parse_duration},
    ops::Thresholds,
};

use super::Failure;
use crate::top::{self, Source};

/// Watch everything at a glance, live, in the terminal.
///
/// The books, the backlog, rates, workers and cameras; keys to pause and resume, and to look at pending entries and
/// dead letters. ? says which. Nothing is changed that was not confirmed. Without colours where NO_COLOR is set.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  passerby top --interval 2s")]
pub(crate) struct TopArgs {
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// How often the servers are asked. Less often is kinder to a slow line.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,
    /// So many rows are lost and known to be, of an accident that is over: only more of them are not well.
    #[arg(
        long,
        env = "PASSERBY_KNOWN_LOST",
        value_name = "ROWS",
        default_value = "0"
    )]
    known_lost: u64,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if interval < Duration::from_millis(200) {
        return Err("at least 200ms".to_owned());
    }
    Ok(interval)
}

/// Runs the command.
pub(crate) async fn run(args: TopArgs) -> Result<ExitCode, Failure> {
    let source = Source {
        redis_url: args.redis.redis_url().map_err(Failure::usage)?,
        database_url: args.database.database_url().map_err(Failure::usage)?,
        key_prefix: args.redis.key_prefix.clone(),
        streams: args.redis.key_prefix.streams(args.redis.shards),
        group: args.redis.group,
    };
    let thresholds = Thresholds {
        known_lost: args.known_lost,
        ..Thresholds::default()
    };
    top::run(source, args.interval, thresholds).await?;
    Ok(ExitCode::SUCCESS)
}
