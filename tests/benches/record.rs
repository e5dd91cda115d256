//! What `record()` costs the threads that call it and the process they are in.
//!
//! Four threads record frames of rows at the same moments, 50,000 rows a second in all, with Redis up and
//! with Redis frozen; beside it the same threads send the same rows into an unbounded `std` channel that
//! a fifth one empties. Each call is timed for itself, the clock's own cost included and stated. What
//! making the rows costs is measured with threads that make them and drop them, and taken off the
//! processor time.
//!
//! ```text
//! cargo bench-record [-- --seconds N] [-- --rate N] [-- --repetitions N] [-- --json]
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "a program for people who measure, of threads that keep a pace"
)]

use std::{
    hint::black_box,
    sync::{Barrier, mpsc},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use passerby_producer::{Producer, ProducerConfig, Recorded};
use passerby_servers::{RedisOptions, RedisServer};
use passerby_shared::Detection;
use passerby_tests::{
    benching::{Figure, Report, Samples, Target, Usage},
    fixtures::realistic_detections,
};
use rustix::time::{ClockId, clock_gettime};

const THREADS: usize = 4;
const FRAME: Duration = Duration::from_millis(10);

/// Measures what a call of `record()` costs.
#[derive(Debug, Parser)]
struct Args {
    /// How long each side records.
    #[arg(long, default_value = "5")]
    seconds: u64,
    /// Rows a second of all threads together.
    #[arg(long, default_value = "50000")]
    rate: usize,
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

/// One side's calls.
struct Calls {
    /// In nanoseconds, ascending.
    nanos: Vec<u32>,
    /// Of the process, for all of it.
    cpu: Duration,
    allocations: u64,
}

impl Calls {
    /// In microseconds.
    fn at(&self, fraction: f64) -> f64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index"
        )]
        let at = ((self.nanos.len() - 1) as f64 * fraction) as usize;
        f64::from(self.nanos[at]) / 1e3
    }

    fn cpu_us_per_row(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.nanos.len() as f64
    }
}

fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.try_into().unwrap(),
        time.tv_nsec.try_into().unwrap(),
    )
}

/// Has each thread make frames and hand each row to a `call` of its own.
fn calls<C: FnMut(Detection) + Send>(args: &Args, call: impl Fn() -> C) -> Calls {
    let per_frame = args.rate / THREADS / 100;
    let n_frames = usize::try_from(args.seconds).unwrap() * 100;
    let together = Barrier::new(THREADS);
    let before = process_cpu();
    let (mut nanos, mut allocations) = (Vec::new(), 0);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|nth| {
                let (mut call, together) = (call(), &together);
                scope.spawn(move || {
                    let mut nanos = Vec::with_capacity(per_frame * n_frames);
                    let mut allocations = 0;
                    let mut due = Instant::now();
                    for frame in 0..n_frames {
                        let first = (nth * n_frames + frame) * per_frame;
                        let rows = realistic_detections(
                            nth,
                            i64::try_from(first).unwrap(),
                            i64::try_from(per_frame).unwrap(),
                        );
                        due += FRAME;
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        together.wait();
                        for row in rows {
                            let mut row = Some(row);
                            let mut elapsed = Duration::ZERO;
                            let counted = allocation_counter::measure(|| {
                                let row = row.take().unwrap();
                                let called = Instant::now();
                                call(row);
                                elapsed = called.elapsed();
                            });
                            allocations += counted.count_total;
                            nanos.push(u32::try_from(elapsed.as_nanos()).unwrap_or(u32::MAX));
                        }
                    }
                    (nanos, allocations)
                })
            })
            .collect();
        for thread in threads {
            let (of_thread, n) = thread.join().unwrap();
            nanos.extend(of_thread);
            allocations += n;
        }
    });
    let cpu = process_cpu() - before;
    nanos.sort_unstable();
    Calls {
        nanos,
        cpu,
        allocations,
    }
}

fn record(args: &Args, redis: &RedisServer) -> (Calls, f64) {
    let producer = Producer::start(ProducerConfig::new(redis.url().parse().unwrap())).unwrap();
    // Until the first entries are through: a pipeline runs for weeks.
    drop(producer.record_many(realistic_detections(0, 0, 10_000)));
    producer.flush(Duration::from_secs(2)).ok();
    let calls = calls(args, || {
        let producer = producer.clone();
        move |row| {
            let recorded = producer.record(row).unwrap();
            debug_assert!(matches!(recorded, Recorded::Accepted | Recorded::Dropped));
        }
    });
    let peak_mib = Usage::of_this_process().peak_kib as f64 / 1024.0;
    // What is left when Redis is frozen is given up, and counted.
    producer.close(Duration::ZERO).ok();
    (calls, peak_mib)
}

