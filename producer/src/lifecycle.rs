//! What the handles of one producer share: it is started, takes rows, is closed.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use passerby_shared::Invalid;
use tracing::warn;

use crate::{
    buffer::Synced,
    cache::CacheQueue,
    config::{InvalidConfig, ProducerConfig},
    flusher,
    handover::{Closed, Handover, Patience, Recorded, after},
    health::Health,
    row::Row,
    saturation::Saturation,
    spool::{self, Journal, SpoolError},
    stats::Stats,
};

/// How long the last handle, dropped without `close()`, gives its rows to be published.
const DROP_GRACE: Duration = Duration::from_secs(1);

pub(crate) struct Core {
    pub(crate) handover: Arc<Handover>,
    pub(crate) cache: CacheQueue,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A producer that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its settings do not go together.
    #[error(transparent)]
    Config(InvalidConfig),
    /// The system gives no thread, or what its runtime needs.
    #[error("start the producer's thread")]
    Thread(#[source] io::Error),
    /// Its spool cannot be used. The message says which directory, why, and what to do.
    #[error(transparent)]
    Spool(SpoolError),
}

/// A row that was not recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It cannot be stored. Counted as `invalid`.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The producer has been closed. Not counted.
    #[error("the producer is closed")]
    Closed,
}

impl From<Closed> for RecordError {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

/// A flush that did not end in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{n_rows} rows are not published yet")]
pub struct FlushError {
    /// How many of the rows recorded before the call are left; of a closed producer, how many it lost
    /// or left in its spool. They are still being published; [`Stats::last_error`] says what keeps them.
    pub n_rows: u64,
}

/// Rows that are not known to survive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The producer has no spool.
    #[error("the producer has no spool: set `ProducerConfig::spool`")]
    NoSpool,
    /// The spool's disk failed, and the producer goes on in memory only.
    #[error("the spool was abandoned because its disk failed")]
    Abandoned,
    /// Time is up; they are still being written.
    #[error("{n_rows} rows are not on the disk yet")]
    TimedOut {
        /// How many rows.
        n_rows: u64,
    },
}

/// A producer that could not publish everything before it had to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{n_rows} rows were not published in time and are lost")]
pub struct CloseError {
    /// How many rows are lost: the `dropped_closed` of [`Stats`].
    pub n_rows: u64,
}

/// What became of many rows.
#[must_use = "dropped and invalid rows are lost"]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordedMany {
    /// Rows that are kept until Redis has them.
    pub accepted: usize,
    /// Rows for which there was no room.
    pub dropped: usize,
    /// Rows that cannot be stored: where they stood among those given, and why.
    pub invalid: Vec<(usize, Invalid)>,
    /// Rows that came after the producer was closed.
    pub closed: usize,
}

impl RecordedMany {
    pub(crate) fn count(&mut self, row_idx: usize, recorded: Result<Recorded, RecordError>) {
        match recorded {
            Ok(Recorded::Accepted) => self.accepted += 1,
            Ok(Recorded::Dropped) => self.dropped += 1,
            Err(RecordError::Invalid(invalid)) => self.invalid.push((row_idx, invalid)),
            Err(RecordError::Closed) => self.closed += 1,
        }
    }
}

impl Core {
    pub(crate) fn start(config: &ProducerConfig) -> Result<Arc<Self>, StartError> {
        config.check().map_err(StartError::Config)?;
        let handover = Arc::new(Handover::new(config));
        let journal = match &config.spool {
            None => None,
            Some(spool) => {
                let opened = spool::open(config, spool).map_err(StartError::Spool)?;
                Some(Journal::new(spool, Arc::clone(&handover), opened))
            }
        };
        let saturation = Saturation::default();
        let (cache, cache_task) = CacheQueue::new(config, saturation.clone());
        let started = flusher::start(
            config,
            Arc::clone(&handover),
            journal,
            cache.clone(),
            cache_task,
            saturation,
        );
        let thread = started.map_err(StartError::Thread)?;
        Ok(Arc::new(Self {
            handover,
            cache,
            thread: Mutex::new(Some(thread)),
        }))
    }

    pub(crate) fn record(
        &self,
        row: Row,
        patience: &mut Patience,
    ) -> Result<Recorded, RecordError> {
        self.validate(&row)?;
        Ok(self.handover.record(row, patience)?)
    }

    pub(crate) async fn record_async(
        &self,
        row: Row,
        patience: &mut Patience,
    ) -> Result<Recorded, RecordError> {
        self.validate(&row)?;
        Ok(self.handover.record_async(row, patience).await?)
    }

    fn validate(&self, row: &Row) -> Result<(), Invalid> {
        row.validate().inspect_err(|_| {
            let mut buffer = self.handover.buffer();
            buffer.refused(row.kind(), |rows| rows.invalid += 1);
        })
    }

    pub(crate) fn flushed(n_rows: u64) -> Result<(), FlushError> {
        if n_rows == 0 {
            Ok(())
        } else {
            Err(FlushError { n_rows })
        }
    }

    pub(crate) fn synced(&self, synced: Synced) -> Result<(), SyncError> {
        match synced {
            Synced::Yes => Ok(()),
            Synced::NotYet(n_rows) => Err(SyncError::TimedOut { n_rows }),
            Synced::NoSpool if self.handover.buffer().stats().spool.is_abandoned => {
                Err(SyncError::Abandoned)
            }
            Synced::NoSpool => Err(SyncError::NoSpool),
        }
    }

    pub(crate) fn close(&self, timeout: Duration) -> Result<Stats, CloseError> {
        self.handover.close(after(timeout));
        self.join();
        self.closed()
    }

    pub(crate) async fn close_async(&self, timeout: Duration) -> Result<Stats, CloseError> {
        self.handover.close(after(timeout));
        // The background thread ends by itself, at the deadline at the latest.
        self.handover
            .wait_async(after(Duration::MAX), || self.ended())
            .await;
        self.closed()
    }

    fn ended(&self) -> Option<()> {
        self.handover.buffer().has_ended().then_some(())
    }

    fn closed(&self) -> Result<Stats, CloseError> {
        let stats = self.stats();
        match stats.rows().dropped_closed {
            0 => Ok(stats),
            n_rows => Err(CloseError { n_rows }),
        }
    }

    fn join(&self) {
        self.handover.wait(after(Duration::MAX), || self.ended());
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            warn!("the producer's thread panicked");
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.handover.buffer().stats().clone();
        stats.cache = self.cache.stats();
        stats.saturation = self.cache.saturation().stats();
        stats.saturation.pressure = self.pressure();
        stats
    }

    pub(crate) fn pressure(&self) -> f32 {
        self.cache
            .saturation()
            .pressure()
            .max(self.handover.buffer().pressure())
    }

    pub(crate) fn health(&self) -> Health {
        self.handover.buffer().health()
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        self.handover.close(after(DROP_GRACE));
        // An executor's thread must not wait; the background thread then ends by itself.
        if tokio::runtime::Handle::try_current().is_err() {
            self.join();
            if let Err(error) = self.closed() {
                warn!(
                    n_rows = error.n_rows,
                    "producer dropped before its rows were published"
                );
            }
        }
    }
}
