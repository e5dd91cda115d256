//! Rows per second of one worker that drains a filled stream, beside raw binary COPY of the same rows.
//!
//! Both sides write the same rows in transactions of the same size into the same table with the same
//! indices of the same server, over one and over two connections. They take turns of 0.4 s: one stands still
//! while another is at work; for that each has a database of its own. The raw side has its rows encoded before
//! the clock starts and writes neither ledger nor sessions; it reads no Redis. Before each run the tables are
//! emptied and a checkpoint is made. Autovacuum is off: who came by to analyze a table would do so in the turn of
//! whoever has his then.
//!
//! A worker sends the rows of a batch session by session and track by track, which Postgres takes more quickly than
//! as they come; another raw side has them in that order, too.
//!
//! Two more sides show what a worker's parts cost: raw COPY that reads and acknowledges the stream beside it and
//! throws away what it read; and commits of batches made before, with ledger, sessions and books, which read
//! and decode nothing. Connections are opened within the time of every side.
//!
//! ```text
//! cargo bench-drain [-- --rows N] [-- --repetitions N] [-- --json]
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for people who measure"
)]

use std::{mem, num::NonZeroUsize, sync::Arc, time::Duration};

use bytes::Bytes;
use clap::Parser;
use fastrand::Rng;
use passerby_consumer::{
    Worker, WorkerConfig,
    batch::Batch,
    store::{DatabaseUrl, Store},
};
use passerby_shared::redis_connection::{RedisTimeouts, RedisUrl, connect};
use passerby_tests::benching::{
    BenchServers, Copying, Figure, InBatch, Report, Rows, Samples, Side, Target, Work,
};
use redis::{Pipeline, Value, aio::MultiplexedConnection};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const ROWS_PER_ENTRY: usize = 100;
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

const SIDES: usize = 5;
const DATABASES: [&str; SIDES] = ["worker", "copy", "reading", "commits", "sorted"];

fn worker_config(servers: &BenchServers, connections: usize) -> WorkerConfig {
    WorkerConfig {
        drain: true,
        batch_rows: NonZeroUsize::new(BATCH_ROWS).unwrap(),
        committers: NonZeroUsize::new(connections).unwrap(),
        trim_grace: None,
        ..WorkerConfig::new(servers.redis_url(), servers.database_url_of(DATABASES[0]))
    }
}

async fn drain(config: WorkerConfig) -> Work {
    let worker = Worker::start(config).await.unwrap();
    Box::pin(async move {
        worker.run(CancellationToken::new()).await.unwrap();
    })
}

/// A stream's name, and its entries with their IDs.
type OfStream = (Value, Vec<(Value, Value)>);

/// Reads entries of the stream, which nobody decodes.
struct Reader(MultiplexedConnection);

impl Reader {
    const GROUP: &str = "nobody";

    async fn start(url: &RedisUrl) -> Self {
        Self(connect(url, RedisTimeouts::default()).await.unwrap())
    }

    async fn make_group(&mut self) {
        redis::cmd("XGROUP")
            .arg(&["CREATE", BenchServers::stream().as_str(), Self::GROUP, "0"])
            .exec_async(&mut self.0)
            .await
            .unwrap();
    }

    fn ack(pipe: &mut Pipeline, committed: Vec<Value>) {
        if committed.is_empty() {
            return;
        }
        let stream = BenchServers::stream();
        let ack = pipe.cmd("XACK").arg(stream.as_str()).arg(Self::GROUP);
        for id in committed {
            let Value::BulkString(id) = id else {
                panic!("the ID of an entry: {id:?}")
            };
            ack.arg(id);
        }
        ack.ignore();
    }

    /// Acknowledges entries whose rows are committed, and reads those of a batch, in one packet; returns their IDs.
    async fn next(&mut self, consumer: &str, committed: Vec<Value>) -> Vec<Value> {
        let mut pipe = redis::pipe();
        Self::ack(&mut pipe, committed);
        pipe.cmd("XREADGROUP")
            .arg(&["GROUP", Self::GROUP, consumer, "COUNT"])
            .arg(BATCH_ROWS / ROWS_PER_ENTRY)
            .arg(&["STREAMS", BenchServers::stream().as_str(), ">"]);
        let (streams,): (Vec<OfStream>,) = pipe.query_async(&mut self.0).await.unwrap();
        let entries = streams.into_iter().flat_map(|(_, entries)| entries);
        entries.map(|(id, _)| id).collect()
    }

    async fn end(&mut self, committed: Vec<Value>) {
        let mut pipe = redis::pipe();
        Self::ack(&mut pipe, committed);
        pipe.exec_async(&mut self.0).await.unwrap();
    }
}

