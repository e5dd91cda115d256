//! What indices and columns cost the COPY of detections, in rows a second and in bytes, and what queries
//! gain by them.
//!
//! The same rows are copied in transactions of 5,000 into a table of each candidate, made anew for every
//! run and partitioned by day as Passerby's is. The candidates take turns by transaction, so that a machine
//! which becomes slower does so for all of them. Then each is vacuumed, as autovacuum would do, measured, and
//! asked. The bytes for COPY are made before the clock runs. All queries are planned anew, as those of the
//! store are, on the candidate's own connection.
//!
//! ```text
//! cargo bench-indices [-- --rows N] [-- --days N] [-- --only TEXT] [-- --repetitions N] [-- --json]
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a program for people who measure"
)]

use std::{pin::pin, time::Duration};

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, TimeDelta, Utc};
use clap::Parser;
use fastrand::Rng;
use futures_util::{SinkExt, TryStreamExt};
use passerby_tests::benching::{
    BenchServers, Figure, History, Report, Samples, Target, bytes_of, settle,
};
use tokio::time::Instant;
use tokio_postgres::{Client, types::ToSql};

const BATCH_ROWS: i64 = 5_000;
/// So many batches are made, then stored.
const BATCHES_AHEAD: usize = 40;
/// Then no further query is begun: one that is slow tells so the first time.
const QUERYING: Duration = Duration::from_secs(10);

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

/// Which columns a table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Columns {
    /// One table with a number of its own for each row and double precision, as it often is.
    Plain,
    /// Passerby's.
    Texts,
    /// Passerby's, with cameras and sessions as numbers that tables of their own explain.
    Numbers,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    name: &'static str,
    columns: Columns,
    indices: &'static [&'static str],
}

const BRIN_TIME: &str = "USING brin (timestamp) WITH (pages_per_range = 32, autosummarize = on)";
const BLOOM_TRACK: &str =
    "USING brin (track_id int8_bloom_ops) WITH (pages_per_range = 32, autosummarize = on)";
const BLOOM_CAMERA: &str =
    "USING brin (camera_id text_bloom_ops) WITH (pages_per_range = 32, autosummarize = on)";
const MULTI_TIME: &str = "USING brin (timestamp timestamptz_minmax_multi_ops) \
                          WITH (pages_per_range = 32, autosummarize = on)";
const MULTI_TRACK: &str = "USING brin (track_id int8_minmax_multi_ops) \
                           WITH (pages_per_range = 32, autosummarize = on)";
/// A minute has many rows, and a B-tree keeps a key with many rows once.
const MINUTE: &str = "date_bin('1 minute', timestamp, '2000-01-01 00:00:00+00')";
const CAMERA_MINUTE: &str =
    "(camera_id, date_bin('1 minute', timestamp, '2000-01-01 00:00:00+00'))";
const CAMERA_NO_MINUTE: &str =
    "(camera_no, date_bin('1 minute', timestamp, '2000-01-01 00:00:00+00'))";

