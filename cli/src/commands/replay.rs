//! `passerby replay`: stores again what is still in the streams.

use std::process::ExitCode;

use clap::Args;
use passerby_consumer::{
    args::{DatabaseArgs, RedisArgs},
    ops::{self, Destination, Gap, ReplayFilter, ReplayReport, StreamWindow},
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Failure, confirm, output, span::Span, stop_on_signal, target};
use crate::{
    render::{ProgressBars, counted, grouped},
    visible::visible,
};

/// Store again what is still in the streams: after Postgres was restored or failed over, or to compare.
///
/// Stored entries stay in their stream for the workers' --trim-grace. Those that were added in the span of time
/// go through the same decoding and commit as a worker's; the ledger knows what is stored already, so nothing is
/// stored twice, and to repeat the command is safe. Entries that are pending or not delivered yet are left to
/// the workers. Entries from before the ledger's horizon that it does not know are counted and left alone.
///
/// With --camera-id and --session-id only entries with such rows are replayed, but those whole. --into writes
/// the matching detections, and no other rows, into a table of its own, all of them or none.
///
/// Times are those when an entry was added to its stream, by the clock of Redis. Exit code 1 when part of the
/// span of time was trimmed already, unless --allow-gap.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  passerby replay --from 2026-11-27T05:40:00Z --dry-run\n  \
                  passerby replay --last 10m --camera-id gate-1 --into gate_1_again --create"
)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    span: Span,
    /// Only entries with a row of this camera.
    #[arg(long, alias = "camera", value_name = "ID")]
    camera_id: Option<String>,
    /// Only entries with a row of this session.
    #[arg(long, alias = "session", value_name = "ID")]
    session_id: Option<String>,
    /// Replay the dead letters of the span of time that wait, instead of the streams.
    ///
    /// As `dead-letters requeue`, without Redis: each is stored once, whichever is used, or both.
    #[arg(long)]
    from_dead_letters: bool,
    /// Write the detections that match into this table, which has the columns of `detections` and is empty.
    #[arg(long, value_name = "TABLE")]
    into: Option<String>,
    /// Make the table.
    #[arg(long, requires = "into")]
    create: bool,
    /// Exit code 0 also when part of the span of time was trimmed already.
    #[arg(long)]
    allow_gap: bool,
    /// Ask the ledger what would be stored, and store nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What was replayed, and of what.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Replayed {
    /// What of the span of time is in the streams.
    streams: Vec<StreamWindow>,
    /// Nothing was stored.
    dry_run: bool,
    /// The table that was written.
    into: Option<String>,
    #[serde(flatten)]
    report: ReplayReport,
}