/// Copies a batch for each that it has read of the stream; the next is read meanwhile, as by a worker.
async fn copy_and_read(
    redis: RedisUrl,
    database: DatabaseUrl,
    batches: Arc<Vec<Bytes>>,
    entries: usize,
    connections: usize,
) {
    Reader::start(&redis).await.make_group().await;
    let mut tasks = JoinSet::new();
    // Who has no batch reads nothing.
    for nth in 0..connections.min(batches.len()) {
        let mut store = Store::connect(&database).await.unwrap();
        let mut reader = Reader::start(&redis).await;
        let batches = Arc::clone(&batches);
        tasks.spawn(async move {
            let consumer = nth.to_string();
            let mut n_read = 0;
            let mut committed = Vec::new();
            let mut read = reader.next(&consumer, Vec::new()).await;
            let mut batches = batches.iter().skip(nth).step_by(connections).peekable();
            while let Some(batch) = batches.next() {
                n_read += read.len();
                let copying = store.copy_raw(batch.clone());
                let of_before = mem::replace(&mut committed, read);
                let reading = async {
                    if batches.peek().is_some() {
                        return reader.next(&consumer, of_before).await;
                    }
                    reader.end(of_before).await;
                    Vec::new()
                };
                let (copied, next) = tokio::join!(copying, reading);
                copied.unwrap();
                read = next;
            }
            reader.end(committed).await;
            n_read
        });
    }
    let n_read: usize = tasks.join_all().await.into_iter().sum();
    assert_eq!(n_read, entries);
    let mut reader = Reader::start(&redis).await;
    let pending: (usize, Value, Value, Value) = redis::cmd("XPENDING")
        .arg(&[BenchServers::stream().as_str(), Reader::GROUP])
        .query_async(&mut reader.0)
        .await
        .unwrap();
    assert_eq!(pending.0, 0, "entries are pending");
}

/// Commits batches as a worker does, without having read or decoded them.
async fn commit(database: DatabaseUrl, batches: Vec<Batch>, connections: usize) {
    let mut of_connections: Vec<Vec<Batch>> = (0..connections).map(|_| Vec::new()).collect();
    for (nth, batch) in batches.into_iter().enumerate() {
        of_connections[nth % connections].push(batch);
    }
    let mut tasks = JoinSet::new();
    for batches in of_connections {
        let mut store = Store::connect(&database).await.unwrap();
        tasks.spawn(async move {
            for batch in &batches {
                let (settled, report) = store.commit(batch).await.unwrap();
                drop(settled);
                assert_eq!(report.duplicates, 0);
            }
        });
    }
    tasks.join_all().await;
}

/// The worker; raw COPY; raw COPY that reads the stream; commits without Redis; and raw COPY of rows in the order that
/// a worker sends them in.
#[expect(
    clippy::async_yields_async,
    reason = "what is prepared begins its work with its first turn"
)]
fn prepare(
    servers: &BenchServers,
    rows: Rows,
    batches: &Arc<Vec<Bytes>>,
    sorted: &Arc<Vec<Bytes>>,
    connections: usize,
) -> [Side; SIDES] {
    let config = worker_config(servers, connections);
    let redis = servers.redis_url();
    let [_, of_copy, of_reading, of_commits, of_sorted] =
        DATABASES.map(|name| servers.database_url_of(name));
    let (copied, copied_and_read) = (Arc::clone(batches), Arc::clone(batches));
    let sorted = Arc::clone(sorted);
    [
        Side::prepare(move || drain(config)),
        Side::prepare(async move || {
            Box::pin(async move {
                let copying = Copying::prepare(&of_copy, &copied, connections).await;
                copying.run().await;
            }) as Work
        }),
        Side::prepare(async move || {
            Box::pin(copy_and_read(
                redis,
                of_reading,
                copied_and_read,
                rows.entries,
                connections,
            )) as Work
        }),
        Side::prepare(async move || {
            let batches = rows.batches(BATCH_ROWS).collect();
            Box::pin(commit(of_commits, batches, connections)) as Work
        }),
        Side::prepare(async move || {
            Box::pin(async move {
                let copying = Copying::prepare(&of_sorted, &sorted, connections).await;
                copying.run().await;
            }) as Work
        }),
    ]
}

