//! Rows per second of one worker that drains a filled stream, beside raw binary COPY of the same rows.
//!
//! Both sides write the same rows in transactions of the same size into the same table with the same
//! indices of the same server, over one and over two connections, in turns. The raw side has its rows
//! encoded before the clock starts and writes neither ledger nor sessions; it reads no Redis. Before
//! each run the tables are emptied and a checkpoint is made.
//!
//! ```text
//! cargo bench-drain [-- --rows N] [-- --repetitions N] [-- --json]
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people who measure"
)]

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use bytes::Bytes;
use clap::Parser;
use passerby_consumer::{
    Worker, WorkerConfig,
    store::{CopyBuffer, DatabaseUrl, Store},
};
use passerby_servers::{PostgresOptions, PostgresServer, RedisOptions, RedisServer};
use passerby_shared::{
    IdempotencyKey, KeyPrefix, StreamKey,
    redis_connection::{RedisTimeouts, connect},
    wire,
};
use passerby_tests::fixtures::realistic_detections;
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

const ROWS_PER_ENTRY: usize = 100;
const CAMERAS: usize = 16;
const BATCH_ROWS: usize = 5_000;
const CONNECTIONS: [usize; 2] = [1, 2];

/// Measures a worker that drains a filled stream beside raw binary COPY.
#[derive(Debug, Parser)]
struct Args {
    /// Rows in the stream.
    #[arg(long, default_value = "1000000")]
    rows: usize,
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

/// The two servers and how they are set up.
struct Setup {
    redis: RedisServer,
    postgres: PostgresServer,
}

impl Setup {
    fn start() -> Self {
        Self {
            redis: RedisServer::start(RedisOptions::default()).unwrap(),
            // Everything at its default, above all `fsync`.
            postgres: PostgresServer::start(PostgresOptions {
                fsync: true,
                ..PostgresOptions::default()
            })
            .unwrap(),
        }
    }

    fn database_url(&self) -> DatabaseUrl {
        self.postgres.url("postgres").parse().unwrap()
    }

    fn stream() -> StreamKey {
        KeyPrefix::default().stream(0)
    }

    /// Empties the tables and writes everything to disk, so that no run pays for the one before.
    async fn clean(&self) {
        let (client, connection) = tokio_postgres::connect(&self.postgres.url("postgres"), NoTls)
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        client
            .batch_execute("TRUNCATE detections, ledger, sessions; CHECKPOINT")
            .await
            .unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
    }

