use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use passerby_consumer::store::{DatabaseUrl, Store};
use passerby_servers::{
    Appendonly, PostgresOptions, PostgresServer, RedisOptions, RedisServer, ServerError,
};
use passerby_shared::redis_connection::RedisUrl;
use tokio_postgres::NoTls;

/// The database that those of the tests are copies of: migrated, with the partitions of the week.
const TEMPLATE: &str = "template_passerby";

/// A private Redis and a private Postgres.
#[derive(Debug)]
pub struct Servers {
    redis: Mutex<RedisServer>,
    postgres: Mutex<PostgresServer>,
}

impl Servers {
    /// The pair that the tests of this process share, started when first asked for. It ends with the
    /// process.
    pub async fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Arc<Servers>> = OnceLock::new();
        blocking(|| Arc::clone(SHARED.get_or_init(|| Arc::new(Self::start(Appendonly::No))))).await
    }

    /// A pair that one test may kill. Redis syncs its append-only file before each reply.
    pub async fn dedicated() -> Arc<Self> {
        blocking(|| Arc::new(Self::start(Appendonly::Always))).await
    }

    fn start(appendonly: Appendonly) -> Self {
        let (redis, postgres) = std::thread::scope(|scope| {
            let redis = scope.spawn(|| start_redis(appendonly, &[]));
            let postgres = PostgresServer::start(PostgresOptions {
                settings: vec![("max_connections".to_owned(), "300".to_owned())],
                ..PostgresOptions::default()
            });
            let redis = redis.join().expect("starting Redis panicked");
            (
                redis.unwrap_or_else(refuse),
                postgres.unwrap_or_else(refuse),
            )
        });
        let servers = Self {
            redis: Mutex::new(redis),
            postgres: Mutex::new(postgres),
        };
        // On a runtime of its own: a test's would take the connection's task with it.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(servers.make_template());
        servers
    }

    async fn make_template(&self) {
        self.admin(&format!("CREATE DATABASE {TEMPLATE}")).await;
        let mut store = Store::connect(&self.database_url(TEMPLATE)).await.unwrap();
        store.migrate().await.unwrap();
        store.ensure_partitions_ahead().await.unwrap();
        drop(store);
        // A template can only be copied while nobody is connected, and the session of a client that
        // has gone lasts a moment longer.
        self.admin(&format!(
            "ALTER DATABASE {TEMPLATE} ALLOW_CONNECTIONS false"
        ))
        .await;
        self.admin(&format!(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{TEMPLATE}'"
        ))
        .await;
    }

    /// Makes a database like the template, or an empty one.
    pub async fn create_database(&self, name: &str, is_empty: bool) {
        let template = if is_empty { "template0" } else { TEMPLATE };
        self.admin(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .await;
    }

    /// Runs a statement as the superuser, in the database `postgres`.
    pub async fn admin(&self, sql: &str) {
        let url = self.postgres_url("postgres");
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        client
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        drop(client);
        connection.await.unwrap().unwrap();
    }

    fn redis(&self) -> MutexGuard<'_, RedisServer> {
        self.redis.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn postgres(&self) -> MutexGuard<'_, PostgresServer> {
        self.postgres.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where Redis is.
    pub fn redis_url(&self) -> RedisUrl {
        self.redis().url().parse().unwrap()
    }

    /// The port of Redis on 127.0.0.1.
    pub fn redis_port(&self) -> u16 {
        self.redis().port()
    }

    /// Where a database is, as text.
    pub fn postgres_url(&self, database: &str) -> String {
        self.postgres().url(database)
    }

    /// Where a database is.
    pub fn database_url(&self, database: &str) -> DatabaseUrl {
        self.postgres_url(database).parse().unwrap()
    }

    /// The port of Postgres on 127.0.0.1.
    pub fn postgres_port(&self) -> u16 {
        self.postgres().port()
    }

    /// Kills Redis; what it had acknowledged is in its append-only file.
    pub async fn kill_redis(self: &Arc<Self>) {
        let servers = Arc::clone(self);
        blocking(move || servers.redis().kill().unwrap_or_else(refuse)).await;
    }

    /// Starts Redis again, where it was.
    pub async fn restart_redis(self: &Arc<Self>) {
        let servers = Arc::clone(self);
        blocking(move || servers.redis().restart().unwrap_or_else(refuse)).await;
    }

    /// Ends Postgres as a crash would.
    pub async fn kill_postgres(self: &Arc<Self>) {
        let servers = Arc::clone(self);
        blocking(move || servers.postgres().kill().unwrap_or_else(refuse)).await;
    }

    /// Starts Postgres again, where it was.
    pub async fn restart_postgres(self: &Arc<Self>) {
        let servers = Arc::clone(self);
        blocking(move || servers.postgres().restart().unwrap_or_else(refuse)).await;
    }
}

/// Starts a Redis with further directives.
pub(crate) fn start_redis(
    appendonly: Appendonly,
    directives: &[(&str, &str)],
) -> Result<RedisServer, ServerError> {
    RedisServer::start(RedisOptions {
        appendonly,
        config: directives
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..RedisOptions::default()
    })
}

/// Panics with what the error says to people.
fn refuse<T>(error: ServerError) -> T {
    panic!("{}", passerby_shared::ErrorChain(&error))
}

/// Runs what blocks where it may.
pub(crate) async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(run).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
