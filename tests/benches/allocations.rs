//! How often a worker allocates for a row, an entry and a batch, with everything that it does.
//!
//! A worker drains a stream of so many entries, and one of twice as many; the difference has no start and no end
//! of a worker in it. With 1, 100 and 500 rows an entry: what grows with the rows is seen.
//!
//! ```text
//! cargo bench-allocations [-- --json]
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for people who measure"
)]

use std::{num::NonZeroUsize, thread};

use allocation_counter::measure;
use clap::Parser;
use passerby_consumer::{Worker, WorkerConfig};
use passerby_tests::benching::{BenchServers, Figure, Report, Rows, Samples, Target};
use tokio::runtime;
use tokio_util::sync::CancellationToken;

const BATCH_ROWS: usize = 5_000;
const BATCHES: usize = 40;

/// Counts what a worker allocates.
#[derive(Debug, Parser)]
struct Args {
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`, and of no meaning here.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How often a worker's thread allocates while it drains these rows.
async fn draining(servers: &BenchServers, rows: Rows) -> u64 {
    servers.fill(rows).await;
    servers.clean().await;
    let config = WorkerConfig {
        drain: true,
        batch_rows: NonZeroUsize::new(BATCH_ROWS).unwrap(),
        trim_grace: None,
        ..WorkerConfig::new(servers.redis_url(), servers.database_url())
    };
    let counting = thread::spawn(|| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.unwrap();
        let counted = measure(|| {
            runtime.block_on(async {
                let worker = Worker::start(config).await.unwrap();
                worker.run(CancellationToken::new()).await.unwrap();
            });
        });
        counted.count_total
    });
    let n_allocations = counting.join().unwrap();
    assert_eq!(servers.n_stored().await, rows.len());
    n_allocations
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args = Args::parse();
    let servers = BenchServers::start().await;
    let mut report = Report::new(
        "allocations",
        format!("{BATCHES} batches of {BATCH_ROWS} rows"),
        Some(&servers),
    );
    for per_entry in [1, 100, 500] {
        let rows = |batches| Rows::at_least(batches * BATCH_ROWS, per_entry);
        let (some, more) = (rows(BATCHES), rows(2 * BATCHES));
        let n_some = draining(&servers, some).await;
        let n_more = draining(&servers, more).await;
        let of_entry = n_more.saturating_sub(n_some) as f64 / (more.entries - some.entries) as f64;
        for (unit, n) in [
            ("an entry", of_entry),
            ("a row", of_entry / per_entry as f64),
        ] {
            report.push(Figure {
                what: format!("allocations {unit}, {per_entry} rows an entry"),
                unit: "",
                ours: Samples::from_iter([n]),
                beside: None,
                target: Target::None,
            });
        }
    }
    println!("{}", report.render(args.json));
}
