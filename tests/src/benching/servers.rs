use bytes::Bytes;
use passerby_consumer::store::{CopyBuffer, DatabaseUrl, Store};
use passerby_servers::{PostgresOptions, PostgresServer, RedisOptions, RedisServer};
use passerby_shared::{
    Detection, IdempotencyKey, KeyPrefix, StreamKey,
    redis_connection::{RedisTimeouts, RedisUrl, connect},
    wire,
};
use tokio_postgres::{Client, NoTls};

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

    /// All of them in batches, encoded for COPY.
    #[must_use]
    pub fn encode(self, rows_per_batch: usize) -> Vec<Bytes> {
        let entries_per_batch = (rows_per_batch / self.per_entry).max(1);
        (0..self.entries)
            .step_by(entries_per_batch)
            .map(|first| {
                let mut buffer = CopyBuffer::new();
                for n in first..self.entries.min(first + entries_per_batch) {
                    for detection in self.of_entry(n) {
                        buffer.push(&detection.as_ref());
                    }
                }
                buffer.freeze()
            })
            .collect()
    }
}

/// A private Redis and a private Postgres, everything at its default, above all Postgres' `fsync`.
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
        let mut store = Store::connect(&servers.database_url()).await.unwrap();
        store.migrate().await.unwrap();
        servers
    }

    /// Where Redis is.
    #[must_use]
    pub fn redis_url(&self) -> RedisUrl {
        self.redis.url().parse().unwrap()
    }

    /// Where the tables are.
    #[must_use]
    pub fn database_url(&self) -> DatabaseUrl {
        self.postgres.url("postgres").parse().unwrap()
    }

    /// The first shard of the default prefix.
    #[must_use]
    pub fn stream() -> StreamKey {
        KeyPrefix::default().stream(0)
    }

    /// A connection to Postgres of one's own.
    pub async fn client(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.postgres.url("postgres"), NoTls)
            .await
            .unwrap();
        // It ends with the client.
        drop(tokio::spawn(connection));
        client
    }

    /// Empties the tables and writes everything to disk, so that no run pays for the one before.
    pub async fn clean(&self) {
        self.client()
            .await
            .batch_execute("TRUNCATE detections, ledger, sessions; CHECKPOINT")
            .await
            .unwrap();
    }

    /// The rows that are stored.
    pub async fn n_stored(&self) -> usize {
        let client = self.client().await;
        let row = client
            .query_one("SELECT count(*) FROM detections", &[])
            .await
            .unwrap();
        usize::try_from(row.get::<_, i64>(0)).unwrap()
    }

    /// Fills the first shard anew, as a producer would; returns the bytes that Redis needs for it.
    pub async fn fill(&self, rows: Rows) -> u64 {
        let mut redis = connect(&self.redis_url(), RedisTimeouts::default())
            .await
            .unwrap();
        let stream = Self::stream();
        let _: () = redis::cmd("DEL")
            .arg(&stream)
            .query_async(&mut redis)
            .await
            .unwrap();
        for first in (0..rows.entries).step_by(100) {
            let mut pipe = redis::pipe();
            for n in first..rows.entries.min(first + 100) {
                let mut payload = Vec::new();
                wire::encode_detections(&rows.of_entry(n), &mut payload);
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
}
