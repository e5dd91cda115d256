//! One worker beside Python programs that drain the same rows into Postgres.
//!
//! The Python program is `peers/drain.py`: redis-py with hiredis, msgpack, asyncpg's binary COPY or its
//! `executemany`, acknowledging after the commit. Its stream holds the same rows in entries of the same
//! size, each an array of MessagePack maps, and it is asked for the time from its first read to its last
//! acknowledgement; the worker's process is measured from its start to its end, which is to its
//! disadvantage. First all write into the same table, Passerby's, over one connection, 50 entries (5,000
//! rows) at a time. Then each is as it comes: the worker with its defaults, the Python program reading 10
//! entries at a time into a table of its own with an index on each of time, camera and track.
//!
//! ```text
//! cargo bench-peers [-- --rows N] [-- --repetitions N] [-- --json]
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for people who measure"
)]

use std::{num::NonZeroUsize, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use clap::Parser;
use passerby_consumer::{Worker, WorkerConfig};
use passerby_tests::benching::{
    BenchServers, Drained, Figure, Python, Report, Rows, Samples, Target, Usage, WorkerProcess,
};
use tokio::{task::spawn_blocking, time::Instant};
use tokio_util::sync::CancellationToken;

const ROWS_PER_ENTRY: usize = 100;
/// As many as a worker's batch holds by default,
const BATCH_ROWS: usize = 5_000;
/// which are so many entries.
const ENTRIES_PER_READ: &str = "50";
/// As many as Redis' own examples read.
const PEERS_OWN_ENTRIES_PER_READ: &str = "10";
const STREAM: &str = "peers";

/// Measures a worker beside Python programs.
#[derive(Debug, Parser)]
struct Args {
    /// Rows in the streams.
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

/// The table of the Python program as it comes.
const PEERS_OWN_TABLE: &str = "
DROP TABLE IF EXISTS peer_detections;
CREATE TABLE peer_detections (LIKE detections);
CREATE INDEX ON peer_detections (timestamp);
CREATE INDEX ON peer_detections (camera_id);
CREATE INDEX ON peer_detections (track_id);
CHECKPOINT";

/// What writes the rows.
#[derive(Debug, Clone, Copy)]
enum Side {
    /// The worker's program; with its defaults, or with these arguments.
    Process(&'static [&'static str]),
    /// The same over one connection, with the Python program's entries.
    ProcessOfMaps,
    /// The worker as a library, over one connection.
    Library,
    /// Bare COPY of rows that are encoded before the clock starts, over one connection: who reads rows from
    /// Redis cannot be faster.
    RawCopy,
    /// The Python program: its table, entries of each read, and how it writes.
    Python(&'static str, &'static str, &'static str),
}

const SIDES: [Side; 8] = [
    Side::Process(&["--committers", "1"]),
    Side::ProcessOfMaps,
    Side::Library,
    Side::RawCopy,
    Side::Python("detections", ENTRIES_PER_READ, "copy"),
    Side::Python("detections", ENTRIES_PER_READ, "executemany"),
    Side::Process(&[]),
    Side::Python("peer_detections", PEERS_OWN_ENTRIES_PER_READ, "copy"),
];

/// What each run of a side took.
#[derive(Debug, Default, Clone)]
struct Measured {
    rows_per_s: Samples,
    cpu_us: Samples,
    peak_mib: Samples,
}

impl Side {
    async fn run(
        self,
        servers: &BenchServers,
        rows: Rows,
        encoded: &Arc<Vec<Bytes>>,
        python: &Python,
    ) -> Drained {
        servers.clean().await;
        let client = servers.client().await;
        let table = match self {
            Self::Python(table, ..) => table,
            Self::Process(_) | Self::ProcessOfMaps | Self::Library | Self::RawCopy => "detections",
        };
        if table != "detections" {
            client.batch_execute(PEERS_OWN_TABLE).await.unwrap();
        }
        match self {
            Self::Process(_) | Self::Library => drop(servers.fill(rows).await),
            Self::ProcessOfMaps => drop(servers.fill_plain(rows).await),
            Self::RawCopy | Self::Python(..) => {}
        }
        let drained = match self {
            Self::Process(args) => WorkerProcess::start(servers, args).drained().await,
            Self::ProcessOfMaps => {
                let one = &["--committers", "1"];
                WorkerProcess::start(servers, one).drained().await
            }
            Self::Library => library(servers).await,
            Self::RawCopy => {
                let before = Usage::of_this_process();
                in_this_process(servers.copy(encoded, 1).await, before)
            }
            Self::Python(table, per_read, mode) => {
                let (redis, postgres) = (servers.redis.url(), servers.postgres.url("postgres"));
                let python = python.clone();
                let told = spawn_blocking(move || {
                    let n_rows = rows.len().to_string();
                    let from_to = [&redis, &postgres, STREAM, table];
                    let how = [&n_rows, per_read, mode];
                    python.run("drain.py", from_to.into_iter().chain(how))
                })
                .await
                .unwrap();
                let seconds = |name| Duration::from_secs_f64(told[name].as_f64().unwrap());
                Drained {
                    elapsed: seconds("seconds"),
                    usage: Usage {
                        cpu: seconds("cpu_seconds"),
                        peak_kib: told["peak_kib"].as_u64().unwrap(),
                    },
                }
            }
        };
        let sql = format!("SELECT count(*) FROM {table}");
        let stored: i64 = client.query_one(&sql, &[]).await.unwrap().get(0);
        assert_eq!(usize::try_from(stored).unwrap(), rows.len());
        drained
    }
}

/// What it took that this process did itself.
fn in_this_process(elapsed: Duration, before: Usage) -> Drained {
    let after = Usage::of_this_process();
    Drained {
        elapsed,
        usage: Usage {
            cpu: after.cpu - before.cpu,
            ..after
        },
    }
}

async fn library(servers: &BenchServers) -> Drained {
    let config = WorkerConfig {
        drain: true,
        committers: NonZeroUsize::MIN,
        ..WorkerConfig::new(servers.redis_url(), servers.database_url())
    };
    let worker = Worker::start(config).await.unwrap();
    let (before, started) = (Usage::of_this_process(), Instant::now());
    worker.run(CancellationToken::new()).await.unwrap();
    in_this_process(started.elapsed(), before)
}

// As the worker's own program runs it.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args = Args::parse();
    let rows = Rows::at_least(args.rows, ROWS_PER_ENTRY);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let python = spawn_blocking(|| Python::install(target)).await.unwrap();
    spawn_blocking(WorkerProcess::build).await.unwrap();
    let servers = BenchServers::start().await;
    servers.fill_with_maps(rows, STREAM).await;
    let encoded = Arc::new(rows.encode(BATCH_ROWS));
    let mut measured = vec![Measured::default(); SIDES.len()];
    for repetition in 0..args.repetitions {
        // Who begins changes, should those who follow have it easier.
        for nth in 0..SIDES.len() {
            let side = (nth + repetition) % SIDES.len();
            let drained = SIDES[side].run(&servers, rows, &encoded, &python).await;
            let measured = &mut measured[side];
            let n_rows = rows.len() as f64;
            measured
                .rows_per_s
                .push(n_rows / drained.elapsed.as_secs_f64());
            measured
                .cpu_us
                .push(drained.usage.cpu.as_secs_f64() * 1e6 / n_rows);
            measured
                .peak_mib
                .push(drained.usage.peak_kib as f64 / 1024.0);
        }
    }
    let [
        process,
        process_of_maps,
        library,
        raw_copy,
        copy,
        executemany,
        process_as_it_comes,
        copy_as_it_comes,
    ] = <[Measured; SIDES.len()]>::try_from(measured).unwrap();

    let mut report = Report::new(
        "peers",
        format!(
            "{} rows, {ROWS_PER_ENTRY} an entry, {} cameras; median of {} (min … max)",
            rows.len(),
            Rows::CAMERAS,
            args.repetitions
        ),
        Some(&servers),
    );
    let mut push = |what: &str, unit, ours: &Samples, who: &str, beside: &Samples, target| {
        report.push(Figure {
            what: what.to_owned(),
            unit,
            ours: ours.clone(),
            beside: Some((who.to_owned(), beside.clone())),
            target,
        });
    };
    let rates = [
        (
            "process, one connection",
            &process,
            "Python, COPY",
            &copy,
            2.5,
        ),
        (
            "process, one connection, the same entries of maps",
            &process_of_maps,
            "Python, COPY",
            &copy,
            2.5,
        ),
        (
            "library, one connection",
            &library,
            "Python, COPY",
            &copy,
            2.5,
        ),
        (
            "process, one connection",
            &process,
            "Python, executemany",
            &executemany,
            5.0,
        ),
        (
            "process, as it comes",
            &process_as_it_comes,
            "Python, COPY, as it comes",
            &copy_as_it_comes,
            4.0,
        ),
    ];
    // What a worker is held against that cost nothing at all.
    for (who, beside) in [
        ("Python, COPY", &copy),
        ("Python, executemany", &executemany),
    ] {
        let ours = &raw_copy.rows_per_s;
        let what = "raw COPY, one connection";
        push(what, "rows/s", ours, who, &beside.rows_per_s, Target::None);
    }
    for (what, ours, who, beside, least) in rates {
        push(
            what,
            "rows/s",
            &ours.rows_per_s,
            who,
            &beside.rows_per_s,
            Target::RatioAtLeast(least),
        );
    }
    push(
        "processor time, one connection",
        "µs/row",
        &process.cpu_us,
        "Python, COPY",
        &copy.cpu_us,
        Target::AtMost(0.6),
    );
    push(
        "processor time, one connection, the same entries of maps",
        "µs/row",
        &process_of_maps.cpu_us,
        "Python, COPY",
        &copy.cpu_us,
        Target::None,
    );
    push(
        "processor time, as it comes",
        "µs/row",
        &process_as_it_comes.cpu_us,
        "Python, COPY, as it comes",
        &copy_as_it_comes.cpu_us,
        Target::AtMost(0.6),
    );
    push(
        "peak memory, one connection",
        "MiB",
        &process.peak_mib,
        "Python, COPY",
        &copy.peak_mib,
        Target::None,
    );
    push(
        "peak memory, as it comes",
        "MiB",
        &process_as_it_comes.peak_mib,
        "Python, COPY, as it comes",
        &copy_as_it_comes.peak_mib,
        Target::None,
    );
    println!("{}", report.render(args.json));
}
