//! Rows per second of one worker that drains a filled stream, beside raw binary COPY of the same rows.
//!
//! Both sides write the same rows in transactions of the same size into the same table with the same
//! indices of the same server, over one and over two connections, in turns. The raw side has its rows
//! encoded before the clock starts and writes neither ledger nor sessions; it reads no Redis. Before
//! each run the tables are emptied and a checkpoint is made.
//!
//! ```text
//! cargo bench-drain [-- --rows N] [-- --repetitions N] [-- --json]
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for people who measure"
)]

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use clap::Parser;
use passerby_consumer::{Worker, WorkerConfig};
use passerby_tests::benching::{BenchServers, Figure, Report, Rows, Samples, Target, Usage};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const ROWS_PER_ENTRY: usize = 100;
const BATCH_ROWS: usize = 5_000;
const CONNECTIONS: [usize; 2] = [1, 2];

/// Measures a worker that drains a filled stream beside raw binary COPY.
#[derive(Debug, Parser)]
struct Args {
    /// Rows in the stream.
    #[arg(long, default_value = "1000000")]
    rows: usize,
    /// Runs of each side.
    #[arg(long, default_value = "5")]
    repetitions: usize,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`, and of no meaning here.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What the servers have used so far.
fn cpu_of_servers(servers: &BenchServers) -> [Duration; 2] {
    let pids = [servers.redis.pid(), servers.postgres.pid()];
    pids.map(|pid| Usage::cpu_of_tree(pid.unwrap()))
}

async fn drain(servers: &BenchServers, connections: usize) -> Duration {
    let config = WorkerConfig {
        drain: true,
        batch_rows: NonZeroUsize::new(BATCH_ROWS).unwrap(),
        committers: NonZeroUsize::new(connections).unwrap(),
        trim_grace: None,
        ..WorkerConfig::new(servers.redis_url(), servers.database_url())
    };
    let worker = Worker::start(config).await.unwrap();
    let started = Instant::now();
    worker.run(CancellationToken::new()).await.unwrap();
    started.elapsed()
}

// As the worker's own program runs it.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args = Args::parse();
    if cfg!(debug_assertions) {
        // `cargo test` runs benchmarks, too, and measures nothing by that.
        return;
    }
    let rows = Rows::at_least(args.rows, ROWS_PER_ENTRY);
    let servers = BenchServers::start().await;
    let batches = Arc::new(rows.encode(BATCH_ROWS));
    let mut report = Report::new(
        "drain",
        format!(
            "{} rows, {ROWS_PER_ENTRY} an entry, {} cameras, {BATCH_ROWS} a batch; median of {} (min … max)",
            rows.len(),
            Rows::CAMERAS,
            args.repetitions
        ),
        Some(&servers),
    );
    for connections in CONNECTIONS {
        let (mut drains, mut copies) = (Samples::new(), Samples::new());
        // Redis and Postgres when the worker drains, and when rows are copied.
        let mut cpu = [const { [const { Samples::new() }; 2] }; 2];
        for repetition in 0..args.repetitions {
            // Who begins changes, should the one who follows have it easier.
            for nth in [repetition % 2, (repetition + 1) % 2] {
                if nth == 0 {
                    servers.fill(rows).await;
                }
                servers.clean().await;
                let before = cpu_of_servers(&servers);
                let (samples, elapsed) = if nth == 0 {
                    (&mut drains, drain(&servers, connections).await)
                } else {
                    (&mut copies, servers.copy(&batches, connections).await)
                };
                for (of, (before, after)) in
                    before.into_iter().zip(cpu_of_servers(&servers)).enumerate()
                {
                    let us = (after - before).as_secs_f64() * 1e6;
                    cpu[nth][of].push(us / rows.len() as f64);
                }
                assert_eq!(servers.n_stored().await, rows.len());
                samples.push(rows.len() as f64 / elapsed.as_secs_f64());
            }
        }
        report.push(Figure {
            what: format!("drain, {connections} connection(s)"),
            unit: "rows/s",
            ours: drains,
            beside: Some(("raw COPY".to_owned(), copies)),
            target: Target::RatioAtLeast(0.95),
        });
        let [[redis, postgres], [_, copying]] = cpu;
        report.push(Figure {
            what: "Postgres' processor time a row".to_owned(),
            unit: "µs",
            ours: postgres,
            beside: Some(("raw COPY".to_owned(), copying)),
            target: Target::None,
        });
        report.push(Figure {
            what: "Redis' processor time a row".to_owned(),
            unit: "µs",
            ours: redis,
            beside: None,
            target: Target::None,
        });
    }
    println!("{}", report.render(args.json));
}
