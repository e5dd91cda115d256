//! The servers, the links to them, and everything that runs between them.

use std::{
    fmt,
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use passerby_consumer::store::DatabaseUrl;
use passerby_servers::{PostgresServer, RedisServer, ServerError};
use passerby_shared::{
    ErrorChain, KeyPrefix, StreamKey,
    redis_connection::{RedisTimeouts, RedisUrl, connect},
};
use passerby_tests::FaultProxy;
use redis::FromRedisValue;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, NoTls, Row};

use crate::{
    pipeline::Pipeline,
    rows::{NO_REFUSED_DETECTION, NO_REFUSED_TRACK},
    setup::{self, Disks, Started},
    spool::Spool,
    workers::Workers,
};

pub(crate) const GROUP: &str = "passerby";
pub(crate) const DATABASE: &str = "chaos";
const PATIENCE: Duration = Duration::from_secs(30);

/// A link that a proxy stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Link {
    ProducersToRedis,
    WorkersToRedis,
    WorkersToPostgres,
}

impl Link {
    pub(crate) const ALL: [Self; 3] = [
        Self::ProducersToRedis,
        Self::WorkersToRedis,
        Self::WorkersToPostgres,
    ];
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ProducersToRedis => "producers-redis",
            Self::WorkersToRedis => "workers-redis",
            Self::WorkersToPostgres => "workers-postgres",
        })
    }
}

/// What was counted on the way.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) claimed_by_operator: AtomicU64,
    pub(crate) requeued: AtomicU64,
    pub(crate) duplicates: AtomicU64,
}

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct World {
    // In this order they go: what writes, then the servers, then what they write to.
    pub(crate) workers: Workers,
    pub(crate) pipeline: Pipeline,
    redis: Arc<Mutex<RedisServer>>,
    postgres: Arc<Mutex<PostgresServer>>,
    pub(crate) disks: Disks,
    pub(crate) spool: Spool,
    links: [FaultProxy; 3],
    redis_port: u16,
    postgres_port: u16,
    /// Logs, disks, and after a failure the servers' data. Goes after the disks that are mounted in it.
    dir: Mutex<Option<TempDir>>,
    pub(crate) counts: Counts,
    /// A requeue was interrupted: letters may be in the stream and not be marked.
    pub(crate) is_requeue_unfinished: AtomicBool,
}

impl World {
    /// Starts everything, with its logs and disks in this directory.
    pub(crate) async fn start(temp_dir: TempDir) -> Self {
        let dir = temp_dir.path();
        let Started {
            redis,
            postgres,
            disks,
        } = setup::start(dir).await;
        let (redis_port, postgres_port) = (redis.port(), postgres.port());
        let links = [
            FaultProxy::start(redis_port).await,
            FaultProxy::start(redis_port).await,
            FaultProxy::start(postgres_port).await,
        ];
        let redis_of = |link: Link| format!("redis://127.0.0.1:{}/0", links[link as usize].port());
        let workers = Workers::start(
            dir,
            &redis_of(Link::WorkersToRedis),
            &database_url(links[Link::WorkersToPostgres as usize].port()),
        )
        .await;
        let world = Self {
            workers,
            pipeline: Pipeline::new(redis_of(Link::ProducersToRedis)),
            spool: Spool::new(&dir.join("spool")),
            redis: Arc::new(Mutex::new(redis)),
            postgres: Arc::new(Mutex::new(postgres)),
            disks,
            links,
            redis_port,
            postgres_port,
            dir: Mutex::new(Some(temp_dir)),
            counts: Counts::default(),
            is_requeue_unfinished: AtomicBool::new(false),
        };
        world.refuse_rows(true).await;
        world
    }

    pub(crate) fn link(&self, link: Link) -> &FaultProxy {
        &self.links[link as usize]
    }

    pub(crate) fn streams(&self) -> Vec<StreamKey> {
        vec![stream()]
    }

    /// Redis itself, no proxy between.
    pub(crate) fn redis_url(&self) -> RedisUrl {
        format!("redis://127.0.0.1:{}/0", self.redis_port)
            .parse()
            .unwrap()
    }

    /// Redis as producers reach it.
    pub(crate) fn producers_redis_url(&self) -> RedisUrl {
        let port = self.link(Link::ProducersToRedis).port();
        format!("redis://127.0.0.1:{port}/0").parse().unwrap()
    }

    /// Postgres itself, no proxy between.
    pub(crate) fn database_url(&self) -> DatabaseUrl {
        database_url(self.postgres_port).parse().unwrap()
    }

    /// Takes back whatever may still be wrong, and starts what does not run.
    pub(crate) async fn heal(&self) {
        for link in &self.links {
            link.heal();
        }
        for disk in [&self.disks.tables, &self.disks.wal, &self.spool.disk]
            .into_iter()
            .flatten()
        {
            disk.free();
        }
        self.lift_maxmemory().await;
        self.revive_postgres().await;
        self.read_only(false).await;
        self.workers.all_up();
    }

    // Redis

    /// Does something with the server itself.
    pub(crate) async fn redis_server(&self, run: fn(&mut RedisServer) -> Result<(), ServerError>) {
        let redis = Arc::clone(&self.redis);
        blocking(move || run(&mut redis.lock().unwrap_or_else(PoisonError::into_inner)))
            .await
            .unwrap_or_else(refuse);
    }