    async fn n_rows(&self) -> usize {
        let (client, connection) = tokio_postgres::connect(&self.postgres.url("postgres"), NoTls)
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let row = client
            .query_one("SELECT count(*) FROM detections", &[])
            .await
            .unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
        usize::try_from(row.get::<_, i64>(0)).unwrap()
    }
}

/// The rows of one entry.
fn entry(n: usize) -> Vec<passerby_shared::Detection> {
    let first = i64::try_from(n * ROWS_PER_ENTRY).unwrap();
    realistic_detections(n % CAMERAS, first, i64::try_from(ROWS_PER_ENTRY).unwrap())
}

/// Fills the stream; returns the bytes that Redis needs for it.
async fn fill(setup: &Setup, n_entries: usize) -> u64 {
    let url = setup.redis.url().parse().unwrap();
    let mut redis = connect(&url, RedisTimeouts::default()).await.unwrap();
    let stream = Setup::stream();
    let _: () = redis::cmd("DEL")
        .arg(&stream)
        .query_async(&mut redis)
        .await
        .unwrap();
    for first in (0..n_entries).step_by(100) {
        let mut pipe = redis::pipe();
        for n in first..n_entries.min(first + 100) {
            let mut payload = Vec::new();
            wire::encode_detections(&entry(n), &mut payload);
            pipe.cmd("XADD")
                .arg(&stream)
                .arg(&["*", "v", "1", "k", "d", "i"])
                .arg(IdempotencyKey::generate().as_bytes())
                .arg("p")
                .arg(payload)
                .ignore();
        }
        let _: () = pipe.query_async(&mut redis).await.unwrap();
    }
    redis::cmd("MEMORY")
        .arg("USAGE")
        .arg(&stream)
        .query_async(&mut redis)
        .await
        .unwrap()
}

/// The same rows in batches, encoded for COPY.
fn encode(n_entries: usize) -> Vec<Bytes> {
    let entries_per_batch = BATCH_ROWS / ROWS_PER_ENTRY;
    (0..n_entries)
        .step_by(entries_per_batch)
        .map(|first| {
            let mut buffer = CopyBuffer::new();
            for n in first..n_entries.min(first + entries_per_batch) {
                for detection in entry(n) {
                    buffer.push(&detection.as_ref());
                }
            }
            buffer.freeze()
        })
        .collect()
}

async fn drain(setup: &Setup, connections: usize) -> Duration {
    let config = WorkerConfig {
        drain: true,
        batch_rows: NonZeroUsize::new(BATCH_ROWS).unwrap(),
        committers: NonZeroUsize::new(connections).unwrap(),
        trim_grace: None,
        ..WorkerConfig::new(setup.redis.url().parse().unwrap(), setup.database_url())
    };
    let worker = Worker::start(config).await.unwrap();
    let started = Instant::now();
    worker.run(CancellationToken::new()).await.unwrap();
    started.elapsed()
}

async fn copy(setup: &Setup, connections: usize, batches: &Arc<Vec<Bytes>>) -> Duration {
    let mut stores = Vec::new();
    for _ in 0..connections {
        stores.push(Store::connect(&setup.database_url()).await.unwrap());
    }
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for (nth, mut store) in stores.into_iter().enumerate() {
        let batches = Arc::clone(batches);
        tasks.spawn(async move {
            for batch in batches.iter().skip(nth).step_by(connections) {
                store.copy_raw(batch.clone()).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    started.elapsed()
}

/// Rows per second of some runs.
struct Rates(Vec<f64>);

impl Rates {
    fn sorted(&self) -> Vec<f64> {
        let mut rates = self.0.clone();
        rates.sort_by(f64::total_cmp);
        rates
    }

    fn median(&self) -> f64 {
        let rates = self.sorted();
        f64::midpoint(rates[(rates.len() - 1) / 2], rates[rates.len() / 2])
    }

    fn spread(&self) -> (f64, f64) {
        let rates = self.sorted();
        (rates[0], rates[rates.len() - 1])
    }

    fn json(&self) -> serde_json::Value {
        json!({"median": self.median(), "min": self.spread().0, "max": self.spread().1, "all": self.0})
    }
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let n_entries = args.rows.div_ceil(ROWS_PER_ENTRY).max(1);
    let n_rows = n_entries * ROWS_PER_ENTRY;
    let setup = Setup::start();
    Store::connect(&setup.database_url())
        .await
        .unwrap()
        .migrate()
        .await
        .unwrap();
    let batches = Arc::new(encode(n_entries));
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2⁵³")]
    let rate = |elapsed: Duration| n_rows as f64 / elapsed.as_secs_f64();

    let mut results = Vec::new();
    let mut redis_bytes = 0;
    for connections in CONNECTIONS {
        let (mut drains, mut copies) = (Rates(Vec::new()), Rates(Vec::new()));
        for repetition in 0..args.repetitions {
            // Who begins changes, should the one who follows have it easier.
            for nth in [repetition % 2, (repetition + 1) % 2] {
                if nth == 0 {
                    redis_bytes = fill(&setup, n_entries).await;
                }
                setup.clean().await;
                let (rates, elapsed) = if nth == 0 {
                    (&mut drains, drain(&setup, connections).await)
                } else {
                    (&mut copies, copy(&setup, connections, &batches).await)
                };
                assert_eq!(setup.n_rows().await, n_rows);
                rates.0.push(rate(elapsed));
            }
        }
        results.push((connections, drains, copies));
    }
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2⁵³")]
    let bytes_per_row = redis_bytes as f64 / n_rows as f64;
    report(&args, &setup, n_rows, bytes_per_row, &results);
}

fn report(
    args: &Args,
    setup: &Setup,
    n_rows: usize,
    bytes_per_row: f64,
    results: &[(usize, Rates, Rates)],
) {
    let (redis, postgres) = (setup.redis.version_line(), setup.postgres.version_line());
    if args.json {
        let runs: Vec<_> = results
            .iter()
            .map(|(connections, drains, copies)| {
                json!({
                    "connections": connections,
                    "drain_rows_per_second": drains.json(),
                    "copy_rows_per_second": copies.json(),
                    "ratio": drains.median() / copies.median(),
                })
            })
            .collect();
        let all = json!({
            "redis": redis, "postgres": postgres, "fsync": true, "rows": n_rows,
            "rows_per_entry": ROWS_PER_ENTRY, "cameras": CAMERAS, "batch_rows": BATCH_ROWS,
            "redis_bytes_per_row": bytes_per_row, "runs": runs,
        });
        println!("{all:#}");
        return;
    }
    println!("{redis}\n{postgres}, default settings (fsync on)");
    println!(
        "{n_rows} rows, {ROWS_PER_ENTRY} an entry ({bytes_per_row:.1} bytes of Redis a row), \
         {CAMERAS} cameras, {BATCH_ROWS} a batch; rows/s, median of {} (min … max)\n",
        args.repetitions
    );
    for (connections, drains, copies) in results {
        let show = |rates: &Rates| {
            let (min, max) = rates.spread();
            format!("{:>9.0} ({min:.0} … {max:.0})", rates.median())
        };
        println!(
            "{connections} connection(s): worker {}   raw COPY {}   ratio {:.2}",
            show(drains),
            show(copies),
            drains.median() / copies.median()
        );
    }
}
