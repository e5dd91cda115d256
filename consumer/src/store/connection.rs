//! The store's one connection: made when needed, thrown away when in doubt.

use std::{
    borrow::Cow,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio_postgres::{Client, Config, NoTls, Statement, config::SslMode};
use tracing::{debug, warn};

use super::{
    DatabaseUrl, StoreError,
    books::{BooksRow, KEEP_BOOKS},
    copy::COPY_DETECTIONS,
    ledger::ENTER_KEYS,
    partitions::KnownPartitions,
    pruning::HORIZON,
    sessions::HOLD_SESSIONS,
    tls,
};
use crate::{health::Turning, metrics};

/// How long the store waits.
#[derive(Debug, Clone, Copy)]
pub struct StoreTimeouts {
    /// Longest wait for a connection with TLS and authentication.
    pub connect: Duration,
    /// Longest silence of the server within a commit: so long for the answer to each statement, and
    /// for each piece of a COPY to leave. `statement_timeout` does not bound a COPY whose client
    /// stalls, nor a network that swallows packets; this does. The server is told to give up a little
    /// earlier, so that a slow server says so, and only a dead connection is silent.
    pub silence: Duration,
    /// Longest wait for one operation as a whole.
    pub operation: Duration,
}

impl Default for StoreTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            silence: Duration::from_secs(12),
            operation: Duration::from_secs(60),
        }
    }
}

/// Access to Passerby's tables over one connection.
///
/// Operations take `&mut self`: they run one after the other. A store that lost its connection makes
/// a new one at the next operation; it never repeats an operation by itself.
///
/// # Cancel safety
///
/// An operation that is dropped before it is done leaves its connection behind; the next operation
/// makes a new one. Whether the dropped operation took effect is unknown.
pub struct Store {
    url: DatabaseUrl,
    timeouts: StoreTimeouts,
    connection: Option<Connection>,
    pub(super) partitions: KnownPartitions,
    /// The loop whose work the operations are.
    turning: Option<Turning>,
}

/// A connection with the statements prepared on it.
pub(super) struct Connection {
    pub(super) client: Client,
    /// See [`StoreTimeouts::silence`].
    pub(super) silence: Duration,
    prepared: Option<Prepared>,
    /// Where what is committed over it is counted.
    pub(super) books: BooksRow,
    /// Why the connection ended: the driver gives the server's last words only to the task that
    /// drives the connection, and everybody else hears "connection closed".
    last_words: Arc<Mutex<Option<tokio_postgres::Error>>>,
}

/// What every commit needs.
#[derive(Clone)]
pub(super) struct Prepared {
    pub(super) copy_detections: Statement,
    pub(super) enter_keys: Statement,
    pub(super) horizon: Statement,
    pub(super) hold_sessions: Statement,
    pub(super) keep_books: Statement,
}

impl Store {
    /// Connects, with the default timeouts.
    ///
    /// # Errors
    ///
    /// [`StoreError::Connect`] when the server cannot be reached or refuses.
    pub async fn connect(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let mut store = Self::new(url.clone(), StoreTimeouts::default());
        let connection = store.take_connection().await?;
        store.connection = Some(connection);
        Ok(store)
    }

    /// A connection as the server and the role have it, for looking around.
    pub(crate) async fn open_client(
        url: &DatabaseUrl,
        limit: Duration,
    ) -> Result<Client, StoreError> {
        let mut config = url.config().clone();
        config.connect_timeout(limit);
        if config.get_application_name().is_none() {
            config.application_name("passerby");
        }
        let connecting = Connection::connect_client(&config, Arc::default());
        match tokio::time::timeout(limit, connecting).await {
            Ok(connected) => connected.map_err(|source| StoreError::Connect {
                url: url.clone(),
                source,
            }),
            Err(_) => Err(StoreError::TimedOut {
                doing: format!("connect to {url}").into(),
                seconds: limit.as_secs(),
            }),
        }
    }

    /// A store that connects at its first operation.
    pub fn new(url: DatabaseUrl, timeouts: StoreTimeouts) -> Self {
        Self {
            url,
            timeouts,
            connection: None,
            partitions: KnownPartitions::default(),
            turning: None,
        }
    }

    /// Has a loop turn with each operation that begins.
    pub(crate) fn turning(mut self, turning: Turning) -> Self {
        self.turning = Some(turning);
        self
    }

    /// Which database this is.
    pub fn url(&self) -> &DatabaseUrl {
        &self.url
    }

    async fn take_connection(&mut self) -> Result<Connection, StoreError> {
        match self.connection.take() {
            Some(connection) if !connection.client.is_closed() => Ok(connection),
            _ => Connection::open(&self.url, self.timeouts).await,
        }
    }

    /// Begins an operation with the connection it runs on.
    pub(super) async fn begin(&mut self) -> Result<Connection, StoreError> {
        if let Some(turning) = &self.turning {
            turning.turns();
        }
        self.take_connection().await
    }

    /// Longest wait for one operation.
    pub(super) fn limit(&self) -> Duration {
        self.timeouts.operation
    }

    pub(super) fn timeouts(&self) -> StoreTimeouts {
        self.timeouts
    }

