//! What an outage of Redis, and one of Postgres, costs a pipeline at a steady rate, and how fast it is made
//! good.
//!
//! ```text
//! cargo bench-outage [-- --seconds 300] [-- --rate 5000] [-- --json]
//! ```
//!
//! First Redis is killed for so long and started again on what it had synced; the producer has a spool.
//! Then Postgres is. In between and at the end every row is counted. The worker is a process of its own.
//! What is made good after Postgres' outage is put beside what the same worker drains of a stream filled
//! before, on the same servers.
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
use passerby_servers::{Appendonly, PostgresOptions, PostgresServer, RedisOptions, RedisServer};
use passerby_shared::{
    Backlog, KeyPrefix, backlog,
    redis_connection::{RedisTimeouts, connect},
};
use passerby_tests::{GROUP, build_program, fixtures::realistic_detections};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_postgres::NoTls;

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
    redis: RedisServer,
    postgres: PostgresServer,
    worker: Option<Child>,
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.stop_worker();
    }
}

impl Setup {
    fn start() -> Self {
        Self {
            redis: RedisServer::start(RedisOptions {
                appendonly: Appendonly::Always,
                ..RedisOptions::default()
            })
            .unwrap(),
            postgres: PostgresServer::start(PostgresOptions {
                fsync: true,
                ..PostgresOptions::default()
            })
            .unwrap(),
            worker: None,
        }
    }

