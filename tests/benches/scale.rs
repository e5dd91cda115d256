//! Rows per second of several workers and several shards, beside one worker and one shard.
//!
//! ```text
//! cargo bench-scale [-- --rows N] [-- --repetitions N] [-- --json]
//! ```
//!
//! As many rows are in the streams each time, filled before; the workers are processes with their
//! defaults, and the clock runs from the start of the first to the end of the last.
//!
//! Processor time a row tells where a machine of few cores ends: that of all workers together, each from its start
//! to its end, and that of Redis and of Postgres meanwhile, with all processes of theirs and what they do by
//! themselves, such as autovacuum. It holds the kernel's work for them.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for people who measure"
)]

use std::time::Duration;

use clap::Parser;
use futures_util::future::join_all;
use passerby_tests::benching::{
    BenchServers, Drained, Figure, Report, Rows, Samples, Target, WorkerProcess,
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

/// Who uses the processors, in the order of [`Measured::cpu_us`].
const WHO: [&str; 3] = ["workers", "Redis", "Postgres"];

/// What the runs of some workers and shards showed.
#[derive(Debug, Clone)]
struct Measured {
    workers: u16,
    shards: u16,
    rows_per_s: Samples,
    /// A row.
    cpu_us: [Samples; WHO.len()],
}

impl Measured {
    fn new(workers: u16, shards: u16) -> Self {
        Self {
            workers,
            shards,
            rows_per_s: Samples::new(),
            cpu_us: [const { Samples::new() }; WHO.len()],
        }
    }

    async fn drain(&mut self, servers: &BenchServers, rows: Rows) {
        servers.fill_shards(rows, self.shards).await;
        servers.clean().await;
        let shards = self.shards.to_string();
        let before = servers.cpu();
        let started = Instant::now();
        let workers: Vec<_> = (0..self.workers)
            .map(|_| WorkerProcess::start(servers, &["--shards", &shards]))
            .collect();
        // All at once: the memory of one that has ended cannot be looked at.
        let drained: Vec<Drained> = join_all(workers.into_iter().map(WorkerProcess::drained)).await;
        let elapsed = started.elapsed();
        let after = servers.cpu();
        assert_eq!(servers.n_stored().await, rows.len());
        let n_rows = rows.len() as f64;
        self.rows_per_s.push(n_rows / elapsed.as_secs_f64());
        let of_workers: Duration = drained.iter().map(|drained| drained.usage.cpu).sum();
        let [redis, postgres] = [0, 1].map(|nth| after[nth].saturating_sub(before[nth]));
        for (samples, used) in self.cpu_us.iter_mut().zip([of_workers, redis, postgres]) {
            samples.push(used.as_secs_f64() * 1e6 / n_rows);
        }
    }
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let rows = Rows::at_least(args.rows, ROWS_PER_ENTRY);
    spawn_blocking(WorkerProcess::build).await.unwrap();
    let servers = BenchServers::start().await;
    let mut all: Vec<Measured> = WORKERS
        .iter()
        .flat_map(|workers| SHARDS.map(|shards| Measured::new(*workers, shards)))
        .collect();
    for repetition in 0..args.repetitions {
        // Who begins changes, should those who follow have it easier.
        let first = repetition % all.len();
        for nth in 0..all.len() {
            let at = (first + nth) % all.len();
            all[at].drain(&servers, rows).await;
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
    let alone = all[0].clone();
    for measured in all {
        let (workers, shards) = (measured.workers, measured.shards);
        let is_alone = (workers, shards) == (1, 1);
        let mut push = |quantity: &str, unit, ours, alone: &Samples, target| {
            report.push(Figure {
                what: format!("{workers} worker(s), {shards} shard(s){quantity}"),
                unit,
                ours,
                beside: (!is_alone).then(|| ("one and one".to_owned(), alone.clone())),
                target: if is_alone { Target::None } else { target },
            });
        };
        push(
            "",
            "rows/s",
            measured.rows_per_s,
            &alone.rows_per_s,
            Target::RatioAtLeast(1.0),
        );
        for ((who, ours), alone) in WHO.iter().zip(measured.cpu_us).zip(&alone.cpu_us) {
            let quantity = format!(": processor time, {who}");
            push(&quantity, "µs/row", ours, alone, Target::None);
        }
    }
    println!("{}", report.render(args.json));
}
