//! `passerby partitions drop`: whole days, for good.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use clap::Args;
use passerby_consumer::{
    args::{DatabaseArgs, parse_duration},
    ops,
    store::Partition,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::open;
use crate::{
    commands::{Failure, confirm, output, stop_on_signal},
    render::{bytes, counted, grouped},
};

#[derive(Debug, Args)]
pub(super) struct DropArgs {
    /// These days, as 2026-08-01.
    #[arg(value_name = "DAY", required_unless_present = "older_than")]
    days: Vec<NaiveDate>,
    #[command(flatten)]
    database: DatabaseArgs,
    /// All days that ended so long ago, and such rows of the default partition.
    #[arg(long, value_name = "TIME", conflicts_with = "days", value_parser = parse_duration)]
    older_than: Option<Duration>,
    /// Say what would be dropped, and drop nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn drop(args: DropArgs) -> Result<(), Failure> {
    let mut store = open(&args.database).await?;
    // Whole days, in the default partition too.
    let before: Option<DateTime<Utc>> = args.older_than.map(|age| {
        let day = (Utc::now() - age).date_naive();
        day.and_time(NaiveTime::MIN).and_utc()
    });
    let found = store
        .partitions(before.is_some())
        .await
        .map_err(Failure::store)?;
    let goes = |partition: &&Partition| match before {
        Some(before) => partition.to.is_some_and(|to| to <= before),
        None => partition.day().is_some_and(|day| args.days.contains(&day)),
    };
    let partitions: Vec<&Partition> = found.partitions.iter().filter(goes).collect();
    // What an earlier drop has taken out of the table and did not get to is dropped, too.
    let left = store.detached_partitions().await.map_err(Failure::store)?;
    for day in &args.days {
        let is_there = partitions.iter().any(|p| p.day() == Some(*day));
        if !is_there && !left.is_empty() {
            // What was left is not called after its day any more.
            output::warning(&format!(
                "there is no partition of {day}, unless it is among what an earlier drop left"
            ));
        } else if !is_there {
            return Err(Failure::new(format_args!(
                "there is no partition of {day}: `passerby partitions list` shows what there is; nothing \
                 was dropped"
            )));
        }
    }
    let old_in_default: i64 = before.map_or(0, |before| {
        let days = found.default.iter().flat_map(|d| d.days.iter().flatten());
        days.filter(|day| day.day < before.date_naive())
            .map(|day| day.rows)
            .sum()
    });
    let n_rows: i64 = partitions.iter().map(|p| p.rows_estimate).sum();
    let n_bytes: i64 = partitions.iter().map(|p| p.bytes + p.index_bytes).sum();
    let names: Vec<String> = partitions.iter().map(|p| p.name.clone()).collect();
    if args.dry_run || (names.is_empty() && old_in_default == 0 && left.is_empty()) {
        if args.json {
            output::json(&json!({
                "dropped": names, "rows": n_rows, "rows_of_default": old_in_default, "in_use": [],
                "detached": left,
            }));
        } else {
            output::line(&format!(
                "{} would be dropped, with about {} and {}",
                counted(names.len() as u64, "partition"),
                counted(n_rows.unsigned_abs(), "row"),
                bytes(n_bytes.unsigned_abs())
            ));
            list(&partitions).iter().for_each(|line| output::line(line));
            if !left.is_empty() {
                output::line(&format!(
                    "what an earlier drop left would be dropped, too: {}",
                    left.join(", ")
                ));
            }
            if old_in_default > 0 {
                output::line(&format!(
                    "{} of the default partition would be deleted",
                    counted(old_in_default.unsigned_abs(), "row")
                ));
            }
        }
        return Ok(());
    }
    if !args.yes {
        list(&partitions)
            .iter()
            .for_each(|line| output::warning(line));
    }
    confirm(
        args.yes,
        &format!(
            "drop {} with about {} and {} for good{}",
            counted(names.len() as u64, "partition"),
            counted(n_rows.unsigned_abs(), "row"),
            bytes(n_bytes.unsigned_abs()),
            [
                (!left.is_empty())
                    .then(|| format!(", and what an earlier drop left: {}", left.join(", "))),
                (old_in_default > 0).then(|| {
                    format!(
                        ", and delete {} of the default partition",
                        counted(old_in_default.unsigned_abs(), "row")
                    )
                }),
            ]
            .into_iter()
            .flatten()
            .collect::<String>()
        ),
    )?;
    let stop = CancellationToken::new();
    stop_on_signal(&stop);
    let report = ops::drop_partitions(&mut store, &names, before, &stop)
        .await
        .map_err(Failure::ops)?;
    if args.json {
        output::json(&report);
    } else {
        output::line(&format!(
            "{} dropped with {}{}",
            counted(report.dropped.len() as u64, "partition"),
            counted(report.rows, "row"),
            if report.rows_of_default > 0 {
                format!(
                    ", {} deleted from the default partition",
                    grouped(report.rows_of_default)
                )
            } else {
                String::new()
            }
        ));
    }
    if !report.detached.is_empty() {
        output::warning(&format!(
            "taken out of detections and not dropped yet: {}; a worker drops them within ten minutes, or the next \
             `passerby partitions drop`",
            report.detached.join(", ")
        ));
    }
    if !report.in_use.is_empty() {
        return Err(Failure::new(format_args!(
            "{} in use and kept: {}; see who holds them in pg_stat_activity, or try again later",
            counted(report.in_use.len() as u64, "partition"),
            report.in_use.join(", ")
        )));
    }
    if stop.is_cancelled() {
        return Err(Failure::new("interrupted: the other partitions are kept"));
    }
    Ok(())
}

fn list(partitions: &[&Partition]) -> Vec<String> {
    partitions
        .iter()
        .map(|p| {
            format!(
                "  {}  about {}, {}",
                p.name,
                counted(p.rows_estimate.unsigned_abs(), "row"),
                bytes((p.bytes + p.index_bytes).unsigned_abs())
            )
        })
        .collect()
}
