//! `passerby dead-letters requeue`: puts letters back into their streams.

use std::time::Duration;

use clap::Args;
use passerby_consumer::{
    args::{DatabaseArgs, RedisArgs, parse_duration},
    ops::{self, RequeueLimits, RequeueReport, Stopped},
    store::{DeadLetterCount, LetterState},
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{filter::FilterArgs, list::write_counts, open};
use crate::{
    commands::{Failure, confirm, output, stop_on_signal, target},
    render::{Output, ProgressBars, counted, grouped},
};

#[derive(Debug, Args)]
pub(super) struct RequeueArgs {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
    /// At most so many [default: all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    limit: Option<i64>,
    /// Add nothing while so many entries are not acknowledged.
    #[arg(long, value_name = "N", default_value = "5000", value_parser = clap::value_parser!(u64).range(1..))]
    max_backlog: u64,
    /// Stop when the backlog has not become smaller for so long.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    patience: Duration,
    /// Say how many match, by reason, and put none back.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Requeued {
    #[serde(flatten)]
    report: RequeueReport,
    /// Of a dry run: the letters that match.
    by_reason: Option<Vec<DeadLetterCount>>,
}

pub(super) async fn requeue(args: RequeueArgs) -> Result<(), Failure> {
    let mut store = open(&args.database).await?;
    let mut target = target(&args.redis)?;
    let mut filter = args.filter.filter(args.limit.unwrap_or(i64::MAX));
    // What was put back or discarded is left alone unless somebody names it.
    if filter.state.is_none() && !args.filter.are_named() {
        filter.state = Some(LetterState::Waiting);
    }
    let found = ops::requeue_dry_run(&target, &mut store, &filter)
        .await
        .map_err(Failure::ops)?;
    args.filter.check_named(found.matched)?;
    if args.dry_run || found.matched == 0 {
        let by_reason = store
            .count_dead_letters(&filter)
            .await
            .map_err(Failure::store)?;
        print_found(found, by_reason, args.json);
        return Ok(());
    }
    let n_meant = (found.matched - found.doubtful - found.empty - found.elsewhere) as u64;
    if n_meant == 0 {
        return print_done(&found, args.json);
    }
    confirm(
        args.yes,
        &format!(
            "put {} back into the stream{}",
            counted(n_meant, "dead letter"),
            left_alone(&found)
        ),
    )?;
    let limits = RequeueLimits {
        max_backlog: args.max_backlog,
        patience: args.patience,
        ..RequeueLimits::default()
    };
    let stop = CancellationToken::new();
    stop_on_signal(&stop);
    let bars = if found.matched > 1_000 {
        ProgressBars::stderr()
    } else {
        ProgressBars::hidden()
    };
    let progress = bars.add("put back", found.matched as u64);
    let mut so_far = RequeueReport::default();
    let done = ops::requeue(&mut target, &mut store, &filter, &limits, &stop, |report| {
        progress.update(report.matched as u64, report.requeued as u64);
        so_far.clone_from(report);
    })
    .await;
    bars.clear();
    match done {
        Ok(report) => print_done(&report, args.json),
        Err(error) => {
            if so_far.requeued > 0 {
                output::warning(&format!(
                    "{} were put back before this; to repeat the command is safe",
                    counted(so_far.requeued as u64, "dead letter")
                ));
            }
            Err(Failure::ops(error))
        }
    }
}

fn print_found(report: RequeueReport, by_reason: Vec<DeadLetterCount>, json: bool) {
    if json {
        return output::json(&Requeued {
            report,
            by_reason: Some(by_reason),
        });
    }
    let verb = if report.matched == 1 {
        "matches"
    } else {
        "match"
    };
    output::line(&format!(
        "{} {verb}{}",
        counted(report.matched as u64, "dead letter"),
        left_alone(&report)
    ));
    if !by_reason.is_empty() {
        write_counts(&by_reason, Output::Table);
    }
}

fn print_done(report: &RequeueReport, json: bool) -> Result<(), Failure> {
    if json {
        output::json(&Requeued {
            report: report.clone(),
            by_reason: None,
        });
    } else {
        output::line(&format!(
            "{} of {} put back{}",
            grouped(report.requeued as u64),
            counted(report.matched as u64, "dead letter"),
            left_alone(report),
        ));
    }
    let why = match &report.stopped {
        None => return Ok(()),
        Some(Stopped::Interrupted) => "interrupted".to_owned(),
        Some(Stopped::Backlog { entries }) => format!(
            "stopped: {} entries are not acknowledged, and do not become fewer: see that workers run, \
             or raise --max-backlog",
            grouped(*entries)
        ),
        Some(Stopped::Memory { percent }) => format!(
            "stopped: Redis has used {percent} % of its maxmemory: wait until workers have stored what is \
             there and its time of grace is over"
        ),
    };
    Err(Failure::new(format_args!(
        "{why}; the other letters wait: to repeat the command is safe"
    )))
}

/// Which letters are not put back, and why.
fn left_alone(report: &RequeueReport) -> String {
    let mut text = String::new();
    if report.empty > 0 {
        text.push_str(&format!("; {} hold nothing to put back", report.empty));
    }
    if report.doubtful > 0 {
        text.push_str(&format!(
            "; {} are too old to tell whether they were stored: look for their rows, then name them by \
             number or with --reason too-old",
            report.doubtful
        ));
    }
    if report.elsewhere > 0 {
        text.push_str(&format!(
            "; {} are of streams that --key-prefix and --shards do not name: see who reads those, then name \
             one with --stream",
            report.elsewhere
        ));
    }
    text
}
