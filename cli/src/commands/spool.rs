//! `passerby spool`: what a producer keeps on disk, and sending it when its pipeline is gone.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Subcommand};
use passerby_consumer::args::{RedisUrlArgs, parse_duration};
use passerby_producer::{
    Health, Stats, TroubleKind,
    spool::{DamagedPart, Drain, Inspection, SpoolError, inspect},
};
use passerby_shared::ErrorChain;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Failure, confirm, output, stop_on_signal};
use crate::{
    render::{Cell, Column, Output, ProgressBars, bytes, counted, grouped},
    visible::visible,
};

/// How often progress is shown.
const POLL: Duration = Duration::from_millis(100);

/// Look at what a producer keeps on disk, and send it when its pipeline is gone.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  passerby spool inspect /var/lib/gate/spool")]
pub(crate) struct SpoolArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show what is in a spool; also while a pipeline uses it.
    #[command(after_help = "Example:\n  passerby spool inspect /var/lib/gate/spool")]
    Inspect(InspectArgs),
    /// Send what is in a spool, whose pipeline is gone for good or for long.
    ///
    /// Entries go to the streams they were made for, in order and with the keys they have. Safe to
    /// interrupt and to repeat: what was sent twice is stored once. A pipeline that is started anew does
    /// the same by itself. Fails when part of the spool cannot be read, and says which file has it:
    /// move it away by hand when nobody needs it any more.
    #[command(after_help = "Example:\n  passerby spool drain /var/lib/gate/spool --dry-run")]
    Drain(DrainArgs),
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// The spool's directory.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DrainArgs {
    /// The spool's directory.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    redis: RedisUrlArgs,
    /// Give up when Redis has taken nothing for so long.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    patience: Duration,
    /// Say how much there is, and send nothing.
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
pub(crate) async fn run(args: SpoolArgs) -> Result<ExitCode, Failure> {
    match args.what {
        What::Inspect(args) => show(&args),
        What::Drain(args) => drain(&args).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

fn look(dir: &Path) -> Result<Inspection, Failure> {
    inspect(dir).map_err(|error| Failure::new(ErrorChain(&error)))
}

const COLUMNS: &[Column] = &[
    Column::text("stream"),
    Column::text("kind"),
    Column::number("entries"),
    Column::number("rows"),
];

fn show(args: &InspectArgs) -> Result<(), Failure> {
    let found = look(&args.dir)?;
    if args.json {
        output::json(&found);
        return Ok(());
    }
    for line in headlines(&found) {
        output::line(&line);
    }
    if !found.waiting.is_empty() {
        output::line("");
        let count = |n: u64| Cell::Count(i64::try_from(n).unwrap_or(i64::MAX));
        let rows = found.waiting.iter().map(|waiting| {
            vec![
                Cell::Text(waiting.stream.clone()),
                Cell::from(waiting.kind),
                count(waiting.entries),
                count(waiting.rows),
            ]
        });
        output::table(COLUMNS, Output::Table, rows);
    }
    Ok(())
}

fn headlines(found: &Inspection) -> Vec<String> {
    let mut lines = vec![format!("{} to be sent", rows_wait(waiting(found)))];
    lines.push(format!(
        "  {} of the log in {} and {}, {} of payload",
        counted(found.rows, "row"),
        counted(found.frames, "frame"),
        counted(found.segments, "segment"),
        bytes(found.payload_bytes),
    ));
    lines.push(format!(
        "  {} of the buffer, in no frame yet",
        counted(found.ring.total(), "row")
    ));
    if let (Some(oldest), Some(newest)) = (found.oldest_at, found.newest_at) {
        let time = |time: chrono::DateTime<chrono::Utc>| time.format("%Y-%m-%d %H:%M:%S");
        lines.push(format!("  from {} to {} (UTC)", time(oldest), time(newest)));
    }
    lines.push(format!(
        "{} on disk, for {} of `{}`",
        bytes(found.disk_bytes),
        counted(u64::from(found.shards), "shard"),
        visible(&found.key_prefix)
    ));
    lines.push(match found.held_by {
        None => "in use by nobody".to_owned(),
        Some(0) => "in use".to_owned(),
        Some(pid) => format!("in use by process {pid}"),
    });
    if found.is_abandoned {
        lines.push("abandoned: its disk failed, and its pipeline went on in memory".to_owned());
    }
    lines.extend(found.damaged.iter().map(damaged));
    lines
}

fn damaged(part: &DamagedPart) -> String {
    format!(
        "damaged: {} at offset {} of {}",
        bytes(part.bytes),
        grouped(part.offset),
        visible(&part.file.to_string_lossy())
    )
}

/// `1 row waits`, `2 rows wait`.
fn rows_wait(n: u64) -> String {
    let waits = if n == 1 { "waits" } else { "wait" };
    format!("{} {waits}", counted(n, "row"))
}

fn waiting(found: &Inspection) -> u64 {
    found.rows + found.ring.total()
}

/// What was sent and what is left.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Drained {
    /// Rows that waited.
    rows: u64,
    /// Entries that were sent.
    entries_sent: u64,
    /// Rows in them.
    rows_sent: u64,
    /// Rows that are still in the spool.
    rows_left: u64,
    /// Rows that could not be read, as far as they had been counted before.
    rows_damaged: u64,
    /// Parts of the spool that cannot be read, and nobody can tell how many rows they hold.
    parts_damaged: usize,
}

impl Drained {
    /// Nothing was sent: there is nothing, or somebody only asks.
    fn nothing(n_rows: u64, found: &Inspection) -> Self {
        Self {
            rows: n_rows,
            entries_sent: 0,
            rows_sent: 0,
            rows_left: n_rows,
            rows_damaged: 0,
            parts_damaged: found.damaged.len(),
        }
    }

    fn new(stats: &Stats, found: &Inspection) -> Self {
        let rows = stats.rows();
        Self {
            rows: rows.recovered,
            entries_sent: stats.entries_published,
            rows_sent: rows.published,
            rows_left: rows.spooled,
            rows_damaged: rows.dropped_spool_damaged,
            parts_damaged: found.damaged.len(),
        }
    }
}

async fn drain(args: &DrainArgs) -> Result<(), Failure> {
    let found = look(&args.dir)?;
    let n_rows = waiting(&found);
    if args.dry_run || n_rows == 0 {
        if args.json {
            output::json(&Drained::nothing(n_rows, &found));
        } else {
            output::line(&format!("{} to be sent", rows_wait(n_rows)));
            for part in &found.damaged {
                output::line(&damaged(part));
            }
        }
        return if args.dry_run {
            Ok(())
        } else {
            all_was_read(&found, 0)
        };
    }
    let url = args.redis.redis_url().map_err(Failure::usage)?;
    if let Some(pid) = found.held_by {
        let pid = (pid != 0).then_some(pid);
        let dir = args.dir.clone();
        return Err(Failure::new(SpoolError::InUse { dir, pid }));
    }
    confirm(
        args.yes,
        &format!("send {} to {url}", counted(n_rows, "row")),
    )?;
    let drain = Drain::start(&args.dir, url).map_err(|error| Failure::new(ErrorChain(&error)))?;
    let ended = send(&drain, n_rows, args.patience).await;
    let stats = drain.close().await.map_err(Failure::new)?;
    // What was met is kept aside by now.
    let found = look(&args.dir)?;
    let drained = Drained::new(&stats, &found);
    if args.json {
        output::json(&drained);
    } else {
        output::line(&format!(
            "{} of {} sent in {} entries, {} left",
            grouped(drained.rows_sent),
            counted(drained.rows, "row"),
            grouped(drained.entries_sent),
            grouped(drained.rows_left),
        ));
    }
    ended?;
    all_was_read(&found, drained.rows_damaged)
}

/// Fails when rows were met that cannot be read, or parts of the spool of which nobody can tell how many rows
/// they hold.
fn all_was_read(found: &Inspection, rows_damaged: u64) -> Result<(), Failure> {
    let parts = &found.damaged;
    let n_parts = counted(parts.len() as u64, "part");
    let unread = match (rows_damaged, parts.len()) {
        (0, 0) => return Ok(()),
        (0, _) => n_parts,
        (n, 0) => counted(n, "row"),
        (n, _) => format!("{} in {n_parts}", counted(n, "row")),
    };
    let files = match &parts[..] {
        [] => visible(&found.dir.to_string_lossy()).into_owned(),
        [part] => visible(&part.file.to_string_lossy()).into_owned(),
        [part, others @ ..] => format!(
            "{} and {} more",
            visible(&part.file.to_string_lossy()),
            others.len()
        ),
    };
    Err(Failure::new(format_args!(
        "{unread} of the spool could not be read: see {files}, and move it away when nobody needs it any more"
    )))
}

/// Waits until everything has been sent, as long as something is.
async fn send(drain: &Drain, n_rows: u64, patience: Duration) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    stop_on_signal(&stop);
    let bars = ProgressBars::stderr();
    let progress = bars.add("sent", n_rows);
    let (mut n_sent, mut sent_at) = (0, Instant::now());
    while drain.wait(POLL).await.is_err() {
        let now_sent = drain.stats().rows().published;
        if now_sent > n_sent {
            (n_sent, sent_at) = (now_sent, Instant::now());
        }
        progress.update(n_sent, n_sent);
        if stop.is_cancelled() {
            bars.clear();
            return Err(Failure::new("interrupted: what is left stays in the spool"));
        }
        if let Health::Trouble(trouble) = drain.health() {
            let is_hopeless = matches!(trouble.kind, TroubleKind::Refused | TroubleKind::Spool);
            if is_hopeless || sent_at.elapsed() >= patience {
                bars.clear();
                return Err(Failure::new(format_args!(
                    "{}; what is left stays in the spool",
                    trouble.error
                )));
            }
        }
    }
    progress.update(n_rows, n_rows);
    progress.finish();
    Ok(())
}