    /// Ends an operation. The connection is kept only if the operation succeeded: after a failure
    /// nobody knows what state it is in, and a new one costs a few milliseconds.
    pub(super) fn end<T>(
        &mut self,
        connection: Connection,
        done: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match done {
            Ok(value) => {
                self.connection = Some(connection);
                Ok(value)
            }
            Err(error) => Err(connection.explain(error)),
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// An operation that takes so long is worth a warning.
const SLOW: Duration = Duration::from_secs(1);

/// Waits for an operation, no longer than `limit`.
pub(super) async fn within<T>(
    doing: &'static str,
    limit: Duration,
    operation: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let begun = tokio::time::Instant::now();
    let done = tokio::time::timeout(limit, operation).await;
    // A commit is told of with its batch.
    if begun.elapsed() >= SLOW && doing != "commit" {
        let elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        warn!(doing, elapsed_ms, "slow operation on Postgres");
    }
    match done {
        Ok(done) => done,
        Err(_) => Err(StoreError::TimedOut {
            doing: doing.into(),
            seconds: limit.as_secs(),
        }),
    }
}

/// Waits for the answer to a statement, no longer than `silence`.
pub(super) async fn answer<T>(
    silence: Duration,
    doing: impl Into<Cow<'static, str>>,
    statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, StoreError> {
    let doing = doing.into();
    match tokio::time::timeout(silence, statement).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(StoreError::Statement { doing, source }),
        Err(_) => Err(StoreError::TimedOut {
            doing,
            seconds: silence.as_secs(),
        }),
    }
}

/// The server notices a client that is gone, too: what a lost transaction holds, others wait for.
/// Settings that a server does not have are left out; on Unix sockets those of TCP do nothing.
const NOTICE_LOST_CLIENTS: &str = "\
SELECT set_config(name, value, false)
FROM (VALUES ('tcp_keepalives_idle', '10'), ('tcp_keepalives_interval', '3'),
             ('tcp_keepalives_count', '3'), ('tcp_user_timeout', '10000'),
             ('client_connection_check_interval', '5000')) AS wanted (name, value)
JOIN pg_settings USING (name)";

impl Connection {
    /// The statements of a commit, prepared when they are first needed.
    pub(super) async fn prepared(&mut self) -> Result<Prepared, StoreError> {
        if self.prepared.is_none() {
            let client = &self.client;
            let preparing = async {
                let (copy_detections, enter_keys, horizon, hold_sessions, keep_books) = futures_util::try_join!(
                    client.prepare(COPY_DETECTIONS),
                    client.prepare(ENTER_KEYS),
                    client.prepare(HORIZON),
                    client.prepare(HOLD_SESSIONS),
                    client.prepare(KEEP_BOOKS),
                )?;
                Ok(Prepared {
                    copy_detections,
                    enter_keys,
                    horizon,
                    hold_sessions,
                    keep_books,
                })
            };
            self.prepared = Some(answer(self.silence, "prepare statements", preparing).await?);
        }
        Ok(self.prepared.clone().expect("prepared above"))
    }

    pub(super) async fn open(
        url: &DatabaseUrl,
        timeouts: StoreTimeouts,
    ) -> Result<Self, StoreError> {
        let limit = timeouts.connect;
        let mut config = url.config().clone();
        config
            .connect_timeout(limit)
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(3))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(10));
        if config.get_application_name().is_none() {
            config.application_name("passerby");
        }
        let last_words = Arc::new(Mutex::new(None));
        // The driver's own timeout covers each socket, not TLS and authentication.
        let connecting = async {
            let client = Self::connect_client(&config, Arc::clone(&last_words)).await?;
            client.simple_query(NOTICE_LOST_CLIENTS).await?;
            Ok(client)
        };
        let client = match tokio::time::timeout(limit * 2, connecting).await {
            Ok(Ok(client)) => client,
            Ok(Err(source)) => {
                return Err(StoreError::Connect {
                    url: url.clone(),
                    source,
                });
            }
            Err(_) => {
                return Err(StoreError::TimedOut {
                    doing: format!("connect to {url}").into(),
                    seconds: (limit * 2).as_secs(),
                });
            }
        };
        metrics::CONNECTIONS
            .counter(&[(metrics::SERVER.name, "postgres")])
            .increment(1);
        Ok(Self {
            client,
            silence: timeouts.silence,
            prepared: None,
            books: BooksRow::new(),
            last_words,
        })
    }

    async fn connect_client(
        config: &Config,
        last_words: Arc<Mutex<Option<tokio_postgres::Error>>>,
    ) -> Result<Client, tokio_postgres::Error> {
        let keep = move |ended: Result<(), tokio_postgres::Error>| {
            if let Err(error) = ended {
                debug!(%error, "connection to Postgres ended");
                *last_words.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        };
        // The task that drives a connection ends with the connection: when its client is dropped.
        if config.get_ssl_mode() == SslMode::Disable {
            let (client, connection) = config.connect(NoTls).await?;
            tokio::spawn(async move { keep(connection.await) });
            Ok(client)
        } else {
            let mode = config.get_ssl_mode();
            // It reads the system's certificates, which takes a disk its time.
            let tls = tokio::task::spawn_blocking(move || tls::connector(mode))
                .await
                .expect("it does not panic, and is not aborted");
            let (client, connection) = config.connect(tls).await?;
            tokio::spawn(async move { keep(connection.await) });
            Ok(client)
        }
    }

    /// Puts the server's last words in the place of "connection closed".
    fn explain(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Statement { doing, source } if source.as_db_error().is_none() => {
                let last = self
                    .last_words
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take();
                StoreError::Statement {
                    doing,
                    source: last.unwrap_or(source),
                }
            }
            other => other,
        }
    }
}