    fn start_worker(&mut self) {
        let child = Command::new(build_program("passerby-worker"))
            .args(["--redis-url", &self.redis.url()])
            .args(["--database-url", &self.postgres.url("postgres")])
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

    async fn backlog(&self) -> Backlog {
        let url = self.redis.url().parse().unwrap();
        let mut connection = connect(&url, RedisTimeouts::default()).await.unwrap();
        let stream = KeyPrefix::default().stream(0);
        backlog::measure(&mut connection, &stream, GROUP)
            .await
            .unwrap()
    }

    async fn stream_bytes(&self) -> u64 {
        let url = self.redis.url().parse().unwrap();
        let mut connection = connect(&url, RedisTimeouts::default()).await.unwrap();
        redis::cmd("MEMORY")
            .arg("USAGE")
            .arg(KeyPrefix::default().stream(0))
            .query_async(&mut connection)
            .await
            .unwrap_or(0)
    }

    /// Rows, and different rows.
    async fn stored(&self) -> (i64, i64) {
        let (client, connection) = tokio_postgres::connect(&self.postgres.url("postgres"), NoTls)
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let sql = "SELECT count(*), count(DISTINCT detection_id) FROM detections";
        let row = client.query_one(sql, &[]).await.unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
        (row.get(0), row.get(1))
    }

    async fn settled(&self) {
        while self.backlog().await.entries() > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A pipeline that records at a steady rate on a thread of its own until told to stop.
struct Pipeline {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Recording>,
}

struct Recording {
    accepted: i64,
    refused: u64,
    /// Of each call, in nanoseconds.
    calls: Vec<u32>,
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
                    calls: Vec::new(),
                };
                let mut id = first_id;
                while !told.load(Relaxed) {
                    frames.tick().await;
                    for detection in realistic_detections(0, id, per_frame) {
                        let called = Instant::now();
                        let recorded = producer.record(detection).unwrap();
                        let nanos = called.elapsed().as_nanos();
                        recording
                            .calls
                            .push(u32::try_from(nanos).unwrap_or(u32::MAX));
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

fn calls(calls: &mut [u32]) -> serde_json::Value {
    calls.sort_unstable();
    let at = |per_mille: usize| f64::from(calls[(calls.len() - 1) * per_mille / 1_000]) / 1e3;
    json!({
        "n": calls.len(),
        "p50_us": at(500),
        "p99_us": at(990),
        "p99_9_us": at(999),
        "max_us": at(1_000),
    })
}

async fn redis_away(setup: &mut Setup, args: &Args, next_id: &mut i64) -> serde_json::Value {
    let dir = tempfile::tempdir().unwrap();
    let producer = Producer::start(ProducerConfig {
        spool: Some(SpoolConfig::new(dir.path().join("spool"))),
        ..ProducerConfig::new(setup.redis.url().parse().unwrap())
    })
    .unwrap();
    let pipeline = Pipeline::start(producer.clone(), args.rate, *next_id);
    sleep(Duration::from_secs(5)).await;
    setup.redis.kill().unwrap();
    sleep(Duration::from_secs(args.seconds)).await;
    let at_worst = producer.stats();
    setup.redis.restart().unwrap();
    let back = Instant::now();
    // The pipeline goes on while its spool is emptied.
    while producer.stats().rows().spooled > args.rate / 5 {
        sleep(Duration::from_millis(10)).await;
    }
    let published = back.elapsed();
    setup.settled().await;
    let stored = back.elapsed();
    let mut recording = pipeline.stop();
    let stats = producer.close(Duration::from_secs(30)).unwrap();
    setup.settled().await;
    *next_id += recording.accepted + i64::try_from(recording.refused).unwrap();
    assert!(stats.rows().balances(), "{stats:?}");
    json!({
        "record": calls(&mut recording.calls),
        "accepted": recording.accepted,
        "refused": recording.refused,
        "lost": stats.rows().dropped(),
        "spooled_rows": at_worst.rows().spooled,
        "spool_bytes": at_worst.spool.bytes,
        "published_after_s": published.as_secs_f64(),
        "stored_after_s": stored.as_secs_f64(),
    })
}

async fn postgres_away(setup: &mut Setup, args: &Args, next_id: &mut i64) -> serde_json::Value {
    let producer =
        Producer::start(ProducerConfig::new(setup.redis.url().parse().unwrap())).unwrap();
    let pipeline = Pipeline::start(producer.clone(), args.rate, *next_id);
    sleep(Duration::from_secs(5)).await;
    let (rows_before, _) = setup.stored().await;
    let kib_before = setup.worker_kib();
    let stream_before = setup.stream_bytes().await;
    setup.postgres.kill().unwrap();
    let mut kib_max = 0;
    for _ in 0..args.seconds {
        sleep(Duration::from_secs(1)).await;
        kib_max = kib_max.max(setup.worker_kib());
    }
    let backlog = setup.backlog().await;
    let stream_after = setup.stream_bytes().await;
    setup.postgres.restart().unwrap();
    let back = Instant::now();
    while setup.backlog().await.entries() > 50 {
        sleep(Duration::from_millis(20)).await;
    }
    let caught_up = back.elapsed();
    kib_max = kib_max.max(setup.worker_kib());
    let (rows_after, _) = setup.stored().await;
    let mut recording = pipeline.stop();
    let stats = producer.close(Duration::from_secs(30)).unwrap();
    setup.settled().await;
    *next_id += recording.accepted + i64::try_from(recording.refused).unwrap();
    json!({
        "record": calls(&mut recording.calls),
        "accepted": recording.accepted,
        "refused": recording.refused,
        "lost": stats.rows().dropped(),
        "backlog_entries": backlog.entries(),
        "stream_bytes_before": stream_before,
        "stream_bytes_after": stream_after,
        "worker_kib_before": kib_before,
        "worker_kib_max": kib_max,
        "caught_up_after_s": caught_up.as_secs_f64(),
        "rows_per_s": (rows_after - rows_before) as f64 / caught_up.as_secs_f64(),
    })
}

/// Rows a second of the same worker that drains a stream filled before.
async fn normal_drain(setup: &mut Setup, n_rows: i64, next_id: &mut i64) -> f64 {
    setup.stop_worker();
    let producer = Producer::start(ProducerConfig {
        overflow: Overflow::Block(Duration::from_secs(60)),
        // Entries as large as those of the outage.
        max_rows: 100.try_into().unwrap(),
        ..ProducerConfig::new(setup.redis.url().parse().unwrap())
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
    setup.start_worker();
    let (before, _) = setup.stored().await;
    let began = Instant::now();
    setup.settled().await;
    let (after, _) = setup.stored().await;
    (after - before) as f64 / began.elapsed().as_secs_f64()
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    if cfg!(debug_assertions) {
        // `cargo test` runs benchmarks, too, and measures nothing by that.
        return;
    }
    let mut setup = Setup::start();
    setup.start_worker();
    let mut next_id = 0;
    let redis = redis_away(&mut setup, &args, &mut next_id).await;
    let after_redis = setup.stored().await;
    let postgres = postgres_away(&mut setup, &args, &mut next_id).await;
    let after_postgres = setup.stored().await;
    let n_rows = i64::try_from(args.rate * args.seconds).unwrap();
    let normal = normal_drain(&mut setup, n_rows, &mut next_id).await;
    let report = json!({
        "seconds": args.seconds,
        "rate": args.rate,
        "servers": [setup.redis.version_line(), setup.postgres.version_line()],
        "redis_away": redis,
        "stored_after_redis": { "rows": after_redis.0, "different": after_redis.1 },
        "postgres_away": postgres,
        "stored_after_postgres": { "rows": after_postgres.0, "different": after_postgres.1 },
        "normal_drain_rows_per_s": normal,
    });
    if args.json {
        println!("{report}");
    } else {
        println!("{report:#}");
    }
}
