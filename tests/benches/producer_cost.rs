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
//! Beside it stands the least that can be done with the same rows at the same pace: they go through a channel,
//! a thread that looks every 15 ms drops them, encodes nothing, and sends as many bytes as an entry of them
//! has, made before, in one write, whose answer it reads. That is what handing rows to another core and
//! speaking to Redis take by themselves.
//!
//! Beside it stands, too, what a good Python program takes for the same, `peers/produce.py`: each row a dict in
//! a list, which a second thread takes out every 15 ms, packs as MessagePack maps and adds to a stream. It is
//! measured as ours is, by its own thread's clocks, and Python's making of rows is not in it either.
//!
//! Memory is the most that the process had resident, program and allocator included; what it had before the
//! producer was started is a figure of its own.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "a program for people who measure, at a pace"
)]

use std::{
    env,
    ffi::OsStr,
    hint::black_box,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use passerby_producer::{Detection, Producer, ProducerConfig, Recorded, SpoolConfig};
use passerby_servers::{RedisOptions, RedisServer};
use passerby_tests::{
    benching::{CpuTime, Figure, Pace, Python, Report, Samples, Target, Usage},
    fixtures::realistic_detection,
};
use redis::Cmd;
use serde_json::{Value, json};

const TICKS_PER_SECOND: u32 = 1_000;
const WARM_UP: u32 = 1;

/// What a row takes in an entry, about.
const BYTES_PER_ROW: usize = 40;

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
    /// Without a producer: through a channel.
    #[arg(long, hide = true)]
    channel: bool,
    /// Given by `cargo bench`, and of no meaning here.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Processor time of a paced loop, of this thread in `take` alone.
struct Loop {
    this_thread: Duration,
    other_threads: Duration,
    elapsed: Duration,
    n_rows: u64,
}

impl Loop {
    fn run(args: &Args, seconds: u32, mut take: impl FnMut(&mut Vec<Detection>)) -> Self {
        let per_tick = i64::from(args.rate / TICKS_PER_SECOND);
        let n_ticks = i64::from(seconds * TICKS_PER_SECOND);
        let mut pace = Pace::per_second(TICKS_PER_SECOND);
        let mut rows = Vec::new();
        let mut this_thread = Duration::ZERO;
        let (cpu_before, began) = (CpuTime::now(), Instant::now());
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
        let (cpu, elapsed) = (CpuTime::now(), began.elapsed());
        Self {
            this_thread,
            other_threads: cpu.other_threads.saturating_sub(cpu_before.other_threads),
            elapsed,
            n_rows: u64::try_from(n_ticks * per_tick).unwrap(),
        }
    }

    /// The loop alone: rows go into a vector, and those before them are freed.
    fn moving_rows(args: &Args) -> Self {
        let mut taken = Vec::new();
        Self::run(args, args.seconds, |rows| {
            taken.clear();
            for row in rows.drain(..) {
                taken.push(black_box(row));
            }
        })
    }

    fn us_per_row(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / self.n_rows as f64
    }

    /// What is said of a process whose loop this was.
    fn less(&self, empty: &Self) -> Value {
        let record = self.this_thread.saturating_sub(empty.this_thread);
        json!({
            "loop_us": empty.us_per_row(empty.this_thread),
            "record_us": self.us_per_row(record),
            "threads_us": self.us_per_row(self.other_threads),
        })
    }
}

/// What the measured process does, and says about itself.
fn produce(args: &Args, url: &str) -> Value {
    let empty = Loop::moving_rows(args);
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
    let published_before = producer.stats().rows().published;
    let full = Loop::run(args, args.seconds, &mut record);
    let n_published = producer.stats().rows().published - published_before;
    let peak_kib = Usage::of_this_process().peak_kib;
    // Redis may be frozen: what then is lost is counted, and not what is measured.
    drop(producer.close(Duration::from_secs(5)));
    let stats = producer.stats().rows();
    assert!(stats.balances() && stats.accepted == n_kept, "{stats:?}");
    let mut said = full.less(&empty);
    said["n_refused"] = stats.dropped_newest.into();
    said["kib_before"] = kib_before.into();
    said["peak_kib"] = peak_kib.into();
    said["rows_per_s"] = (n_published as f64 / full.elapsed.as_secs_f64()).into();
    said
}

/// What a process without a producer does with the same rows: the least that can be done.
fn hand_over(args: &Args, url: &str) -> Value {
    let empty = Loop::moving_rows(args);
    let (sender, receiver) = mpsc::channel::<Detection>();
    let config = ProducerConfig::new(url.parse().unwrap());
    let redis = redis::Client::open(url).unwrap();
    let mut redis = redis.get_connection().unwrap();
    let receiving = thread::spawn(move || {
        let payload = vec![0xca_u8; BYTES_PER_ROW * config.buffer_rows.get()];
        while let Ok(row) = receiver.recv() {
            drop(row);
            thread::sleep(config.max_delay);
            let n_rows = 1 + receiver.try_iter().map(drop).count();
            let entry = [("p", &payload[..BYTES_PER_ROW * n_rows])];
            Cmd::xadd("channel", "*", &entry).exec(&mut redis).unwrap();
        }
    });
    let mut send = |rows: &mut Vec<Detection>| {
        for row in rows.drain(..) {
            sender.send(row).unwrap();
        }
    };
    Loop::run(args, WARM_UP, &mut send);
    let full = Loop::run(args, args.seconds, &mut send);
    drop(sender);
    receiving.join().unwrap();
    full.less(&empty)
}

/// Has another process of this program produce.
fn measured<S: AsRef<OsStr>>(args: &Args, redis: &RedisServer, how: &[S]) -> Value {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--produce", &redis.url()])
        .args(["--rate", &args.rate.to_string()])
        .args(["--seconds", &args.seconds.to_string()])
        .args(how);
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Has the Python program produce.
fn python_measured(args: &Args, redis: &RedisServer, python: &Python) -> Value {
    let (rate, seconds) = (args.rate.to_string(), args.seconds.to_string());
    python.run("produce.py", [redis.url(), rate, seconds])
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
        let run = if args.channel { hand_over } else { produce };
        println!("{}", run(&args, url));
        return;
    }
    let python = Python::install(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let mut redis = RedisServer::start(RedisOptions::default()).unwrap();
    let (mut plain, mut channel) = (Runs::default(), Runs::default());
    let mut in_python = Runs::default();
    let (mut spooled, mut frozen) = (Runs::default(), Runs::default());
    let as_it_comes: [&str; 0] = [];
    for _ in 0..args.repetitions {
        plain.0.push(measured(&args, &redis, &as_it_comes));
        channel.0.push(measured(&args, &redis, &["--channel"]));
        in_python.0.push(python_measured(&args, &redis, &python));
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join("spool");
        let spool = [OsStr::new("--spool"), spool.as_os_str()];
        spooled.0.push(measured(&args, &redis, &spool));
        redis.pause().unwrap();
        frozen.0.push(measured(&args, &redis, &as_it_comes));
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
    let beside_channel = |fields| Some(("bare channel and XADD", channel.sum(fields, 1.0)));
    let beside_python = |fields, divisor| {
        let who = "Python, MessagePack maps and XADD";
        Some((who, in_python.sum(fields, divisor)))
    };
    let figures = [
        (
            "processor time a detection",
            "µs",
            plain.sum(&both, 1.0),
            beside_channel(&both),
            Target::AtMost(0.4),
        ),
        (
            "processor time a detection",
            "µs",
            plain.sum(&both, 1.0),
            beside_python(&both, 1.0),
            Target::None,
        ),
        (
            "of it in record()",
            "µs",
            plain.sum(&["record_us"], 1.0),
            beside_channel(&["record_us"]),
            Target::None,
        ),
        (
            "of it on the producer's threads",
            "µs",
            plain.sum(&["threads_us"], 1.0),
            beside_channel(&["threads_us"]),
            Target::None,
        ),
        (
            "the loop without record(), taken off",
            "µs",
            plain.sum(&["loop_us"], 1.0),
            None,
            Target::None,
        ),
        (
            "detections published",
            "a second",
            plain.sum(&["rows_per_s"], 1.0),
            beside_python(&["rows_per_s"], 1.0),
            Target::None,
        ),
        (
            "processor time a detection, with a spool",
            "µs",
            spooled.sum(&both, 1.0),
            None,
            Target::None,
        ),
        (
            "peak memory",
            "MiB",
            plain.sum(&["peak_kib"], 1024.0),
            beside_python(&["peak_kib"], 1024.0),
            Target::AtMost(48.0),
        ),
        (
            "peak memory, with a spool",
            "MiB",
            spooled.sum(&["peak_kib"], 1024.0),
            None,
            Target::None,
        ),
        (
            "peak memory, Redis frozen",
            "MiB",
            frozen.sum(&["peak_kib"], 1024.0),
            None,
            Target::None,
        ),
        (
            "memory before the producer was started",
            "MiB",
            plain.sum(&["kib_before"], 1024.0),
            beside_python(&["kib_before"], 1024.0),
            Target::None,
        ),
    ];
    for (what, unit, ours, beside, target) in figures {
        report.push(Figure {
            what: what.to_owned(),
            unit,
            ours,
            beside: beside.map(|(who, samples)| (who.to_owned(), samples)),
            target,
        });
    }
    println!("{}", report.render(args.json));
}
