//! Rows per second of a worker over tables that hold much already, beside one over empty tables.
//!
//! ```text
//! cargo bench-stored [-- --rows-stored N]… [-- --rows N] [-- --repetitions N] [-- --json]
//! ```
//!
//! Postgres makes the rows of 30 days itself; the last of the days is today, and the worker writes into its
//! partition. The ledger holds the keys of the last seven days, as long as it remembers. The empty tables
//! are a database beside it on the same server, and the two sides take turns; after each run today's
//! partition is as it was.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for people who measure"
)]

use clap::Parser;
use passerby_consumer::{Worker, WorkerConfig};
use passerby_tests::benching::{
    BenchServers, Figure, History, Report, Rows, Samples, Target, settle,
};
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

const ROWS_PER_ENTRY: usize = 100;
const DAYS: i64 = 30;
const DAYS_OF_LEDGER: i64 = 7;
const CAMERAS: i64 = 32;
const EMPTY: &str = "empty";
const FULL: &str = "postgres";

/// Measures a worker over tables that hold much already.
#[derive(Debug, Parser)]
struct Args {
    /// Rows that are stored already; may be given several times.
    #[arg(long, default_values = ["1000000", "10000000", "50000000"])]
    rows_stored: Vec<i64>,
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

/// Fills the ledger with keys that hold their time, of entries of 100 rows.
async fn fill_ledger(client: &Client, history: History) {
    let keys = history.rows_a_day() * DAYS_OF_LEDGER / i64::try_from(ROWS_PER_ENTRY).unwrap();
    client
        .batch_execute(&format!(
            "INSERT INTO ledger (idempotency_key, stream, entry_ms, entry_seq, n_rows, committed_at, made_at)
             SELECT (lpad(to_hex(ms), 12, '0') || '7' || substr(md5(n::text), 1, 3)
                         || '8' || substr(md5(n::text), 4, 15))::uuid,
                    'passerby:0', ms, 0, {ROWS_PER_ENTRY}, at, at
             FROM (
                 SELECT n, at, (extract(epoch FROM at) * 1000)::bigint AS ms
                 FROM (
                     SELECT n, now() - interval '{DAYS_OF_LEDGER} days' * (1 - n::float8 / {keys}) AS at
                     FROM generate_series(1, {keys}) AS n
                 ) AS times
             ) AS numbers"
        ))
        .await
        .unwrap();
    settle(client, "ledger").await;
}

/// Rows per second of draining a stream into a database.
async fn drain(servers: &BenchServers, rows: Rows, database: &str) -> f64 {
    servers.fill(rows).await;
    let client = servers.client_of(database).await;
    let count = "SELECT coalesce(sum(n_rows), 0)::bigint FROM ledger";
    let before: i64 = client.query_one(count, &[]).await.unwrap().get(0);
    client.batch_execute("CHECKPOINT").await.unwrap();
    let config = WorkerConfig {
        drain: true,
        trim_grace: None,
        ..WorkerConfig::new(servers.redis_url(), servers.database_url_of(database))
    };
    let worker = Worker::start(config).await.unwrap();
    let started = Instant::now();
    worker.run(CancellationToken::new()).await.unwrap();
    let elapsed = started.elapsed();
    let after: i64 = client.query_one(count, &[]).await.unwrap().get(0);
    assert_eq!(usize::try_from(after - before).unwrap(), rows.len());
    rows.len() as f64 / elapsed.as_secs_f64()
}

// As the worker's own program runs it.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args = Args::parse();
    let rows = Rows::at_least(args.rows, ROWS_PER_ENTRY);
    let servers = BenchServers::start().await;
    servers.create_database(EMPTY).await;
    let (full, empty) = (
        servers.client_of(FULL).await,
        servers.client_of(EMPTY).await,
    );
    let mut report = Report::new(
        "stored",
        format!(
            "{} rows, {ROWS_PER_ENTRY} an entry, {} cameras; median of {} (min … max)",
            rows.len(),
            Rows::CAMERAS,
            args.repetitions
        ),
        Some(&servers),
    );
    for rows_stored in args.rows_stored {
        let history = History::at_least(rows_stored, DAYS, CAMERAS);
        let clean = "TRUNCATE detections, tracks, ledger, sessions";
        full.batch_execute(clean).await.unwrap();
        history.store(&full).await;
        fill_ledger(&full, history).await;
        let (mut ours, mut beside) = (Samples::new(), Samples::new());
        for repetition in 0..args.repetitions {
            // Who begins changes, should the one who follows have it easier.
            for nth in [repetition % 2, (repetition + 1) % 2] {
                if nth == 0 {
                    ours.push(drain(&servers, rows, FULL).await);
                    full.batch_execute("TRUNCATE ledger").await.unwrap();
                    fill_ledger(&full, history).await;
                    history.store_day(&full, DAYS - 1).await;
                    settle(&full, "detections").await;
                } else {
                    beside.push(drain(&servers, rows, EMPTY).await);
                    empty.batch_execute(clean).await.unwrap();
                }
            }
        }
        report.push(Figure {
            what: format!("drain over {} rows", history.rows),
            unit: "rows/s",
            ours,
            beside: Some(("over none".to_owned(), beside)),
            target: Target::RatioAtLeast(0.9),
        });
    }
    println!("{}", report.render(args.json));
}
