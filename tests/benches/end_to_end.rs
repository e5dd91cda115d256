//! From `record()` to rows that a query sees: how many a second, and how late.
//!
//! ```text
//! cargo bench-end-to-end [-- --rows N] [-- --seconds N] [-- --repetitions N] [-- --json]
//! ```
//!
//! The producer is in this process, the worker a process of its own, both at their defaults where a figure
//! does not say otherwise; Redis and Postgres, too.
//!
//! **Throughput**: all rows are made before the clock starts. It runs from the first `record()` until the
//! group has nothing left that is not acknowledged, and so is committed. `record()` waits for room
//! (`Overflow::Block`): nothing is dropped. Beside it, the same rows, encoded before the clock starts, are
//! written by binary COPY in transactions as large as the worker's: over one connection, and over two, which the
//! worker has (`cargo bench-drain` says more about these sides). The three take turns, in an order of its own
//! each time.
//!
//! **Latency**: rows are recorded one at a time at a steady rate. A row's time begins before its `record()`
//! and ends when a query of another connection would have seen it. That connection asks for
//! `pg_current_snapshot()` every millisecond; a row is visible in a snapshot to which its transaction (its
//! `xmin`, looked up afterwards) has ended. The time is taken when the answer is here, by the clock that
//! began it. So it holds the commit's flush to disk, which Postgres' own commit timestamps do not, and up to
//! a millisecond and a query too much. Rows of the first second are not among them: connections are made
//! then, and partitions.
//!
//! **Latency for batches**: the same at one rate with other settings of the producer and of the worker,
//! beside how many rows that puts into an entry and into a transaction.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for people who measure"
)]

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Parser;
use fastrand::Rng;
use passerby_producer::{Overflow, Producer, ProducerConfig, Recorded};
use passerby_shared::{
    backlog,
    redis_connection::{RedisTimeouts, connect},
};
use passerby_tests::{
    GROUP, WorkerBinary,
    benching::{BenchServers, Figure, Latencies, Pace, Report, Rows, Samples, Target},
    fixtures::realistic_detection,
};
use redis::aio::MultiplexedConnection;
use tokio::{
    runtime,
    task::{JoinHandle, block_in_place, spawn_blocking},
    time::{MissedTickBehavior, interval, sleep},
};

const BATCH_ROWS: usize = 5_000;
const ROWS_PER_CAMERA: usize = 100;
const WARM_UP: u32 = 1;
const RATES: [(u32, Target); 3] = [
    (1_000, Target::None),
    (10_000, Target::AtMost(30.0)),
    (50_000, Target::None),
];
const TUNED_RATE: u32 = 10_000;
/// No row of a benchmark has it.
const FIRST_ROW: i64 = -1;

