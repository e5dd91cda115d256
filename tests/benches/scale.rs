//! Rows per second of several workers and several shards, beside one worker and one shard.
//!
//! ```text
//! cargo bench-scale [-- --rows N] [-- --repetitions N] [-- --json]
//! ```
//!
//! As many rows are in the streams each time, filled before; the workers are processes with their
//! defaults, and the clock runs from the start of the first to the end of the last.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for people who measure"
)]

use clap::Parser;
use futures_util::future::join_all;
use passerby_tests::benching::{
    BenchServers, Figure, Report, Rows, Samples, Target, WorkerProcess,
};
use tokio::{task::spawn_blocking, time::Instant};

const ROWS_PER_ENTRY: usize = 100;
const WORKERS: [u16; 3] = [1, 2, 4];
const SHARDS: [u16; 3] = [1, 2, 4];

/// Measures several workers and shards.
#[derive(Debug, Parser)]
struct Args {
    /// Rows in all streams together.
    #[arg(long, default_value = "2000000")]
    rows: usize,
    /// Runs of each.
    #[arg(long, default_value = "5")]
    repetitions: usize,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`, and of no meaning here.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Rows per second.
async fn drain(servers: &BenchServers, rows: Rows, workers: u16, shards: u16) -> f64 {
    servers.fill_shards(rows, shards).await;
    servers.clean().await;
    let shards = shards.to_string();
    let started = Instant::now();
    let workers: Vec<_> = (0..workers)
        .map(|_| WorkerProcess::start(servers, &["--shards", &shards]))
        .collect();
    // All at once: the memory of one that has ended cannot be looked at.
    join_all(workers.into_iter().map(WorkerProcess::drained)).await;
    let elapsed = started.elapsed();
    assert_eq!(servers.n_stored().await, rows.len());
    rows.len() as f64 / elapsed.as_secs_f64()
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let rows = Rows::at_least(args.rows, ROWS_PER_ENTRY);
    spawn_blocking(WorkerProcess::build).await.unwrap();
    let servers = BenchServers::start().await;
    let mut all: Vec<(u16, u16, Samples)> = WORKERS
        .iter()
        .flat_map(|workers| SHARDS.map(|shards| (*workers, shards, Samples::new())))
        .collect();
    for repetition in 0..args.repetitions {
        // Who begins changes, should those who follow have it easier.
        let first = repetition % all.len();
        for nth in 0..all.len() {
            let at = (first + nth) % all.len();
            let (workers, shards, samples) = &mut all[at];
            samples.push(drain(&servers, rows, *workers, *shards).await);
        }
    }
    let mut report = Report::new(
        "scale",
        format!(
            "{} rows, {ROWS_PER_ENTRY} an entry, {} cameras; median of {} (min … max)",
            rows.len(),
            Rows::CAMERAS,
            args.repetitions
        ),
        Some(&servers),
    );
    let (_, _, alone) = all[0].clone();
    for (workers, shards, ours) in all {
        let is_alone = (workers, shards) == (1, 1);
        report.push(Figure {
            what: format!("{workers} worker(s), {shards} shard(s)"),
            unit: "rows/s",
            ours,
            beside: (!is_alone).then(|| ("one and one".to_owned(), alone.clone())),
            target: if is_alone {
                Target::None
            } else {
                Target::RatioAtLeast(1.0)
            },
        });
    }
    println!("{}", report.render(args.json));
}
