//! How long a commit takes, from BEGIN to the answer to COMMIT, beside raw COPY of the same rows.
//!
//! Both write batches one after the other over one connection, in turns by runs, into tables that are
//! emptied before. The store's commit writes ledger, sessions and detections in one transaction, as the
//! worker's does; the raw side COPYs rows that are encoded before.
//!
//! ```text
//! cargo bench-inserts [-- --batches N] [-- --repetitions N] [-- --json]
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people who measure"
)]

use clap::Parser;
use passerby_consumer::store::Store;
use passerby_tests::benching::{BenchServers, Figure, Report, Rows, Samples, Target};
use tokio::time::Instant;

const ROWS_PER_ENTRY: usize = 100;
/// Rows of a batch, and how many ms its commit may take.
const SIZES: [(usize, f64); 2] = [(200, 3.0), (5_000, 50.0)];

/// Measures how long commits take.
#[derive(Debug, Parser)]
struct Args {
    /// Batches of each run.
    #[arg(long, default_value = "500")]
    batches: usize,
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

#[derive(Debug, Default)]
struct Percentiles {
    p50: Samples,
    p95: Samples,
}

impl Percentiles {
    fn push(&mut self, run: &Samples) {
        self.p50.push(run.at(0.5));
        self.p95.push(run.at(0.95));
    }
}

async fn commits(store: &mut Store, rows: Rows, rows_per_batch: usize) -> Samples {
    let mut run = Samples::new();
    for batch in rows.batches(rows_per_batch) {
        let started = Instant::now();
        let (settled, report) = store.commit(&batch).await.unwrap();
        run.push(started.elapsed().as_secs_f64() * 1e3);
        drop(settled);
        assert_eq!(report.duplicates, 0);
    }
    run
}

async fn copies(store: &mut Store, rows: Rows, rows_per_batch: usize) -> Samples {
    let mut run = Samples::new();
    for batch in rows.encode(rows_per_batch) {
        let started = Instant::now();
        store.copy_raw(batch).await.unwrap();
        run.push(started.elapsed().as_secs_f64() * 1e3);
    }
    run
}

// As the worker's own program runs it.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args = Args::parse();
    let servers = BenchServers::start().await;
    let mut store = Store::connect(&servers.database_url()).await.unwrap();
    store.ensure_partitions_ahead().await.unwrap();
    let mut report = Report::new(
        "inserts",
        format!(
            "{} batches a run, {ROWS_PER_ENTRY} rows an entry; median of {} (min … max)",
            args.batches, args.repetitions
        ),
        Some(&servers),
    );
    for (rows_per_batch, most_ms) in SIZES {
        let rows = Rows::at_least(args.batches * rows_per_batch, ROWS_PER_ENTRY);
        let (mut ours, mut raw) = (Percentiles::default(), Percentiles::default());
        for repetition in 0..args.repetitions {
            // Who begins changes, should the one who follows have it easier.
            for nth in [repetition % 2, (repetition + 1) % 2] {
                servers.clean().await;
                if nth == 0 {
                    ours.push(&commits(&mut store, rows, rows_per_batch).await);
                } else {
                    raw.push(&copies(&mut store, rows, rows_per_batch).await);
                }
                assert_eq!(servers.n_stored().await, rows.len());
            }
        }
        let figures = [
            ("p50", ours.p50, raw.p50, Target::None),
            ("p95", ours.p95, raw.p95, Target::AtMost(most_ms)),
        ];
        for (which, ours, raw, target) in figures {
            report.push(Figure {
                what: format!("commit of {rows_per_batch} rows, {which}"),
                unit: "ms",
                ours,
                beside: Some(("raw COPY".to_owned(), raw)),
                target,
            });
        }
    }
    println!("{}", report.render(args.json));
}
