//! Commits as a worker does: with the same patience, and with the same search for rows that Postgres refuses.

use std::sync::Arc;

use tokio::{
    sync::{Mutex, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::OpsError;
use crate::{
    WorkerError,
    batch::{Batch, Origin},
    batch_memory::BatchMemories,
    committer::{Committed, Committer},
    dead_letter_guard::DeadLetterGuard,
    health::Health,
    metrics::Metrics,
    stats::WorkerStats,
    store::{DatabaseUrl, Store, StoreTimeouts},
};

/// As a worker's default.
const DEAD_LETTER_LIMIT: u8 = 50;

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Entries that need no further delivery.
    pub(super) settled: Vec<Origin>,
    /// Entries whose keys were new to the ledger.
    pub(super) entries: u64,
    /// Entries that the ledger knew, and those that another one of the batch stands for.
    pub(super) duplicates: u64,
    pub(super) detections: u64,
    pub(super) tracks: u64,
    pub(super) dead_letters: u64,
}

pub(super) struct Committing {
    batches: mpsc::Sender<Batch>,
    settled: mpsc::Receiver<Committed>,
    stats: Arc<WorkerStats>,
    committer: JoinHandle<Result<(), WorkerError>>,
    /// A committer whose batches nobody waits for ends.
    _abort: DropGuard,
}

impl Committing {
    pub(super) fn start(database_url: &DatabaseUrl) -> Self {
        let (batches, batches_rx) = mpsc::channel(1);
        let (settled_tx, settled) = mpsc::channel(16);
        let stats = Arc::new(WorkerStats::default());
        let abort = CancellationToken::new();
        let committer = Committer {
            store: Store::new(database_url.clone(), StoreTimeouts::default()),
            batches: Arc::new(Mutex::new(batches_rx)),
            settled: settled_tx,
            // Nobody would take any out again.
            buffers: BatchMemories::new(0, 0),
            stats: Arc::clone(&stats),
            metrics: Arc::new(Metrics::register()),
            // Nobody watches it but whoever waits for it.
            turning: Health::default().watch("committer"),
            guard: DeadLetterGuard::new(DEAD_LETTER_LIMIT),
            abort: abort.clone(),
        };
        Self {
            batches,
            settled,
            stats,
            committer: tokio::spawn(committer.run()),
            _abort: abort.drop_guard(),
        }
    }

    /// Commits a batch. What became of it is told also where that failed, of a part of it then.
    pub(super) async fn commit(&mut self, batch: Batch) -> (Outcome, Result<(), OpsError>) {
        let mut outcome = Outcome::default();
        let n_twins = batch.twins.len();
        let mut n_open = batch.entries().len() + n_twins;
        let before = self.stats.report();
        let sent = self.batches.send(batch).await;
        while sent.is_ok() && n_open > 0 {
            let Some(committed) = self.settled.recv().await else {
                break;
            };
            let settled = committed.settled.into_origins();
            n_open = n_open.saturating_sub(settled.len());
            outcome.settled.extend(settled);
        }
        let now = self.stats.report();
        outcome.entries = now.entries - before.entries;
        outcome.duplicates = now.duplicates - before.duplicates + n_twins as u64;
        outcome.detections = now.detections - before.detections;
        outcome.tracks = now.tracks - before.tracks;
        outcome.dead_letters = now.dead_letters - before.dead_letters;
        if n_open == 0 {
            return (outcome, Ok(()));
        }
        // It has ended, and says why.
        let error = match (&mut self.committer).await {
            Ok(Err(error)) => error.into(),
            Ok(Ok(())) => unreachable!("a committer ends when its batches do"),
            Err(panic) => WorkerError::Panic(panic).into(),
        };
        (outcome, Err(error))
    }

    pub(super) async fn close(self) -> Result<(), OpsError> {
        drop((self.batches, self.settled));
        match self.committer.await {
            Ok(done) => done.map_err(Into::into),
            Err(panic) => Err(WorkerError::Panic(panic).into()),
        }
    }
}