    /// Runs a command over a connection of its own; `None` when that does not work now.
    pub(crate) async fn try_redis<T: FromRedisValue>(&self, command: &redis::Cmd) -> Option<T> {
        let limit = Duration::from_secs(1);
        let timeouts = RedisTimeouts {
            connect: limit,
            response: limit,
        };
        let url = self.redis_url();
        let mut connection = connect(&url, timeouts).await.ok()?;
        command.query_async(&mut connection).await.ok()
    }

    /// Runs a command, and waits for Redis if it must.
    pub(crate) async fn redis<T: FromRedisValue>(&self, command: &redis::Cmd) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(reply) = self.try_redis(command).await {
                return reply;
            }
            assert!(
                Instant::now() < deadline,
                "{command:?}: no answer in {PATIENCE:?}"
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn lift_maxmemory(&self) {
        self.redis::<()>(redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("0"))
            .await;
    }

    // Postgres

    /// Does something with the server itself.
    pub(crate) async fn postgres_server(
        &self,
        run: fn(&mut PostgresServer) -> Result<(), ServerError>,
    ) {
        let postgres = Arc::clone(&self.postgres);
        blocking(move || run(&mut postgres.lock().unwrap_or_else(PoisonError::into_inner)))
            .await
            .unwrap_or_else(refuse);
    }

    async fn try_client(&self) -> Result<Client, tokio_postgres::Error> {
        let url = database_url(self.postgres_port);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        // Ends with its client.
        tokio::spawn(connection);
        Ok(client)
    }

    /// A connection of its own, made as soon as Postgres lets us.
    pub(crate) async fn client(&self) -> Client {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match timeout(Duration::from_secs(5), self.try_client()).await {
                Ok(Ok(client)) => return client,
                failed if Instant::now() >= deadline => panic!("connect to Postgres: {failed:?}"),
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Runs statements if that works now; says whether it did.
    pub(crate) async fn try_sql(&self, sql: &str) -> bool {
        self.try_sql_for(sql, Duration::from_secs(2)).await
    }

    /// As [`World::try_sql`], for at most so long.
    pub(crate) async fn try_sql_for(&self, sql: &str, limit: Duration) -> bool {
        let run = async { self.try_client().await?.batch_execute(sql).await };
        matches!(timeout(limit, run).await, Ok(Ok(())))
    }

    /// What a query finds, if it does in so long.
    pub(crate) async fn try_query(&self, sql: &str, limit: Duration) -> Option<Vec<Row>> {
        let run = async { self.try_client().await?.query(sql, &[]).await };
        timeout(limit, run).await.ok()?.ok()
    }

    /// Makes the database read-only for new sessions, or ends that, which must succeed.
    pub(crate) async fn read_only(&self, is_read_only: bool) {
        let sql = format!(
            "BEGIN READ WRITE;
             ALTER DATABASE {DATABASE} SET default_transaction_read_only = {is_read_only};
             COMMIT"
        );
        let deadline = Instant::now() + PATIENCE;
        while !self.try_sql(&sql).await {
            if is_read_only {
                return;
            }
            assert!(Instant::now() < deadline, "the database stays read-only");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts Postgres if it has ended, as it does when it cannot recover for want of room.
    pub(crate) async fn revive_postgres(&self) {
        for _ in 0..40 {
            if matches!(
                timeout(Duration::from_secs(1), self.try_client()).await,
                Ok(Ok(_))
            ) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
        self.postgres_server(PostgresServer::restart).await;
    }

    /// Lets Postgres refuse some rows, or mends that.
    pub(crate) async fn refuse_rows(&self, refuse: bool) {
        let client = self.client().await;
        for (table, check) in [
            ("detections", NO_REFUSED_DETECTION),
            ("tracks", NO_REFUSED_TRACK),
        ] {
            let mut sql = format!("ALTER TABLE {table} DROP CONSTRAINT IF EXISTS chaos_refuses;");
            if refuse {
                sql.push_str(&format!(
                    "ALTER TABLE {table} ADD CONSTRAINT chaos_refuses CHECK ({check}) NOT VALID"
                ));
            }
            client.batch_execute(&sql).await.unwrap();
        }
    }

    /// Keeps the logs, and the servers' data beside them; the servers must not be needed any more.
    /// Says where.
    pub(crate) async fn keep_data(&self) -> PathBuf {
        let kept = self
            .dir
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let kept = kept.expect("kept once").keep();
        self.redis_server(RedisServer::kill).await;
        self.postgres_server(PostgresServer::kill).await;
        let redis = self
            .redis
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .dir()
            .to_owned();
        let postgres = self
            .postgres
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .dir()
            .to_owned();
        for (from, name) in [(redis, "redis"), (postgres, "postgres")] {
            let mut copy = Command::new("cp");
            copy.arg("-a").arg(from).arg(kept.join(name));
            drop(copy.output());
        }
        // Links of Postgres lead to its disks: what was on them stays where it was.
        for disk in [&self.disks.tables, &self.disks.wal].into_iter().flatten() {
            disk.replace_by_copy();
        }
        kept
    }
}

pub(crate) fn stream() -> StreamKey {
    KeyPrefix::default().stream(0)
}

pub(crate) fn database_url(port: u16) -> String {
    format!("postgresql://postgres@127.0.0.1:{port}/{DATABASE}?sslmode=disable")
}

pub(crate) fn refuse<T>(error: ServerError) -> T {
    panic!("{}", ErrorChain(&error))
}

/// Runs what blocks where it may.
pub(crate) async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(run).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
