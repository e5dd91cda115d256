use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use passerby_consumer::{
    Worker, WorkerConfig, WorkerReport,
    ops::{self, RequeueLimits, RequeueReport, StatusReport, Target},
    store::{DatabaseUrl, DeadLetterFilter, DeadLetterRecord, Store},
};
use passerby_shared::{
    Detection, EntryId, IdempotencyKey, KeyPrefix, Session, StreamKey, Track,
    redis_connection::{RedisLink, RedisTimeouts, RedisUrl},
    wire::{self, Kind},
};
use redis::{FromRedisValue, streams::StreamPendingReply};
use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls, types::FromSqlOwned};
use tokio_util::sync::CancellationToken;

use crate::{FaultProxy, RunningWorker, Servers, fixtures};

/// The consumer group of the workers under test.
pub const GROUP: &str = "passerby";

/// A test's own stream and database, on servers that it may share with others.
#[derive(Debug)]
pub struct Env {
    /// The servers.
    pub servers: Arc<Servers>,
    prefix: KeyPrefix,
    database: String,
    redis: Mutex<RedisLink>,
    postgres: Mutex<Option<Client>>,
}

impl Env {
    /// Its own key prefix and its own database, migrated, on the servers that all tests share.
    pub async fn start() -> Self {
        Self::on(Servers::shared().await, false).await
    }

    /// As [`Env::start`], with a database that has no table.
    pub async fn with_empty_database() -> Self {
        Self::on(Servers::shared().await, true).await
    }

    /// As [`Env::start`], on servers that the test may kill.
    pub async fn dedicated() -> Self {
        Self::on(Servers::dedicated().await, false).await
    }

