//! What a worker does beside the stream: trimming, summaries, partitions.
//!
//! Nothing here is needed for an entry to be stored; a failure is logged and tried again.

use std::{sync::Arc, time::Duration};

use passerby_shared::{
    ErrorChain, StreamKey,
    redis_connection::{RedisLink, RedisRecovery},
};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    metrics,
    store::{Store, StoreError},
    trimmer,
};

const TRIM_EVERY: Duration = Duration::from_secs(5);
const SUMMARIZE_EVERY: Duration = Duration::from_secs(2);
/// A session that rows still come into is not counted again and again.
const QUIET: Duration = Duration::from_secs(5);
const PARTITIONS_EVERY: Duration = Duration::from_secs(600);

pub(crate) struct Upkeep {
    pub(crate) link: RedisLink,
    pub(crate) store: Store,
    pub(crate) streams: Vec<Arc<StreamKey>>,
    pub(crate) trim_grace: Option<Duration>,
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
        loop {
            tick.tick().await;
            if Instant::now() >= next_partitions {
                next_partitions = Instant::now() + PARTITIONS_EVERY;
                log_store(
                    "make partitions",
                    self.store.ensure_partitions_ahead().await,
                );
            }
            if Instant::now() >= next_trim {
                next_trim = Instant::now() + TRIM_EVERY;
                self.trim().await;
            }
            log_store(
                "summarize sessions",
                self.store.summarize_ended_sessions(QUIET).await,
            );
        }
    }

    async fn trim(&mut self) {
        let Some(grace) = self.trim_grace else {
            return;
        };
        for stream in &self.streams {
            let connection = match self.link.get().await {
                Ok(connection) => connection,
                Err(error) => {
                    debug!(error = %ErrorChain(&error), "trimming failed: trying again later");
                    return;
                }
            };
            match trimmer::trim(connection, stream, grace).await {
                Ok(n_entries) => metrics::entries_trimmed(n_entries),
                Err(error) => {
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

fn log_store<T>(doing: &'static str, done: Result<T, StoreError>) {
    if let Err(error) = done {
        warn!(error = %ErrorChain(&error), doing, "upkeep failed: trying again later");
    }
}
