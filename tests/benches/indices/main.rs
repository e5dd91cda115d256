//! What indices and columns cost the COPY of detections, in rows a second and in bytes, and what queries
//! gain by them.
//!
//! The same rows are copied in transactions of 5,000 into a table of each candidate, made anew for every
//! run and partitioned by day as Passerby's is. The candidates take turns by transaction, so that a machine
//! which becomes slower does so for all of them. Then each is vacuumed, as autovacuum would do, measured, and
//! asked. The bytes for COPY are made before the clock runs. All queries are planned anew, as those of the
//! store are, on the candidate's own connection.
//!
//! The rows of a transaction are in the order that a worker sends them in, session by session and in each track
//! by track, since what an index over both costs depends on it. With `--as-they-come` they are in the order in
//! which they arrive.
//!
//! ```text
//! cargo bench-indices [-- --rows N] [-- --days N] [-- --cameras N] [-- --queries N] [-- --only TEXT]…
//!                     [-- --as-they-come] [-- --repetitions N] [-- --json]
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a program for people who measure"
)]

mod asking;
mod candidates;
mod loading;

use clap::Parser;
use fastrand::Rng;
use passerby_tests::benching::{BenchServers, Figure, History, InBatch, Report, Target};

use crate::{
    asking::{Measured, QUERYING},
    candidates::{CANDIDATES, Candidate, Columns},
    loading::{BATCH_ROWS, load, name_the_numbers},
};

/// Measures what indices cost and gain.
#[derive(Debug, Parser)]
struct Args {
    /// Rows of each table.
    #[arg(long, default_value = "2000000")]
    rows: i64,
    /// Days that they are of, a partition each.
    #[arg(long, default_value = "1")]
    days: i64,
    /// Cameras that they are of.
    #[arg(long, default_value = "32")]
    cameras: i64,
    /// Only the candidate of this name, or those whose names have this in it; may be given several times.
    #[arg(long)]
    only: Vec<String>,
    /// Copies the rows of a transaction as they come, not in the order of a worker.
    #[arg(long)]
    as_they_come: bool,
    /// Queries of each kind that a 95th percentile is taken of; a tenth of those over a day.
    #[arg(long, default_value = "200")]
    queries: i64,
    /// Runs of each candidate.
    #[arg(long, default_value = "3")]
    repetitions: usize,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`, and of no meaning here.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    fn order(&self) -> InBatch {
        if self.as_they_come {
            return InBatch::AsTheyCome;
        }
        InBatch::BySessionAndTrack
    }
}

fn report(
    args: &Args,
    history: History,
    servers: &BenchServers,
    candidates: &[&Candidate],
    measured: &[Measured],
) -> Report {
    let order = match args.order() {
        InBatch::AsTheyCome => "as they come",
        InBatch::BySessionAndTrack => "in the worker's order",
    };
    let mut report = Report::new(
        "indices",
        format!(
            "{} rows of {} days and {} cameras, {BATCH_ROWS} a COPY, {order}, candidates in turns; 95th percentiles \
             of {} queries, or those of {QUERYING:?}; median of {} (min … max)",
            history.rows, history.days, history.cameras, args.queries, args.repetitions
        ),
        Some(servers),
    );
    let named = |name: &str| {
        let at = candidates
            .iter()
            .position(|candidate| candidate.name == name)?;
        Some(&measured[at])
    };
    let bare = named("none").map(|bare| ("no index".to_owned(), bare.rows_per_s.clone()));
    let plain = candidates
        .iter()
        .position(|candidate| candidate.columns == Columns::Plain);
    let plain = plain.map(|at| ("the plain table".to_owned(), measured[at].bytes.clone()));
    for (candidate, measured) in candidates.iter().zip(measured) {
        let figures = [
            (
                "COPY",
                "rows/s",
                &measured.rows_per_s,
                bare.clone(),
                Target::None,
            ),
            (
                "size",
                "bytes/row",
                &measured.bytes,
                plain.clone(),
                Target::RatioAtMost(0.5),
            ),
            (
                "one camera one minute",
                "ms",
                &measured.minute_ms,
                None,
                Target::AtMost(5.0),
            ),
            (
                "one track",
                "ms",
                &measured.track_ms,
                None,
                Target::AtMost(5.0),
            ),
            (
                "one track, its time known",
                "ms",
                &measured.track_within_its_span_ms,
                None,
                Target::None,
            ),
            (
                "people per hour of a day",
                "ms",
                &measured.hours_ms,
                None,
                Target::AtMost(50.0),
            ),
            (
                "the same of one camera",
                "ms",
                &measured.hours_of_camera_ms,
                None,
                Target::AtMost(50.0),
            ),
        ];
        for (what, unit, ours, beside, target) in figures {
            // Without the other side there is no ratio to reach.
            let target = match target {
                Target::RatioAtMost(_) if beside.is_none() => Target::None,
                target => target,
            };
            report.push(Figure {
                what: format!("{}: {what}", candidate.name),
                unit,
                ours: ours.clone(),
                beside,
                target,
            });
        }
    }
    report
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let history = History::at_least(args.rows, args.days, args.cameras);
    let servers = BenchServers::start().await;
    let client = servers.client().await;
    client
        .batch_execute("CREATE SCHEMA candidates; SET search_path = candidates")
        .await
        .unwrap();
    name_the_numbers(&client, history).await;
    let candidates: Vec<_> = CANDIDATES
        .iter()
        .filter(|candidate| {
            args.only.is_empty() || args.only.iter().any(|text| candidate.is_meant_by(text))
        })
        .collect();
    let mut measured = vec![Measured::default(); candidates.len()];
    let mut random = Rng::with_seed(1);
    for salt in 0..args.repetitions {
        let mut clients = Vec::new();
        for (nth, candidate) in candidates.iter().enumerate() {
            let client = servers.client().await;
            client
                .batch_execute(&format!(
                    "CREATE SCHEMA candidate_{nth}; SET search_path = candidate_{nth}, candidates"
                ))
                .await
                .unwrap();
            candidate.create(&client, history).await;
            clients.push(client);
        }
        client.batch_execute("CHECKPOINT").await.unwrap();
        let elapsed = load(
            &candidates,
            &clients,
            &client,
            history,
            args.order(),
            &mut random,
        )
        .await;
        for (nth, (candidate, measured)) in candidates.iter().zip(&mut measured).enumerate() {
            let rate = history.rows as f64 / elapsed[nth].as_secs_f64();
            measured.rows_per_s.push(rate);
            let salt = i64::try_from(salt).unwrap();
            measured
                .ask(&clients[nth], candidate, history, args.queries, salt)
                .await;
            client
                .batch_execute(&format!("DROP SCHEMA candidate_{nth} CASCADE"))
                .await
                .unwrap();
        }
    }
    let report = report(&args, history, &servers, &candidates, &measured);
    println!("{}", report.render(args.json));
}
