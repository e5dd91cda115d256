//! `passerby ingest`: reads recorded detections into Postgres, straight or through the stream.

pub(crate) mod job;
pub(crate) mod sink;
pub(crate) mod summary;

use std::{collections::VecDeque, path::PathBuf, process::ExitCode, time::Duration};

use chrono::{DateTime, Utc};
use clap::Args;
use passerby_consumer::{
    args::{DatabaseArgs, RedisArgs, parse_duration},
    store::Store,
};
use passerby_shared::redis_connection::{RedisLink, RedisTimeouts};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::{
    job::{Job, Watch},
    sink::{Sink, StreamSink},
    summary::{FileSummary, Outcome},
};
use super::{Failure, output, stop_on_signal};
use crate::{
    ingest::{FrameRate, LineError, Speed},
    render::{Progress, ProgressBars, counted, duration, grouped},
};

/// Bad lines printed one by one; the rest is counted.
const MAX_LINES_SHOWN: u64 = 20;

/// Read recorded detections from files.
///
/// Files are MOTChallenge text (`frame, track, left, top, width, height, confidence, …`) or NDJSON
/// with the column names of a detection; `-` is standard input. Without --db-enable they are parsed
/// and checked, and nothing is stored. Reading the same file into the same session again, also after
/// an interruption, stores nothing twice.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  passerby ingest gate-1.mot.txt --db-enable --fps 10 --start-time \
                        2026-11-22T08:00:00Z"
)]
pub(crate) struct IngestArgs {
    /// Files to read, one session each.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Store what is read in Postgres.
    #[arg(long)]
    db_enable: bool,
    /// Rows in one transaction.
    #[arg(long, value_name = "N", default_value = "5000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    db_batch_size: u32,
    /// Longest time rows wait for a batch to fill, in milliseconds.
    #[arg(long, value_name = "MS", default_value = "1000", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    db_flush_interval_ms: u64,
    /// Send rows through the Redis Stream, to be stored by workers, instead of straight to Postgres.
    #[arg(long, requires = "db_enable")]
    redis_enable: bool,
    /// With --redis-enable: how long to wait for workers while they store nothing.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    wait: Duration,
    /// Camera of lines that name none [default: the file's name up to its first dot].
    #[arg(long, value_name = "ID")]
    camera_id: Option<String>,
    /// Channel of lines that name none.
    #[arg(
        long,
        value_name = "N",
        default_value = "0",
        allow_negative_numbers = true
    )]
    channel_id: i32,
    /// Session of lines that name none [default: named after file and content].
    #[arg(long, value_name = "ID")]
    session_id: Option<String>,
    /// Frames a second, from which times are made: 25, 29.97, 30000/1001.
    #[arg(long, value_name = "RATE", default_value = "25")]
    fps: FrameRate,
    /// Time of the first frame, RFC 3339 [default: now].
    #[arg(long, value_name = "TIME")]
    start_time: Option<DateTime<Utc>>,
    /// How fast to replay: 1 is as recorded, 2 twice as fast, 0 as fast as possible.
    #[arg(long, value_name = "FACTOR", default_value = "0")]
    speed: Speed,
    /// Stop at the first bad line instead of skipping it.
    #[arg(long)]
    strict: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
}

