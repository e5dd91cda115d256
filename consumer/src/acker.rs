//! Acknowledges what is settled, and nothing else.

use std::{collections::HashMap, ops::Range, sync::Arc, time::Duration};

use passerby_shared::{
    EntryId, ErrorChain, StreamKey,
    redis_connection::{RedisLink, RedisRecovery},
};
use redis::RedisError;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    batch::Origin, committer::Committed, health::Turning, in_flight::InFlight, metrics::Metrics,
    timing::Timing,
};

const MAX_BACKOFF: Duration = Duration::from_secs(5);

pub(crate) struct Acker {
    pub(crate) link: RedisLink,
    pub(crate) group: String,
    pub(crate) in_flight: InFlight,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) turning: Turning,
    /// A batch that takes so long is worth a warning.
    pub(crate) slow_batch: Duration,
    pub(crate) abort: CancellationToken,
}

impl Acker {
    /// Runs until the committers are gone and all they settled is acknowledged.
    ///
    /// An `XACK` that fails is repeated: it is harmless twice. If it never succeeds the entries are
    /// delivered again one day, and the ledger knows them.
    ///
    /// # Errors
    ///
    /// What Redis said, when an operator must act.
    pub(crate) async fn run(
        mut self,
        mut committed: mpsc::Receiver<Committed>,
    ) -> Result<(), RedisError> {
        loop {
            self.turning.waits();
            let Some(first) = committed.recv().await else {
                return Ok(());
            };
            let mut batches = Vec::new();
            let mut origins = Vec::new();
            take_in(first, &mut origins, &mut batches);
            // What else was settled meanwhile goes in the same command.
            while let Ok(more) = committed.try_recv() {
                take_in(more, &mut origins, &mut batches);
            }
            let mut by_stream = HashMap::<Arc<StreamKey>, Vec<EntryId>>::new();
            for origin in &origins {
                by_stream
                    .entry(Arc::clone(&origin.stream))
                    .or_default()
                    .push(origin.id);
            }
            if !self.ack(&by_stream).await? {
                return Ok(());
            }
            self.in_flight.remove(&origins);
            self.metrics.acked(origins.len());
            for (timing, of_batch) in batches {
                self.note(&timing, &origins[of_batch]);
            }
        }
    }

    /// Notes where a batch's time went, and says so when it was slow.
    fn note(&self, timing: &Timing, origins: &[Origin]) {
        let stages = timing.acked();
        self.metrics.batch_acked(&stages);
        if stages.elapsed >= self.slow_batch {
            let id = |origin: Option<&Origin>| origin.map(|origin| origin.id);
            stages.log(id(origins.first()), id(origins.last()), origins.len());
        }
    }

    /// Acknowledges; `false` when the grace period ended before it could.
    async fn ack(
        &mut self,
        by_stream: &HashMap<Arc<StreamKey>, Vec<EntryId>>,
    ) -> Result<bool, RedisError> {
        let mut backoff = Duration::from_millis(50);
        let mut n_failures = 0_u32;
        loop {
            self.turning.turns();
            let failure = match self.try_ack(by_stream).await {
                Ok(()) => {
                    if n_failures > 0 {
                        info!(n_failures, "acknowledging again");
                    }
                    return Ok(true);
                }
                Err(AckError::Connect(error)) => {
                    self.metrics.ack_failed(RedisRecovery::Reconnect);
                    ErrorChain(&error).to_string()
                }
                Err(AckError::Redis(error)) => {
                    let recovery = self.link.judge(&error);
                    self.metrics.ack_failed(recovery);
                    match recovery {
                        // Nobody can be told any more, and nobody will deliver these entries again
                        // without creating the group: then the ledger knows them.
                        RedisRecovery::RecreateGroup => return Ok(true),
                        RedisRecovery::Stop => return Err(error),
                        _ => ErrorChain(&error).to_string(),
                    }
                }
            };
            n_failures += 1;
            warn!(
                error = failure,
                n_failures, "acknowledging failed: trying again"
            );
            self.turning.waits();
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                () = self.abort.cancelled() => return Ok(false),
            }
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    async fn try_ack(
        &mut self,
        by_stream: &HashMap<Arc<StreamKey>, Vec<EntryId>>,
    ) -> Result<(), AckError> {
        let connection = self.link.get().await?;
        for (stream, ids) in by_stream {
            let _n: u64 = redis::cmd("XACK")
                .arg(stream.as_ref())
                .arg(&self.group)
                .arg(ids)
                .query_async(connection)
                .await?;
        }
        Ok(())
    }
}

/// Adds a batch's entries to all that are to be acknowledged.
fn take_in(
    committed: Committed,
    origins: &mut Vec<Origin>,
    batches: &mut Vec<(Timing, Range<usize>)>,
) {
    let begin = origins.len();
    origins.extend(committed.settled.into_origins());
    if let Some(timing) = committed.timing {
        batches.push((timing, begin..origins.len()));
    }
}

#[derive(Debug, thiserror::Error)]
enum AckError {
    #[error(transparent)]
    Connect(#[from] passerby_shared::redis_connection::ConnectError),
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
}
