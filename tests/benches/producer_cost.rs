//! What a producer takes of the machine at a steady rate: processor time a detection, and memory.
//!
//! ```text
//! cargo bench-producer [-- --rate N] [-- --seconds N] [-- --repetitions N] [-- --json]
//! ```
//!
//! Each run is a process of its own that does nothing but produce, on one thread, at 50,000 detections a
//! second: every millisecond it makes 50 rows, and then records them, one `record()` each. The processor
//! time of a detection is
//!
//! * that of the recording thread while it records, less that of the same loop which moves the rows into a
//!   vector instead: making rows, and waiting for the next millisecond, are in neither;
//! * and that of all other threads of the process, which are the producer's.
//!
//! It holds the time that the kernel works for these threads, such as for sending to Redis over loopback.
//!
//! Memory is the most that the process had resident, program and allocator included; what it had before the
//! producer was started is a figure of its own.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for people who measure"
)]

use std::{
    env,
    hint::black_box,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use clap::Parser;
use passerby_producer::{Detection, Producer, ProducerConfig, Recorded, SpoolConfig};
use passerby_servers::{RedisOptions, RedisServer};
use passerby_tests::{
    benching::{CpuTime, Figure, Pace, Report, Samples, Target, Usage},
    fixtures::realistic_detection,
};
use serde_json::{Value, json};

const TICKS_PER_SECOND: u32 = 1_000;
const WARM_UP: u32 = 1;

/// Measures what a producer takes of the machine.
#[derive(Debug, Parser)]
struct Args {
    /// Detections a second, in whole thousands.
    #[arg(long, default_value = "50000")]
    rate: u32,
    /// How long each run lasts.
    #[arg(long, default_value = "10")]
    seconds: u32,
    /// Runs.
    #[arg(long, default_value = "5")]
    repetitions: usize,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Produces, as the process that is measured: for this program's own use.
    #[arg(long, hide = true, value_name = "URL")]
    produce: Option<String>,
    /// With a spool in this directory.
    #[arg(long, hide = true, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// Given by `cargo bench`, and of no meaning here.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Processor time of a paced loop, of this thread in `take` alone.
struct Loop {
    this_thread: Duration,
    other_threads: Duration,
    n_rows: u64,
}

impl Loop {
    fn run(args: &Args, seconds: u32, mut take: impl FnMut(&mut Vec<Detection>)) -> Self {
        let per_tick = i64::from(args.rate / TICKS_PER_SECOND);
        let n_ticks = i64::from(seconds * TICKS_PER_SECOND);
        let mut pace = Pace::per_second(TICKS_PER_SECOND);
        let mut rows = Vec::new();
        let mut this_thread = Duration::ZERO;
        let began = CpuTime::now();
        for tick in 0..n_ticks {
            pace.wait();
            let ids = tick * per_tick..(tick + 1) * per_tick;
            let camera = usize::try_from(tick % 16).unwrap();
            rows.extend(ids.map(|id| realistic_detection(camera, id)));
            let before = CpuTime::this_thread();
            take(&mut rows);
            this_thread += CpuTime::this_thread().saturating_sub(before);
            rows.clear();
        }
        let ended = CpuTime::now();
        Self {
            this_thread,
            other_threads: ended.other_threads.saturating_sub(began.other_threads),
            n_rows: u64::try_from(n_ticks * per_tick).unwrap(),
        }
    }

    fn us_per_row(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / self.n_rows as f64
    }
}

/// What the measured process does, and says about itself.
fn produce(args: &Args, url: &str) -> Value {
    let mut taken = Vec::new();
    let empty = Loop::run(args, args.seconds, |rows| {
        taken.clear();
        for row in rows.drain(..) {
            taken.push(black_box(row));
        }
    });
    let kib_before = Usage::of_this_process().peak_kib;
    let producer = Producer::start(ProducerConfig {
        spool: args.spool.clone().map(SpoolConfig::new),
        ..ProducerConfig::new(url.parse().unwrap())
    })
    .unwrap();
    let mut n_kept = 0_u64;
    let mut record = |rows: &mut Vec<Detection>| {
        for row in rows.drain(..) {
            n_kept += u64::from(producer.record(row).unwrap() == Recorded::Accepted);
        }
    };
    Loop::run(args, WARM_UP, &mut record);
    let full = Loop::run(args, args.seconds, &mut record);
    let peak_kib = Usage::of_this_process().peak_kib;
    // Redis may be frozen: what then is lost is counted, and not what is measured.
    drop(producer.close(Duration::from_secs(5)));
    let stats = producer.stats().rows();
    assert!(stats.balances() && stats.accepted == n_kept, "{stats:?}");
    json!({
        "loop_us": empty.us_per_row(empty.this_thread),
        "record_us": full.us_per_row(full.this_thread.saturating_sub(empty.this_thread)),
        "threads_us": full.us_per_row(full.other_threads),
        "n_refused": stats.dropped_newest,
        "kib_before": kib_before,
        "peak_kib": peak_kib,
    })
}

/// Has another process of this program produce.
fn measured(args: &Args, redis: &RedisServer, spool: Option<&Path>) -> Value {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--produce", &redis.url()])
        .args(["--rate", &args.rate.to_string()])
        .args(["--seconds", &args.seconds.to_string()]);
    if let Some(dir) = spool {
        command.arg("--spool").arg(dir);
    }
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What the runs of one setting said.
#[derive(Default)]
struct Runs(Vec<Value>);

impl Runs {
    fn samples(&self, of: impl Fn(&Value) -> f64) -> Samples {
        self.0.iter().map(of).collect()
    }

    fn sum(&self, fields: &[&str], divisor: f64) -> Samples {
        let value = |run: &Value, field: &&str| run[*field].as_f64().unwrap() / divisor;
        self.samples(|run| fields.iter().map(|field| value(run, field)).sum())
    }
}

fn main() {
    let args = Args::parse();
    if cfg!(debug_assertions) {
        // `cargo test` runs benchmarks, too, and measures nothing by that.
        return;
    }
    if let Some(url) = &args.produce {
        println!("{}", produce(&args, url));
        return;
    }
    let mut redis = RedisServer::start(RedisOptions::default()).unwrap();
    let (mut plain, mut spooled, mut frozen) = (Runs::default(), Runs::default(), Runs::default());
    for _ in 0..args.repetitions {
        plain.0.push(measured(&args, &redis, None));
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join("spool");
        spooled.0.push(measured(&args, &redis, Some(&spool)));
        redis.pause().unwrap();
        frozen.0.push(measured(&args, &redis, None));
        redis.resume().unwrap();
    }
    for run in plain.0.iter().chain(&spooled.0) {
        assert_eq!(run["n_refused"], 0, "Redis runs");
    }
    let mut report = Report::new(
        "producer",
        format!(
            "{} detections a second, for {} s; median of {} (min … max)",
            args.rate, args.seconds, args.repetitions
        ),
        None,
    )
    .on(redis.version_line());
    let both = ["record_us", "threads_us"];
    let figures = [
        (
            "processor time a detection",
            "µs",
            plain.sum(&both, 1.0),
            Target::AtMost(0.4),
        ),
        (
            "of it in record()",
            "µs",
            plain.sum(&["record_us"], 1.0),
            Target::None,
        ),
        (
            "of it on the producer's threads",
            "µs",
            plain.sum(&["threads_us"], 1.0),
            Target::None,
        ),
        (
            "the loop without record(), taken off",
            "µs",
            plain.sum(&["loop_us"], 1.0),
            Target::None,
        ),
        (
            "processor time a detection, with a spool",
            "µs",
            spooled.sum(&both, 1.0),
            Target::None,
        ),
        (
            "peak memory",
            "MiB",
            plain.sum(&["peak_kib"], 1024.0),
            Target::AtMost(48.0),
        ),
        (
            "peak memory, with a spool",
            "MiB",
            spooled.sum(&["peak_kib"], 1024.0),
            Target::None,
        ),
        (
            "peak memory, Redis frozen",
            "MiB",
            frozen.sum(&["peak_kib"], 1024.0),
            Target::None,
        ),
        (
            "memory before the producer was started",
            "MiB",
            plain.sum(&["kib_before"], 1024.0),
            Target::None,
        ),
    ];
    for (what, unit, ours, target) in figures {
        report.push(Figure {
            what: what.to_owned(),
            unit,
            ours,
            beside: None,
            target,
        });
    }
    println!("{}", report.render(args.json));
}
