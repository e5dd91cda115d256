use std::{num::NonZeroU16, sync::Arc, time::Duration};

use bytes::Bytes;
use passerby_consumer::{
    batch::{Batch, BatchBuilder},
    store::{CopyBuffer, DatabaseUrl, Store},
};
use passerby_servers::{PostgresOptions, PostgresServer, RedisOptions, RedisServer};
use passerby_shared::{
    Detection, Gender, IdempotencyKey, KeyPrefix, StreamKey,
    redis_connection::{RedisTimeouts, RedisUrl, connect},
    wire,
};
use redis::{Pipeline, ToRedisArgs};
use serde::Serialize;
use tokio::{task::JoinSet, time::Instant};
use tokio_postgres::{Client, NoTls};

use super::Usage;
use crate::fixtures::realistic_detections;

/// The rows of a benchmark: the same each time, of [`CAMERAS`](Rows::CAMERAS) cameras.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// Entries of the stream.
    pub entries: usize,
    /// Rows of each.
    pub per_entry: usize,
}

impl Rows {
    /// How many cameras take turns, an entry each.
    pub const CAMERAS: usize = 16;

    /// At least so many rows.
    #[must_use]
    pub fn at_least(rows: usize, per_entry: usize) -> Self {
        Self {
            entries: rows.div_ceil(per_entry).max(1),
            per_entry,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(self) -> usize {
        self.entries * self.per_entry
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Those of one entry.
    #[must_use]
    pub fn of_entry(self, n: usize) -> Vec<Detection> {
        let first = i64::try_from(n * self.per_entry).unwrap();
        realistic_detections(
            n % Self::CAMERAS,
            first,
            i64::try_from(self.per_entry).unwrap(),
        )
    }

    /// All of them in batches, as a worker would have read them.
    pub fn batches(self, rows_per_batch: usize) -> impl Iterator<Item = Batch> {
        let entries_per_batch = (rows_per_batch / self.per_entry).max(1);
        (0..self.entries)
            .step_by(entries_per_batch)
            .map(move |first| {
                let mut batch = BatchBuilder::default();
                for n in first..self.entries.min(first + entries_per_batch) {
                    batch.push_entry(IdempotencyKey::generate(), &self.of_entry(n));
                }
                batch.build()
            })
    }

    /// All of them in batches, encoded for COPY.
    #[must_use]
    pub fn encode(self, rows_per_batch: usize) -> Vec<Bytes> {
        self.encoded(rows_per_batch, InBatch::AsTheyCome).collect()
    }

    /// The same, one batch after the other.
    pub fn encoded(self, rows_per_batch: usize, order: InBatch) -> impl Iterator<Item = Bytes> {
        let entries_per_batch = (rows_per_batch / self.per_entry).max(1);
        (0..self.entries)
            .step_by(entries_per_batch)
            .map(move |first| {
                let entries = first..self.entries.min(first + entries_per_batch);
                let mut detections: Vec<Detection> =
                    entries.flat_map(|n| self.of_entry(n)).collect();
                if order == InBatch::BySessionAndTrack {
                    detections.sort_by(|a, b| {
                        (&a.session_id, a.track_id).cmp(&(&b.session_id, b.track_id))
                    });
                }
                let mut buffer = CopyBuffer::new();
                for detection in &detections {
                    buffer.push(&detection.as_ref());
                }
                buffer.freeze()
            })
    }
}

/// In which order the rows of a batch are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InBatch {
    /// Entry by entry.
    AsTheyCome,
    /// Session by session and in each by track, as a worker commits them.
    BySessionAndTrack,
}

/// A private Redis and a private Postgres, everything at its default unless a benchmark says otherwise, above all
/// Postgres' `fsync`.
#[derive(Debug)]
pub struct BenchServers {
    /// Redis, or Valkey.
    pub redis: RedisServer,
    /// Postgres, migrated.
    pub postgres: PostgresServer,
}

impl BenchServers {
    /// Starts both and makes the tables.
    pub async fn start() -> Self {
        Self::start_with(RedisOptions::default()).await
    }

    /// The same, with a Redis of other settings.
    pub async fn start_with(redis: RedisOptions) -> Self {
        let servers = Self {
            redis: RedisServer::start(redis).unwrap(),
            postgres: PostgresServer::start(PostgresOptions {
                fsync: true,
                ..PostgresOptions::default()
            })
            .unwrap(),
        };
        servers.make_tables("postgres").await;
        servers
    }

    /// As a worker that starts makes them, so that everybody's rows go into the partition of their day.
    async fn make_tables(&self, database: &str) {
        let url = self.database_url_of(database);
        let mut store = Store::connect(&url).await.unwrap();
        store.migrate().await.unwrap();
        store.ensure_partitions_ahead().await.unwrap();
    }

    /// Where Redis is.
    #[must_use]
    pub fn redis_url(&self) -> RedisUrl {
        self.redis.url().parse().unwrap()
    }

    /// Where the tables are.
    #[must_use]
    pub fn database_url(&self) -> DatabaseUrl {
        self.database_url_of("postgres")
    }

    /// Where those of another database are.
    #[must_use]
    pub fn database_url_of(&self, database: &str) -> DatabaseUrl {
        self.postgres.url(database).parse().unwrap()
    }

    /// Makes another database with the same tables on the same server.
    pub async fn create_database(&self, database: &str) {
        let sql = format!("CREATE DATABASE {database}");
        self.client().await.batch_execute(&sql).await.unwrap();
        self.make_tables(database).await;
    }

    /// The processes of Redis and of Postgres.
    ///
    /// # Panics
    ///
    /// When one of them was killed.
    #[must_use]
    pub fn pids(&self) -> [u32; 2] {
        [self.redis.pid(), self.postgres.pid()].map(Option::unwrap)
    }

    /// The processor time of Redis and of Postgres so far, each with all that it has started.
    ///
    /// # Panics
    ///
    /// When one of them was killed.
    #[must_use]
    pub fn cpu(&self) -> [Duration; 2] {
        self.pids().map(Usage::cpu_of_tree)
    }

    /// The first shard of the default prefix.
    #[must_use]
    pub fn stream() -> StreamKey {
        KeyPrefix::default().stream(0)
    }

    /// A connection to Postgres of one's own.
    pub async fn client(&self) -> Client {
        self.client_of("postgres").await
    }

    /// The same, to another database.
    pub async fn client_of(&self, database: &str) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.postgres.url(database), NoTls)
            .await
            .unwrap();
        // It ends with the client.
        drop(tokio::spawn(connection));
        client
    }

