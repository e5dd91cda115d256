//! `passerby trim`: removes from the streams what every group has acknowledged.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use passerby_consumer::{
    args::{RedisArgs, parse_duration},
    ops::{self, HeldBy, TrimReport},
};

use super::{Failure, confirm, output, target};
use crate::{
    render::{duration, grouped},
    visible::visible,
};

/// Remove from the streams what every group has acknowledged, now.
///
/// Workers do so by themselves every few seconds. Never is an entry removed that a group has not been delivered
/// or not acknowledged; --dry-run says what holds the rest back. What is removed cannot be replayed from the
/// stream any more.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  passerby trim --dry-run\n  passerby trim --grace 1m --yes")]
pub(crate) struct TrimArgs {
    #[command(flatten)]
    redis: RedisArgs,
    /// Leave entries that were added less than so long ago, for replay.
    #[arg(long, env = "PASSERBY_TRIM_GRACE", value_name = "TIME", default_value = "15m",
          value_parser = parse_duration)]
    grace: Duration,
    /// Say what would be removed and what holds the rest back, and remove nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(args: TrimArgs) -> Result<ExitCode, Failure> {
    let mut target = target(&args.redis)?;
    let found = ops::trim_dry_run(&mut target, args.grace)
        .await
        .map_err(Failure::ops)?;
    let trimmable: u64 = found.iter().map(|stream| stream.trimmable).sum();
    let reports = if args.dry_run || trimmable == 0 {
        found
    } else {
        let about = if found.iter().all(|stream| stream.trimmable_is_exact) {
            ""
        } else {
            "about "
        };
        confirm(
            args.yes,
            &format!(
                "remove {about}{} acknowledged entries older than {}",
                grouped(trimmable),
                duration(args.grace)
            ),
        )?;
        ops::trim(&mut target, args.grace)
            .await
            .map_err(Failure::ops)?
    };
    if args.json {
        output::json(&reports);
        return Ok(ExitCode::SUCCESS);
    }
    for report in &reports {
        output::line(&in_words(report, args.dry_run, args.grace));
    }
    Ok(ExitCode::SUCCESS)
}

fn in_words(report: &TrimReport, dry_run: bool, grace: Duration) -> String {
    let removed = if dry_run {
        let about = if report.trimmable_is_exact {
            ""
        } else {
            "about "
        };
        format!("would remove {about}{}", grouped(report.trimmable))
    } else {
        format!("removed {}", grouped(report.trimmed))
    };
    let stream = visible(&report.stream);
    let why = why(report, grace);
    if matches!(report.held_by, HeldBy::NoStream) {
        return format!("{stream}: {why}");
    }
    format!(
        "{stream}: {removed} of {} entries; {why}",
        grouped(report.length)
    )
}

/// What holds the rest back.
fn why(report: &TrimReport, grace: Duration) -> String {
    let from = report.bound.map_or_else(String::new, |bound| {
        let age = duration(Duration::from_millis(report.bound_age_ms));
        format!("{bound}, added {age} ago")
    });
    match &report.held_by {
        HeldBy::NoStream => "there is no such stream".to_owned(),
        HeldBy::NoGroup => "no group reads it, so nothing may go".to_owned(),
        HeldBy::Grace => format!("the rest is younger than {}", duration(grace)),
        HeldBy::Undelivered { group } => format!(
            "the rest stays, as the group {} has come as far as {from}",
            visible(group)
        ),
        HeldBy::Pending {
            group,
            consumer,
            idle_ms,
            delivery_count,
        } => format!(
            "the rest stays, as {} of the group {} holds {from}, delivered {}, without a sign of life for {}",
            visible(consumer),
            visible(group),
            times(*delivery_count),
            duration(Duration::from_millis(*idle_ms)),
        ),
    }
}

/// `once`, `twice`, `3 times`.
pub(crate) fn times(n: u64) -> String {
    match n {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        n => format!("{} times", grouped(n)),
    }
}
