//! What `record()` costs the thread that calls it, beside sending the same row down an unbounded channel.
//!
//! ```text
//! cargo bench-record [-- --rate N] [-- --seconds N] [-- --repetitions N] [-- --json]
//! ```
//!
//! Four threads at once make a detection, call, and wait until their next one is due: one row at a time,
//! 12,500 a second each, 50,000 together. Every call is timed, from before it to after it, and none is left
//! out but those of a first second, in which buffers find their sizes and Redis is connected to. The clock's
//! own cost is in every call, is a figure of its own, and is not taken off. A call that the kernel
//! interrupts is as long as that lasts: where cores are few, the channel shows how much of a p99.9 that is.
//!
//! While Redis is frozen (SIGSTOP: connections stay open and nothing answers) the buffer keeps rows until it
//! is full, after two seconds at the defaults. The calls before and after that are figures of their own.
//!
//! The other side is `std::sync::mpsc` with a thread that receives rows and drops them, which the sender has
//! to wake when it waits. As the producer's thread is not woken for a row, there is also a channel that is
//! emptied every 15 ms, as often as that thread looks, and whose senders wake nobody; and the least that hands
//! rows over at all, a vector behind a lock that a thread takes away as often.
//!
//! Allocations are counted in passes of their own, on the calling threads; those of the row's strings,
//! which the caller makes, come before the call and are not among them.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for people who measure"
)]

use std::{
    mem,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use allocation_counter::measure;
use clap::Parser;
use passerby_producer::{Detection, Producer, ProducerConfig, Recorded};
use passerby_servers::{RedisOptions, RedisServer};
use passerby_tests::{
    benching::{Figure, Latencies, Pace, Report, Samples, Target},
    fixtures::realistic_detection,
};

const THREADS: u32 = 4;
const WARM_UP: u32 = 1;
/// As often as the producer's thread looks for rows, by default.
const LOOK_EVERY: Duration = Duration::from_millis(15);
/// The same in words.
const EMPTIED: &str = "channel, emptied every 15 ms";
const QUANTILES: [(usize, &str, Target); 3] = [
    (500, "p50", Target::None),
    (990, "p99", Target::AtMost(1.0)),
    (999, "p99.9", Target::AtMost(5.0)),
];

/// Measures what `record()` costs the thread that calls it.
#[derive(Debug, Parser)]
struct Args {
    /// Detections a second, of all four threads together.
    #[arg(long, default_value = "50000")]
    rate: u32,
    /// How long each run lasts.
    #[arg(long, default_value = "10")]
    seconds: u32,
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

/// The calls of one run: those that kept their row, and those that had no room for it.
#[derive(Default)]
struct Calls {
    kept: Latencies,
    dropped: Latencies,
}

/// Calls from four threads at the rate, for so many seconds.
fn paced(rate: u32, seconds: u32, call: impl Fn(Detection) -> Recorded + Sync) -> Calls {
    let per_second = rate / THREADS;
    let n_calls = per_second * seconds;
    let one_thread = |camera| {
        let n_calls_expected = usize::try_from(n_calls).unwrap();
        let mut calls = Calls {
            kept: Latencies::with_capacity(n_calls_expected),
            dropped: Latencies::default(),
        };
        let mut pace = Pace::per_second(per_second);
        for id in 0..n_calls {
            pace.wait();
            let row = realistic_detection(camera, i64::from(id));
            let called = Instant::now();
            let recorded = call(row);
            let latency = called.elapsed();
            match recorded {
                Recorded::Accepted => calls.kept.push(latency),
                Recorded::Dropped => calls.dropped.push(latency),
            }
        }
        calls
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS as usize)
            .map(|camera| scope.spawn(move || one_thread(camera)))
            .collect();
        let mut all = Calls::default();
        for thread in threads {
            let calls = thread.join().unwrap();
            all.kept.append(calls.kept);
            all.dropped.append(calls.dropped);
        }
        all
    })
}