    /// Has nobody come by to vacuum or to analyze, whose visits would fall on whoever is measured just then.
    pub async fn without_autovacuum(&self) {
        let client = self.client().await;
        // Each must be a statement of its own.
        for statement in [
            "ALTER SYSTEM SET autovacuum = off",
            "SELECT pg_reload_conf()",
        ] {
            client.batch_execute(statement).await.unwrap();
        }
    }

    /// Empties the tables and writes everything to disk, so that no run pays for the one before.
    pub async fn clean(&self) {
        self.clean_database("postgres").await;
    }

    /// The same of another database.
    pub async fn clean_database(&self, database: &str) {
        self.client_of(database)
            .await
            .batch_execute("TRUNCATE detections, ledger, sessions; CHECKPOINT")
            .await
            .unwrap();
    }

    /// How long it takes to write batches that are encoded already by bare binary COPY, each in a transaction of
    /// its own, over so many connections.
    pub async fn copy(&self, batches: &Arc<Vec<Bytes>>, connections: usize) -> Duration {
        let copying = Copying::prepare(&self.database_url(), batches, connections).await;
        let began = Instant::now();
        copying.run().await;
        began.elapsed()
    }

    /// The rows that are stored.
    pub async fn n_stored(&self) -> usize {
        self.n_stored_in("postgres").await
    }

    /// Those of another database.
    pub async fn n_stored_in(&self, database: &str) -> usize {
        let client = self.client_of(database).await;
        let row = client
            .query_one("SELECT count(*) FROM detections", &[])
            .await
            .unwrap();
        usize::try_from(row.get::<_, i64>(0)).unwrap()
    }

    /// Fills the first shard anew, as a producer would; returns the bytes that Redis needs for it.
    pub async fn fill(&self, rows: Rows) -> u64 {
        self.fill_shards(rows, 1).await
    }

    /// The same rows in the same entries, in the form that anybody can write: an array of maps.
    pub async fn fill_plain(&self, rows: Rows) -> u64 {
        self.fill_streams(rows, &[Self::stream()], |pipe, stream, detections| {
            add(pipe, stream, maps(detections));
        })
        .await
    }

    /// Fills so many shards anew, their entries in turns.
    pub async fn fill_shards(&self, rows: Rows, shards: u16) -> u64 {
        let streams = KeyPrefix::default().streams(NonZeroU16::new(shards).unwrap());
        self.fill_streams(rows, &streams, |pipe, stream, detections| {
            let mut payload = Vec::new();
            wire::encode_detections(detections, &mut payload);
            add(pipe, stream, payload);
        })
        .await
    }