const fn texts(name: &'static str, indices: &'static [&'static str]) -> Candidate {
    Candidate {
        name,
        columns: Columns::Texts,
        indices,
    }
}

const fn numbers(name: &'static str, indices: &'static [&'static str]) -> Candidate {
    Candidate {
        name,
        columns: Columns::Numbers,
        indices,
    }
}

const CANDIDATES: &[Candidate] = &[
    Candidate {
        name: "one plain table: PK(id), timestamp, camera, track, session, (camera, timestamp)",
        columns: Columns::Plain,
        indices: &[
            "(timestamp)",
            "(camera_id)",
            "(track_id)",
            "(session_id)",
            "(camera_id, timestamp)",
        ],
    },
    texts("none", &[]),
    texts(
        "brin timestamp, bloom track, (camera, timestamp)",
        &[BRIN_TIME, BLOOM_TRACK, "(camera_id, timestamp)"],
    ),
    texts(
        "(timestamp), (camera), (track)",
        &["(timestamp)", "(camera_id)", "(track_id)"],
    ),
    texts("(camera, timestamp)", &["(camera_id, timestamp)"]),
    texts("brin timestamp", &[BRIN_TIME]),
    texts(
        "brin timestamp, bloom camera, bloom track",
        &[BRIN_TIME, BLOOM_CAMERA, BLOOM_TRACK],
    ),
    texts(
        "brin multi timestamp, multi track, bloom camera",
        &[MULTI_TIME, MULTI_TRACK, BLOOM_CAMERA],
    ),
    texts(
        "brin timestamp, (camera), (session, track)",
        &[BRIN_TIME, "(camera_id)", "(session_id, track_id)"],
    ),
    texts(
        "Passerby's: brin timestamp, (session, track)",
        &[BRIN_TIME, "(session_id, track_id)"],
    ),
    texts(
        "brin timestamp, (track, session)",
        &[BRIN_TIME, "(track_id, session_id)"],
    ),
    texts("brin timestamp, (track)", &[BRIN_TIME, "(track_id)"]),
    texts("brin timestamp, (session)", &[BRIN_TIME, "(session_id)"]),
    texts(
        "brin timestamp, (hash of session and track)",
        &[BRIN_TIME, "(hashtextextended(session_id, track_id))"],
    ),
    texts(
        "brin timestamp, (camera, timestamp), (session, track)",
        &[
            BRIN_TIME,
            "(camera_id, timestamp)",
            "(session_id, track_id)",
        ],
    ),
    texts(
        "brin timestamp, (camera, minute), (session, track)",
        &[BRIN_TIME, CAMERA_MINUTE, "(session_id, track_id)"],
    ),
    texts(
        "brin timestamp, (camera, minute), (track)",
        &[BRIN_TIME, CAMERA_MINUTE, "(track_id)"],
    ),
    numbers("numbers: none", &[]),
    numbers(
        "numbers: brin timestamp, bloom track, (camera, timestamp)",
        &[BRIN_TIME, BLOOM_TRACK, "(camera_no, timestamp)"],
    ),
    numbers(
        "numbers: brin timestamp, (session, track)",
        &[BRIN_TIME, "(session_no, track_id)"],
    ),
    numbers(
        "numbers: brin timestamp, (camera, timestamp), (session, track)",
        &[
            BRIN_TIME,
            "(camera_no, timestamp)",
            "(session_no, track_id)",
        ],
    ),
    numbers(
        "numbers: brin timestamp, (camera, minute), (session, track)",
        &[BRIN_TIME, CAMERA_NO_MINUTE, "(session_no, track_id)"],
    ),
];

impl Columns {
    /// Names, types and whether they may be NULL, and where their values come from.
    fn all(self) -> &'static [(&'static str, &'static str, &'static str)] {
        match self {
            Self::Plain => &[
                ("timestamp", "timestamptz NOT NULL", "timestamp"),
                ("session_id", "text NOT NULL", "session_id"),
                ("camera_id", "text NOT NULL", "camera_id"),
                ("channel_id", "integer NOT NULL", "channel_id"),
                ("detection_id", "bigint NOT NULL", "detection_id"),
                ("track_id", "bigint", "track_id"),
                ("confidence", "double precision", "confidence::float8"),
                ("bbox_x", "double precision NOT NULL", "bbox_x::float8"),
                ("bbox_y", "double precision NOT NULL", "bbox_y::float8"),
                (
                    "bbox_width",
                    "double precision NOT NULL",
                    "bbox_width::float8",
                ),
                (
                    "bbox_height",
                    "double precision NOT NULL",
                    "bbox_height::float8",
                ),
                ("gender", "text", "gender"),
                (
                    "gender_confidence",
                    "double precision",
                    "gender_confidence::float8",
                ),
                ("frame_number", "bigint NOT NULL", "frame_number"),
            ],
            Self::Texts => &[
                ("timestamp", "timestamptz NOT NULL", "timestamp"),
                ("detection_id", "bigint NOT NULL", "detection_id"),
                ("track_id", "bigint", "track_id"),
                ("frame_number", "bigint NOT NULL", "frame_number"),
                ("channel_id", "integer NOT NULL", "channel_id"),
                ("confidence", "real", "confidence"),
                ("bbox_x", "real NOT NULL", "bbox_x"),
                ("bbox_y", "real NOT NULL", "bbox_y"),
                ("bbox_width", "real NOT NULL", "bbox_width"),
                ("bbox_height", "real NOT NULL", "bbox_height"),
                ("gender_confidence", "real", "gender_confidence"),
                ("degraded", "boolean NOT NULL", "degraded"),
                ("gender", "text", "gender"),
                ("camera_id", "text NOT NULL", "camera_id"),
                ("session_id", "text NOT NULL", "session_id"),
            ],
            Self::Numbers => &[
                ("timestamp", "timestamptz NOT NULL", "timestamp"),
                ("detection_id", "bigint NOT NULL", "detection_id"),
                ("track_id", "bigint", "track_id"),
                ("frame_number", "bigint NOT NULL", "frame_number"),
                ("camera_no", "integer NOT NULL", "camera_no"),
                ("session_no", "integer NOT NULL", "session_no"),
                ("channel_id", "integer NOT NULL", "channel_id"),
                ("confidence", "real", "confidence"),
                ("bbox_x", "real NOT NULL", "bbox_x"),
                ("bbox_y", "real NOT NULL", "bbox_y"),
                ("bbox_width", "real NOT NULL", "bbox_width"),
                ("bbox_height", "real NOT NULL", "bbox_height"),
                ("gender_confidence", "real", "gender_confidence"),
                ("degraded", "boolean NOT NULL", "degraded"),
                ("gender", "\"char\"", "left(gender, 1)::\"char\""),
            ],
        }
    }

    /// Rows of some spans as they are to be copied, the bytes of each span on their own.
    async fn encode(self, client: &Client, history: History, spans: &[(i64, i64)]) -> Vec<Bytes> {
        let mut all = Vec::new();
        for &(first, end) in spans {
            let sql = format!(
                "COPY (SELECT {} FROM ({}) AS rows) TO STDOUT (FORMAT binary)",
                self.values(),
                history.select(first, end)
            );
            let pieces = client.copy_out(&sql).await.unwrap();
            let span: BytesMut = pieces
                .try_fold(BytesMut::new(), async |mut all, piece| {
                    all.extend_from_slice(&piece);
                    Ok(all)
                })
                .await
                .unwrap();
            all.push(span.freeze());
        }
        all
    }

    fn names(self) -> String {
        let names: Vec<_> = self.all().iter().map(|(name, ..)| *name).collect();
        names.join(", ")
    }

    fn values(self) -> String {
        let values: Vec<_> = self.all().iter().map(|(.., value)| *value).collect();
        values.join(", ")
    }

    /// A condition on the column, for a camera or a session by its name.
    fn is(self, what: &str, parameter: usize) -> String {
        if self == Self::Numbers {
            return format!(
                "{what}_no = (SELECT {what}_no FROM {what}s_by_no WHERE {what}_id = ${parameter})"
            );
        }
        format!("{what}_id = ${parameter}")
    }

    /// The column, or the columns, that tell who it is.
    fn of(self, what: &str) -> String {
        let end = if self == Self::Numbers { "no" } else { "id" };
        format!("{what}_{end}")
    }
}