/// What a side allocates in a million calls, on the threads that call.
fn allocations(rate: u32, call: impl Fn(Detection) -> Recorded + Sync) -> f64 {
    let n_allocations = AtomicU64::new(0);
    let calls = paced(rate, 1, |row| {
        let mut recorded = Recorded::Dropped;
        let counted = measure(|| recorded = call(row));
        n_allocations.fetch_add(counted.count_total, Relaxed);
        recorded
    });
    1e6 * n_allocations.into_inner() as f64 / (calls.kept.len() + calls.dropped.len()) as f64
}

/// `record()`, in one state of Redis.
struct Record {
    calls: Calls,
    allocations: f64,
}

fn record(args: &Args, redis: &mut RedisServer, is_frozen: bool) -> Record {
    let config = ProducerConfig::new(redis.url().parse().unwrap());
    assert_eq!(config.max_delay, LOOK_EVERY);
    let producer = Producer::start(config).unwrap();
    let call = |row| producer.record(row).unwrap();
    paced(args.rate, WARM_UP, call);
    if is_frozen {
        redis.pause().unwrap();
    }
    let calls = paced(args.rate, args.seconds, call);
    let allocations = allocations(args.rate, call);
    if is_frozen {
        redis.resume().unwrap();
    }
    let stats = producer.close(Duration::from_secs(30)).unwrap();
    assert!(stats.rows().balances(), "{stats:?}");
    Record { calls, allocations }
}

/// Who empties the channel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Receiver {
    /// Waits for each row.
    Waits,
    /// Looks as often as the producer's thread does.
    Looks,
}

impl Receiver {
    fn run(self, rows: &mpsc::Receiver<Detection>) {
        match self {
            Self::Waits => rows.iter().for_each(drop),
            Self::Looks => {
                let mut pace = Pace::every(LOOK_EVERY);
                loop {
                    pace.wait();
                    let left = loop {
                        match rows.try_recv() {
                            Ok(row) => drop(row),
                            Err(why) => break why,
                        }
                    };
                    if left == mpsc::TryRecvError::Disconnected {
                        return;
                    }
                }
            }
        }
    }
}

fn channel(args: &Args, receiver: Receiver) -> (Latencies, f64) {
    let (sender, rows) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || receiver.run(&rows));
        let call = |row| {
            sender.send(row).unwrap();
            Recorded::Accepted
        };
        paced(args.rate, WARM_UP, call);
        let calls = paced(args.rate, args.seconds, call);
        let allocations = allocations(args.rate, call);
        drop(sender);
        (calls.kept, allocations)
    })
}

/// A vector with room for all rows, behind a lock.
fn vector(args: &Args) -> Latencies {
    let room = || Vec::with_capacity(usize::try_from(args.rate).unwrap());
    let rows = Mutex::new(room());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut pace, mut taken) = (Pace::every(LOOK_EVERY), room());
            while !done.load(Relaxed) {
                pace.wait();
                mem::swap(&mut *rows.lock().unwrap(), &mut taken);
                taken.clear();
            }
        });
        let call = |row| {
            rows.lock().unwrap().push(row);
            Recorded::Accepted
        };
        paced(args.rate, WARM_UP, call);
        let calls = paced(args.rate, args.seconds, call);
        done.store(true, Relaxed);
        calls.kept
    })
}

/// Two looks at the clock, one after the other: what is in every call beside the call.
fn clock() -> Latencies {
    let mut looks = Latencies::with_capacity(1_000_000);
    for _ in 0..1_000_000 {
        let called = Instant::now();
        looks.push(called.elapsed());
    }
    looks
}

/// A quantile of each run.
#[derive(Clone, Default)]
struct Quantiles([Samples; QUANTILES.len()]);

impl Quantiles {
    fn push(&mut self, mut calls: Latencies) {
        if calls.is_empty() {
            return;
        }
        for (samples, (per_mille, ..)) in self.0.iter_mut().zip(QUANTILES) {
            samples.push(calls.at_per_mille(per_mille).as_secs_f64() * 1e6);
        }
    }
}

