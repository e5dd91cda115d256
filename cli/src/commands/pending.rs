//! `passerby pending`: what is delivered and not yet acknowledged.

use std::{process::ExitCode, time::Duration};

use clap::{Args, ValueEnum};
use passerby_consumer::{
    args::{RedisArgs, parse_duration},
    ops::{
        self, ConsumerPending, DecodedEntry, PendingCount, PendingEntry, PendingFilter,
        PendingGroup, PendingReport,
    },
};

use super::{Failure, output, target};
use crate::{
    render::{Cell, Column, Output, duration, grouped},
    visible::visible,
};

/// List entries that were delivered and not acknowledged yet.
///
/// First who holds how many, then the entries, oldest first. An entry that was delivered again and again is
/// perhaps what ends its workers: look at what is in it with --decode.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  passerby pending --min-idle 1m --decode\n  passerby pending --by deliveries"
)]
pub(crate) struct PendingArgs {
    #[command(flatten)]
    redis: RedisArgs,
    /// Only those of this consumer.
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// Only those without a sign of life for so long.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    min_idle: Duration,
    /// Only those that were added so long ago.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    min_age: Duration,
    /// Only those delivered so often.
    #[arg(long, value_name = "N", default_value = "1")]
    min_deliveries: u64,
    /// Count those that match instead of listing them.
    #[arg(long, value_name = "WHAT", conflicts_with = "decode")]
    by: Option<By>,
    /// At most so many of each stream.
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Say what is in them: rows, cameras, sessions, times. Of the first 1000.
    #[arg(long)]
    decode: bool,
    /// Print the whole as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum By {
    /// Who holds them.
    Consumer,
    /// How often they were delivered.
    Deliveries,
    /// How long ago they were added.
    Age,
    /// For how long there has been no sign of life.
    Idle,
}

impl From<By> for PendingGroup {
    fn from(by: By) -> Self {
        match by {
            By::Consumer => Self::Consumer,
            By::Deliveries => Self::Deliveries,
            By::Age => Self::Age,
            By::Idle => Self::Idle,
        }
    }
}

/// Runs the command.
pub(crate) async fn run(args: PendingArgs) -> Result<ExitCode, Failure> {
    let mut target = target(&args.redis)?;
    let filter = PendingFilter {
        consumer: args.consumer,
        min_idle: args.min_idle,
        min_age: args.min_age,
        min_deliveries: args.min_deliveries,
        limit: args.limit as usize,
        decode: args.decode,
        by: args.by.map(PendingGroup::from),
    };
    let report = ops::pending(&mut target, &filter)
        .await
        .map_err(Failure::ops)?;
    if args.json {
        output::json(&report);
        return Ok(ExitCode::SUCCESS);
    }
    print_summary(&report);
    match args.by {
        Some(by) => print_groups(&report, by),
        None => print_entries(&report, args.decode),
    }
    if report.is_cut {
        output::warning(
            "there are too many pending entries to look at all of them: only the oldest 100,000 of a stream were",
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn print_summary(report: &PendingReport) {
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
        output::line(&format!("  {}", holder(held)));
    }
}

fn holder(held: &ConsumerPending) -> String {
    let oldest = held.oldest_entry_id.map_or_else(String::new, |_| {
        let age = duration(Duration::from_millis(held.oldest_age_ms));
        format!(", the oldest added {age} ago")
    });
    format!(
        "{} with {} on {}{oldest}",
        grouped(held.n_entries),
        visible(&held.consumer),
        visible(&held.stream)
    )
}

const BY_CONSUMER: &[Column] = &[
    Column::text("consumer"),
    Column::number("entries"),
    Column::text("oldest"),
];
const BY_DELIVERIES: &[Column] = &[
    Column::number("deliveries"),
    Column::number("entries"),
    Column::text("oldest"),
];
const BY_AGE: &[Column] = &[
    Column::text("age"),
    Column::number("entries"),
    Column::text("oldest"),
];
const BY_IDLE: &[Column] = &[
    Column::text("idle"),
    Column::number("entries"),
    Column::text("oldest"),
];

fn print_groups(report: &PendingReport, by: By) {
    if report.groups.is_empty() {
        return output::line("none of them match");
    }
    let columns = match by {
        By::Consumer => BY_CONSUMER,
        By::Deliveries => BY_DELIVERIES,
        By::Age => BY_AGE,
        By::Idle => BY_IDLE,
    };
    let cells = |group: &PendingCount| {
        vec![
            Cell::Text(group.of.clone()),
            Cell::Count(i64::try_from(group.n_entries).unwrap_or(i64::MAX)),
            Cell::Text(group.oldest_entry_id.to_string()),
        ]
    };
    output::table(columns, Output::Table, report.groups.iter().map(cells));
}

const COLUMNS: &[Column] = &[
    Column::text("entry_id"),
    Column::text("stream"),
    Column::text("consumer"),
    Column::number("age_ms"),
    Column::number("idle_ms"),
    Column::number("delivery_count"),
];

const DECODED_COLUMNS: &[Column] = &[
    Column::text("entry_id"),
    Column::text("consumer"),
    Column::number("idle_ms"),
    Column::number("delivery_count"),
    Column::number("rows"),
    Column::text("kind"),
    Column::text("camera"),
    Column::text("session"),
    Column::text("captured_from"),
    Column::text("to"),
    Column::text("problem"),
];

fn print_entries(report: &PendingReport, decode: bool) {
    if report.total == 0 {
        return;
    }
    if report.entries.is_empty() {
        return output::line("none of them match");
    }
    if decode {
        let rows = report.entries.iter().map(decoded_cells);
        output::table(DECODED_COLUMNS, Output::Table, rows);
    } else {
        output::table(COLUMNS, Output::Table, report.entries.iter().map(cells));
    }
    let shown = report.entries.len() as u64;
    if shown < report.total {
        output::line(&format!(
            "{} shown of {}",
            grouped(shown),
            grouped(report.total)
        ));
    }
}

fn cells(entry: &PendingEntry) -> Vec<Cell> {
    vec![
        Cell::Text(entry.entry_id.to_string()),
        Cell::Text(entry.stream.clone()),
        Cell::Text(entry.consumer.clone()),
        Cell::Span(Duration::from_millis(entry.age_ms)),
        Cell::Span(Duration::from_millis(entry.idle_ms)),
        count(entry.delivery_count),
    ]
}

fn count(n: u64) -> Cell {
    Cell::Count(i64::try_from(n).unwrap_or(i64::MAX))
}

fn decoded_cells(entry: &PendingEntry) -> Vec<Cell> {
    let decoded = entry.decoded.as_ref();
    let of = |cell: fn(&DecodedEntry) -> Cell| decoded.map_or(Cell::Absent, cell);
    vec![
        Cell::Text(entry.entry_id.to_string()),
        Cell::Text(entry.consumer.clone()),
        Cell::Span(Duration::from_millis(entry.idle_ms)),
        count(entry.delivery_count),
        of(|decoded| count(decoded.rows)),
        of(|decoded| Cell::from(decoded.kind)),
        of(|decoded| names(&decoded.camera_ids)),
        of(|decoded| names(&decoded.session_ids)),
        of(|decoded| decoded.first_captured_at.into()),
        of(|decoded| decoded.last_captured_at.into()),
        match decoded {
            Some(decoded) => decoded.problem.clone().into(),
            None if entry.is_gone => Cell::from("no longer in the stream"),
            None => Cell::Absent,
        },
    ]
}

fn names(names: &[String]) -> Cell {
    if names.is_empty() {
        Cell::Absent
    } else {
        Cell::Text(names.join(", "))
    }
}
