//! `passerby claim`: takes pending entries over by hand.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use passerby_consumer::{
    ConsumerName,
    args::{DatabaseArgs, RedisArgs, parse_duration},
    ops::{self, ClaimFilter, ClaimReport},
    store::Store,
};
use passerby_shared::EntryId;

use super::{Failure, confirm, output, target};
use crate::{render::grouped, visible::visible};

/// Take pending entries over, and store them at once.
///
/// Workers do so by themselves when an entry's consumer has shown no sign of life for their min-idle.
/// Entries are stored exactly once, whoever else may still work on them.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  passerby claim --consumer gate-host-1f2e3d4c --min-idle 5m")]
pub(crate) struct ClaimArgs {
    /// Only these entries [default: all that match].
    #[arg(value_name = "ENTRY_ID")]
    ids: Vec<EntryId>,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Only those of this consumer.
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// Only those without a sign of life for so long.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    min_idle: Duration,
    /// Only those delivered so often.
    #[arg(long, value_name = "N", default_value = "1")]
    min_deliveries: u64,
    /// Hand them to this consumer instead of storing them now. It takes them up at its next start, or
    /// when they have been idle for its min-idle.
    #[arg(long, value_name = "NAME")]
    to: Option<ConsumerName>,
    /// At most so many of each stream.
    #[arg(long, value_name = "N", default_value = "10000", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Say how many match, and take none.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What is about to happen.
fn in_words(found: &ClaimReport, to: Option<&ConsumerName>) -> String {
    let from: Vec<_> = found
        .from
        .iter()
        .map(|from| visible(&from.consumer))
        .collect();
    let from = match from.len() {
        0..=3 => from.join(", "),
        n => format!("{} and {} more", from[..2].join(", "), n - 2),
    };
    let then = to.map_or_else(
        || "store them now".to_owned(),
        |to| format!("hand them to {to}"),
    );
    format!(
        "take {} entries over from {from} and {then}",
        grouped(found.matched as u64)
    )
}

/// Runs the command.
pub(crate) async fn run(args: ClaimArgs) -> Result<ExitCode, Failure> {
    let mut target = target(&args.redis)?;
    let filter = ClaimFilter {
        ids: args.ids,
        consumer: args.consumer,
        min_idle: args.min_idle,
        min_deliveries: args.min_deliveries,
        limit: args.limit as usize,
    };
    let found = ops::claim_dry_run(&mut target, &filter)
        .await
        .map_err(Failure::ops)?;
    if args.dry_run || found.matched == 0 {
        if args.json {
            output::json(&found);
        } else {
            output::line(&format!("{} entries match", grouped(found.matched as u64)));
            for from in &found.from {
                output::line(&format!(
                    "  {} with {} on {}",
                    grouped(from.n_entries as u64),
                    visible(&from.consumer),
                    visible(&from.stream)
                ));
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    confirm(args.yes, &in_words(&found, args.to.as_ref()))?;
    let report = match &args.to {
        Some(to) => ops::hand_over(&mut target, to, &filter).await,
        None => {
            let url = args.database.database_url().map_err(Failure::usage)?;
            let mut store = Store::connect(&url).await.map_err(Failure::store)?;
            store.check_schema().await.map_err(Failure::store)?;
            ops::claim(&mut target, &mut store, &filter).await
        }
    }
    .map_err(Failure::ops)?;
    if args.json {
        output::json(&report);
    } else if let Some(to) = &args.to {
        output::line(&format!(
            "{} of {} entries handed to {to}",
            report.claimed, report.matched
        ));
    } else {
        output::line(&format!(
            "{} of {} entries claimed: {} committed with {} rows and {} dead letters, {} stored before",
            grouped(report.claimed as u64),
            grouped(report.matched as u64),
            grouped(report.stored as u64),
            grouped(report.detections),
            grouped(report.dead_letters as u64),
            grouped(report.duplicates as u64),
        ));
    }
    Ok(ExitCode::SUCCESS)
}