/// All runs.
#[derive(Default)]
struct Runs {
    running: Quantiles,
    frozen: Quantiles,
    full: Quantiles,
    channel_waits: Quantiles,
    channel_looks: Quantiles,
    vector: Quantiles,
    clock: Quantiles,
    allocations: Samples,
    allocations_frozen: Samples,
    allocations_channel: Samples,
}

impl Runs {
    fn one(&mut self, args: &Args, redis: &mut RedisServer, nth: usize) {
        match nth {
            0 => {
                let record = record(args, redis, false);
                assert!(record.calls.dropped.is_empty(), "Redis runs");
                self.running.push(record.calls.kept);
                self.allocations.push(record.allocations);
            }
            1 => {
                let record = record(args, redis, true);
                self.frozen.push(record.calls.kept);
                self.full.push(record.calls.dropped);
                self.allocations_frozen.push(record.allocations);
            }
            2 => {
                let (calls, allocations) = channel(args, Receiver::Waits);
                self.channel_waits.push(calls);
                self.allocations_channel.push(allocations);
            }
            3 => self.channel_looks.push(channel(args, Receiver::Looks).0),
            4 => self.vector.push(vector(args)),
            _ => self.clock.push(clock()),
        }
    }

    fn report(self, report: &mut Report) {
        let waits = ("channel", self.channel_waits);
        let looks = (EMPTIED, self.channel_looks);
        let vector = ("vector behind a lock", self.vector);
        let rows = [
            ("record(), Redis running", &self.running, Some(&waits), true),
            (
                "record(), Redis running",
                &self.running,
                Some(&looks),
                false,
            ),
            (
                "record(), Redis running",
                &self.running,
                Some(&vector),
                false,
            ),
            (
                "record(), Redis frozen, kept",
                &self.frozen,
                Some(&waits),
                true,
            ),
            (
                "record(), Redis frozen, no room",
                &self.full,
                Some(&waits),
                true,
            ),
            (
                "the clock, which is in all of them",
                &self.clock,
                None,
                false,
            ),
        ];
        for (what, ours, beside, has_target) in rows {
            for (n, (_, quantile, target)) in QUANTILES.into_iter().enumerate() {
                if ours.0[n].is_empty() {
                    continue;
                }
                report.push(Figure {
                    what: format!("{what}, {quantile}"),
                    unit: "µs",
                    ours: ours.0[n].clone(),
                    beside: beside.map(|(who, theirs)| ((*who).to_owned(), theirs.0[n].clone())),
                    target: if has_target { target } else { Target::None },
                });
            }
        }
        for (what, ours) in [
            (
                "allocations in a million calls, Redis running",
                self.allocations,
            ),
            (
                "allocations in a million calls, Redis frozen",
                self.allocations_frozen,
            ),
        ] {
            report.push(Figure {
                what: what.to_owned(),
                unit: "",
                ours,
                beside: Some(("channel".to_owned(), self.allocations_channel.clone())),
                target: Target::AtMost(0.0),
            });
        }
    }
}

fn main() {
    let args = Args::parse();
    if cfg!(debug_assertions) {
        // `cargo test` runs benchmarks, too, and measures nothing by that.
        return;
    }
    let mut redis = RedisServer::start(RedisOptions::default()).unwrap();
    let mut report = Report::new(
        "record",
        format!(
            "{THREADS} threads, one row at a time, {} a second each, for {} s; median of {} (min … max)",
            args.rate / THREADS,
            args.seconds,
            args.repetitions
        ),
        None,
    )
    .on(redis.version_line());
    let mut runs = Runs::default();
    for repetition in 0..args.repetitions {
        // Who begins changes, should the one who follows have it easier.
        for nth in 0..6 {
            runs.one(&args, &mut redis, (repetition + nth) % 6);
        }
    }
    runs.report(&mut report);
    println!("{}", report.render(args.json));
}
