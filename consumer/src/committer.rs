//! Commits batches, each until it is committed.
//!
//! A fault of transport, load or contention is waited out with the same batch, however long it takes;
//! meanwhile the channels fill up and the reader stops reading. A batch that takes too long is halved. A
//! detection that Postgres refuses is taken out of its batch and dead-lettered. Where Postgres names no
//! row, as for tracks, the batch is halved until the entry is found, and within the entry the row.
//! Anything else is for an operator, and stops the worker; so does a batch of which most is refused:
//! that is a mistake in the schema, and dead-lettering would empty the stream.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use passerby_shared::{EntryId, StreamKey};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info, warn};

use crate::{
    WorkerError,
    batch::{Batch, BatchEntry, Origin, RawFields},
    batch_memory::BatchMemories,
    dead_letter_guard::DeadLetterGuard,
    decoder,
    health::Turning,
    isolation::{self, RefusedRow},
    metrics::Metrics,
    stats::WorkerStats,
    store::{CommitError, CommitReport, DeadLetter, Reason, Recovery, Settled, Store, StoreError},
    timing::Timing,
    trouble::said_without_values,
};

/// Rows that Postgres refuses by name, after which a batch is halved: each costs a COPY of the others.
const MAX_ROUNDS: usize = 16;

/// So many rows, and so many entries, may be refused of a batch whatever their share.
const ROWS_FLOOR: usize = 100;
const ENTRIES_FLOOR: usize = 10;

/// A search for refused rows that could not be finished is begun again after so long.
const SEARCH_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// After so many time-outs in a row a batch is halved.
const MAX_TIMEOUTS: u32 = 2;

/// What is to be acknowledged, and where its time has gone so far.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) settled: Settled,
    pub(crate) timing: Option<Timing>,
}

/// What became of a batch, or of a part of one.
enum Outcome {
    Settled(Box<Committed>),
    /// The grace period ended.
    Aborted,
    /// It takes too long, or too many of its rows are refused, to be dealt with in one piece.
    TooLarge(Box<Batch>),
    /// What Postgres refused in it is among its dead letters now.
    Mended(Box<Batch>),
    /// Postgres refused something in it, and did not name a row.
    Refused(Box<Batch>, StoreError),
}

/// How much was refused of a batch that came from the decoder, however often it was halved. What was put back
/// from the dead letters does not count: that it is refused again is no news.
struct Refusals {
    n_rows: usize,
    of_rows: usize,
    n_entries: usize,
    of_entries: usize,
}

pub(crate) struct Committer {
    pub(crate) store: Store,
    pub(crate) batches: Arc<Mutex<mpsc::Receiver<Batch>>>,
    pub(crate) settled: mpsc::Sender<Committed>,
    pub(crate) buffers: BatchMemories,
    pub(crate) stats: Arc<WorkerStats>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) guard: DeadLetterGuard,
    pub(crate) turning: Turning,
    /// Fired when the grace period of a shutdown is over.
    pub(crate) abort: CancellationToken,
}

impl Committer {
    /// Runs until the decoder is gone and all batches are committed.
    ///
    /// # Errors
    ///
    /// [`WorkerError`] when an operator must act; the batch is not acknowledged then.
    pub(crate) async fn run(mut self) -> Result<(), WorkerError> {
        loop {
            // Held only while waiting: one committer waits, the others commit.
            self.turning.waits();
            let next = self.batches.lock().await.recv().await;
            self.turning.turns();
            let Some(batch) = next else { return Ok(()) };
            self.guard.admit(&batch)?;
            #[cfg(feature = "otel")]
            let span = crate::otel::batch_span(&batch);
            #[cfg(not(feature = "otel"))]
            let span = tracing::Span::none();
            if !self.commit(batch).instrument(span).await? {
                return Ok(());
            }
        }
    }