    async fn on(servers: Arc<Servers>, is_empty: bool) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        // Always as long as `passerby`, which stands for it where output is compared with a file.
        let name = format!("test_{:03}", NUMBER.fetch_add(1, Relaxed));
        servers.create_database(&name, is_empty).await;
        Self {
            prefix: name.parse().unwrap(),
            redis: Mutex::new(RedisLink::new(
                servers.redis_url(),
                RedisTimeouts::default(),
            )),
            postgres: Mutex::new(None),
            database: name,
            servers,
        }
    }

    /// The test's stream.
    pub fn stream(&self) -> StreamKey {
        self.prefix.stream(0)
    }

    /// What the test's keys begin with.
    pub fn key_prefix(&self) -> &KeyPrefix {
        &self.prefix
    }

    /// Where Redis is.
    pub fn redis_url(&self) -> RedisUrl {
        self.servers.redis_url()
    }

    /// The name of the test's database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Where the test's database is.
    pub fn database_url(&self) -> DatabaseUrl {
        self.servers.database_url(&self.database)
    }

    /// A proxy before Redis, with the address to give to a worker.
    pub async fn redis_proxy(&self) -> (FaultProxy, RedisUrl) {
        let proxy = FaultProxy::start(self.servers.redis_port()).await;
        let url = format!("redis://127.0.0.1:{}/0", proxy.port());
        (proxy, url.parse().unwrap())
    }

    /// A proxy before Postgres, with the address to give to a worker. Without TLS, so that it can
    /// read along.
    pub async fn postgres_proxy(&self) -> (FaultProxy, DatabaseUrl) {
        let proxy = FaultProxy::start(self.servers.postgres_port()).await;
        let url = format!(
            "postgresql://postgres@127.0.0.1:{}/{}?sslmode=disable",
            proxy.port(),
            self.database
        );
        (proxy, url.parse().unwrap())
    }

    /// A store of the test's database.
    pub async fn store(&self) -> Store {
        Store::connect(&self.database_url()).await.unwrap()
    }

    /// A worker that takes nothing over (`min_idle` is a minute), does not trim, and looks around
    /// often.
    pub fn worker_config(&self) -> WorkerConfig {
        WorkerConfig {
            key_prefix: self.prefix.clone(),
            group: GROUP.to_owned(),
            linger: Duration::from_millis(5),
            block: Duration::from_millis(50),
            min_idle: Duration::from_secs(60),
            trim_grace: None,
            grace_period: Duration::from_secs(10),
            ..WorkerConfig::new(self.redis_url(), self.database_url())
        }
    }

    /// A worker that takes over what was pending for `min_idle`.
    pub fn claiming_config(&self, min_idle: Duration) -> WorkerConfig {
        WorkerConfig {
            min_idle,
            ..self.worker_config()
        }
    }

    /// Starts a worker.
    pub async fn start_worker(&self, config: WorkerConfig) -> RunningWorker {
        RunningWorker::start(config).await
    }

    /// Runs a worker until nothing is left to do, which includes what others have pending.
    pub async fn run_worker_drain(&self) -> WorkerReport {
        self.drain_with(self.worker_config()).await
    }

    /// As [`Env::run_worker_drain`], taking over what was pending for a moment.
    pub async fn run_claiming_worker_drain(&self) -> WorkerReport {
        self.drain_with(self.claiming_config(Duration::from_millis(100)))
            .await
    }

    /// Runs a worker of this configuration until nothing is left to do.
    pub async fn drain_with(&self, config: WorkerConfig) -> WorkerReport {
        let config = WorkerConfig {
            drain: true,
            ..config
        };
        let worker = Worker::start(config).await.unwrap();
        let draining = worker.run(CancellationToken::new());
        tokio::time::timeout(Duration::from_secs(60), draining)
            .await
            .expect("drained within a minute")
            .unwrap()
    }

    // Redis

    /// Runs a command on Redis.
    pub async fn redis<T: FromRedisValue>(&self, command: &redis::Cmd) -> T {
        self.try_redis(command)
            .await
            .unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    async fn try_redis<T: FromRedisValue>(&self, command: &redis::Cmd) -> redis::RedisResult<T> {
        let mut link = self.redis.lock().await;
        let sent = command.query_async(link.get().await.unwrap()).await;
        match sent {
            // The server was restarted.
            Err(error) if error.is_io_error() || error.is_connection_dropped() => {
                link.judge(&error);
                command.query_async(link.get().await.unwrap()).await
            }
            sent => sent,
        }
    }

    /// Adds an entry of these fields.
    pub async fn publish_entry(&self, fields: &[(&str, &[u8])]) -> EntryId {
        let mut command = redis::cmd("XADD");
        command.arg(self.stream()).arg("*");
        for (name, value) in fields {
            command.arg(*name).arg(*value);
        }
        let id: String = self.redis(&command).await;
        id.parse().unwrap()
    }

    async fn publish_payload(&self, kind: Kind, key: IdempotencyKey, payload: &[u8]) -> EntryId {
        let fields: [(&str, &[u8]); 4] = [
            ("v", b"1"),
            ("k", kind.as_str().as_bytes()),
            ("i", key.as_bytes()),
            ("p", payload),
        ];
        self.publish_entry(&fields).await
    }

    /// Publishes detections as one entry.
    pub async fn publish(&self, detections: &[Detection]) -> EntryId {
        self.publish_as(IdempotencyKey::generate(), detections)
            .await
    }

    /// Publishes detections as one entry with this idempotency key.
    pub async fn publish_as(&self, key: IdempotencyKey, detections: &[Detection]) -> EntryId {
        let mut payload = Vec::new();
        wire::encode_detections(detections, &mut payload);
        self.publish_payload(Kind::Detections, key, &payload).await
    }

    /// Publishes the detections 0, 1, 2, … as so many entries, and returns how many rows there are.
    pub async fn publish_entries(&self, n_entries: i64, rows_per_entry: i64) -> i64 {
        for n in 0..n_entries {
            let first = n * rows_per_entry;
            self.publish(&fixtures::detections(first..first + rows_per_entry))
                .await;
        }
        n_entries * rows_per_entry
    }

    /// Publishes tracks as one entry.
    pub async fn publish_tracks(&self, tracks: &[Track]) -> EntryId {
        let mut payload = Vec::new();
        wire::encode_tracks(tracks, &mut payload);
        self.publish_payload(Kind::Tracks, IdempotencyKey::generate(), &payload)
            .await
    }

    /// Publishes what a pipeline says of a session.
    pub async fn publish_session(&self, session: &Session) -> EntryId {
        let mut payload = Vec::new();
        wire::encode_sessions(std::slice::from_ref(session), &mut payload);
        self.publish_payload(Kind::Sessions, IdempotencyKey::generate(), &payload)
            .await
    }

    /// Entries in the stream.
    pub async fn n_entries(&self) -> usize {
        self.redis(redis::cmd("XLEN").arg(self.stream())).await
    }

    /// Entries of the group that are pending.
    pub async fn n_pending(&self) -> usize {
        self.pending().await.values().sum()
    }

    /// Pending entries by consumer; consumers without any are left out.
    pub async fn pending(&self) -> BTreeMap<String, usize> {
        let mut command = redis::cmd("XPENDING");
        command.arg(self.stream()).arg(GROUP);
        match self.try_redis(&command).await {
            Ok(StreamPendingReply::Data(data)) => data
                .consumers
                .into_iter()
                .map(|consumer| (consumer.name, consumer.pending))
                .collect(),
            Ok(_) => BTreeMap::new(),
            Err(error) if error.code() == Some("NOGROUP") => BTreeMap::new(),
            Err(error) => panic!("{error}"),
        }
    }

    /// The consumers of the group.
    pub async fn consumers(&self) -> Vec<String> {
        let mut command = redis::cmd("XINFO");
        command.arg("CONSUMERS").arg(self.stream()).arg(GROUP);
        let consumers: redis::streams::StreamInfoConsumersReply = self.redis(&command).await;
        consumers.consumers.into_iter().map(|c| c.name).collect()
    }

    /// Reads up to `count` new entries as another consumer, who then does nothing with them.
    pub async fn read_as(&self, consumer: &str, count: usize) {
        self.create_group().await;
        let mut command = redis::cmd("XREADGROUP");
        command
            .arg("GROUP")
            .arg(GROUP)
            .arg(consumer)
            .arg("COUNT")
            .arg(count)
            .arg("STREAMS")
            .arg(self.stream())
            .arg(">");
        let _read: redis::Value = self.redis(&command).await;
    }

    /// A consumer reads, and finds nothing: not even what it holds, which would count as delivered again.
    pub async fn looks_as(&self, consumer: &str) {
        let mut command = redis::cmd("XREADGROUP");
        let behind_all = i64::MAX;
        command.arg("GROUP").arg(GROUP).arg(consumer);
        command.arg("STREAMS").arg(self.stream()).arg(behind_all);
        let _nothing: redis::Value = self.redis(&command).await;
    }

    /// Makes the consumer group, if no worker has yet.
    pub async fn create_group(&self) {
        let mut command = redis::cmd("XGROUP");
        command
            .arg("CREATE")
            .arg(self.stream())
            .arg(GROUP)
            .arg("0")
            .arg("MKSTREAM");
        match self.try_redis::<()>(&command).await {
            Ok(()) => {}
            Err(error) if error.code() == Some("BUSYGROUP") => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// How often an entry was delivered, by its ID.
    pub async fn delivery_counts(&self) -> BTreeMap<String, usize> {
        let mut command = redis::cmd("XPENDING");
        command
            .arg(self.stream())
            .arg(GROUP)
            .arg("-")
            .arg("+")
            .arg(10_000);
        let pending: redis::streams::StreamPendingCountReply = self.redis(&command).await;
        pending
            .ids
            .into_iter()
            .map(|entry| (entry.id, entry.times_delivered))
            .collect()
    }

    // Operators

    /// What an operator's commands are about.
    pub fn target(&self) -> Target {
        Target {
            link: RedisLink::new(self.redis_url(), RedisTimeouts::default()),
            key_prefix: self.prefix.clone(),
            streams: vec![self.stream()],
            group: GROUP.to_owned(),
        }
    }

    /// Where every row is now.
    pub async fn status(&self) -> StatusReport {
        ops::status(&mut self.target(), &mut self.store().await).await
    }

    // Postgres

    async fn postgres<T>(&self, run: impl AsyncFnOnce(&Client) -> T) -> T {
        let mut slot = self.postgres.lock().await;
        let client = match slot.take() {
            Some(client) if !client.is_closed() => client,
            _ => {
                let url = self.servers.postgres_url(&self.database);
                let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
                // Ends with its client.
                tokio::spawn(connection);
                client
            }
        };
        run(slot.insert(client)).await
    }

    /// Runs statements in the test's database.
    pub async fn execute(&self, sql: &str) {
        self.postgres(async |client| client.batch_execute(sql).await)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// The one value that a query returns.
    pub async fn value<T: FromSqlOwned>(&self, sql: &str) -> T {
        self.postgres(async |client| client.query_one(sql, &[]).await)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
            .get(0)
    }

    /// Rows of `detections`.
    pub async fn n_rows(&self) -> i64 {
        self.value("SELECT count(*) FROM detections").await
    }

    /// Keys in the ledger.
    pub async fn n_ledger(&self) -> i64 {
        self.value("SELECT count(*) FROM ledger").await
    }

    /// The dead letters, oldest first.
    pub async fn dead_letters(&self) -> Vec<DeadLetterRecord> {
        let filter = DeadLetterFilter {
            limit: 10_000,
            ..DeadLetterFilter::default()
        };
        self.store()
            .await
            .query_dead_letters(&filter)
            .await
            .unwrap()
    }

    /// Puts all dead letters back into their stream.
    pub async fn requeue_all(&self) -> RequeueReport {
        self.requeue(None).await
    }

    /// Puts the dead letters of this reason back into their stream.
    pub async fn requeue_reason(&self, reason: &str) -> RequeueReport {
        self.requeue(Some(reason.to_owned())).await
    }

    async fn requeue(&self, reason: Option<String>) -> RequeueReport {
        let mut target = self.target();
        let all = DeadLetterFilter {
            reason,
            limit: 10_000,
            ..DeadLetterFilter::default()
        };
        let (limits, stop) = (RequeueLimits::default(), CancellationToken::new());
        let mut store = self.store().await;
        ops::requeue(&mut target, &mut store, &all, &limits, &stop, |_| {})
            .await
            .unwrap()
    }

    /// The dead letters as `reason row: message`, in order of entry and row.
    pub async fn dead_letter_texts(&self) -> Vec<String> {
        let mut letters = self.dead_letters().await;
        letters.sort_by_key(|letter| (letter.entry_id.parse::<EntryId>().ok(), letter.row_idx));
        letters
            .iter()
            .map(|letter| match letter.row_idx {
                Some(row_idx) => format!("{} {row_idx}: {}", letter.reason, letter.message),
                None => format!("{}: {}", letter.reason, letter.message),
            })
            .collect()
    }

    /// Asserts that the detections 0…n−1 are stored, each exactly once, and that nothing is pending
    /// or unread.
    #[track_caller]
    pub fn assert_settled_once(&self, n: i64) -> impl Future<Output = ()> {
        let asked_at = std::panic::Location::caller();
        async move {
            self.assert_stored(n, asked_at).await;
            assert_eq!(
                self.pending().await,
                BTreeMap::new(),
                "pending, at {asked_at}"
            );
        }
    }

    /// Asserts that the detections 0…n−1 are stored, each exactly once.
    #[track_caller]
    pub fn assert_stored_once(&self, n: i64) -> impl Future<Output = ()> {
        self.assert_stored(n, std::panic::Location::caller())
    }

    async fn assert_stored(&self, n: i64, asked_at: &std::panic::Location<'_>) {
        let found: String = self
            .value(
                "SELECT format('%s rows, %s of them different, from %s to %s', count(*), \
                 count(DISTINCT detection_id), min(detection_id), max(detection_id)) \
                 FROM detections",
            )
            .await;
        let wanted = format!("{n} rows, {n} of them different, from 0 to {}", n - 1);
        assert_eq!(found, wanted, "stored, at {asked_at}");
    }
}
