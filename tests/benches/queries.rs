//! How long queries take over a month of a site, and what a detection takes in Postgres and in Redis.
//!
//! Postgres makes the rows of a month itself, in the order in which they would have arrived. Queries are
//! those of the store, which connects anew for each stream of detections as `passerby query` does, and the
//! same ones on a connection that is open. Rows of a part of the month are stored beside in one plain
//! table, for its size.
//!
//! ```text
//! cargo bench-queries [-- --rows N] [-- --days N] [-- --repetitions N] [-- --json]
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for people who measure"
)]

use std::{ops::Range, pin::pin, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use clap::Parser;
use futures_util::TryStreamExt;
use passerby_consumer::store::{Bucket, Counted, DemographicsFilter, DetectionFilter, Store};
use passerby_tests::benching::{
    BenchServers, Burst, Figure, History, Report, Rows, Samples, Target, bytes_of, settle,
};
use tokio::time::Instant;
use tokio_postgres::{Client, types::ToSql};

const ROWS_PER_ENTRY: usize = 100;
/// Then no further query is begun: one that is slow tells so the first time.
const QUERYING: Duration = Duration::from_secs(20);

/// Measures queries, and what a detection takes.
#[derive(Debug, Parser)]
struct Args {
    /// Rows of all days.
    #[arg(long, default_value = "20000000")]
    rows: i64,
    /// Days that they are of, a partition each.
    #[arg(long, default_value = "30")]
    days: i64,
    /// Cameras that they are of.
    #[arg(long, default_value = "32")]
    cameras: i64,
    /// Rows of the plain table, and of the streams.
    #[arg(long, default_value = "1000000")]
    rows_beside: i64,
    /// Queries of each kind that a 95th percentile is taken of; a tenth where all rows of a day are read.
    #[arg(long, default_value = "200")]
    queries: i64,
    /// Runs of each kind, each of other queries.
    #[arg(long, default_value = "5")]
    repetitions: i64,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`, and of no meaning here.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A detection as many a program stores it.
const PLAIN: &str = "
CREATE TABLE plain_detections (
    id                bigserial        PRIMARY KEY,
    timestamp         timestamptz      NOT NULL,
    session_id        text             NOT NULL,
    camera_id         text             NOT NULL,
    channel_id        integer          NOT NULL,
    detection_id      bigint           NOT NULL,
    track_id          bigint,
    confidence        double precision,
    bbox_x            double precision NOT NULL,
    bbox_y            double precision NOT NULL,
    bbox_width        double precision NOT NULL,
    bbox_height       double precision NOT NULL,
    gender            text,
    gender_confidence double precision,
    frame_number      bigint           NOT NULL,
    created_at        timestamptz      DEFAULT now(),
    metadata          jsonb
);
CREATE INDEX ON plain_detections (timestamp);
CREATE INDEX ON plain_detections (camera_id);
CREATE INDEX ON plain_detections (track_id);
CREATE INDEX ON plain_detections (session_id);
CREATE INDEX ON plain_detections (camera_id, timestamp);";

const PLAIN_COLUMNS: &str = "timestamp, session_id, camera_id, channel_id, detection_id, track_id, \
                             confidence, bbox_x, bbox_y, bbox_width, bbox_height, gender, \
                             gender_confidence, frame_number";

/// What the store asks, here of one camera.
const MINUTE: &str = "
SELECT timestamp, session_id, camera_id, channel_id, detection_id, track_id, confidence,
       bbox_x, bbox_y, bbox_width, bbox_height, gender, gender_confidence, frame_number, degraded
FROM detections
WHERE timestamp >= $1 AND timestamp < $2
  AND camera_id = $3
ORDER BY timestamp, camera_id, detection_id";

/// A track's detections, wherever they are.
const TRACK: &str = "
SELECT *
FROM detections
WHERE session_id = $1 AND camera_id = $2 AND track_id = $3
ORDER BY timestamp";

/// The same, looking where the track was.
const TRACK_WITHIN_ITS_SPAN: &str = "
SELECT detections.*
FROM tracks
JOIN detections USING (session_id, camera_id, track_id)
WHERE session_id = $1 AND camera_id = $2 AND track_id = $3
  AND timestamp BETWEEN start_time AND end_time
ORDER BY timestamp";

/// The 95th percentile of how long the queries took, in ms; each must find something.
async fn p95(
    bursts: impl Iterator<Item = Burst>,
    mut query: impl AsyncFnMut(Burst) -> usize,
) -> f64 {
    let mut samples = Samples::new();
    let begun = Instant::now();
    for burst in bursts {
        if begun.elapsed() > QUERYING {
            break;
        }
        let started = Instant::now();
        let n_rows = query(burst.clone()).await;
        samples.push(started.elapsed().as_secs_f64() * 1e3);
        assert!(n_rows > 0, "{burst:?}");
    }
    samples.at(0.95)
}

fn span(at: DateTime<Utc>, width: TimeDelta) -> Range<DateTime<Utc>> {
    let width_us = width.num_microseconds().unwrap();
    let start = at - TimeDelta::microseconds(at.timestamp_micros() % width_us);
    start..start + width
}

struct Bench {
    history: History,
    client: Client,
    store: Store,
    args: Args,
}

impl Bench {
    async fn ask(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> usize {
        self.client.query(sql, params).await.unwrap().len()
    }

    async fn detections(&mut self, range: Range<DateTime<Utc>>, filter: &DetectionFilter) -> usize {
        let rows = self
            .store
            .query_detections_by_time(range, filter)
            .await
            .unwrap();
        let mut rows = pin!(rows);
        let mut n_rows = 0;
        while rows.try_next().await.unwrap().is_some() {
            n_rows += 1;
        }
        n_rows
    }

    async fn people(
        &mut self,
        counted: Counted,
        range: Range<DateTime<Utc>>,
        camera_id: Option<String>,
    ) -> usize {
        let filter = DemographicsFilter {
            counted,
            camera_id,
            session_id: None,
        };
        self.store
            .demographics(range, Bucket::Hour, &filter)
            .await
            .unwrap()
            .len()
    }

    async fn push_all(&mut self, report: &mut Report) {
        let ever = DateTime::UNIX_EPOCH..Utc::now() + TimeDelta::days(10);
        let day = |burst: &Burst| span(burst.start, TimeDelta::days(1));
        let minute = |burst: &Burst| span(burst.start, TimeDelta::minutes(1));
        let mut all: [(&str, Target, Samples); 9] = [
            (
                "one camera, one minute",
                Target::AtMost(5.0),
                Samples::new(),
            ),
            (
                "the same by the store, connecting",
                Target::None,
                Samples::new(),
            ),
            ("one track", Target::AtMost(5.0), Samples::new()),
            (
                "the same within the track's span",
                Target::AtMost(5.0),
                Samples::new(),
            ),
            (
                "the same by the store, connecting, at any time",
                Target::None,
                Samples::new(),
            ),
            (
                "people who arrived in each hour of a day",
                Target::AtMost(50.0),
                Samples::new(),
            ),
            (
                "people seen in each hour of a day, by their detections",
                Target::None,
                Samples::new(),
            ),
            ("the same of one camera", Target::None, Samples::new()),
            (
                "people seen by one camera in one hour",
                Target::None,
                Samples::new(),
            ),
        ];
        let history = self.history;
        for salt in 0..self.args.repetitions {
            for (nth, (_, _, samples)) in all.iter_mut().enumerate() {
                let n_queries = if [6, 7].contains(&nth) {
                    self.args.queries.div_euclid(10).max(1)
                } else {
                    self.args.queries
                };
                // Streams take their connection with them: who counts people next would connect first.
                let now = Utc::now();
                self.people(Counted::Arrived, now..now, None).await;
                let bursts = history.some_bursts(n_queries, salt);
                let sample = p95(bursts, async |burst| {
                    let Burst {
                        session_id,
                        camera_id,
                        track_id,
                        ..
                    } = &burst;
                    match nth {
                        0 => {
                            let Range { start, end } = minute(&burst);
                            self.ask(MINUTE, &[&start, &end, camera_id]).await
                        }
                        1 => {
                            let filter = DetectionFilter::camera(camera_id);
                            self.detections(minute(&burst), &filter).await
                        }
                        2 => self.ask(TRACK, &[session_id, camera_id, track_id]).await,
                        3 => {
                            self.ask(TRACK_WITHIN_ITS_SPAN, &[session_id, camera_id, track_id])
                                .await
                        }
                        4 => {
                            let filter = DetectionFilter {
                                session_id: Some(session_id.clone()),
                                track_id: Some(*track_id),
                                ..DetectionFilter::camera(camera_id)
                            };
                            self.detections(ever.clone(), &filter).await
                        }
                        5 => self.people(Counted::Arrived, day(&burst), None).await,
                        6 => self.people(Counted::Seen, day(&burst), None).await,
                        7 => {
                            let camera_id = Some(camera_id.clone());
                            self.people(Counted::Seen, day(&burst), camera_id).await
                        }
                        _ => {
                            let hour = span(burst.start, TimeDelta::hours(1));
                            let camera_id = Some(camera_id.clone());
                            self.people(Counted::Seen, hour, camera_id).await
                        }
                    }
                })
                .await;
                samples.push(sample);
            }
        }
        for (what, target, ours) in all {
            report.push(Figure {
                what: what.to_owned(),
                unit: "ms, p95",
                ours,
                beside: None,
                target,
            });
        }
    }

    /// The bytes of a detection with its indices, and those of a row of the plain table.
    async fn bytes(&self) -> (f64, f64) {
        let history = History::at_least(self.args.rows_beside, self.args.days, self.args.cameras);
        let select = history.select(0, history.rows);
        self.client
            .batch_execute(&format!(
                "{PLAIN}
                 INSERT INTO plain_detections ({PLAIN_COLUMNS}) SELECT {PLAIN_COLUMNS} FROM ({select}) AS rows"
))
.await
.unwrap();
        settle(&self.client, "plain_detections").await;
        let bytes =
            async |table: &str, rows: i64| bytes_of(&self.client, table).await as f64 / rows as f64;
        (
            bytes("detections", self.history.rows).await,
            bytes("plain_detections", history.rows).await,
        )
    }
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let history = History::at_least(args.rows, args.days, args.cameras);
    let servers = BenchServers::start().await;
    let client = servers.client().await;
    history.store(&client).await;
    let mut report = Report::new(
        "queries",
        format!(
            "{} rows of {} days and {} cameras; 95th percentiles of {} queries, or those of \
             {QUERYING:?}; median of {} (min … max)",
            history.rows, history.days, history.cameras, args.queries, args.repetitions
        ),
        Some(&servers),
    );
    let store = Store::connect(&servers.database_url()).await.unwrap();
    let mut bench = Bench {
        history,
        client,
        store,
        args,
    };
    bench.push_all(&mut report).await;
    let (ours, plain) = bench.bytes().await;
    report.push(Figure {
        what: "a detection in Postgres, with indices".to_owned(),
        unit: "bytes",
        ours: [ours].into_iter().collect(),
        beside: Some(("one plain table".to_owned(), [plain].into_iter().collect())),
        target: Target::RatioAtMost(0.5),
    });
    let rows = Rows::at_least(
        usize::try_from(bench.args.rows_beside).unwrap(),
        ROWS_PER_ENTRY,
    );
    let ours = servers.fill(rows).await as f64 / rows.len() as f64;
    let maps = servers.fill_with_maps(rows, "maps").await as f64 / rows.len() as f64;
    report.push(Figure {
        what: format!("a detection in Redis, {ROWS_PER_ENTRY} an entry"),
        unit: "bytes",
        ours: [ours].into_iter().collect(),
        beside: Some(("MessagePack maps".to_owned(), [maps].into_iter().collect())),
        target: Target::RatioAtMost(0.25),
    });
    println!("{}", report.render(bench.args.json));
}
