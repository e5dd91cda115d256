//! Commits batches, each until it is committed.
//!
//! A fault of transport, load or contention is waited out with the same batch, however long it takes;
//! meanwhile the channels fill up and the reader stops reading. A row that Postgres refuses is taken
//! out of its batch and dead-lettered. Anything else is for an operator, and stops the worker.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use passerby_shared::{ErrorChain, wire};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    batch::Batch,
    decoder, metrics,
    stats::WorkerStats,
    store::{CommitError, CommitReport, DeadLetter, Reason, Recovery, Settled, Store, StoreError},
};

/// Most rows taken out of one batch one by one.
const MAX_REFUSED_ROWS: usize = 100;

pub(crate) struct Committer {
    pub(crate) store: Store,
    pub(crate) batches: Arc<Mutex<mpsc::Receiver<Batch>>>,
    pub(crate) settled: mpsc::Sender<Settled>,
    pub(crate) stats: Arc<WorkerStats>,
    /// Fired when the grace period of a shutdown is over.
    pub(crate) abort: CancellationToken,
}

impl Committer {
    /// Runs until the decoder is gone and all batches are committed.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when an operator must act; the batch is not acknowledged then.
    pub(crate) async fn run(mut self) -> Result<(), StoreError> {
        loop {
            // Held only while waiting: one committer waits, the others commit.
            let next = self.batches.lock().await.recv().await;
            let Some(batch) = next else { return Ok(()) };
            let Some(settled) = self.commit(batch).await? else {
                return Ok(());
            };
            // The acker ends after the committers, or the worker is being torn down.
            if self.settled.send(settled).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Commits a batch; `None` when the grace period ended before it could be.
    async fn commit(&mut self, mut batch: Batch) -> Result<Option<Settled>, StoreError> {
        let mut backoff = new_backoff();
        let mut n_refused = 0;
        let mut n_failures = 0_u32;
        loop {
            let started = tokio::time::Instant::now();
            let failure = match self.store.commit(&batch).await {
                Ok((settled, report)) => {
                    if n_failures > 0 {
                        info!(n_failures, "storing in Postgres again");
                    }
                    self.committed(&batch, report, started.elapsed());
                    return Ok(Some(settled));
                }
                Err(failure) => failure,
            };
            let recovery = failure.error.recovery();
            metrics::commit_failed(recovery);
            match recovery {
                Recovery::Stop => return Err(failure.error),
                Recovery::DeadLetter => {
                    n_refused += 1;
                    if n_refused > MAX_REFUSED_ROWS || !refuse_row(&mut batch, &failure) {
                        return Err(failure.error);
                    }
                }
                Recovery::Retry => {
                    n_failures += 1;
                    // COMMIT may have reached the server: ask the ledger first.
                    batch.may_be_known = true;
                    if n_failures.is_power_of_two() {
                        warn!(
                            error = %ErrorChain(&failure.error),
                            n_failures,
                            n_rows = batch.n_detections(),
                            "commit failed: trying the same batch again"
                        );
                    }
                    let wait = backoff.next().unwrap_or(MAX_BACKOFF);
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.abort.cancelled() => return Ok(None),
                    }
                }
            }
        }
    }

    fn committed(&self, batch: &Batch, report: CommitReport, elapsed: Duration) {
        self.stats.committed(report);
        metrics::batch_committed(report, elapsed);
        debug!(
            first_entry_id = batch.first_entry_id().map(tracing::field::display),
            n_entries = report.entries,
            n_rows = report.detections,
            n_duplicates = report.duplicates,
            n_poison = report.dead_letters,
            elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            "batch committed"
        );
    }
}

const MAX_BACKOFF: Duration = Duration::from_secs(10);

fn new_backoff() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(MAX_BACKOFF)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Moves the row that Postgres refused to the dead letters; `false` when Postgres named none.
fn refuse_row(batch: &mut Batch, failure: &CommitError) -> bool {
    let (Some(included), Some(row_idx)) = (&failure.copying, failure.refused_row()) else {
        return false;
    };
    let Some(db) = failure.error.db_error() else {
        return false;
    };
    batch.reject_row(included, row_idx, |entry, row_idx| {
        let origin = entry
            .origin
            .clone()
            .unwrap_or_else(|| crate::batch::Origin {
                stream: Arc::new(passerby_shared::StreamKey::from_name("")),
                id: passerby_shared::EntryId::MIN,
            });
        warn!(
            stream = %origin.stream,
            entry_id = %origin.id,
            row_idx,
            sqlstate = db.code().code(),
            error = db.message(),
            "row refused by Postgres: dead-lettered"
        );
        DeadLetter {
            origin,
            key: entry.key,
            row_idx: Some(row_idx),
            kind: Some(wire::Kind::Detections.as_str()),
            reason: Reason::Refused,
            message: db.message().to_owned(),
            sqlstate: Some(db.code().code().to_owned()),
            fields: decoder::single_row(&entry.fields, row_idx),
        }
    })
}