impl Candidate {
    /// By its name, or by a part of it that is nobody's name.
    fn is_meant_by(&self, text: &str) -> bool {
        let is_a_name = CANDIDATES.iter().any(|candidate| candidate.name == text);
        self.name == text || (!is_a_name && self.name.contains(text))
    }

    async fn create(&self, client: &Client, history: History) {
        let own = if self.columns == Columns::Plain {
            "id bigserial PRIMARY KEY, created_at timestamptz DEFAULT now(), metadata jsonb, "
        } else {
            ""
        };
        let columns: Vec<_> = self
            .columns
            .all()
            .iter()
            .map(|(name, kind, _)| format!("{name} {kind}"))
            .collect();
        let is_partitioned = self.columns != Columns::Plain;
        let mut sql = format!(
            "CREATE TABLE candidate ({own}{}){};",
            columns.join(", "),
            if is_partitioned {
                " PARTITION BY RANGE (timestamp)"
            } else {
                ""
            }
        );
        for index in self.indices {
            sql.push_str(&format!("CREATE INDEX ON candidate {index};"));
        }
        for day in 0..if is_partitioned { history.days } else { 0 } {
            let (from, to) = (history.midnight(day), history.midnight(day + 1));
            sql.push_str(&format!(
                "CREATE TABLE candidate_{day} PARTITION OF candidate
                     FOR VALUES FROM ('{}') TO ('{}');",
                from.to_rfc3339(),
                to.to_rfc3339()
            ));
        }
        client.batch_execute(&sql).await.unwrap();
    }

    /// Whether rows of a minute are to be asked for by their minute too.
    fn by_minute(&self) -> bool {
        self.indices.iter().any(|index| index.contains(MINUTE))
    }

    fn one_camera_one_minute(&self) -> String {
        let minutes = if self.by_minute() {
            let bin = |parameter| MINUTE.replace("timestamp", parameter);
            format!("AND {MINUTE} BETWEEN {} AND {}", bin("$1"), bin("$2"))
        } else {
            String::new()
        };
        format!(
            "SELECT {} FROM candidate
             WHERE timestamp >= $1 AND timestamp < $2 AND {} {minutes}
             ORDER BY timestamp, detection_id",
            self.columns.names(),
            self.columns.is("camera", 3),
        )
    }