    /// Fills a stream anew with the same rows in the same entries, but each an array of maps, as most
    /// programs write MessagePack; returns the bytes that Redis needs for it.
    pub async fn fill_with_maps(&self, rows: Rows, stream: &str) -> u64 {
        self.fill_streams(rows, &[stream], |pipe, stream, detections| {
            pipe.cmd("XADD")
                .arg(stream)
                .arg(&["*", "p"])
                .arg(maps(detections))
                .ignore();
        })
        .await
    }

    async fn fill_streams<S: ToRedisArgs>(
        &self,
        rows: Rows,
        streams: &[S],
        add: impl Fn(&mut Pipeline, &S, &[Detection]),
    ) -> u64 {
        let mut redis = connect(&self.redis_url(), RedisTimeouts::default())
            .await
            .unwrap();
        let mut pipe = redis::pipe();
        for stream in streams {
            pipe.del(stream).ignore();
        }
        for n in 0..rows.entries {
            add(&mut pipe, &streams[n % streams.len()], &rows.of_entry(n));
            if pipe.len() == 100 {
                let _: () = pipe.query_async(&mut redis).await.unwrap();
                pipe.clear();
            }
        }
        let _: () = pipe.query_async(&mut redis).await.unwrap();
        let mut bytes = 0;
        for stream in streams {
            let used: Option<u64> = redis::cmd("MEMORY")
                .arg("USAGE")
                .arg(stream)
                .query_async(&mut redis)
                .await
                .unwrap();
            bytes += used.unwrap_or(0);
        }
        bytes
    }
}

fn add(pipe: &mut Pipeline, stream: &StreamKey, payload: Vec<u8>) {
    pipe.cmd("XADD")
        .arg(stream)
        .arg(&["*", "v", "1", "k", "d", "i"])
        .arg(IdempotencyKey::generate().as_bytes())
        .arg("p")
        .arg(payload)
        .ignore();
}

/// Batches that are encoded already, and the connections that will write them.
#[derive(Debug)]
pub struct Copying {
    batches: Arc<Vec<Bytes>>,
    stores: Vec<Store>,
}

impl Copying {
    /// Opens so many connections.
    pub async fn prepare(url: &DatabaseUrl, batches: &Arc<Vec<Bytes>>, connections: usize) -> Self {
        let mut stores = Vec::new();
        for _ in 0..connections {
            stores.push(Store::connect(url).await.unwrap());
        }
        Self {
            batches: Arc::clone(batches),
            stores,
        }
    }

    /// Writes the batches by bare binary COPY, each in a transaction of its own, the connections in turns.
    pub async fn run(self) {
        let connections = self.stores.len();
        let mut tasks = JoinSet::new();
        for (nth, mut store) in self.stores.into_iter().enumerate() {
            let batches = Arc::clone(&self.batches);
            tasks.spawn(async move {
                for batch in batches.iter().skip(nth).step_by(connections) {
                    store.copy_raw(batch.clone()).await.unwrap();
                }
            });
        }
        tasks.join_all().await;
    }
}

/// A detection as a map of its fields, numbers as Python has them.
#[derive(Serialize)]
struct Map<'a> {
    timestamp: i64,
    session_id: &'a str,
    camera_id: &'a str,
    channel_id: i32,
    detection_id: i64,
    track_id: Option<i64>,
    confidence: Option<f64>,
    bbox_x: f64,
    bbox_y: f64,
    bbox_width: f64,
    bbox_height: f64,
    gender: Option<&'static str>,
    gender_confidence: Option<f64>,
    frame_number: i64,
    degraded: bool,
}

fn maps(detections: &[Detection]) -> Vec<u8> {
    let maps: Vec<_> = detections.iter().map(Map::from).collect();
    rmp_serde::to_vec_named(&maps).unwrap()
}

impl<'a> From<&'a Detection> for Map<'a> {
    fn from(d: &'a Detection) -> Self {
        Self {
            timestamp: d.timestamp.timestamp_micros(),
            session_id: &d.session_id,
            camera_id: &d.camera_id,
            channel_id: d.channel_id,
            detection_id: d.detection_id,
            track_id: d.track_id,
            confidence: d.confidence.map(f64::from),
            bbox_x: d.bbox_x.into(),
            bbox_y: d.bbox_y.into(),
            bbox_width: d.bbox_width.into(),
            bbox_height: d.bbox_height.into(),
            gender: d.gender.map(Gender::as_str),
            gender_confidence: d.gender_confidence.map(f64::from),
            frame_number: d.frame_number,
            degraded: d.degraded,
        }
    }
}
