//! `passerby ledger`: how large it is, what keeps it from forgetting, and forgetting now.

use std::{process::ExitCode, time::Duration};

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use passerby_consumer::{
    args::{DatabaseArgs, RedisArgs, parse_duration},
    ops::{self, Holder, LedgerOutlook},
    store::{LedgerSize, Store},
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Failure, confirm, output, stop_on_signal, target};
use crate::{
    render::{ProgressBars, bytes, counted, grouped},
    visible::visible,
};

/// Look at the ledger of what is stored, and let it forget.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  passerby ledger stats")]
pub(crate) struct LedgerArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say how large the ledger is, what it remembers, and what keeps it from forgetting.
    ///
    /// Keys are estimated from a sample of a large ledger, unless --count.
    #[command(after_help = "Example:\n  passerby ledger stats")]
    Stats(StatsArgs),
    /// Let the ledger forget now what cannot come back.
    ///
    /// Workers do so by themselves, every ten minutes. Nothing younger than the retention is forgotten, nothing
    /// that a spool may still bring, and nothing that is in a stream and not acknowledged; nothing at all while
    /// an entry has waited for more than an hour.
    #[command(after_help = "Example:\n  passerby ledger prune --dry-run")]
    Prune(PruneArgs),
}

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// How long the ledger remembers: as the workers' --ledger-retention.
    #[arg(
        long,
        env = "PASSERBY_LEDGER_RETENTION",
        value_name = "TIME",
        default_value = "7d",
        value_parser = parse_retention
    )]
    ledger_retention: Duration,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct StatsArgs {
    #[command(flatten)]
    common: Common,
    /// Count all keys, which reads the whole ledger.
    #[arg(long)]
    count: bool,
}

#[derive(Debug, Args)]
struct PruneArgs {
    #[command(flatten)]
    common: Common,
    /// Say up to when and how many, and forget nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

/// As a worker, which keeps two hours more than the time of grace.
const LEAST_RETENTION: Duration = Duration::from_secs(2 * 3_600);

fn parse_retention(text: &str) -> Result<Duration, String> {
    let retention = parse_duration(text)?;
    if retention < LEAST_RETENTION {
        return Err(format!(
            "`{text}` is less than two hours: what comes back a little later would be stored a second time"
        ));
    }
    Ok(retention)
}

/// What `stats` prints.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct LedgerStats {
    #[serde(flatten)]
    size: LedgerSize,
    /// How far it may forget now, and what keeps it from more.
    pruning: LedgerOutlook,
}

/// What `prune` prints.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct LedgerPruned {
    /// Keys made before this time are forgotten; `None` when none may be.
    below: Option<DateTime<Utc>>,
    /// Keys forgotten; in a dry run, that would be.
    keys: u64,
    /// What keeps it from forgetting more.
    held_by: Vec<Holder>,
}