// As the worker's own program runs it.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args = Args::parse();
    if cfg!(debug_assertions) {
        // `cargo test` runs benchmarks, too, and measures nothing by that.
        return;
    }
    let rows = Rows::at_least(args.rows, ROWS_PER_ENTRY);
    let servers = BenchServers::start().await;
    servers.without_autovacuum().await;
    for database in DATABASES {
        servers.create_database(database).await;
    }
    let batches = Arc::new(rows.encode(BATCH_ROWS));
    let sorted = Arc::new(
        rows.encoded(BATCH_ROWS, InBatch::BySessionAndTrack)
            .collect(),
    );
    let mut report = Report::new(
        "drain",
        format!(
            "{} rows, {ROWS_PER_ENTRY} an entry, {} cameras, {BATCH_ROWS} a batch, sides in turns, autovacuum off; median of {} (min … max)",
            rows.len(),
            Rows::CAMERAS,
            args.repetitions
        ),
        Some(&servers),
    );
    let mut random = Rng::with_seed(1);
    let mut bytes_in_redis = 0;
    for connections in CONNECTIONS {
        let mut rates = [const { Samples::new() }; SIDES];
        // Of Redis and of Postgres.
        let mut cpu = [const { [const { Samples::new() }; 2] }; SIDES];
        for _ in 0..args.repetitions {
            bytes_in_redis = servers.fill(rows).await;
            for database in DATABASES {
                servers.clean_database(database).await;
            }
            let mut sides = prepare(&servers, rows, &batches, &sorted, connections);
            let mut order: Vec<usize> = (0..SIDES).collect();
            let mut used = [[Duration::ZERO; 2]; SIDES];
            let mut n_at_work = sides.len();
            while n_at_work > 0 {
                n_at_work = 0;
                // Should it be easier to follow one than another.
                random.shuffle(&mut order);
                for &nth in &order {
                    let before = servers.cpu();
                    n_at_work += usize::from(sides[nth].take_turn(&servers.pids()));
                    let after = servers.cpu();
                    for (used, (before, after)) in
                        used[nth].iter_mut().zip(before.into_iter().zip(after))
                    {
                        *used += after.saturating_sub(before);
                    }
                }
            }
            for database in DATABASES {
                assert_eq!(servers.n_stored_in(database).await, rows.len());
            }
            for (nth, side) in sides.iter().enumerate() {
                rates[nth].push(rows.len() as f64 / side.elapsed.as_secs_f64());
                for (samples, used) in cpu[nth].iter_mut().zip(used[nth]) {
                    samples.push(used.as_secs_f64() * 1e6 / rows.len() as f64);
                }
            }
        }
        let [worker, copy, copy_and_read, commit, sorted_copy] = rates;
        let [
            [redis, postgres],
            [_, copying],
            [_, beside_reading],
            [_, committing],
            [_, copying_sorted],
        ] = cpu;
        let of = |what: &str| format!("{what}, {connections} connection(s)");
        let of_sorted = "raw COPY in the worker's order";
        report.push(Figure {
            what: of("drain"),
            unit: "rows/s",
            ours: worker.clone(),
            beside: Some(("raw COPY".to_owned(), copy.clone())),
            target: Target::RatioAtLeast(0.95),
        });
        report.push(Figure {
            what: of("drain"),
            unit: "rows/s",
            ours: worker,
            beside: Some((of_sorted.to_owned(), sorted_copy.clone())),
            target: Target::None,
        });
        let figures = [
            (of_sorted, "rows/s", sorted_copy, &copy, Target::None),
            (
                "raw COPY, reading the stream",
                "rows/s",
                copy_and_read,
                &copy,
                Target::None,
            ),
            (
                "commits without Redis",
                "rows/s",
                commit,
                &copy,
                Target::None,
            ),
            (
                "Postgres' processor time a row, drain",
                "µs",
                postgres,
                &copying,
                Target::None,
            ),
            (
                "Postgres' processor time a row, raw COPY reading the stream",
                "µs",
                beside_reading,
                &copying,
                Target::None,
            ),
            (
                "Postgres' processor time a row, raw COPY in the worker's order",
                "µs",
                copying_sorted,
                &copying,
                Target::None,
            ),
            (
                "Postgres' processor time a row, commits without Redis",
                "µs",
                committing,
                &copying,
                Target::None,
            ),
        ];
        for (what, unit, ours, beside, target) in figures {
            report.push(Figure {
                what: of(what),
                unit,
                ours,
                beside: Some(("raw COPY".to_owned(), beside.clone())),
                target,
            });
        }
        report.push(Figure {
            what: of("Redis' processor time a row, drain"),
            unit: "µs",
            ours: redis,
            beside: None,
            target: Target::None,
        });
    }
    report.push(Figure {
        what: "a row in Redis".to_owned(),
        unit: "bytes",
        ours: Samples::from_iter([bytes_in_redis as f64 / rows.len() as f64]),
        beside: None,
        target: Target::None,
    });
    println!("{}", report.render(args.json));
}
