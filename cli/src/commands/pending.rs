//! `passerby pending`: what is delivered and not yet acknowledged.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use passerby_consumer::{
    args::{RedisArgs, parse_duration},
    ops::{self, PendingEntry, PendingFilter},
};

use super::{Failure, output, target};
use crate::{
    render::{Cell, Column, Output, grouped},
    visible::visible,
};

/// List entries that were delivered and not acknowledged yet.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  passerby pending --min-idle 1m")]
pub(crate) struct PendingArgs {
    #[command(flatten)]
    redis: RedisArgs,
    /// Only those of this consumer.
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// Only those without a sign of life for so long.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    min_idle: Duration,
    /// At most so many of each stream.
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print the whole as JSON.
    #[arg(long)]
    json: bool,
}

const COLUMNS: &[Column] = &[
    Column::text("entry_id"),
    Column::text("stream"),
    Column::text("consumer"),
    Column::number("idle_ms"),
    Column::number("delivery_count"),
];

/// Runs the command.
pub(crate) async fn run(args: PendingArgs) -> Result<ExitCode, Failure> {
    let mut target = target(&args.redis)?;
    let filter = PendingFilter {
        consumer: args.consumer,
        min_idle: args.min_idle,
        limit: args.limit as usize,
    };
    let report = ops::pending(&mut target, &filter)
        .await
        .map_err(Failure::ops)?;
    if args.json {
        output::json(&report);
        return Ok(ExitCode::SUCCESS);
    }
    output::line(&format!("{} pending", grouped(report.total)));
    if report.undelivered > 0 {
        let about = if report.undelivered_is_exact {
            ""
        } else {
            "about "
        };
        output::line(&format!(
            "{about}{} more not read by any worker yet",
            grouped(report.undelivered)
        ));
    }
    for held in &report.consumers {
        let count = grouped(held.n_entries);
        output::line(&format!(
            "  {count} with {} on {}",
            visible(&held.consumer),
            visible(&held.stream)
        ));
    }
    if report.total > 0 {
        output::table(COLUMNS, Output::Table, report.entries.iter().map(cells));
        let shown = report.entries.len() as u64;
        if shown < report.total {
            output::line(&format!("{shown} shown of {}", grouped(report.total)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn cells(entry: &PendingEntry) -> Vec<Cell> {
    vec![
        Cell::Text(entry.entry_id.to_string()),
        Cell::Text(entry.stream.clone()),
        Cell::Text(entry.consumer.clone()),
        Cell::Span(Duration::from_millis(entry.idle_ms)),
        Cell::Count(i64::try_from(entry.delivery_count).unwrap_or(i64::MAX)),
    ]
}
