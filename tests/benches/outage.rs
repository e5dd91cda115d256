//! What an outage of Redis, and one of Postgres, costs a pipeline at a steady rate, and how fast it is made
//! good.
//!
//! ```text
//! cargo bench-outage [-- --seconds 300] [-- --rate 5000] [-- --json]
//! ```
//!
//! First Redis is killed for so long and started again on what it had synced; the producer has a spool.
//! Then Postgres is. In between and at the end every row is counted in Postgres. The worker is a process of its
//! own. What is made good after Postgres' outage is put beside what a worker drains of a stream filled before, on
//! the same servers.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for people who measure"
)]

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use clap::Parser;
use passerby_producer::{Overflow, Producer, ProducerConfig, Recorded, SpoolConfig};
use passerby_servers::{Appendonly, RedisOptions};
use passerby_shared::{
    Backlog, backlog,
    redis_connection::{RedisTimeouts, connect},
};
use passerby_tests::{
    GROUP,
    benching::{BenchServers, Figure, Latencies, Report, Samples, Target, WorkerProcess},
    fixtures::realistic_detections,
};
use redis::aio::MultiplexedConnection;
use tokio::{
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

/// Of 1,000 calls.
const QUANTILES: [(usize, &str); 4] = [
    (500, "p50"),
    (990, "p99"),
    (999, "p99.9"),
    (1_000, "longest"),
];

/// Measures what outages cost.
#[derive(Debug, Parser)]
struct Args {
    /// How long each outage lasts.
    #[arg(long, default_value = "300")]
    seconds: u64,
    /// Detections a second.
    #[arg(long, default_value = "5000")]
    rate: u64,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`, and of no meaning here.
    #[arg(long, hide = true)]
    bench: bool,
}

struct Setup {
    servers: BenchServers,
    worker: Option<Child>,
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.stop_worker();
    }
}

impl Setup {
    async fn start() -> Self {
        Self {
            servers: BenchServers::start_with(RedisOptions {
                appendonly: Appendonly::Always,
                ..RedisOptions::default()
            })
            .await,
            worker: None,
        }
    }

    fn start_worker(&mut self) {
        let child = Command::new(WorkerProcess::build())
            .args(["--redis-url", &self.servers.redis.url()])
            .args(["--database-url", &self.servers.postgres.url("postgres")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.worker = Some(child);
    }

    fn stop_worker(&mut self) {
        if let Some(mut worker) = self.worker.take() {
            drop(worker.kill());
            drop(worker.wait());
        }
    }

    /// What the worker has in memory, in KiB.
    fn worker_kib(&self) -> u64 {
        let pid = self.worker.as_ref().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.and_then(|kib| kib.parse().ok()).unwrap_or(0)
    }

    async fn redis(&self) -> MultiplexedConnection {
        let connected = connect(&self.servers.redis_url(), RedisTimeouts::default()).await;
        connected.unwrap()
    }

    async fn backlog(&self) -> Backlog {
        let stream = BenchServers::stream();
        let backlog = backlog::measure(&mut self.redis().await, &stream, GROUP).await;
        backlog.unwrap()
    }

    async fn stream_bytes(&self) -> u64 {
        redis::cmd("MEMORY")
            .arg("USAGE")
            .arg(BenchServers::stream())
            .query_async(&mut self.redis().await)
            .await
            .unwrap_or(0)
    }

    async fn stored(&self) -> Stored {
        let sql = "SELECT count(*), count(DISTINCT detection_id) FROM detections";
        let client = self.servers.client().await;
        let row = client.query_one(sql, &[]).await.unwrap();
        Stored {
            rows: row.get(0),
            different: row.get(1),
        }
    }

    async fn settled(&self) {
        while self.backlog().await.entries() > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What is in Postgres.
#[derive(Clone, Copy)]
struct Stored {
    rows: i64,
    different: i64,
}

/// A pipeline that records at a steady rate on a thread of its own until told to stop.
struct Pipeline {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Recording>,
}

struct Recording {
    accepted: i64,
    refused: i64,
    calls: Latencies,
}

impl Pipeline {
    fn start(producer: Producer, rate: u64, first_id: i64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        // A frame every 10 ms.
        let per_frame = i64::try_from(rate / 100).unwrap();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let mut frames = interval(Duration::from_millis(10));
                frames.set_missed_tick_behavior(MissedTickBehavior::Burst);
                let mut recording = Recording {
                    accepted: 0,
                    refused: 0,
                    calls: Latencies::default(),
                };
                let mut id = first_id;
                while !told.load(Relaxed) {
                    frames.tick().await;
                    for detection in realistic_detections(0, id, per_frame) {
                        let called = Instant::now();
                        let recorded = producer.record(detection).unwrap();
                        recording.calls.push(called.elapsed());
                        match recorded {
                            Recorded::Accepted => recording.accepted += 1,
                            Recorded::Dropped => recording.refused += 1,
                        }
                    }
                    id += per_frame;
                }
                recording
            })
        });
        Self { stop, thread }
    }

    fn stop(self) -> Recording {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

/// What was measured of one outage.
struct Outage<'a> {
    name: &'static str,
    report: &'a mut Report,
}

impl Outage<'_> {
    fn push(&mut self, what: &str, unit: &'static str, value: f64) {
        self.push_held(what, unit, value, Target::None);
    }

    fn push_held(&mut self, what: &str, unit: &'static str, value: f64, target: Target) {
        self.report.push(Figure {
            what: format!("{}: {what}", self.name),
            unit,
            ours: Samples::from_iter([value]),
            beside: None,
            target,
        });
    }

    /// What became of the rows, and what it was like for the pipeline.
    fn push_rows(&mut self, mut recording: Recording, before: Stored, after: Stored) {
        let different = after.different - before.different;
        let lost = recording.accepted - different;
        let doubled = after.rows - before.rows - different;
        self.push("rows accepted", "rows", recording.accepted as f64);
        self.push("rows refused", "rows", recording.refused as f64);
        let none = Target::AtMost(0.0);
        self.push_held("accepted rows lost", "rows", lost as f64, none);
        self.push_held("rows doubled", "rows", doubled as f64, none);
        for (per_mille, quantile) in QUANTILES {
            let us = recording.calls.at_per_mille(per_mille).as_secs_f64() * 1e6;
            self.push(&format!("record(), {quantile}"), "µs", us);
        }
    }
}

/// Stops a pipeline, and waits until Postgres has all of its rows.
async fn end(
    setup: &Setup,
    pipeline: Pipeline,
    producer: Producer,
    next_id: &mut i64,
) -> Recording {
    let recording = pipeline.stop();
    let stats = producer.close(Duration::from_secs(30)).unwrap();
    assert!(stats.rows().balances(), "{stats:?}");
    setup.settled().await;
    *next_id += recording.accepted + recording.refused;
    recording
}

async fn redis_away(setup: &mut Setup, args: &Args, report: &mut Report, next_id: &mut i64) {
    let stored_before = setup.stored().await;
    let dir = tempfile::tempdir().unwrap();
    let producer = Producer::start(ProducerConfig {
        spool: Some(SpoolConfig::new(dir.path().join("spool"))),
        ..ProducerConfig::new(setup.servers.redis_url())
    })
    .unwrap();
    let pipeline = Pipeline::start(producer.clone(), args.rate, *next_id);
    sleep(Duration::from_secs(5)).await;
    setup.servers.redis.kill().unwrap();
    sleep(Duration::from_secs(args.seconds)).await;
    let at_worst = producer.stats();
    setup.servers.redis.restart().unwrap();
    let back = Instant::now();
    // The pipeline goes on while its spool is emptied.
    while producer.stats().rows().spooled > args.rate / 5 {
        sleep(Duration::from_millis(10)).await;
    }
    let published = back.elapsed();
    setup.settled().await;
    let stored = back.elapsed();
    let recording = end(setup, pipeline, producer, next_id).await;
    let stored_after = setup.stored().await;
    let mut outage = Outage {
        name: "Redis away",
        report,
    };
    outage.push_rows(recording, stored_before, stored_after);
    let spool_mb = at_worst.spool.bytes as f64 / 1e6;
    outage.push("in the spool", "rows", at_worst.rows().spooled as f64);
    outage.push("the spool", "MB", spool_mb);
    outage.push("made good, until published", "s", published.as_secs_f64());
    outage.push("made good, until stored", "s", stored.as_secs_f64());
}

/// Returns the rows a second by which it was made good.
async fn postgres_away(
    setup: &mut Setup,
    args: &Args,
    report: &mut Report,
    next_id: &mut i64,
) -> f64 {
    let stored_before = setup.stored().await;
    let producer = Producer::start(ProducerConfig::new(setup.servers.redis_url())).unwrap();
    let pipeline = Pipeline::start(producer.clone(), args.rate, *next_id);
    sleep(Duration::from_secs(5)).await;
    let kib_before = setup.worker_kib();
    let bytes_before = setup.stream_bytes().await;
    let rows_before = setup.servers.n_stored().await;
    setup.servers.postgres.kill().unwrap();
    let mut kib_max = 0;
    for _ in 0..args.seconds {
        sleep(Duration::from_secs(1)).await;
        kib_max = kib_max.max(setup.worker_kib());
    }
    let backlog = setup.backlog().await;
    let bytes_after = setup.stream_bytes().await;
    setup.servers.postgres.restart().unwrap();
    let back = Instant::now();
    while setup.backlog().await.entries() > 50 {
        sleep(Duration::from_millis(20)).await;
        kib_max = kib_max.max(setup.worker_kib());
    }
    let caught_up = back.elapsed();
    let rows_after = setup.servers.n_stored().await;
    let recording = end(setup, pipeline, producer, next_id).await;
    let stored_after = setup.stored().await;
    let mut outage = Outage {
        name: "Postgres away",
        report,
    };
    outage.push_rows(recording, stored_before, stored_after);
    let growth_mb = (bytes_after as f64 - bytes_before as f64) / 1e6;
    outage.push("in the stream", "entries", backlog.entries() as f64);
    outage.push("growth of the stream", "MB", growth_mb);
    outage.push("made good, until stored", "s", caught_up.as_secs_f64());
    let mib = |kib: u64| kib as f64 / 1024.0;
    outage.push("the worker's memory before", "MiB", mib(kib_before));
    outage.push("the worker's memory at most", "MiB", mib(kib_max));
    (rows_after - rows_before) as f64 / caught_up.as_secs_f64()
}

/// Rows a second of a worker, from its start, that drains a stream filled before.
async fn normal_drain(setup: &mut Setup, n_rows: i64, next_id: &mut i64) -> f64 {
    setup.stop_worker();
    let producer = Producer::start(ProducerConfig {
        overflow: Overflow::Block(Duration::from_secs(60)),
        // Entries as large as those of the outage.
        max_rows: 100.try_into().unwrap(),
        ..ProducerConfig::new(setup.servers.redis_url())
    })
    .unwrap();
    let mut left = n_rows;
    while left > 0 {
        let n = left.min(10_000);
        let recorded = producer.record_many(realistic_detections(0, *next_id, n));
        assert_eq!(recorded.accepted, usize::try_from(n).unwrap());
        *next_id += n;
        left -= n;
    }
    producer.close(Duration::from_secs(60)).unwrap();
    let before = setup.servers.n_stored().await;
    let began = Instant::now();
    setup.start_worker();
    setup.settled().await;
    let elapsed = began.elapsed();
    let after = setup.servers.n_stored().await;
    assert_eq!(i64::try_from(after - before).unwrap(), n_rows);
    n_rows as f64 / elapsed.as_secs_f64()
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    if cfg!(debug_assertions) {
        // `cargo test` runs benchmarks, too, and measures nothing by that.
        return;
    }
    spawn_blocking(WorkerProcess::build).await.unwrap();
    let mut setup = Setup::start().await;
    let mut report = Report::new(
        "outage",
        format!(
            "{} detections a second, Redis away for {} s, then Postgres for as long; Redis with its append-only \
             file, `always`; one run",
            args.rate, args.seconds
        ),
        Some(&setup.servers),
    );
    setup.start_worker();
    let mut next_id = 0;
    redis_away(&mut setup, &args, &mut report, &mut next_id).await;
    let made_good = postgres_away(&mut setup, &args, &mut report, &mut next_id).await;
    let n_rows = i64::try_from(args.rate * args.seconds).unwrap();
    let drained = normal_drain(&mut setup, n_rows, &mut next_id).await;
    report.push(Figure {
        what: "Postgres away: made good".to_owned(),
        unit: "rows/s",
        ours: Samples::from_iter([made_good]),
        beside: Some((
            "a stream filled before".to_owned(),
            Samples::from_iter([drained]),
        )),
        target: Target::None,
    });
    println!("{}", report.render(args.json));
}