    fn one_track(&self) -> String {
        self.one_track_when("")
    }

    /// As who knows when it was seen asks for it.
    fn one_track_within_its_span(&self) -> String {
        self.one_track_when("AND timestamp >= $4 AND timestamp < $5")
    }

    fn one_track_when(&self, when: &str) -> String {
        format!(
            "SELECT {} FROM candidate WHERE {} AND {} AND track_id = $3 {when} ORDER BY timestamp, detection_id",
            self.columns.names(),
            self.columns.is("session", 1),
            self.columns.is("camera", 2),
        )
    }

    /// People are tracks, and one counts in every hour that they were seen in.
    fn people_per_hour(&self, of_a_camera: bool) -> String {
        let (session, camera) = (self.columns.of("session"), self.columns.of("camera"));
        let only = if of_a_camera {
            format!("AND {}", self.columns.is("camera", 3))
        } else {
            String::new()
        };
        format!(
            "WITH seen AS (
                 SELECT DISTINCT date_trunc('hour', timestamp, 'UTC') AS hour, {session}, {camera}, track_id
                 FROM candidate
                 WHERE timestamp >= $1 AND timestamp < $2 {only}
             )
             SELECT hour, count(*) FROM seen GROUP BY hour ORDER BY hour"
        )
    }
}

/// The 95th percentile of queries, in ms; each must find something.
async fn p95(client: &Client, sql: &str, all: Vec<Vec<Box<dyn ToSql + Sync>>>) -> f64 {
    let mut samples = Samples::new();
    let begun = Instant::now();
    for params in &all {
        if begun.elapsed() > QUERYING {
            break;
        }
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|param| &**param).collect();
        let started = Instant::now();
        let rows = client.query(sql, &params).await.unwrap();
        samples.push(started.elapsed().as_secs_f64() * 1e3);
        assert!(!rows.is_empty(), "{sql}");
    }
    samples.at(0.95)
}

fn boxed<T: ToSql + Sync + 'static>(value: T) -> Box<dyn ToSql + Sync> {
    Box::new(value)
}

/// What is measured of a candidate, a sample each run.
#[derive(Debug, Default, Clone)]
struct Measured {
    rows_per_s: Samples,
    bytes: Samples,
    minute_ms: Samples,
    track_ms: Samples,
    track_within_its_span_ms: Samples,
    hours_ms: Samples,
    hours_of_camera_ms: Samples,
}

impl Measured {
    /// Of a table that has just been loaded.
    async fn ask(
        &mut self,
        client: &Client,
        candidate: &Candidate,
        history: History,
        args: &Args,
        salt: i64,
    ) {
        settle(client, "candidate").await;
        let bytes = bytes_of(client, "candidate").await;
        self.bytes.push(bytes as f64 / history.rows as f64);

        let minute =
            |at: DateTime<Utc>| at - TimeDelta::microseconds(at.timestamp_micros() % 60_000_000);
        let queries = history
            .some_bursts(args.queries, salt)
            .map(|b| {
                let start = minute(b.start);
                vec![
                    boxed(start),
                    boxed(start + TimeDelta::minutes(1)),
                    boxed(b.camera_id),
                ]
            })
            .collect();
        self.minute_ms
            .push(p95(client, &candidate.one_camera_one_minute(), queries).await);
        let queries = history
            .some_bursts(args.queries, salt)
            .map(|b| vec![boxed(b.session_id), boxed(b.camera_id), boxed(b.track_id)])
            .collect();
        self.track_ms
            .push(p95(client, &candidate.one_track(), queries).await);
        let queries = history
            .some_bursts(args.queries, salt)
            .map(|b| {
                let end = b.start + TimeDelta::seconds(10);
                vec![
                    boxed(b.session_id),
                    boxed(b.camera_id),
                    boxed(b.track_id),
                    boxed(b.start),
                    boxed(end),
                ]
            })
            .collect();
        self.track_within_its_span_ms
            .push(p95(client, &candidate.one_track_within_its_span(), queries).await);
        let day = |at: DateTime<Utc>| {
            at - TimeDelta::microseconds(at.timestamp_micros() % 86_400_000_000)
        };
        let n_days = (args.queries / 10).max(1);
        let queries = history
            .some_bursts(n_days, salt)
            .map(|b| {
                vec![
                    boxed(day(b.start)),
                    boxed(day(b.start) + TimeDelta::days(1)),
                ]
            })
            .collect();
        self.hours_ms
            .push(p95(client, &candidate.people_per_hour(false), queries).await);
        let queries = history
            .some_bursts(n_days, salt)
            .map(|b| {
                vec![
                    boxed(day(b.start)),
                    boxed(day(b.start) + TimeDelta::days(1)),
                    boxed(b.camera_id),
                ]
            })
            .collect();
        self.hours_of_camera_ms
            .push(p95(client, &candidate.people_per_hour(true), queries).await);
        // It takes minutes, and whoever waits wants to know of what.
        eprintln!("{}: {self:?}", candidate.name);
    }
}