/// Measures throughput and latency from `record()` to Postgres.
#[derive(Debug, Parser)]
struct Args {
    /// Rows of a run that measures throughput.
    #[arg(long, default_value = "1000000")]
    rows: usize,
    /// How long a run lasts that measures latency.
    #[arg(long, default_value = "10")]
    seconds: u32,
    /// Runs of each kind.
    #[arg(long, default_value = "5")]
    repetitions: usize,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`, and of no meaning here.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Settings that are not the defaults.
#[derive(Debug, Default, Clone, Copy)]
struct Tuning {
    max_delay_ms: Option<u64>,
    max_rows: Option<usize>,
    linger: Option<&'static str>,
    batch_rows: Option<&'static str>,
}

impl Tuning {
    const DEFAULT: Self = Self {
        max_delay_ms: None,
        max_rows: None,
        linger: None,
        batch_rows: None,
    };

    const OTHERS: [Self; 7] = [
        Self {
            max_delay_ms: Some(5),
            ..Self::DEFAULT
        },
        Self {
            max_delay_ms: Some(100),
            ..Self::DEFAULT
        },
        Self {
            max_rows: Some(50),
            ..Self::DEFAULT
        },
        Self {
            linger: Some("1ms"),
            ..Self::DEFAULT
        },
        Self {
            linger: Some("100ms"),
            ..Self::DEFAULT
        },
        Self {
            batch_rows: Some("200"),
            ..Self::DEFAULT
        },
        Self {
            max_delay_ms: Some(5),
            linger: Some("1ms"),
            ..Self::DEFAULT
        },
    ];

    fn name(self) -> String {
        let settings = [
            self.max_delay_ms.map(|ms| format!("max_delay {ms} ms")),
            self.max_rows.map(|rows| format!("max_rows {rows}")),
            self.linger.map(|linger| format!("--linger {linger}")),
            self.batch_rows.map(|rows| format!("--batch-rows {rows}")),
        ];
        let named: Vec<_> = settings.into_iter().flatten().collect();
        if named.is_empty() {
            return "defaults".to_owned();
        }
        named.join(", ")
    }

    fn worker_args(self) -> Vec<&'static str> {
        let linger = self.linger.map(|linger| ["--linger", linger]);
        let batch_rows = self.batch_rows.map(|rows| ["--batch-rows", rows]);
        linger.into_iter().chain(batch_rows).flatten().collect()
    }

    fn change(self, config: &mut ProducerConfig) {
        if let Some(ms) = self.max_delay_ms {
            config.max_delay = Duration::from_millis(ms);
        }
        if let Some(rows) = self.max_rows {
            config.max_rows = NonZeroUsize::new(rows).unwrap();
        }
    }
}

/// A producer and a worker that have just stored one row, on servers that hold nothing else.
struct Pair {
    producer: Producer,
    worker: WorkerBinary,
    redis: MultiplexedConnection,
}

impl Pair {
    async fn start(servers: &BenchServers, overflow: Overflow, tuning: Tuning) -> Self {
        servers.clean().await;
        let mut redis = connect(&servers.redis_url(), RedisTimeouts::default())
            .await
            .unwrap();
        let _: () = redis::cmd("FLUSHALL")
            .query_async(&mut redis)
            .await
            .unwrap();
        let (redis_url, database_url) = (servers.redis.url(), servers.postgres.url("postgres"));
        let mut args = vec!["--redis-url", &redis_url, "--database-url", &database_url];
        args.extend(tuning.worker_args());
        let worker = WorkerBinary::start(&args).await;
        let mut config = ProducerConfig {
            overflow,
            ..ProducerConfig::new(servers.redis_url())
        };
        tuning.change(&mut config);
        let producer = Producer::start(config).unwrap();
        let recorded = producer.record(realistic_detection(0, FIRST_ROW)).unwrap();
        assert_eq!(recorded, Recorded::Accepted);
        while servers.n_stored().await == 0 {
            sleep(Duration::from_millis(20)).await;
        }
        Self {
            producer,
            worker,
            redis,
        }
    }

    /// Waits until everything that was recorded is committed.
    async fn settled(&mut self) {
        let producer = self.producer.clone();
        let flushed = spawn_blocking(move || producer.flush(Duration::from_secs(600)));
        flushed.await.unwrap().unwrap();
        let stream = BenchServers::stream();
        loop {
            let backlog = backlog::measure(&mut self.redis, &stream, GROUP).await;
            if backlog.unwrap().entries() == 0 {
                return;
            }
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Ends both; returns how many rows an entry held.
    async fn stop(self) -> f64 {
        let producer = self.producer;
        let closed = spawn_blocking(move || producer.close(Duration::from_secs(10)));
        let stats = closed.await.unwrap().unwrap();
        let rows = stats.rows();
        assert!(rows.balances() && rows.dropped() == 0, "{stats:?}");
        assert_eq!(stats.saturation.detections_degraded, 0, "{stats:?}");
        drop(self.worker);
        rows.published as f64 / stats.entries_published as f64
    }
}

async fn end_to_end(servers: &BenchServers, rows: Rows) -> Duration {
    let made: Vec<_> = (0..rows.entries).flat_map(|n| rows.of_entry(n)).collect();
    let overflow = Overflow::Block(Duration::from_secs(600));
    let mut pair = Pair::start(servers, overflow, Tuning::DEFAULT).await;
    let producer = pair.producer.clone();
    let began = Instant::now();
    let recording = spawn_blocking(move || {
        for row in made {
            assert_eq!(producer.record(row).unwrap(), Recorded::Accepted);
        }
    });
    recording.await.unwrap();
    pair.settled().await;
    let elapsed = began.elapsed();
    assert_eq!(servers.n_stored().await, rows.len() + 1);
    pair.stop().await;
    elapsed
}

/// Which transactions had ended when.
struct Snapshot {
    at: Instant,
    /// All before this one had,
    xmin: u64,
    /// and of those before this one
    xmax: u64,
    /// all but these.
    running: Vec<u64>,
}

impl Snapshot {
    /// Reads the text form of `pg_snapshot`: `xmin:xmax:xip,xip,…`.
    fn new(at: Instant, text: &str) -> Self {
        let mut parts = text.split(':');
        let mut next = || parts.next().unwrap();
        Self {
            at,
            xmin: next().parse().unwrap(),
            xmax: next().parse().unwrap(),
            running: next()
                .split(',')
                .filter(|xid| !xid.is_empty())
                .map(|xid| xid.parse().unwrap())
                .collect(),
        }
    }

    /// Whether a query with this snapshot sees what a transaction wrote that did commit. The worker's have
    /// no subtransactions, which are not listed.
    fn sees(&self, xid: u64) -> bool {
        xid < self.xmin || (xid < self.xmax && !self.running.contains(&xid))
    }
}

/// Takes a snapshot every millisecond, over a connection of its own.
struct Watch {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<Snapshot>>,
}

impl Watch {
    async fn start(servers: &BenchServers) -> Self {
        let client = servers.client().await;
        let select = client.prepare("SELECT pg_current_snapshot()::text").await;
        let select = select.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut looks = interval(Duration::from_millis(1));
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut snapshots = Vec::new();
            loop {
                looks.tick().await;
                let is_last = told.load(Relaxed);
                let row = client.query_one(&select, &[]).await.unwrap();
                snapshots.push(Snapshot::new(Instant::now(), row.get(0)));
                if is_last {
                    return snapshots;
                }
            }
        });
        Self { stop, task }
    }

    async fn stop(self) -> Vec<Snapshot> {
        self.stop.store(true, Relaxed);
        self.task.await.unwrap()
    }
}

/// What one run of a rate showed.
struct Latency {
    latencies: Latencies,
    rows_per_entry: f64,
    rows_per_transaction: f64,
}

async fn latency(servers: &BenchServers, rate: u32, seconds: u32, tuning: Tuning) -> Latency {
    let mut pair = Pair::start(servers, Overflow::default(), tuning).await;
    let watch = Watch::start(servers).await;
    let producer = pair.producer.clone();
    let recording = spawn_blocking(move || {
        let n_rows = rate * (WARM_UP + seconds);
        let mut recorded_at = Vec::with_capacity(usize::try_from(n_rows).unwrap());
        let mut pace = Pace::per_second(rate);
        for id in 0..i64::from(n_rows) {
            pace.wait();
            let row = realistic_detection(usize::try_from(id % 16).unwrap(), id);
            recorded_at.push(Instant::now());
            assert_eq!(producer.record(row).unwrap(), Recorded::Accepted);
        }
        recorded_at
    });
    let recorded_at = recording.await.unwrap();
    pair.settled().await;
    let snapshots = watch.stop().await;
    let rows_per_entry = pair.stop().await;

    let stored = servers
        .client()
        .await
        .query(
            "SELECT detection_id, xmin::text::bigint FROM detections WHERE detection_id >= 0",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(stored.len(), recorded_at.len());
    let mut visible_at: HashMap<u64, Instant> = HashMap::new();
    let mut latencies = Latencies::with_capacity(stored.len());
    let n_warm_up = usize::try_from(rate * WARM_UP).unwrap();
    for row in &stored {
        let xid = u64::try_from(row.get::<_, i64>(1)).unwrap();
        let visible_at = *visible_at.entry(xid).or_insert_with(|| {
            // What one snapshot sees, all later ones do.
            snapshots[snapshots.partition_point(|snapshot| !snapshot.sees(xid))].at
        });
        let row_idx = usize::try_from(row.get::<_, i64>(0)).unwrap();
        if row_idx >= n_warm_up {
            latencies.push(visible_at.duration_since(recorded_at[row_idx]));
        }
    }
    Latency {
        latencies,
        rows_per_entry,
        rows_per_transaction: stored.len() as f64 / visible_at.len() as f64,
    }
}

/// The runs of one rate and tuning.
#[derive(Default)]
struct Runs {
    p50: Samples,
    p99: Samples,
    rows_per_entry: Samples,
    rows_per_transaction: Samples,
}

impl Runs {
    fn push(&mut self, mut run: Latency) {
        let mut ms = |per_mille| run.latencies.at_per_mille(per_mille).as_secs_f64() * 1e3;
        self.p50.push(ms(500));
        self.p99.push(ms(990));
        self.rows_per_entry.push(run.rows_per_entry);
        self.rows_per_transaction.push(run.rows_per_transaction);
    }

    fn report(self, what: &str, target: Target, report: &mut Report) {
        for (quantity, unit, ours, target) in [
            ("p50", "ms", self.p50, Target::None),
            ("p99", "ms", self.p99, target),
            ("rows an entry", "", self.rows_per_entry, Target::None),
            (
                "rows a transaction",
                "",
                self.rows_per_transaction,
                Target::None,
            ),
        ] {
            report.push(Figure {
                what: format!("{what}: {quantity}"),
                unit,
                ours,
                beside: None,
                target,
            });
        }
    }
}

/// Bare COPY of rows that are encoded already, over so many connections.
async fn raw_copy(
    servers: &BenchServers,
    rows: Rows,
    batches: &Arc<Vec<Bytes>>,
    connections: usize,
) -> Duration {
    servers.clean().await;
    // On one thread, as the worker runs: waking another takes as long as an answer of Postgres'.
    let one_thread = runtime::Builder::new_current_thread().enable_all().build();
    let elapsed = block_in_place(|| {
        let copying = servers.copy(batches, connections);
        one_thread.unwrap().block_on(copying)
    });
    assert_eq!(servers.n_stored().await, rows.len());
    elapsed
}

/// Beside raw COPY over one connection, and over two.
async fn throughput(servers: &BenchServers, rows: Rows, repetitions: usize) -> [Figure; 2] {
    let batches = Arc::new(rows.encode(BATCH_ROWS));
    let mut rates = [const { Samples::new() }; 3];
    let mut random = Rng::with_seed(1);
    let mut order = [0, 1, 2];
    for _ in 0..repetitions {
        // Should it be easier to follow one than another.
        random.shuffle(&mut order);
        for side in order {
            let elapsed = match side {
                0 => end_to_end(servers, rows).await,
                connections => raw_copy(servers, rows, &batches, connections).await,
            };
            rates[side].push(rows.len() as f64 / elapsed.as_secs_f64());
        }
    }
    let [ours, over_one, over_two] = rates;
    let beside = [
        ("raw COPY, 1 connection", over_one),
        ("raw COPY, 2 connections", over_two),
    ];
    beside.map(|(who, copies)| Figure {
        what: "record() to Postgres, all at once".to_owned(),
        unit: "rows/s",
        ours: ours.clone(),
        beside: Some((who.to_owned(), copies)),
        target: Target::RatioAtLeast(0.7),
    })
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    if cfg!(debug_assertions) {
        // `cargo test` runs benchmarks, too, and measures nothing by that.
        return;
    }
    let rows = Rows::at_least(args.rows, ROWS_PER_CAMERA);
    let servers = BenchServers::start().await;
    let mut report = Report::new(
        "end-to-end",
        format!(
            "{} rows for throughput, {} s for latency; median of {} (min … max)",
            rows.len(),
            args.seconds,
            args.repetitions
        ),
        Some(&servers),
    );
    for figure in throughput(&servers, rows, args.repetitions).await {
        report.push(figure);
    }

    let at_defaults = RATES.map(|(rate, target)| (rate, Tuning::DEFAULT, target));
    let tuned = Tuning::OTHERS.map(|tuning| (TUNED_RATE, tuning, Target::None));
    let settings: Vec<_> = at_defaults.into_iter().chain(tuned).collect();
    let mut runs: Vec<Runs> = settings.iter().map(|_| Runs::default()).collect();
    for _ in 0..args.repetitions {
        for ((rate, tuning, _), runs) in settings.iter().zip(&mut runs) {
            runs.push(latency(&servers, *rate, args.seconds, *tuning).await);
        }
    }
    for ((rate, tuning, target), runs) in settings.into_iter().zip(runs) {
        let what = format!("{rate} a second, {}", tuning.name());
        runs.report(&what, target, &mut report);
    }
    println!("{}", report.render(args.json));
}
