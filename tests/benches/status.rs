//! How long `passerby status` takes on a long stream with many pending entries, many consumers, producers that are
//! gone, and many dead letters: the whole of it, with the process's start and both connections.
//!
//! ```text
//! cargo bench-status [-- --entries N] [-- --pending N] [-- --repetitions N] [-- --json]
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people who measure"
)]

use std::process::{Command, Stdio};

use clap::Parser;
use passerby_consumer::{
    ops::{self, Target as Group},
    store::{Store, StoreTimeouts},
};
use passerby_shared::{
    IdempotencyKey, KeyPrefix,
    books::{ProducerRecord, RowBooks, tell},
    redis_connection::{RedisLink, RedisTimeouts, connect},
    wire,
};
use passerby_tests::benching::{
    BenchServers, Figure, Report, Rows, Samples, Target, passerby_program,
};
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

/// Longest time for the whole, in ms.
const TARGET_MS: f64 = 300.0;
const PAGE: usize = 1_000;

/// Measures how long `passerby status` takes.
#[derive(Debug, Parser)]
struct Args {
    /// Entries in the stream.
    #[arg(long, default_value = "1000000")]
    entries: usize,
    /// Entries that are pending.
    #[arg(long, default_value = "100000")]
    pending: usize,
    /// Rows of each entry.
    #[arg(long, default_value = "3")]
    rows_per_entry: usize,
    /// Consumers that they are pending with.
    #[arg(long, default_value = "32")]
    consumers: usize,
    /// Producers that have told their books.
    #[arg(long, default_value = "200")]
    producers: usize,
    /// Dead letters in the table.
    #[arg(long, default_value = "1000000")]
    dead_letters: i64,
    /// Runs.
    #[arg(long, default_value = "20")]
    repetitions: usize,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`, and of no meaning here.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let servers = BenchServers::start().await;
    prepare(&args, &servers).await;
    let setup = format!(
        "{} entries, {} of them pending with {} consumers, one deleted so that lag is NULL, {} producers, {} dead \
         letters, {} runs",
        args.entries,
        args.pending,
        args.consumers,
        args.producers,
        args.dead_letters,
        args.repetitions
    );
    let mut report = Report::new("status", setup, Some(&servers));
    let figure = |what: &str, ours| Figure {
        what: what.to_owned(),
        unit: "ms",
        ours,
        beside: None,
        target: Target::AtMost(TARGET_MS),
    };
    report.push(figure("`passerby status`, whole", command(&args, &servers)));
    let (first, again) = library(&args, &servers).await;
    report.push(figure("`ops::status`, connecting", first));
    report.push(figure("`ops::status`, connected", again));
    println!("{}", report.render(args.json));
}

/// The binary, from its start to its end.
fn command(args: &Args, servers: &BenchServers) -> Samples {
    let program = passerby_program();
    let mut samples = Samples::new();
    for _ in 0..args.repetitions {
        let begun = Instant::now();
        let status = Command::new(&program)
            .args(["status", "--redis-url", &servers.redis.url()])
            .args(["--database-url", &servers.postgres.url("postgres")])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        samples.push(begun.elapsed().as_secs_f64() * 1e3);
        assert!(status.success());
    }
    samples
}

/// The library, with new connections and with those it has.
async fn library(args: &Args, servers: &BenchServers) -> (Samples, Samples) {
    let (mut first, mut again) = (Samples::new(), Samples::new());
    for _ in 0..args.repetitions {
        let mut target = Group {
            link: RedisLink::new(servers.redis_url(), RedisTimeouts::default()),
            key_prefix: KeyPrefix::default(),
            streams: vec![BenchServers::stream()],
            group: "passerby".to_owned(),
        };
        let mut store = Store::new(servers.database_url(), StoreTimeouts::default());
        for samples in [&mut first, &mut again] {
            let begun = Instant::now();
            let status = ops::status(&mut target, &mut store).await;
            samples.push(begun.elapsed().as_secs_f64() * 1e3);
            let redis = status.redis.unwrap();
            assert_eq!(redis.pending(), args.pending as u64);
            assert_eq!(
                status.store.unwrap().dead_letters_waiting(),
                args.dead_letters.cast_unsigned()
            );
        }
    }
    (first, again)
}

async fn prepare(args: &Args, servers: &BenchServers) {
    let rows = Rows {
        entries: args.entries,
        per_entry: args.rows_per_entry,
    };
    let mut redis = connect(&servers.redis_url(), RedisTimeouts::default())
        .await
        .unwrap();
    let stream = BenchServers::stream();
    let mut payload = Vec::new();
    wire::encode_detections(&rows.of_entry(0), &mut payload);
    for first in (0..args.entries).step_by(PAGE) {
        let mut pipe = redis::pipe();
        for _ in first..args.entries.min(first + PAGE) {
            pipe.cmd("XADD")
                .arg(&stream)
                .arg(&["*", "v", "1", "k", "d", "i"])
                .arg(IdempotencyKey::generate().as_bytes())
                .arg("p")
                .arg(&payload)
                .ignore();
        }
        let _: () = pipe.query_async(&mut redis).await.unwrap();
    }
    run(
        &mut redis,
        redis::cmd("XGROUP").arg(&["CREATE", stream.as_str(), "passerby", "0"]),
    )
    .await;
    let mut left = args.pending;
    for n in 0.. {
        if left == 0 {
            break;
        }
        let count = left.min(PAGE);
        left -= count;
        let consumer = format!("gate-{}", n % args.consumers);
        run(
            &mut redis,
            redis::cmd("XREADGROUP")
                .arg(&["GROUP", "passerby", &consumer, "COUNT"])
                .arg(count)
                .arg(&["STREAMS", stream.as_str(), ">"]),
        )
        .await;
    }
    // An entry deleted ahead of the group: from here on the server does not know its lag.
    let last: Vec<(String, redis::Value)> = redis::cmd("XREVRANGE")
        .arg(&stream)
        .arg(&["+", "-", "COUNT", "2"])
        .query_async(&mut redis)
        .await
        .unwrap();
    run(&mut redis, redis::cmd("XDEL").arg(&stream).arg(&last[1].0)).await;
    for n in 0..args.producers {
        let record = ProducerRecord {
            closed: true,
            detections: RowBooks {
                accepted: 1_000,
                published: 1_000,
                ..RowBooks::default()
            },
            ..ProducerRecord::default()
        };
        let hash = KeyPrefix::default().producers();
        run(&mut redis, &tell(&hash, &format!("producer-{n}"), &record)).await;
    }
    let letters = format!(
        "INSERT INTO dead_letters (dead_lettered_at, stream, entry_id, idempotency_key, reason, message, fields)
         SELECT now(), 'passerby:stream:{{0}}', n || '-0', gen_random_uuid(),
                CASE n % 3 WHEN 0 THEN 'refused' WHEN 1 THEN 'invalid-row' ELSE 'undecodable' END,
                'for the benchmark', '\\x90'
         FROM generate_series(1, {}) AS n",
        args.dead_letters
    );
    servers
        .client()
        .await
        .batch_execute(&letters)
        .await
        .unwrap();
}

async fn run(redis: &mut MultiplexedConnection, command: &redis::Cmd) {
    let _: redis::Value = command.query_async(redis).await.unwrap();
}
