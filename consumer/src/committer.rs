//! Commits batches, each until it is committed.
//!
//! A fault of transport, load or contention is waited out with the same batch, however long it takes;
//! meanwhile the channels fill up and the reader stops reading. A detection that Postgres refuses is
//! taken out of its batch and dead-lettered. Where Postgres names no row, as for tracks, the entries
//! are committed one by one, and the one that is refused is dead-lettered whole. Anything else is for
//! an operator, and stops the worker; so does a batch of which most is refused: that is a mistake in
//! the schema, and dead-lettering would empty the stream.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use passerby_shared::{EntryId, ErrorChain, StreamKey, wire};
use tokio::sync::{Mutex, mpsc};
use tokio_postgres::error::DbError;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    batch::{Batch, BatchEntry, Origin, RawFields},
    decoder, metrics,
    stats::WorkerStats,
    store::{CommitError, CommitReport, DeadLetter, Reason, Recovery, Settled, Store, StoreError},
};

/// Most rows taken out of one batch one by one.
const MAX_REFUSED_ROWS: usize = 100;

/// Most entries of a batch that are dead-lettered whole, where they are most of the batch.
const MAX_REFUSED_ENTRIES: usize = 10;

/// What became of a batch.
enum Outcome {
    Settled(Settled),
    /// The grace period ended.
    Aborted,
    /// Postgres refused something in it, and did not name a row.
    Refused(Box<Batch>, StoreError),
}

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
    async fn commit(&mut self, batch: Batch) -> Result<Option<Settled>, StoreError> {
        match self.commit_whole(batch).await? {
            Outcome::Settled(settled) => Ok(Some(settled)),
            Outcome::Aborted => Ok(None),
            Outcome::Refused(batch, _) => self.commit_apart(*batch).await,
        }
    }

    /// Commits the entries of a batch one by one, those that Postgres refuses as dead letters.
    async fn commit_apart(&mut self, batch: Batch) -> Result<Option<Settled>, StoreError> {
        let parts = batch.split();
        let n_entries = parts.len();
        let mut n_refused = 0;
        let mut all_settled: Option<Settled> = None;
        for part in parts {
            let mut outcome = self.commit_whole(part).await?;
            if let Outcome::Refused(mut part, error) = outcome {
                n_refused += 1;
                if n_refused > MAX_REFUSED_ENTRIES && 2 * n_refused > n_entries {
                    return Err(error);
                }
                refuse_entry(&mut part, &error);
                outcome = self.commit_whole(*part).await?;
            }
            match outcome {
                Outcome::Settled(settled) => {
                    all_settled = Some(match all_settled {
                        Some(others) => others.and(settled),
                        None => settled,
                    });
                }
                Outcome::Aborted => break,
                Outcome::Refused(_, error) => return Err(error),
            }
        }
        Ok(all_settled)
    }

    /// Commits a batch, without the detections that Postgres refuses by name.
    async fn commit_whole(&mut self, mut batch: Batch) -> Result<Outcome, StoreError> {
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
                    return Ok(Outcome::Settled(settled));
                }
                Err(failure) => failure,
            };
            let recovery = failure.error.recovery();
            metrics::commit_failed(recovery);
            match recovery {
                Recovery::Stop => return Err(failure.error),
                Recovery::DeadLetter => {
                    n_refused += 1;
                    if n_refused > MAX_REFUSED_ROWS {
                        return Err(failure.error);
                    }
                    if !refuse_row(&mut batch, &failure) {
                        return Ok(Outcome::Refused(Box::new(batch), failure.error));
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
                        () = self.abort.cancelled() => return Ok(Outcome::Aborted),
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
        warn!(
            entry_id = entry
                .origin
                .as_ref()
                .map(|origin| tracing::field::display(origin.id)),
            row_idx,
            sqlstate = db.code().code(),
            error = db.message(),
            "row refused by Postgres: dead-lettered"
        );
        let fields = decoder::single_row(&entry.fields, row_idx);
        let kind = Some(wire::Kind::Detections.as_str());
        DeadLetter {
            row_idx: Some(row_idx),
            kind,
            ..refused(entry, db, fields)
        }
    })
}

/// Makes of the batch's only entry a dead letter.
fn refuse_entry(batch: &mut Batch, error: &StoreError) {
    let Some(db) = error.db_error() else { return };
    batch.reject_entry(|entry| {
        warn!(
            entry_id = entry
                .origin
                .as_ref()
                .map(|origin| tracing::field::display(origin.id)),
            sqlstate = db.code().code(),
            error = db.message(),
            "entry refused by Postgres: dead-lettered"
        );
        refused(entry, db, entry.fields.clone())
    });
}

fn refused(entry: &BatchEntry, db: &DbError, fields: RawFields) -> DeadLetter {
    DeadLetter {
        // A worker's entries all come from a stream.
        origin: entry.origin.clone().unwrap_or_else(|| Origin {
            stream: Arc::new(StreamKey::from_name("")),
            id: EntryId::MIN,
        }),
        key: entry.key,
        row_idx: None,
        kind: None,
        reason: Reason::Refused,
        message: db.message().to_owned(),
        sqlstate: Some(db.code().code().to_owned()),
        fields,
    }
}
