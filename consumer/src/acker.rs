//! Acknowledges what is settled, and nothing else.

use std::{ops::Range, sync::Arc, time::Duration};

use passerby_shared::{
    EntryId, ErrorChain, StreamKey,
    redis_connection::{RedisLink, RedisRecovery, recovery},
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
            if !self.ack(&by_stream(&origins)).await? {
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
    async fn ack(&mut self, by_stream: &[(&StreamKey, Vec<EntryId>)]) -> Result<bool, RedisError> {
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

    /// All streams in one packet: what one of them refuses is no reason to wait for the others.
    async fn try_ack(&mut self, by_stream: &[(&StreamKey, Vec<EntryId>)]) -> Result<(), AckError> {
        let mut acks = redis::pipe();
        // Each answer is judged by its own code, which that of a whole pipeline does not have.
        acks.ignore_errors();
        for (stream, ids) in by_stream {
            acks.cmd("XACK").arg(*stream).arg(&self.group).arg(ids);
        }
        let connection = self.link.get().await?;
        let answers: Vec<Result<u64, RedisError>> = acks.query_async(connection).await?;
        let failures = || answers.iter().filter_map(|answer| answer.as_ref().err());
        // That a group is gone settles its own entries, and must not settle those of another.
        let failure = failures()
            .find(|error| recovery(error) != RedisRecovery::RecreateGroup)
            .or_else(|| failures().next());
        failure.map_or(Ok(()), |error| Err(error.clone().into()))
    }
}

/// The IDs of each stream; one after the other, most entries are of the same.
fn by_stream(origins: &[Origin]) -> Vec<(&StreamKey, Vec<EntryId>)> {
    let mut streams = Vec::<(&StreamKey, Vec<EntryId>)>::new();
    let mut at = 0;
    for Origin { stream, id } in origins {
        if streams.get(at).is_none_or(|(of, _)| **of != **stream) {
            at = match streams.iter().position(|(of, _)| **of == **stream) {
                Some(found) => found,
                None => {
                    streams.push((stream, Vec::new()));
                    streams.len() - 1
                }
            };
        }
        streams[at].1.push(*id);
    }
    streams
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