fn send(args: &Args) -> Calls {
    let (sender, receiver) = mpsc::channel::<Detection>();
    let emptying = thread::spawn(move || receiver.into_iter().count());
    let calls = calls(args, || {
        let sender = sender.clone();
        move |row| sender.send(row).unwrap()
    });
    drop(sender);
    assert_eq!(emptying.join().unwrap(), calls.nanos.len());
    calls
}

#[derive(Default)]
struct Sides {
    p50: [Samples; 3],
    p99: [Samples; 3],
    p99_9: [Samples; 3],
    allocations: [Samples; 2],
    cpu: Samples,
    making: Samples,
    peak_mib: Samples,
}

fn main() {
    let args = Args::parse();
    if cfg!(debug_assertions) {
        // `cargo test` runs benchmarks, too, and measures nothing by that.
        return;
    }
    let mut redis = RedisServer::start(RedisOptions::default()).unwrap();
    let mut sides = Sides::default();
    for _ in 0..args.repetitions {
        let making = calls(&args, || |row| drop(black_box(row)));
        let (up, peak_mib) = record(&args, &redis);
        redis.pause().unwrap();
        let (frozen, _) = record(&args, &redis);
        redis.resume().unwrap();
        let channel = send(&args);
        for (nth, calls) in [&up, &frozen, &channel].into_iter().enumerate() {
            sides.p50[nth].push(calls.at(0.5));
            sides.p99[nth].push(calls.at(0.99));
            sides.p99_9[nth].push(calls.at(0.999));
        }
        for (nth, calls) in [&up, &frozen].into_iter().enumerate() {
            sides.allocations[nth].push(calls.allocations as f64 / calls.nanos.len() as f64);
        }
        sides.making.push(making.cpu_us_per_row());
        sides
            .cpu
            .push(up.cpu_us_per_row() - making.cpu_us_per_row());
        sides.peak_mib.push(peak_mib);
    }
    println!("{}", report(&args, &redis, sides).render(args.json));
}

fn report(args: &Args, redis: &RedisServer, sides: Sides) -> Report {
    let setup = format!(
        "{THREADS} threads, {} rows/s in frames every {} ms, {} s a run, {} a call for the clock; median \
         of {} (min … max)",
        args.rate,
        FRAME.as_millis(),
        args.seconds,
        format_args!("{} ns", clock_nanos()),
        args.repetitions
    );
    let mut report = Report::new("record", setup, vec![redis.version_line().to_owned()]);
    let percentiles = [
        ("p50", sides.p50, Target::None),
        ("p99", sides.p99, Target::AtMost(1.0)),
        ("p99.9", sides.p99_9, Target::AtMost(5.0)),
    ];
    for (name, [up, frozen, channel], target) in percentiles {
        for (redis, ours) in [("up", up), ("frozen", frozen)] {
            report.push(Figure {
                what: format!("record() {name}, Redis {redis}"),
                unit: "µs",
                ours,
                beside: Some(("std channel".to_owned(), channel.clone())),
                target,
            });
        }
    }
    let [up, frozen] = sides.allocations;
    for (redis, ours) in [("up", up), ("frozen", frozen)] {
        report.push(Figure {
            what: format!("allocations a call, Redis {redis}"),
            unit: "",
            ours,
            beside: None,
            target: Target::None,
        });
    }
    report.push(Figure {
        what: "producer's processor time a row".to_owned(),
        unit: "µs",
        ours: sides.cpu,
        beside: Some(("making the row".to_owned(), sides.making)),
        target: Target::AtMost(0.4),
    });
    report.push(Figure {
        what: "process's peak memory, Redis up".to_owned(),
        unit: "MiB",
        ours: sides.peak_mib,
        beside: None,
        target: Target::AtMost(48.0),
    });
    report
}

/// What two readings of the clock add to a call.
fn clock_nanos() -> u128 {
    const N: u32 = 100_000;
    let began = Instant::now();
    for _ in 0..N {
        black_box(Instant::now());
    }
    began.elapsed().as_nanos() / u128::from(N)
}
