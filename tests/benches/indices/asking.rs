//! What is asked of a table that has just been loaded: its size, and how long queries take.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use passerby_tests::benching::{History, Samples, bytes_of, settle};
use tokio::time::Instant;
use tokio_postgres::{Client, types::ToSql};

use crate::candidates::{Candidate, MINUTE};

/// Then no further query is begun: one that is slow tells so the first time.
pub(crate) const QUERYING: Duration = Duration::from_secs(10);

/// What is measured of a candidate, a sample each run.
#[derive(Debug, Default, Clone)]
pub(crate) struct Measured {
    pub(crate) rows_per_s: Samples,
    pub(crate) bytes: Samples,
    pub(crate) minute_ms: Samples,
    pub(crate) track_ms: Samples,
    pub(crate) track_within_its_span_ms: Samples,
    pub(crate) hours_ms: Samples,
    pub(crate) hours_of_camera_ms: Samples,
}

impl Measured {
    /// Of a table that has just been loaded.
    pub(crate) async fn ask(
        &mut self,
        client: &Client,
        candidate: &Candidate,
        history: History,
        n_queries: i64,
        salt: i64,
    ) {
        settle(client, "candidate").await;
        let bytes = bytes_of(client, "candidate").await;
        self.bytes.push(bytes as f64 / history.rows as f64);

        let minute =
            |at: DateTime<Utc>| at - TimeDelta::microseconds(at.timestamp_micros() % 60_000_000);
        let queries = history
            .some_bursts(n_queries, salt)
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
            .some_bursts(n_queries, salt)
            .map(|b| vec![boxed(b.session_id), boxed(b.camera_id), boxed(b.track_id)])
            .collect();
        self.track_ms
            .push(p95(client, &candidate.one_track(), queries).await);
        let queries = history
            .some_bursts(n_queries, salt)
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
        let n_days = (n_queries / 10).max(1);
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

impl Candidate {
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