    /// Commits a batch, in parts where it must be, and hands over what is settled; `false` when the
    /// worker is being torn down.
    ///
    /// Parts with something refused in them wait until all others are tried: only then is it known
    /// whether what is refused is an exception.
    async fn commit(&mut self, mut batch: Batch) -> Result<bool, WorkerError> {
        if let Some(timing) = &mut batch.timing {
            timing.taken();
        }
        let (of_entries, of_rows) = batch.n_first_hand();
        let mut refusals = Refusals {
            n_rows: 0,
            of_rows,
            n_entries: 0,
            of_entries,
        };
        let mut twins = batch.take_twins();
        let mut parts = vec![batch];
        let mut mended = Vec::new();
        loop {
            let (mut part, is_last_try) = match parts.pop() {
                Some(part) => (part, false),
                None => match mended.pop() {
                    Some(part) => {
                        self.guard.admit_mended(&part)?;
                        (part, true)
                    }
                    None => return Ok(true),
                },
            };
            if parts.is_empty() && mended.is_empty() {
                part.twins = std::mem::take(&mut twins);
            }
            let n_entries = part.entries().len();
            match self.commit_part(part, is_last_try, &mut refusals).await? {
                // The acker ends after the committers, or the worker is being torn down.
                Outcome::Settled(committed) => {
                    self.turning.waits();
                    if self.settled.send(*committed).await.is_err() {
                        return Ok(false);
                    }
                }
                Outcome::Aborted => return Ok(false),
                Outcome::Mended(mut part) => {
                    twins.extend(part.take_twins());
                    mended.push(*part);
                }
                Outcome::Refused(mut part, _) | Outcome::TooLarge(mut part) if n_entries > 1 => {
                    twins.extend(part.take_twins());
                    let (first, second) = part.halves();
                    parts.push(second);
                    parts.push(first);
                }
                Outcome::TooLarge(part) => parts.push(*part),
                Outcome::Refused(mut part, error) => {
                    twins.extend(part.take_twins());
                    let n_counted = part.n_first_hand().0;
                    refusals.n_entries += n_counted;
                    // What is refused without any row of its own is not refused for the sake of a row.
                    let is_hopeless = is_last_try && part.n_rows_to_store() == 0;
                    if is_hopeless || self.is_mostly_refused(&refusals) {
                        return Err(error.into());
                    }
                    match self.refuse(&mut part, &error).await {
                        Ok(()) => mended.push(*part),
                        Err(again) if again.recovery() == Recovery::Retry => {
                            refusals.n_entries -= n_counted;
                            parts.push(*part);
                            self.turning.waits();
                            tokio::select! {
                                () = tokio::time::sleep(SEARCH_AGAIN_AFTER) => {}
                                () = self.abort.cancelled() => return Ok(false),
                            }
                        }
                        Err(other) => return Err(other.into()),
                    }
                }
            }
        }
    }

    /// Dead-letters what Postgres refuses of the batch's only entry.
    async fn refuse(&mut self, batch: &mut Batch, error: &StoreError) -> Result<(), StoreError> {
        // A single row needs no search.
        let rows = if batch.n_rows_to_store() > 1 {
            isolation::refused_rows(&mut self.store, batch).await?
        } else {
            Vec::new()
        };
        if rows.is_empty() {
            refuse_entry(batch, error);
        }
        for row in rows.iter().rev() {
            refuse_nth(batch, row);
            // Each looks through the whole entry, on a thread that others wait for, too.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn is_mostly_refused(&self, refusals: &Refusals) -> bool {
        let rows =
            refusals.n_rows > ROWS_FLOOR && self.guard.exceeds(refusals.n_rows, refusals.of_rows);
        let entries = refusals.n_entries > ENTRIES_FLOOR
            && self.guard.exceeds(refusals.n_entries, refusals.of_entries);
        rows || entries
    }

    /// Commits a part of a batch, or says why that cannot be now. The detections that Postgres refuses by
    /// name are taken out; a part with such refusals is then only rehearsed unless this is the last try.
    async fn commit_part(
        &mut self,
        mut batch: Batch,
        is_last_try: bool,
        refusals: &mut Refusals,
    ) -> Result<Outcome, StoreError> {
        let mut backoff = new_backoff();
        let mut n_rounds = 0;
        let mut n_failures = 0_u32;
        let mut n_timeouts = 0;
        loop {
            self.turning.turns();
            let started = tokio::time::Instant::now();
            let done = if batch.has_refusals() && !is_last_try {
                self.store.rehearse(&batch).await.map(|()| None)
            } else {
                self.store.commit(&batch).await.map(Some)
            };
            let failure = match done {
                Ok(Some((settled, report))) => {
                    if n_failures > 0 {
                        info!(n_failures, "storing in Postgres again");
                    }
                    let elapsed = started.elapsed();
                    self.committed(&batch, report, elapsed);
                    let trace = batch.traces.first().copied();
                    let timing = batch.timing.take().map(|mut timing| {
                        timing.committed(elapsed, report.times, report.detections, trace);
                        timing
                    });
                    self.buffers.recycle(batch);
                    return Ok(Outcome::Settled(Box::new(Committed { settled, timing })));
                }
                Ok(None) => return Ok(Outcome::Mended(Box::new(batch))),
                Err(failure) => failure,
            };
            let recovery = failure.error.recovery();
            self.metrics.commit_failed(failure.error.fault());
            match recovery {
                Recovery::Stop => return Err(failure.error),
                Recovery::DeadLetter => {
                    let Some(is_requeued) = refuse_row(&mut batch, &failure) else {
                        return Ok(Outcome::Refused(Box::new(batch), failure.error));
                    };
                    refusals.n_rows += usize::from(!is_requeued);
                    if self.is_mostly_refused(refusals) {
                        return Err(failure.error);
                    }
                    n_rounds += 1;
                    if n_rounds == MAX_ROUNDS && batch.entries().len() > 1 {
                        return Ok(Outcome::TooLarge(Box::new(batch)));
                    }
                }
                Recovery::Retry => {
                    n_failures += 1;
                    self.stats.commit_fails(&failure.error);
                    // COMMIT may have reached the server: ask the ledger first.
                    batch.may_be_known = true;
                    log_failure(&failure.error, n_failures, batch.n_detections());
                    n_timeouts = if failure.error.took_too_long() {
                        n_timeouts + 1
                    } else {
                        0
                    };
                    // Whoever waited for a lock has waited, and is to be there when it is released.
                    let wait = if failure.error.is_lock_timeout() {
                        Duration::ZERO
                    } else {
                        backoff.next().unwrap_or(MAX_BACKOFF)
                    };
                    self.turning.waits();
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.abort.cancelled() => return Ok(Outcome::Aborted),
                    }
                    if n_timeouts >= MAX_TIMEOUTS && batch.entries().len() > 1 {
                        return Ok(Outcome::TooLarge(Box::new(batch)));
                    }
                }
            }
        }
    }