/// Runs the command.
pub(crate) async fn run(args: LedgerArgs) -> Result<ExitCode, Failure> {
    match args.what {
        What::Stats(args) => stats(&args).await,
        What::Prune(args) => prune(&args).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn open(common: &Common) -> Result<(Store, LedgerOutlook), Failure> {
    let url = common.database.database_url().map_err(Failure::usage)?;
    let mut store = Store::connect(&url).await.map_err(Failure::store)?;
    store.check_schema().await.map_err(Failure::store)?;
    let mut target = target(&common.redis)?;
    let outlook = ops::ledger_outlook(&mut target, common.ledger_retention)
        .await
        .map_err(Failure::ops)?;
    Ok((store, outlook))
}

async fn stats(args: &StatsArgs) -> Result<(), Failure> {
    let (mut store, outlook) = open(&args.common).await?;
    let size = store
        .ledger_size(args.count)
        .await
        .map_err(Failure::store)?;
    if args.common.json {
        output::json(&LedgerStats {
            size,
            pruning: outlook,
        });
        return Ok(());
    }
    let about = if size.is_exact { "" } else { "about " };
    let mut lines = vec![
        ("keys", format!("{about}{}", grouped(size.keys))),
        (
            "size",
            format!(
                "{}, and {} of indices",
                bytes(size.bytes.unsigned_abs()),
                bytes(size.index_bytes.unsigned_abs())
            ),
        ),
        (
            "oldest key",
            size.oldest_key
                .map_or("none".to_owned(), |t| format!("{about}{}", time(t))),
        ),
        (
            "horizon",
            size.horizon.map_or_else(
                || "nothing was forgotten so far".to_owned(),
                |t| format!("{}: older keys may be forgotten", time(t)),
            ),
        ),
        ("may forget", up_to(&outlook)),
    ];
    if size.keys_kept_for_ever > 0 {
        lines.insert(
            1,
            (
                "for ever",
                format!(
                    "{about}{} do not tell when they were made, and stay",
                    grouped(size.keys_kept_for_ever)
                ),
            ),
        );
    }
    for (name, text) in lines {
        output::line(&format!("{name:<10}  {text}"));
    }
    for holder in &outlook.held_by {
        output::line(&format!("held by     {}", holding(holder)));
    }
    Ok(())
}

async fn prune(args: &PruneArgs) -> Result<(), Failure> {
    let (mut store, outlook) = open(&args.common).await?;
    let mut report = LedgerPruned {
        below: outlook.below,
        keys: 0,
        held_by: outlook.held_by.clone(),
    };
    if let Some(below) = outlook.below {
        report.keys = store
            .count_prunable_keys(below)
            .await
            .map_err(Failure::store)?;
    }
    let below = match outlook.below {
        Some(below) if !args.dry_run && report.keys > 0 => below,
        _ => {
            print(&report, "would be forgotten", args.common.json);
            return match outlook.below {
                None if !args.dry_run => Err(Failure::new("nothing may be forgotten now")),
                _ => Ok(()),
            };
        }
    };
    if !args.yes {
        for holder in &report.held_by {
            output::warning(&format!("held by {}", holding(holder)));
        }
    }
    confirm(
        args.yes,
        &format!(
            "forget {} made before {}",
            counted(report.keys, "key"),
            time(below)
        ),
    )?;
    let stop = CancellationToken::new();
    stop_on_signal(&stop);
    let bars = if report.keys > 200_000 {
        ProgressBars::stderr()
    } else {
        ProgressBars::hidden()
    };
    let bar = bars.add("forgotten", report.keys);
    report.keys = 0;
    while !stop.is_cancelled() {
        match store.prune_some_of_ledger(below).await {
            Ok(Some(0)) => break,
            Ok(Some(n)) => {
                report.keys += n;
                bar.update(report.keys, report.keys);
            }
            Ok(None) => {
                return Err(Failure::new(
                    "a worker is at it just now, or makes partitions: try again in a moment",
                ));
            }
            Err(error) => return Err(Failure::store(error)),
        }
    }
    bars.clear();
    print(&report, "forgotten", args.common.json);
    if stop.is_cancelled() {
        return Err(Failure::new("interrupted: to repeat the command is safe"));
    }
    Ok(())
}

fn print(report: &LedgerPruned, done: &str, json: bool) {
    if json {
        return output::json(report);
    }
    output::line(&match report.below {
        Some(below) => format!(
            "{} made before {} {done}",
            counted(report.keys, "key"),
            time(below)
        ),
        None => "no key may be forgotten now".to_owned(),
    });
    for holder in &report.held_by {
        output::line(&format!("held by {}", holding(holder)));
    }
}

fn up_to(outlook: &LedgerOutlook) -> String {
    match outlook.below {
        Some(below) => format!("what was made before {}", time(below)),
        None => "nothing now".to_owned(),
    }
}

fn time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S").to_string()
}

/// What holds it up, and what to do about it.
fn holding(holder: &Holder) -> String {
    match holder {
        Holder::Pending {
            stream,
            entry_id,
            consumer,
            since,
        } => format!(
            "entry {entry_id} of {}, pending with {} since {}: `passerby pending`",
            visible(stream),
            visible(consumer),
            time(*since)
        ),
        Holder::Undelivered {
            stream,
            entry_id,
            since,
        } => format!(
            "entry {entry_id} of {}, made at {} and not delivered yet: see that workers run",
            visible(stream),
            time(*since)
        ),
        Holder::Backlog { stream, entries } => format!(
            "{} entries of {} that are not acknowledged: let workers catch up",
            grouped(*entries),
            visible(stream)
        ),
        Holder::Spool { spool, since } => format!(
            "spool {}, which holds entries from {} on: start its pipeline, or `passerby spool drain`",
            visible(spool),
            time(*since)
        ),
        Holder::UnnamedStream { stream } => format!(
            "stream {}, which --shards does not name: give the workers' --shards",
            visible(stream)
        ),
    }
}