/// Runs the command.
pub(crate) async fn run(args: IngestArgs) -> Result<ExitCode, Failure> {
    if args.files.len() > 1 && args.session_id.is_some() && args.camera_id.is_some() {
        return Err(Failure::usage(
            "several files in one session need cameras of their own, or their tracks would be taken \
             for the same people: leave out --camera-id or --session-id",
        ));
    }
    let mut sink = open_sink(&args).await?;
    let stop = CancellationToken::new();
    stop_on_signal(&stop);
    let started = Instant::now();
    let mut summaries = Vec::new();
    for path in &args.files {
        let job = Job {
            path: path.clone(),
            camera_id: args.camera_id.clone(),
            session_id: args.session_id.clone(),
            channel_id: args.channel_id,
            fps: args.fps,
            start_time: args.start_time,
            speed: args.speed,
            batch_rows: args.db_batch_size as usize,
            flush_interval: Duration::from_millis(args.db_flush_interval_ms),
            strict: args.strict,
            wait: args.wait,
        };
        let mut watch = FileProgress::new(&path.display().to_string());
        let summary = job.run(&mut sink, &mut watch, &stop).await;
        watch.finish();
        let summary = summary.map_err(Failure::from_chain)?;
        let interrupted = summary.outcome == Outcome::Interrupted;
        summaries.push(summary);
        if interrupted {
            break;
        }
    }
    let elapsed = started.elapsed();
    if args.json {
        output::json(&IngestReport {
            people: job::total_people(&summaries),
            files: summaries.clone(),
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        });
    } else {
        for summary in &summaries {
            output::line(&in_words(summary, elapsed));
        }
    }
    let is_useless = |file: &&FileSummary| file.rows == 0 && file.bad_lines > 0;
    if let Some(file) = summaries.iter().find(is_useless) {
        return Err(Failure::new(format_args!(
            "{}: not one good line: expected MOTChallenge text or NDJSON, see `passerby ingest --help`",
            file.file
        )));
    }
    let interrupted = summaries
        .iter()
        .any(|summary| summary.outcome == Outcome::Interrupted);
    Ok(if interrupted {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}

/// What became of all files.
#[derive(Debug, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct IngestReport {
    /// Each file.
    files: Vec<FileSummary>,
    /// People in all sessions that ended.
    people: passerby_shared::SessionSummary,
    /// How long it took, in milliseconds.
    elapsed_ms: u64,
}

async fn open_sink(args: &IngestArgs) -> Result<Sink, Failure> {
    if !args.db_enable {
        return Ok(Sink::Report);
    }
    let url = args.database.database_url().map_err(Failure::usage)?;
    let mut store = Store::connect(&url).await.map_err(Failure::store)?;
    store.migrate().await.map_err(Failure::store)?;
    if !args.redis_enable {
        return Ok(Sink::Postgres(Box::new(store)));
    }
    let redis_url = args.redis.redis_url().map_err(Failure::usage)?;
    let mut link = RedisLink::new(redis_url, RedisTimeouts::default());
    link.get()
        .await
        .map_err(|error| Failure::ops(error.into()))?;
    Ok(Sink::Stream(Box::new(StreamSink {
        link,
        store,
        key_prefix: args.redis.key_prefix.clone(),
        shards: args.redis.shards,
        unsettled: VecDeque::new(),
    })))
}

/// The summary of one file, in words.
fn in_words(file: &FileSummary, elapsed: Duration) -> String {
    let count = |n: u64| grouped(n);
    let mut text = match file.outcome {
        Outcome::AlreadyFinished => format!(
            "{}: already in session `{}`, {} rows; nothing was stored again",
            file.file,
            file.session_id,
            count(file.already_stored),
        ),
        Outcome::Reported => format!(
            "{}: {} on {}; nothing was stored (--db-enable stores them)",
            file.file,
            counted(file.rows, "good row"),
            counted(file.tracks, "track"),
        ),
        Outcome::Stored => format!(
            "{}: stored {} on {} in {} as camera `{}`, session `{}`",
            file.file,
            counted(file.stored, "row"),
            counted(file.tracks, "track"),
            duration(elapsed),
            file.camera_id,
            file.session_id,
        ),
        Outcome::InStream => format!(
            "{}: {} rows are in the stream, safe, and no worker has stored all of them yet: start \
             `passerby-worker`, then run the same command again to close session `{}`",
            file.file,
            count(file.rows),
            file.session_id,
        ),
        Outcome::Interrupted => format!(
            "{}: interrupted after {} rows, {} of them stored; run the same command again to go on",
            file.file,
            count(file.rows),
            count(file.stored + file.already_stored),
        ),
    };
    if file.already_stored > 0 && file.outcome == Outcome::Stored {
        text.push_str(&format!(
            "; {} were stored before",
            count(file.already_stored)
        ));
    }
    if file.bad_lines > 0 {
        text.push_str(&format!(
            "; {} skipped",
            counted(file.bad_lines, "bad line")
        ));
    }
    if file.clamped > 0 {
        text.push_str(&format!(
            "; {} outside 0…1 (detector margins, not probabilities): taken as the nearer of 0 and 1",
            counted(file.clamped, "score")
        ));
    }
    if let Some(people) = file.people {
        text.push_str(&format!(
            "\n  people: {} (male {}, female {}, unknown {})",
            people.people, people.male, people.female, people.unknown
        ));
    }
    text
}

/// The bar of one file, with its bad lines above.
struct FileProgress {
    bars: ProgressBars,
    name: String,
    bar: Option<Progress>,
    n_bad: u64,
}

impl FileProgress {
    fn new(name: &str) -> Self {
        Self {
            bars: ProgressBars::stderr(),
            name: name.to_owned(),
            bar: None,
            n_bad: 0,
        }
    }

    fn finish(&self) {
        self.bars.clear();
        if self.n_bad > MAX_LINES_SHOWN {
            output::warning(&format!(
                "… and {} more bad lines",
                self.n_bad - MAX_LINES_SHOWN
            ));
        }
    }
}

impl Watch for FileProgress {
    fn begun(&mut self, n_bytes: u64) {
        self.bar = Some(self.bars.add(&self.name, n_bytes));
    }

    fn read(&mut self, n_bytes: u64, n_rows: u64) {
        if let Some(bar) = &self.bar {
            bar.update(n_bytes, n_rows);
        }
    }

    fn bad_line(&mut self, error: &LineError) {
        self.n_bad += 1;
        if self.n_bad <= MAX_LINES_SHOWN {
            self.bars.line(&error.to_string());
        }
    }
}
