//! A worker: the steps of an entry's way, joined by bounded channels.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use passerby_shared::{
    ErrorChain, StreamKey,
    redis_connection::{ConnectError, RedisLink, RedisTimeouts, RedisUrl},
};
use redis::{ErrorKind, RedisError};
use tokio::{
    sync::{Mutex, mpsc},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span, warn};

use crate::{
    InvalidConfig, WorkerConfig, WorkerReport, WorkerStats,
    acker::Acker,
    batch_memory::BatchMemories,
    committer::Committer,
    dead_letter_guard::{DeadLetterGuard, MostlyBad},
    decoder::Decoder,
    group,
    health::{Health, Turning},
    heartbeat::Heartbeat,
    in_flight::InFlight,
    ledger_keeper::LedgerKeeper,
    metrics::Metrics,
    observer::{Observer, PATIENCE},
    ops::Target,
    presence::Presence,
    reader::{PauseWatch, ReadError, Reader},
    retention_keeper::RetentionKeeper,
    store::{Store, StoreError, StoreTimeouts},
    tail::Tail,
    upkeep::Upkeep,
};

/// Why a worker could not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// Redis could not be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Redis does not do what a worker needs.
    #[error("prepare stream `{stream}` on {url}")]
    Prepare {
        /// The stream.
        stream: StreamKey,
        /// The server.
        url: RedisUrl,
        /// What came back.
        #[source]
        source: RedisError,
    },
    /// Reading failed in a way that waiting does not mend.
    #[error("stopped reading")]
    Read(#[source] ReadError),
    /// Acknowledging failed in a way that waiting does not mend. What was stored is known to the
    /// ledger.
    #[error("stopped acknowledging")]
    Ack(#[source] RedisError),
    /// Storing failed in a way that waiting does not mend. The entries stay pending.
    #[error("stopped storing")]
    Store(#[from] StoreError),
    /// Most of what was read cannot be stored. The entries stay pending.
    #[error("stopped storing")]
    MostlyBad(#[from] MostlyBad),
    /// A bug of ours.
    #[error("a task of the worker panicked")]
    Panic(#[source] JoinError),
    /// Told to stop, the worker could not finish in time. The entries stay pending.
    #[error(
        "{n_entries} entries were not settled within the grace period of {grace_period:?}; they stay pending, will be delivered again, and are stored once"
    )]
    Unfinished {
        /// Entries read and not settled.
        n_entries: usize,
        /// The grace period.
        grace_period: Duration,
    },
}

impl WorkerError {
    /// What an operator can do, in a few words.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.advice(),
            Self::Connect(error) => Some(redis_advice(error.redis_error())),
            Self::Prepare { source, .. } | Self::Ack(source) => Some(redis_advice(source)),
            Self::Read(ReadError::Redis(error)) => Some(redis_advice(error)),
            Self::Read(ReadError::Paused { .. }) => {
                Some("run `passerby resume` when it may be read again".to_owned())
            }
            Self::MostlyBad(_) => Some(
                "mend the producer that writes them, or, to dead-letter them all the same, start the \
                 worker with --dead-letter-limit 100"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// What an operator can do about an error of Redis.
pub(crate) fn redis_advice(error: &RedisError) -> String {
    const WRONG_PASSWORD: &str = "correct the user or password in PASSERBY_REDIS_URL";
    let advice = match (error.code(), error.detail()) {
        (Some("NOAUTH" | "WRONGPASS"), _) => WRONG_PASSWORD,
        _ if error.kind() == ErrorKind::AuthenticationFailed => WRONG_PASSWORD,
        (Some("NOPERM"), _) => "grant the user the stream commands (docs/configuration.md)",
        (Some("WRONGTYPE"), _) => "a key of another type has this name: choose --key-prefix",
        (Some("READONLY"), _) => "this server is a replica: name the primary in PASSERBY_REDIS_URL",
        (_, Some(detail)) if detail.contains("unknown command") => {
            "this server has no streams: Passerby needs Redis 6.2 or later, or Valkey"
        }
        (Some("ERR"), _) => "check the server's version: Passerby needs Redis 6.2 or later",
        _ => "check that Redis is running there and that PASSERBY_REDIS_URL names it",
    };
    advice.to_owned()
}

/// A worker that has reached both servers and is ready to run.
#[derive(Debug)]
pub struct Worker {
    config: WorkerConfig,
    streams: Vec<Arc<StreamKey>>,
    link: RedisLink,
    store: Store,
    stats: Arc<WorkerStats>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

impl Worker {
    /// Connects to both servers, brings the schema to this program's version, and makes the consumer
    /// group.
    ///
    /// # Errors
    ///
    /// [`WorkerError`] says which server refused what. A worker that has started waits out such
    /// faults; at the start they are most likely mistakes.
    pub async fn start(config: WorkerConfig) -> Result<Self, WorkerError> {
        Self::start_watched(config, Arc::default()).await
    }

    /// As [`Worker::start`], with somebody watching how the worker fares, from its start on.
    ///
    /// # Errors
    ///
    /// As [`Worker::start`].
    pub async fn start_watched(
        config: WorkerConfig,
        health: Arc<Health>,
    ) -> Result<Self, WorkerError> {
        config.check()?;
        let metrics = Arc::new(Metrics::register());
        let mut link = RedisLink::new(config.redis_url.clone(), config.redis_timeouts())
            .counted_by(metrics.redis_connections());
        let streams: Vec<_> = config
            .key_prefix
            .streams(config.shards)
            .into_iter()
            .map(Arc::new)
            .collect();
        let connection = link.get().await?;
        for stream in &streams {
            group::create(connection, stream, &config.group)
                .await
                .map_err(|source| WorkerError::Prepare {
                    stream: StreamKey::clone(stream),
                    url: config.redis_url.clone(),
                    source,
                })?;
        }
        warn_of_eviction(connection).await;
        let mut store = Store::new(config.database_url.clone(), config.store_timeouts());
        if config.migrate {
            store.migrate().await?;
        } else {
            store.check_schema().await?;
        }
        store.ensure_partitions_ahead().await?;
        Ok(Self {
            config,
            streams,
            link,
            store,
            stats: Arc::default(),
            metrics,
            health,
        })
    }

    /// The worker's counters, which go on while it runs.
    pub fn stats(&self) -> Arc<WorkerStats> {
        Arc::clone(&self.stats)
    }

    /// Works until `stop` fires, or, when draining, until nothing is left to do.
    ///
    /// Told to stop, the worker reads no more, commits and acknowledges what it has read, and leaves
    /// the group if nothing of its own is pending.
    ///
    /// # Errors
    ///
    /// [`WorkerError`] when an operator must act, or when the grace period was too short. What was
    /// not stored stays pending in either case.
    ///
    /// # Cancel safety
    ///
    /// A dropped worker is a crashed worker: entries it had read stay pending and are taken over by
    /// another; nothing is lost or stored twice.
    pub async fn run(self, stop: CancellationToken) -> Result<WorkerReport, WorkerError> {
        let span = info_span!(
            "worker",
            group = self.config.group,
            consumer = %self.config.consumer
        );
        self.run_in_span(stop).instrument(span).await
    }

    async fn run_in_span(self, stop: CancellationToken) -> Result<WorkerReport, WorkerError> {
        let Self {
            config,
            streams,
            link,
            store,
            stats,
            metrics,
            health,
        } = self;
        info!(
            redis = %config.redis_url,
            postgres = %config.database_url,
            shards = config.shards,
            batch_rows = config.batch_rows,
            committers = config.committers,
            drain = config.drain,
            "worker started"
        );
        let in_flight = InFlight::default();
        let reading = stop.child_token();
        health.runs(&reading, config.stuck_after(), &stats);
        let abort = CancellationToken::new();
        let upkeep_done = CancellationToken::new();
        let new_link = |timeouts| {
            RedisLink::new(config.redis_url.clone(), timeouts)
                .counted_by(metrics.redis_connections())
        };
        let (entries_tx, entries_rx) = mpsc::channel(1);
        let (batches_tx, batches_rx) = mpsc::channel(1);
        let (settled_tx, settled_rx) = mpsc::channel(config.committers.get());

        let reader = Reader {
            link: RedisLink::exclusive(config.redis_url.clone(), config.redis_timeouts())
                .counted_by(metrics.redis_connections()),
            streams: streams.clone(),
            group: config.group.clone(),
            consumer: config.consumer.clone(),
            block: config.block,
            server_timeout: config.server_timeout,
            min_idle: config.min_idle,
            batch_rows: config.batch_rows,
            batch_bytes: config.batch_bytes,
            drain: config.drain,
            paused: config.key_prefix.paused(),
            pause: PauseWatch::default(),
            in_flight: in_flight.clone(),
            stats: Arc::clone(&stats),
            metrics: Arc::clone(&metrics),
            tail: Tail::default(),
            turning: health.watch("reader"),
        };
        // One that is filled, one that waits, and one in each COPY; a batch is closed by the row with which it
        // has grown too large.
        let buffers = BatchMemories::new(
            config.committers.get() + 2,
            config.batch_bytes.get().saturating_mul(2),
        );
        let decoder = Decoder {
            buffers: buffers.clone(),
            batch_rows: config.batch_rows,
            batch_bytes: config.batch_bytes,
            linger: config.linger,
            turning: health.watch("decoder"),
        };
        let acker = Acker {
            link,
            group: config.group.clone(),
            in_flight: in_flight.clone(),
            metrics: Arc::clone(&metrics),
            turning: health.watch("acker"),
            slow_batch: config.slow_batch,
            abort: abort.clone(),
        };
        let heartbeat = Heartbeat {
            link: new_link(config.redis_timeouts()),
            streams: streams.clone(),
            group: config.group.clone(),
            consumer: config.consumer.clone(),
            min_idle: config.min_idle,
            in_flight: in_flight.clone(),
            stats: Arc::clone(&stats),
        };
        let upkeep = Upkeep {
            link: new_link(config.redis_timeouts()),
            store,
            streams: streams.clone(),
            trim_grace: config.trim_grace,
            group: config.group.clone(),
            consumer: config.consumer.clone(),
            consumer_expiry: config.consumer_expiry,
            key_prefix: config.key_prefix.clone(),
            ledger_keeper: config.ledger_retention.map(LedgerKeeper::new),
            was_nearly_full: false,
            metrics: Arc::clone(&metrics),
        };
        let retention_keeper = RetentionKeeper {
            database_url: config.database_url.clone(),
            timeouts: config.store_timeouts(),
            retention: config.retention,
            metrics: Arc::clone(&metrics),
        };
        let observer = config.observe.map(|every| Observer {
            target: Target {
                link: new_link(RedisTimeouts {
                    connect: PATIENCE / 2,
                    response: PATIENCE,
                }),
                key_prefix: config.key_prefix.clone(),
                streams: config.key_prefix.streams(config.shards),
                group: config.group.clone(),
            },
            store: Store::new(
                config.database_url.clone(),
                StoreTimeouts {
                    connect: PATIENCE / 2,
                    silence: PATIENCE,
                    operation: PATIENCE,
                },
            ),
            every,
            in_flight: in_flight.clone(),
            stats: Arc::clone(&stats),
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
        });

        let presence = Presence {
            link: new_link(config.redis_timeouts()),
            hash: config.key_prefix.workers(),
            consumer: config.consumer.clone(),
            group: config.group.clone(),
            shards: config.shards,
            committers: config.committers.get(),
            in_flight: in_flight.clone(),
            stats: Arc::clone(&stats),
            stop: stop.clone(),
            started_at: Utc::now(),
            said_refused: false,
        };

        let mut tasks = JoinSet::<Result<(), WorkerError>>::new();
        let in_span = tracing::Span::current();
        {
            let (reading, turning) = (reading.clone(), reader.turning.clone());
            let task = async move {
                reader
                    .run(entries_tx, reading)
                    .await
                    .map_err(WorkerError::Read)
            };
            tasks.spawn(ending(turning, task).instrument(in_span.clone()));
        }
        {
            let turning = decoder.turning.clone();
            let task = async move {
                decoder.run(entries_rx, batches_tx).await;
                Ok(())
            };
            tasks.spawn(ending(turning, task).instrument(in_span.clone()));
        }
        let batches = Arc::new(Mutex::new(batches_rx));
        let guard = DeadLetterGuard::new(config.dead_letter_limit);
        for _ in 0..config.committers.get() {
            let turning = health.watch("committer");
            let committer = Committer {
                store: Store::new(config.database_url.clone(), config.store_timeouts())
                    .turning(turning.clone()),
                batches: Arc::clone(&batches),
                settled: settled_tx.clone(),
                buffers: buffers.clone(),
                stats: Arc::clone(&stats),
                metrics: Arc::clone(&metrics),
                turning: turning.clone(),
                guard: guard.clone(),
                abort: abort.clone(),
            };
            tasks.spawn(ending(turning, committer.run()).instrument(in_span.clone()));
        }
        drop((settled_tx, batches));
        {
            let turning = acker.turning.clone();
            let task = async move { acker.run(settled_rx).await.map_err(WorkerError::Ack) };
            tasks.spawn(ending(turning, task).instrument(in_span.clone()));
        }
        // In a set, too: should this worker be dropped, nothing must keep its entries alive.
        let mut beside = JoinSet::new();
        beside.spawn(
            heartbeat
                .run(upkeep_done.clone())
                .instrument(in_span.clone()),
        );
        beside.spawn(upkeep.run(upkeep_done.clone()).instrument(in_span.clone()));
        let retaining = retention_keeper.run(upkeep_done.clone());
        beside.spawn(retaining.instrument(in_span.clone()));
        if let Some(observer) = observer {
            let observing = observer.run(upkeep_done.clone());
            beside.spawn(observing.instrument(in_span.clone()));
        }
        // Aborted with the rest should this worker be dropped.
        let mut shown = JoinSet::new();
        shown.spawn(presence.run(upkeep_done.clone()).instrument(in_span));

        let ended = supervise(&mut tasks, &stop, &reading, &abort, config.grace_period).await;
        // Entries in work show signs of life until the last of them is settled.
        upkeep_done.cancel();
        let mut beside_ended = Ok(());
        while let Some(task) = beside.join_next().await {
            beside_ended = beside_ended.and(task);
        }
        let ended = ended
            .and(beside_ended.map_err(WorkerError::Panic))
            .and_then(|()| match in_flight.len() {
                0 => Ok(()),
                n_entries => Err(WorkerError::Unfinished {
                    n_entries,
                    grace_period: config.grace_period,
                }),
            });
        last_word(shown, &ended).await;
        ended?;
        let summarizing = async {
            if config.drain {
                summarize(&config).await;
            }
        };
        tokio::join!(summarizing, leave(&config, &streams));
        let report = stats.report();
        info!(
            n_entries = report.entries,
            n_rows = report.detections,
            n_duplicates = report.duplicates,
            n_poison = report.dead_letters,
            "worker stopped"
        );
        Ok(report)
    }
}

/// Takes the worker out of what operators see, or shows why it ended.
async fn last_word(mut shown: JoinSet<Presence>, ended: &Result<(), WorkerError>) {
    const LIMIT: Duration = Duration::from_secs(1);
    let Some(Ok(mut presence)) = shown.join_next().await else {
        return;
    };
    // Redis may be what it ended of.
    let said = tokio::time::timeout(LIMIT, async {
        match ended {
            Ok(()) => presence.hide().await,
            Err(error) => presence.show_failure(error).await,
        }
    });
    if said.await.is_err() {
        debug!("Redis does not hear that the worker has ended");
    }
}

/// A loop that has ended is not stuck, whatever it was at.
async fn ending<T>(turning: Turning, running: impl Future<Output = T>) -> T {
    let ended = running.await;
    turning.waits();
    ended
}

/// Waits for the tasks. The first that fails stops the reader, and the others finish what they have;
/// after the grace period nobody is waited for.
async fn supervise(
    tasks: &mut JoinSet<Result<(), WorkerError>>,
    stop: &CancellationToken,
    reading: &CancellationToken,
    abort: &CancellationToken,
    grace_period: Duration,
) -> Result<(), WorkerError> {
    let mut failure = None;
    let deadline = tokio::time::sleep(Duration::MAX);
    let mut deadline = std::pin::pin!(deadline);
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => break,
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => {
                    failure.get_or_insert(error);
                    reading.cancel();
                }
                Some(Err(error)) => {
                    failure.get_or_insert(WorkerError::Panic(error));
                    reading.cancel();
                }
            },
            () = stop.cancelled(), if !stopping => {
                info!("stopping: finishing what was read");
            }
            () = &mut deadline => {
                abort.cancel();
                tasks.shutdown().await;
                break;
            }
        }
        if !stopping && (stop.is_cancelled() || failure.is_some()) {
            stopping = true;
            deadline
                .as_mut()
                .reset(tokio::time::Instant::now() + grace_period);
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Summarizes the sessions that have ended, without waiting for them to be quiet: the next worker may be long in
/// coming.
async fn summarize(config: &WorkerConfig) {
    let mut store = Store::new(config.database_url.clone(), config.store_timeouts());
    if let Err(error) = store.summarize_ended_sessions(Duration::ZERO).await {
        warn!(error = %ErrorChain(&error), "the next worker will summarize ended sessions");
    }
}

/// Leaves the group. A consumer that stays behind is harmless, so that failing is no error.
async fn leave(config: &WorkerConfig, streams: &[Arc<StreamKey>]) {
    let mut link = RedisLink::new(config.redis_url.clone(), config.redis_timeouts());
    let Ok(connection) = link.get().await else {
        return;
    };
    for stream in streams {
        let left = group::leave(connection, stream, &config.group, &config.consumer).await;
        if let Err(error) = left {
            warn!(%stream, error = %ErrorChain(&error), "the consumer stays in the group");
        }
    }
}

/// Under an `allkeys-*` policy a full Redis evicts whole streams: that was seen to happen.
async fn warn_of_eviction(connection: &mut redis::aio::MultiplexedConnection) {
    let policy: Result<(String, String), RedisError> = redis::cmd("CONFIG")
        .arg("GET")
        .arg("maxmemory-policy")
        .query_async(connection)
        .await;
    if let Ok((_, policy)) = policy
        && policy.starts_with("allkeys-")
    {
        warn!(
            policy,
            "a full Redis would evict whole streams: set maxmemory-policy to noeviction or \
             volatile-ttl"
        );
    }
}
