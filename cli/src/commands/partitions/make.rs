//! `passerby partitions ensure` and `repair`: make partitions.

use std::{collections::BTreeSet, time::Duration};

use chrono::NaiveDate;
use clap::Args;
use passerby_consumer::{
    args::DatabaseArgs,
    ops::{self, DayKept, PartitionsMade},
    store::DefaultDay,
};
use tokio_util::sync::CancellationToken;

use super::{days, open};
use crate::{
    commands::{Failure, confirm, output, stop_on_signal},
    render::{ProgressBars, counted, grouped},
};

/// Longest wait for the rows of one day to move.
const LIMIT: Duration = Duration::from_secs(600);

#[derive(Debug, Args)]
pub(super) struct EnsureArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// So many days after today.
    #[arg(long, value_name = "N", default_value = "7", value_parser = clap::value_parser!(u64).range(0..=366))]
    days_ahead: u64,
    /// Say which would be made, and make none.
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RepairArgs {
    /// Only these days, as 2026-11-27; also such that workers leave in the default partition.
    #[arg(value_name = "DAY")]
    days: Vec<NaiveDate>,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Leave days with more rows: while they move nobody can use the default partition, and queries that do not
    /// name a span of time wait. A million takes some seconds.
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = clap::value_parser!(i64).range(1..))]
    max_rows: i64,
    /// Say what would move, and move nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn ensure(args: EnsureArgs) -> Result<(), Failure> {
    let mut store = open(&args.database).await?;
    let wanted = ops::days_ahead(args.days_ahead);
    let report = if args.dry_run {
        let found = store.partitions(false).await.map_err(Failure::store)?;
        let there: BTreeSet<NaiveDate> = found.partitions.iter().filter_map(|p| p.day()).collect();
        let made: Vec<NaiveDate> = wanted
            .into_iter()
            .filter(|day| !there.contains(day))
            .collect();
        PartitionsMade {
            existing: args.days_ahead + 1 - made.len() as u64,
            made,
            ..PartitionsMade::default()
        }
    } else {
        let stop = CancellationToken::new();
        stop_on_signal(&stop);
        ops::make_partitions(&mut store, &wanted, LIMIT, &stop, |_| {})
            .await
            .map_err(Failure::ops)?
    };
    print(&report, args.dry_run, args.json)
}

pub(super) async fn repair(args: RepairArgs) -> Result<(), Failure> {
    let mut store = open(&args.database).await?;
    let found = store.partitions(true).await.map_err(Failure::store)?;
    let in_default = found.default.and_then(|default| default.days);
    let in_default = in_default.unwrap_or_default();
    let (wanted, left) = chosen(&args, &in_default);
    let n_rows: i64 = wanted.iter().map(|day| day.rows).sum();
    let wanted: Vec<NaiveDate> = wanted.iter().map(|day| day.day).collect();
    if args.dry_run || wanted.is_empty() {
        let report = PartitionsMade {
            made: wanted,
            rows_moved: n_rows.unsigned_abs(),
            existing: 0,
            failed: left,
        };
        return print(&report, true, args.json);
    }
    confirm(
        args.yes,
        &format!(
            "move {} out of the default partition: {}",
            counted(n_rows.unsigned_abs(), "row"),
            days(&wanted)
        ),
    )?;
    let stop = CancellationToken::new();
    stop_on_signal(&stop);
    let bars = if wanted.len() > 1 {
        ProgressBars::stderr()
    } else {
        ProgressBars::hidden()
    };
    let bar = bars.add("moved", n_rows.unsigned_abs());
    let mut report = ops::make_partitions(&mut store, &wanted, LIMIT, &stop, |report| {
        bar.update(report.rows_moved, report.rows_moved);
    })
    .await
    .map_err(Failure::ops)?;
    bars.clear();
    report.failed.extend(left);
    print(&report, false, args.json)
}

/// The days that are to move, and those that stay.
fn chosen(args: &RepairArgs, in_default: &[DefaultDay]) -> (Vec<DefaultDay>, Vec<DayKept>) {
    let keep = |day: &DefaultDay, why: &str| DayKept {
        day: day.day,
        rows: Some(day.rows),
        why: why.to_owned(),
    };
    let (mut wanted, mut left) = if args.days.is_empty() {
        let (wanted, ahead) = ops::within_policy(in_default);
        let why = "too far ahead, as from a camera with a wrong clock: name the day to move it";
        (wanted, ahead.iter().map(|day| keep(day, why)).collect())
    } else {
        let named = |day: &&DefaultDay| args.days.contains(&day.day);
        (
            in_default.iter().filter(named).copied().collect(),
            Vec::new(),
        )
    };
    wanted.retain(|day| {
        let is_too_large = day.rows > args.max_rows;
        if is_too_large {
            left.push(keep(
                day,
                "more rows than --max-rows: raise it in a quiet hour",
            ));
        }
        !is_too_large
    });
    (wanted, left)
}

fn print(report: &PartitionsMade, dry_run: bool, json: bool) -> Result<(), Failure> {
    if json {
        output::json(report);
    } else {
        let would = if dry_run { "would be " } else { "" };
        output::line(&format!(
            "{} {would}made, {} rows {would}moved into them; {} there before",
            counted(report.made.len() as u64, "partition"),
            grouped(report.rows_moved),
            grouped(report.existing),
        ));
        for day in &report.made {
            output::line(&format!("  {day}"));
        }
        if !report.failed.is_empty() {
            output::line("days that stay in the default partition:");
        }
        for kept in &report.failed {
            let rows = kept
                .rows
                .map(|rows| format!(" ({})", counted(rows.unsigned_abs(), "row")))
                .unwrap_or_default();
            output::line(&format!("  {}{rows}: {}", kept.day, kept.why));
        }
    }
    // What stays by policy was counted before; what could not be made was not.
    let n_failed = report
        .failed
        .iter()
        .filter(|day| day.rows.is_none())
        .count();
    if n_failed > 0 && !dry_run {
        return Err(Failure::new(format_args!(
            "{} could not be made",
            counted(n_failed as u64, "partition")
        )));
    }
    Ok(())
}
