//! What a worker's process uses to drain a long stream, beside what it uses for a short one.
//!
//! ```text
//! cargo bench-worker [-- --rows N] [-- --rows-beside N] [-- --repetitions N] [-- --strace] [-- --json]
//! ```
//!
//! The program runs with its defaults. Processor time is that of the process, in the program and in the
//! kernel for it, from its start to its end.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a program for people who measure"
)]

use clap::Parser;
use passerby_tests::benching::{
    BenchServers, Figure, Report, Rows, Samples, Target, WorkerProcess,
};
use tokio::task::spawn_blocking;

const ROWS_PER_ENTRY: usize = 100;
/// What a worker commits at once, unless told otherwise.
const DEFAULT_BATCH_ROWS: f64 = 5_000.0;

/// Measures what a worker's process uses.
#[derive(Debug, Parser)]
struct Args {
    /// Rows in the long stream.
    #[arg(long, default_value = "10000000")]
    rows: usize,
    /// Rows in the short one.
    #[arg(long, default_value = "1000000")]
    rows_beside: usize,
    /// Runs of each.
    #[arg(long, default_value = "3")]
    repetitions: usize,
    /// Has strace count the system calls of one more run with the short stream.
    #[arg(long)]
    strace: bool,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`, and of no meaning here.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Default)]
struct Measured {
    rows_per_s: Samples,
    cpu_us: Samples,
    peak_mib: Samples,
}

impl Measured {
    async fn run(&mut self, servers: &BenchServers, rows: Rows) {
        servers.fill(rows).await;
        servers.clean().await;
        let drained = WorkerProcess::start(servers, &[]).drained().await;
        assert_eq!(servers.n_stored().await, rows.len());
        let n_rows = rows.len() as f64;
        self.rows_per_s.push(n_rows / drained.elapsed.as_secs_f64());
        self.cpu_us
            .push(drained.usage.cpu.as_secs_f64() * 1e6 / n_rows);
        self.peak_mib.push(drained.usage.peak_kib as f64 / 1024.0);
    }
}

/// The system calls that are made at least once for every tenth batch, by name, and all of them; how many there are
/// for as many rows as a batch has. The worker's start and end are in it.
async fn system_calls(servers: &BenchServers, rows: Rows) -> Vec<(String, f64)> {
    servers.fill(rows).await;
    servers.clean().await;
    let counts = WorkerProcess::count_system_calls(servers).await;
    assert_eq!(servers.n_stored().await, rows.len());
    let n_batches = rows.len() as f64 / DEFAULT_BATCH_ROWS;
    // % time, seconds, µs a call, calls, errors (or nothing), name.
    let of_line = |line: &str| -> Option<(String, f64)> {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let n_calls: f64 = columns.get(3)?.parse().ok()?;
        Some((columns.last()?.to_string(), n_calls / n_batches))
    };
    let mut of_names: Vec<_> = counts.lines().filter_map(of_line).collect();
    // strace's own sum has other columns in some versions.
    of_names.retain(|(name, _)| name != "total");
    let all = of_names.iter().map(|(_, n_calls)| n_calls).sum();
    of_names.retain(|(_, n_calls)| *n_calls >= 0.1);
    of_names.push(("all".to_owned(), all));
    of_names.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    of_names
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let (long, short) = (
        Rows::at_least(args.rows, ROWS_PER_ENTRY),
        Rows::at_least(args.rows_beside, ROWS_PER_ENTRY),
    );
    spawn_blocking(WorkerProcess::build).await.unwrap();
    let servers = BenchServers::start().await;
    let (mut of_long, mut of_short) = (Measured::default(), Measured::default());
    for _ in 0..args.repetitions {
        of_short.run(&servers, short).await;
        of_long.run(&servers, long).await;
    }
    let mut report = Report::new(
        "worker",
        format!(
            "{} rows, {ROWS_PER_ENTRY} an entry, {} cameras; median of {} (min … max)",
            long.len(),
            Rows::CAMERAS,
            args.repetitions
        ),
        Some(&servers),
    );
    let who = format!("{} rows", short.len());
    let mut push = |what: &str, unit, ours, beside, target| {
        report.push(Figure {
            what: what.to_owned(),
            unit,
            ours,
            beside: Some((who.clone(), beside)),
            target,
        });
    };
    push(
        "drain",
        "rows/s",
        of_long.rows_per_s,
        of_short.rows_per_s,
        Target::None,
    );
    push(
        "processor time",
        "µs/row",
        of_long.cpu_us,
        of_short.cpu_us,
        Target::AtMost(0.6),
    );
    push(
        "peak memory",
        "MiB",
        of_long.peak_mib,
        of_short.peak_mib,
        Target::AtMost(48.0),
    );
    if args.strace {
        for (name, n_calls) in system_calls(&servers, short).await {
            report.push(Figure {
                what: format!("system calls a batch of {DEFAULT_BATCH_ROWS} rows: {name}"),
                unit: "calls",
                ours: Samples::from_iter([n_calls]),
                beside: None,
                target: Target::None,
            });
        }
    }
    println!("{}", report.render(args.json));
}