/// Copies all rows into the tables of all candidates, and says how long each of them took.
async fn load(
    candidates: &[&Candidate],
    clients: &[Client],
    encoding: &Client,
    history: History,
    random: &mut Rng,
) -> Vec<Duration> {
    let mut into = Vec::new();
    for (candidate, client) in candidates.iter().zip(clients) {
        let names = candidate.columns.names();
        let copy = format!("COPY candidate ({names}) FROM STDIN (FORMAT binary)");
        into.push(client.prepare(&copy).await.unwrap());
    }
    let mut elapsed = vec![Duration::ZERO; candidates.len()];
    let ends =
        (BATCH_ROWS..history.rows + BATCH_ROWS).step_by(usize::try_from(BATCH_ROWS).unwrap());
    let spans: Vec<_> = ends
        .map(|end| (end - BATCH_ROWS, end.min(history.rows)))
        .collect();
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    for spans in spans.chunks(BATCHES_AHEAD) {
        let mut encoded: Vec<(Columns, Vec<Bytes>)> = Vec::new();
        for candidate in candidates {
            let columns = candidate.columns;
            if encoded.iter().all(|(done, _)| *done != columns) {
                encoded.push((columns, columns.encode(encoding, history, spans).await));
            }
        }
        for nth in 0..spans.len() {
            // So that nobody always follows the same one.
            random.shuffle(&mut order);
            for &at in &order {
                let columns = candidates[at].columns;
                let (_, batches) = encoded.iter().find(|(of, _)| *of == columns).unwrap();
                let batch = batches[nth].clone();
                let started = Instant::now();
                let mut sink = pin!(clients[at].copy_in::<_, Bytes>(&into[at]).await.unwrap());
                sink.send(batch).await.unwrap();
                let n_rows = sink.finish().await.unwrap();
                elapsed[at] += started.elapsed();
                let (first, end) = spans[nth];
                assert_eq!(i64::try_from(n_rows).unwrap(), end - first);
            }
        }
    }
    elapsed
}

/// What explains the numbers.
async fn name_the_numbers(client: &Client, history: History) {
    let all = history.select(0, history.rows);
    client
        .batch_execute(&format!(
            "CREATE TABLE both_by_no AS
                 SELECT DISTINCT camera_no, camera_id, session_no, session_id FROM ({all}) AS rows;
             CREATE TABLE cameras_by_no AS SELECT DISTINCT camera_no, camera_id FROM both_by_no;
             CREATE TABLE sessions_by_no AS SELECT DISTINCT session_no, session_id FROM both_by_no;
             CREATE UNIQUE INDEX ON cameras_by_no (camera_id);
             CREATE UNIQUE INDEX ON sessions_by_no (session_id)"
        ))
        .await
        .unwrap();
    settle(client, "cameras_by_no, sessions_by_no").await;
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
        let elapsed = load(&candidates, &clients, &client, history, &mut random).await;
        for (nth, (candidate, measured)) in candidates.iter().zip(&mut measured).enumerate() {
            let rate = history.rows as f64 / elapsed[nth].as_secs_f64();
            measured.rows_per_s.push(rate);
            let salt = i64::try_from(salt).unwrap();
            measured
                .ask(&clients[nth], candidate, history, &args, salt)
                .await;
            client
                .batch_execute(&format!("DROP SCHEMA candidate_{nth} CASCADE"))
                .await
                .unwrap();
        }
    }

    let mut report = Report::new(
        "indices",
        format!(
            "{} rows of {} days and {} cameras, {BATCH_ROWS} a COPY, candidates in turns; 95th percentiles of {} queries, or those \
             of {QUERYING:?}; median of {} (min … max)",
            history.rows, history.days, history.cameras, args.queries, args.repetitions
        ),
        Some(&servers),
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
    for (candidate, measured) in candidates.iter().zip(&measured) {
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
    println!("{}", report.render(args.json));
}