    fn committed(&self, batch: &Batch, report: CommitReport, elapsed: Duration) {
        self.stats.commit_works();
        self.stats.committed(report);
        self.metrics.batch_committed(batch, &report, elapsed);
        debug!(
            first_entry_id = batch.first_entry_id().map(tracing::field::display),
            n_entries = report.entries,
            n_rows = report.detections,
            n_duplicates = report.duplicates,
            n_poison = report.dead_letters,
            n_traces = batch.traces.len(),
            traceparent = batch.traces.first().map(tracing::field::display),
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

/// Says the first, second, fourth… time in a row why a commit fails.
fn log_failure(failure: &StoreError, n_failures: u32, n_rows: usize) {
    if !n_failures.is_power_of_two() {
        return;
    }
    let error = failure.trouble().message;
    // Nothing is lost, but waiting alone does not mend a full disk or a worn-out connection limit.
    match failure.advice().filter(|_| failure.is_out_of_resources()) {
        Some(advice) => error!(
            error,
            n_failures, n_rows, advice, "commit failed: trying the same batch again"
        ),
        None => warn!(
            error,
            n_failures, n_rows, "commit failed: trying the same batch again"
        ),
    }
}

/// Moves the row that Postgres refused to the dead letters, and tells whether its entry was put back from
/// there; `None` when Postgres named no row.
fn refuse_row(batch: &mut Batch, failure: &CommitError) -> Option<bool> {
    let (included, nth) = (&failure.copying.as_ref()?.entries, failure.refused_row()?);
    let db = failure.error.db_error()?;
    let mut is_requeued = false;
    let row = RefusedRow {
        nth,
        sqlstate: db.code().code().to_owned(),
        message: db.message().to_owned(),
    };
    let rejected = batch.reject_row(included, nth, |entry, row_idx| {
        is_requeued = entry.is_requeued;
        row_letter(entry, row_idx, &row)
    });
    rejected.then_some(is_requeued)
}

/// Moves a row of the batch's only entry to the dead letters.
fn refuse_nth(batch: &mut Batch, row: &RefusedRow) {
    batch.reject_nth(row.nth, |entry, row_idx| row_letter(entry, row_idx, row));
}

fn row_letter(entry: &BatchEntry, row_idx: usize, row: &RefusedRow) -> DeadLetter {
    warn!(
        entry_id = entry
            .origin
            .as_ref()
            .map(|origin| tracing::field::display(origin.id)),
        row_idx,
        sqlstate = row.sqlstate,
        error = said_without_values(&row.sqlstate, &row.message),
        "row refused by Postgres: dead-lettered"
    );
    let (kind, fields) = decoder::single_row(&entry.fields, row_idx);
    DeadLetter {
        row_idx: Some(row_idx),
        kind: Some(kind.as_str()),
        ..refused(entry, &row.sqlstate, &row.message, fields)
    }
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
            error = said_without_values(db.code().code(), db.message()),
            "entry refused by Postgres: dead-lettered"
        );
        refused(entry, db.code().code(), db.message(), entry.fields.clone())
    });
}

fn refused(entry: &BatchEntry, sqlstate: &str, message: &str, fields: RawFields) -> DeadLetter {
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
        message: message.to_owned(),
        sqlstate: Some(sqlstate.to_owned()),
        fields,
    }
}
