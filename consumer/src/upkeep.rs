//! What a worker does beside the stream: trimming, summaries, partitions.
//!
//! Nothing here is needed for an entry to be stored; a failure is logged and tried again.

use std::{sync::Arc, time::Duration};

use passerby_shared::{
    ErrorChain, KeyPrefix, StreamKey,
    redis_connection::{RedisLink, RedisRecovery},
};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    ConsumerName,
    books_keeper::{self, Expiry},
    group,
    ledger_keeper::LedgerKeeper,
    metrics::Metrics,
    store::{Store, StoreError},
    trimmer,
};

const TRIM_EVERY: Duration = Duration::from_secs(5);
const SUMMARIZE_EVERY: Duration = Duration::from_secs(2);
/// A session that rows still come into is not counted again and again.
const QUIET: Duration = Duration::from_secs(5);
pub(crate) const PARTITIONS_EVERY: Duration = Duration::from_secs(600);
const FOLD_EVERY: Duration = Duration::from_secs(30);
/// What is folded was left alone for so long.
const LEFT_ALONE: Duration = Duration::from_secs(120);

pub(crate) struct Upkeep {
    pub(crate) link: RedisLink,
    pub(crate) store: Store,
    pub(crate) streams: Vec<Arc<StreamKey>>,
    pub(crate) trim_grace: Option<Duration>,
    pub(crate) group: String,
    pub(crate) consumer: ConsumerName,
    pub(crate) consumer_expiry: Duration,
    pub(crate) key_prefix: KeyPrefix,
    pub(crate) ledger_keeper: Option<LedgerKeeper>,
    pub(crate) was_nearly_full: bool,
    pub(crate) metrics: Arc<Metrics>,
}

impl Upkeep {
    /// Runs until `done` fires, and then gives up whatever it is at.
    pub(crate) async fn run(mut self, done: CancellationToken) {
        tokio::select! {
            biased;
            () = done.cancelled() => {}
            () = self.run_on() => {}
        }
    }

    async fn run_on(&mut self) {
        let mut tick = interval(SUMMARIZE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_trim = Instant::now() + TRIM_EVERY;
        let mut next_partitions = Instant::now();
        let mut next_fold = Instant::now() + FOLD_EVERY;
        loop {
            tick.tick().await;
            if Instant::now() >= next_partitions {
                next_partitions = Instant::now() + PARTITIONS_EVERY;
                let made = self.store.ensure_partitions_ahead().await;
                self.note("partitions", "make partitions", made);
                self.prune_ledger().await;
                self.retire_consumers().await;
            }
            if Instant::now() >= next_trim {
                next_trim = Instant::now() + TRIM_EVERY;
                self.trim().await;
            }
            if Instant::now() >= next_fold {
                next_fold = Instant::now() + FOLD_EVERY;
                self.fold_books().await;
            }
            let summarized = self.store.summarize_ended_sessions(QUIET).await;
            self.note("sessions", "summarize sessions", summarized);
        }
    }

    /// Adds up what connections, producers and workers that are gone left behind.
    async fn fold_books(&mut self) {
        let folded = self.store.fold_books(LEFT_ALONE).await;
        self.note("books", "fold the books", folded);
        let Ok(connection) = self.link.get().await else {
            return;
        };
        let expiry = Expiry {
            closed: LEFT_ALONE,
            silent: self.consumer_expiry.max(LEFT_ALONE),
        };
        let folding = async {
            books_keeper::fold_producers(connection, &self.key_prefix, expiry).await?;
            books_keeper::retire_workers(connection, &self.key_prefix, expiry).await
        };
        if let Err(error) = folding.await {
            self.link.judge(&error);
            debug!(error = %ErrorChain(&error), "folding what producers left failed: trying again later");
        }
    }

    /// Logs and counts a task that failed.
    fn note<T>(&self, task: &'static str, doing: &'static str, done: Result<T, StoreError>) {
        if let Err(error) = done {
            self.metrics.upkeep_failed(task);
            warn!(error = %ErrorChain(&error), doing, "upkeep failed: trying again later");
        }
    }

    async fn prune_ledger(&mut self) {
        let Some(keeper) = &mut self.ledger_keeper else {
            return;
        };
        let (link, streams) = (&mut self.link, &self.streams);
        if let Some(below) = keeper
            .horizon(link, &self.key_prefix, streams, &self.group)
            .await
        {
            let pruned = self.store.prune_ledger(below).await;
            if let Ok(Some(n_keys)) = pruned {
                self.metrics.ledger_pruned(n_keys);
            }
            self.note("ledger", "prune the ledger", pruned);
        }
    }

    /// Removes what dead workers left of themselves in the group, once nothing is pending with them.
    async fn retire_consumers(&mut self) {
        for stream in &self.streams {
            let Ok(connection) = self.link.get().await else {
                return;
            };
            let (group, consumer) = (&self.group, &self.consumer);
            let retired =
                group::retire_idle(connection, stream, group, consumer, self.consumer_expiry).await;
            match retired {
                Ok(0) => {}
                Ok(n_consumers) => info!(%stream, n_consumers, "retired consumers long gone"),
                Err(error) => {
                    self.link.judge(&error);
                    self.metrics.upkeep_failed("consumers");
                    debug!(%stream, error = %ErrorChain(&error), "retiring consumers failed");
                }
            }
        }
    }

    async fn trim(&mut self) {
        let Some(mut grace) = self.trim_grace else {
            return;
        };
        if let Ok(connection) = self.link.get().await
            && let Ok(is_nearly_full) = trimmer::is_nearly_full(connection).await
        {
            if is_nearly_full && !self.was_nearly_full {
                warn!("Redis is nearly full: removing what is stored without its time of grace");
            }
            self.was_nearly_full = is_nearly_full;
            if is_nearly_full {
                grace = Duration::ZERO;
            }
        }
        for stream in &self.streams {
            let connection = match self.link.get().await {
                Ok(connection) => connection,
                Err(error) => {
                    self.metrics.upkeep_failed("trim");
                    debug!(error = %ErrorChain(&error), "trimming failed: trying again later");
                    return;
                }
            };
            match trimmer::trim(connection, stream, grace).await {
                Ok(n_entries) => self.metrics.trimmed(n_entries),
                Err(error) => {
                    self.metrics.upkeep_failed("trim");
                    if self.link.judge(&error) == RedisRecovery::Stop {
                        warn!(%stream, error = %ErrorChain(&error), "this stream cannot be trimmed");
                    } else {
                        debug!(%stream, error = %ErrorChain(&error), "trimming failed: trying again later");
                    }
                }
            }
        }
    }
}