/// Runs the command.
pub(crate) async fn run(args: ReplayArgs) -> Result<ExitCode, Failure> {
    let url = args.database.database_url().map_err(Failure::usage)?;
    let filter = ReplayFilter {
        from: args.span.start(),
        to: args.span.end(),
        camera_id: args.camera_id.clone(),
        session_id: args.session_id.clone(),
    };
    let destination = match &args.into {
        _ if args.dry_run => Destination::DryRun,
        Some(name) => Destination::Table {
            name: name.clone(),
            create: args.create,
        },
        None => Destination::Main,
    };
    let stop = CancellationToken::new();
    let bars = ProgressBars::stderr();
    let (windows, done) = if args.from_dead_letters {
        ask(&args, "replay the dead letters that match")?;
        stop_on_signal(&stop);
        let progress = |_, _: &ReplayReport| {};
        let done = ops::replay_dead_letters(&url, &filter, &destination, &stop, progress).await;
        (Vec::new(), done)
    } else {
        let mut target = target(&args.redis)?;
        let windows = ops::replay_windows(&mut target, &filter)
            .await
            .map_err(Failure::ops)?;
        for gap in windows.iter().filter_map(|window| window.gap.as_ref()) {
            output::warning(&format!("warning: {}", missing(gap)));
        }
        let most: u64 = windows.iter().map(|window| window.entries_in_stream).sum();
        ask(
            &args,
            &format!(
                "replay what matches of {} in {}",
                entries(most),
                counted(windows.len() as u64, "stream")
            ),
        )?;
        stop_on_signal(&stop);
        let bar = bars.add("replayed", windows.iter().map(StreamWindow::ms).sum());
        let done = ops::replay(
            &mut target,
            &url,
            &filter,
            &destination,
            &stop,
            |ms, report| {
                bar.update(ms, report.detections);
            },
        )
        .await;
        (windows, done)
    };
    bars.clear();
    let report = done.map_err(Failure::ops)?;
    if args.json {
        output::json(&Replayed {
            streams: windows,
            dry_run: args.dry_run,
            into: args.into.clone(),
            report: report.clone(),
        });
    } else {
        lines(&args, &report)
            .iter()
            .for_each(|line| output::line(line));
    }
    if report.interrupted {
        return Err(Failure::new(match destination {
            Destination::Table { .. } => "interrupted: nothing was written to the table",
            _ => "interrupted: to repeat the command is safe",
        }));
    }
    match report.gaps.first() {
        Some(gap) if !args.allow_gap => Err(Failure::new(format_args!(
            "{}; what was lost with it is in no stream any more: see what producers' spools and backups have, \
             or add --allow-gap",
            missing(gap)
        ))),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn ask(args: &ReplayArgs, what: &str) -> Result<(), Failure> {
    let what = match &args.into {
        Some(table) => format!("{what} into table {}", visible(table)),
        None => what.to_owned(),
    };
    confirm(args.yes || args.dry_run, &what)
}

fn entries(n: u64) -> String {
    format!(
        "{} {}",
        grouped(n),
        if n == 1 { "entry" } else { "entries" }
    )
}

fn missing(gap: &Gap) -> String {
    format!(
        "entries from {} to {} may have been trimmed from {} already",
        gap.from.format("%Y-%m-%d %H:%M:%S%.3f"),
        gap.to.format("%Y-%m-%d %H:%M:%S%.3f"),
        visible(&gap.stream)
    )
}

/// What became of what was found, a line for each that there is of.
fn lines(args: &ReplayArgs, report: &ReplayReport) -> Vec<String> {
    let what = if args.from_dead_letters {
        "dead letters found"
    } else {
        "entries found"
    };
    let replayed = match (&args.into, args.dry_run) {
        (Some(table), false) => format!(
            "written to {}, with {}",
            visible(table),
            counted(report.detections, "detection")
        ),
        (_, true) => format!(
            "would be stored, with {}",
            counted(report.detections, "detection")
        ),
        (None, false) => format!(
            "stored now, with {}, {} and {}",
            counted(report.detections, "detection"),
            counted(report.tracks, "track"),
            counted(report.dead_letters, "dead letter"),
        ),
    };
    let known = if args.into.is_some() && !args.dry_run {
        "written before in this run"
    } else {
        "stored before: the ledger knows them"
    };
    let bad = if args.into.is_some() && !args.dry_run {
        report.dead_letters
    } else {
        0
    };
    let rest = [
        (report.known, known),
        (report.not_matching, "without rows that match"),
        (
            report.other_kinds,
            "of tracks or sessions: not for this table",
        ),
        (bad, "rows or entries that cannot be read"),
        (
            report.too_old,
            "older than the ledger's horizon and not in it: nobody can tell whether they were stored",
        ),
        (report.pending, "pending: left to the workers"),
    ];
    let mut lines = vec![
        format!("{:>12}  {what}", grouped(report.found)),
        format!("{:>12}  {replayed}", grouped(report.replayed)),
    ];
    lines.extend(
        rest.iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| format!("{:>12}  {what}", grouped(*n))),
    );
    if report.undelivered > 0 {
        lines.push(format!(
            "{:>12}  others not delivered yet: left to the workers",
            grouped(report.undelivered)
        ));
    }
    lines
}
