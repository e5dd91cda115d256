//! How long a commit takes, from BEGIN to the answer to COMMIT, beside raw COPY of rows of the same kind.
//!
//! All write batches over one connection, in turns by batch, into tables that are emptied before a run; no batch
//! is written twice. The store's commit writes ledger, sessions and detections in one transaction, as the
//! worker's does; the raw side COPYs rows that are encoded before. Another raw side has the rows of each batch in
//! the order in which the store's commit sends them, by session and track. Nobody reads Redis or decodes
//! anything.
//!
//! ```text
//! cargo bench-inserts [-- --batches N] [-- --repetitions N] [-- --json]
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people who measure"
)]

use bytes::Bytes;
use clap::Parser;
use fastrand::Rng;
use passerby_consumer::{batch::Batch, store::Store};
use passerby_tests::benching::{BenchServers, Figure, InBatch, Report, Rows, Samples, Target};
use tokio::time::Instant;

const ROWS_PER_ENTRY: usize = 100;
/// Rows of a batch, and how many ms its commit may take.
const SIZES: [(usize, f64); 2] = [(200, 3.0), (5_000, 50.0)];
/// Made, then stored.
const BATCHES_AHEAD: usize = 60;

/// Who writes a batch; also the place of its times.
#[derive(Debug, Clone, Copy)]
enum Side {
    Commit,
    Copy,
    SortedCopy,
}

const SIDES: [Side; 3] = [Side::Commit, Side::Copy, Side::SortedCopy];

/// Measures how long commits take.
#[derive(Debug, Parser)]
struct Args {
    /// Batches of each run.
    #[arg(long, default_value = "250")]
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

/// One run of all sides.
async fn run(
    store: &mut Store,
    rows: Rows,
    rows_per_batch: usize,
    random: &mut Rng,
) -> [Samples; SIDES.len()] {
    let mut times = [const { Samples::new() }; SIDES.len()];
    let mut batches = rows
        .batches(rows_per_batch)
        .zip(rows.encoded(rows_per_batch, InBatch::AsTheyCome))
        .zip(rows.encoded(rows_per_batch, InBatch::BySessionAndTrack));
    loop {
        // Making one would cool every cache before the next is stored.
        let ahead: Vec<((Batch, Bytes), Bytes)> = batches.by_ref().take(BATCHES_AHEAD).collect();
        if ahead.is_empty() {
            return times;
        }
        for of_all in ahead.chunks(SIDES.len()) {
            let mut order = SIDES;
            random.shuffle(&mut order);
            for (((batch, encoded), sorted), side) in of_all.iter().zip(order) {
                let started = Instant::now();
                match side {
                    Side::Commit => {
                        let (settled, report) = store.commit(batch).await.unwrap();
                        drop(settled);
                        assert_eq!(report.duplicates, 0);
                    }
                    Side::Copy | Side::SortedCopy => {
                        let rows = if matches!(side, Side::Copy) {
                            encoded
                        } else {
                            sorted
                        };
                        let n_rows = store.copy_raw(rows.clone()).await.unwrap();
                        assert_eq!(usize::try_from(n_rows).unwrap(), rows_per_batch);
                    }
                }
                times[side as usize].push(started.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
}

// As the worker's own program runs it.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args = Args::parse();
    let servers = BenchServers::start().await;
    let mut store = Store::connect(&servers.database_url()).await.unwrap();
    let mut random = Rng::with_seed(1);
    let mut report = Report::new(
        "inserts",
        format!(
            "{} batches a run and side, in a random order; {ROWS_PER_ENTRY} rows an entry; median of {} (min … max)",
            args.batches, args.repetitions
        ),
        Some(&servers),
    );
    for (rows_per_batch, most_ms) in SIZES {
        let rows = Rows::at_least(SIDES.len() * args.batches * rows_per_batch, ROWS_PER_ENTRY);
        let mut sides: [Percentiles; SIDES.len()] = Default::default();
        for _ in 0..args.repetitions {
            servers.clean().await;
            let times = run(&mut store, rows, rows_per_batch, &mut random).await;
            for (percentiles, times) in sides.iter_mut().zip(&times) {
                percentiles.push(times);
            }
            assert_eq!(servers.n_stored().await, rows.len());
        }
        let [commit, copy, sorted] = sides;
        let of = |who: &str, which: &str| format!("{who} of {rows_per_batch} rows, {which}");
        let figures = [
            (
                of("commit", "p50"),
                commit.p50,
                copy.p50.clone(),
                Target::None,
            ),
            (
                of("commit", "p95"),
                commit.p95,
                copy.p95.clone(),
                Target::AtMost(most_ms),
            ),
            (
                of("raw COPY of sorted batches", "p50"),
                sorted.p50,
                copy.p50,
                Target::None,
            ),
            (
                of("raw COPY of sorted batches", "p95"),
                sorted.p95,
                copy.p95,
                Target::None,
            ),
        ];
        for (what, ours, raw, target) in figures {
            report.push(Figure {
                what,
                unit: "ms",
                ours,
                beside: Some(("raw COPY".to_owned(), raw)),
                target,
            });
        }
    }
    println!("{}", report.render(args.json));
}
