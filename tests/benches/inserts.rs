//! How long a commit takes, from BEGIN to the answer to COMMIT, beside raw COPY of the same rows.
//!
//! Both write batches of the same rows over one connection, in turns by batch, into tables that are emptied
//! before a run; no batch is written twice. The store's commit writes ledger, sessions and detections in one transaction, as the worker's does;
//! the raw side COPYs rows that are encoded before. Nobody reads Redis or decodes anything.
//!
//! A third side is raw COPY again, while another thread goes through 4 MiB of memory for as long as a worker and
//! Redis would work on these rows, a little at a time: what a neighbour costs Postgres on the machine's other core.
//!
//! ```text
//! cargo bench-inserts [-- --batches N] [-- --repetitions N] [-- --json]
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people who measure"
)]

use std::{hint::black_box, sync::mpsc, thread, time::Duration};

use bytes::Bytes;
use clap::Parser;
use fastrand::Rng;
use passerby_consumer::{batch::Batch, store::Store};
use passerby_tests::benching::{BenchServers, Figure, Report, Rows, Samples, Target};
use tokio::time::Instant;

const ROWS_PER_ENTRY: usize = 100;
/// Rows of a batch, and how many ms its commit may take.
const SIZES: [(usize, f64); 2] = [(200, 3.0), (5_000, 50.0)];
/// A row's processor time in the worker and in Redis, by `bench-worker` and `bench-drain`.
const BESIDE_A_ROW: Duration = Duration::from_nanos(600);
/// Made, then stored.
const BATCHES_AHEAD: usize = 60;

/// Who writes a batch; also the place of its times.
#[derive(Debug, Clone, Copy)]
enum Side {
    Commit,
    Copy,
    /// Raw COPY beside a thread that computes.
    CopyBesideWork,
}

const SIDES: [Side; 3] = [Side::Commit, Side::Copy, Side::CopyBesideWork];

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

/// A thread that works when it is told to, for as long as it is told to.
struct Neighbour(mpsc::Sender<Duration>);

impl Neighbour {
    /// At a time; then it sleeps for five times as long.
    const AT_A_TIME: Duration = Duration::from_micros(100);

    #[expect(
        clippy::disallowed_methods,
        reason = "a thread that works every now and then"
    )]
    fn start() -> Self {
        let (sender, receiver) = mpsc::channel::<Duration>();
        // It ends with the sender.
        drop(thread::spawn(move || {
            let mut memory = vec![1_u64; 4 << 17];
            let mut at = 0;
            while let Ok(mut left) = receiver.recv() {
                while !left.is_zero() {
                    let began = Instant::now();
                    let now = left.min(Self::AT_A_TIME);
                    while began.elapsed() < now {
                        let piece = &mut memory[at..at + 256];
                        for number in piece {
                            *number = number.wrapping_mul(0x2545_F491_4F6C_DD1D).rotate_left(17);
                        }
                        at = (at + 256) % memory.len();
                    }
                    left -= now;
                    thread::sleep(5 * Self::AT_A_TIME);
                }
                black_box(&memory);
            }
        }));
        Self(sender)
    }

    fn work(&self, time: Duration) {
        self.0.send(time).unwrap();
    }
}

/// One run of all sides.
async fn run(
    store: &mut Store,
    neighbour: &Neighbour,
    rows: Rows,
    rows_per_batch: usize,
    random: &mut Rng,
) -> [Samples; SIDES.len()] {
    let mut times = [const { Samples::new() }; SIDES.len()];
    let mut encoded: Vec<Bytes> = rows.encode(rows_per_batch);
    encoded.reverse();
    let mut batches = rows.batches(rows_per_batch);
    loop {
        // Making one would cool every cache before the next is stored.
        let ahead: Vec<Batch> = batches.by_ref().take(BATCHES_AHEAD).collect();
        if ahead.is_empty() {
            return times;
        }
        for of_all in ahead.chunks(SIDES.len()) {
            let mut order = SIDES;
            random.shuffle(&mut order);
            for (batch, side) in of_all.iter().zip(order) {
                let encoded = encoded.pop().unwrap();
                if matches!(side, Side::CopyBesideWork) {
                    neighbour.work(BESIDE_A_ROW * u32::try_from(rows_per_batch).unwrap());
                }
                let started = Instant::now();
                if matches!(side, Side::Commit) {
                    let (settled, report) = store.commit(batch).await.unwrap();
                    drop(settled);
                    assert_eq!(report.duplicates, 0);
                } else {
                    store.copy_raw(encoded).await.unwrap();
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
    store.ensure_partitions_ahead().await.unwrap();
    let neighbour = Neighbour::start();
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
            let times = run(&mut store, &neighbour, rows, rows_per_batch, &mut random).await;
            for (percentiles, times) in sides.iter_mut().zip(&times) {
                percentiles.push(times);
            }
            assert_eq!(servers.n_stored().await, rows.len());
        }
        let [commit, copy, beside_work] = sides;
        let of = |who: &str, which: &str| format!("{who} of {rows_per_batch} rows, {which}");
        let busy = "raw COPY beside a busy core";
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
                copy.p95,
                Target::AtMost(most_ms),
            ),
            (of(busy, "p50"), beside_work.p50, copy.p50, Target::None),
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
