//! The handle for async code.

use std::{fmt, sync::Arc, time::Duration};

use passerby_shared::{Detection, Session, Traceparent, Track};

use crate::{
    cache::AsyncTrackCache,
    config::ProducerConfig,
    handover::{Patience, Recorded},
    health::Health,
    lifecycle::{CloseError, Core, FlushError, RecordError, RecordedMany, StartError, SyncError},
    row::Row,
    stats::Stats,
};

/// Records rows from async code and publishes them in the background.
///
/// As [`Producer`](crate::Producer), over the same core; the background thread has a runtime of its
/// own, so a busy executor does not delay publishing. Only [`flush`](Self::flush) and
/// [`close`](Self::close) wait for Redis, and the recording methods under
/// [`Overflow::Block`](crate::Overflow::Block).
///
/// When the last handle is dropped without [`close`](Self::close), what is left has one second to be
/// published; inside an async runtime the drop does not wait for that, and a process that ends
/// meanwhile loses the rows.
#[derive(Clone)]
pub struct AsyncProducer {
    core: Arc<Core>,
}

impl AsyncProducer {
    /// Starts a producer. Redis is connected to in the background: that it is away is no error. A spool is
    /// opened now, which takes as long as reading what an earlier run left in it.
    ///
    /// # Errors
    ///
    /// [`StartError`] when settings do not go together, there is no thread to be had, or the spool cannot
    /// be used.
    pub fn start(config: ProducerConfig) -> Result<Self, StartError> {
        let core = Core::start(&config)?;
        Ok(Self { core })
    }

    /// Records a detection; waits only under [`Overflow::Block`](crate::Overflow::Block).
    ///
    /// # Errors
    ///
    /// [`RecordError::Invalid`] names the field that cannot be stored.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a dropped call has not recorded the row.
    pub async fn record(&self, detection: Detection) -> Result<Recorded, RecordError> {
        self.put(Row::Detection(detection)).await
    }

    /// Says which trace the entries that are made from now on belong to; `None` for none.
    ///
    /// An entry holds the rows of up to `max_delay`, and belongs to the trace that was named last when it was
    /// made: the span of a frame, say, or of a whole video. Workers link the spans of their batches to it. With
    /// a spool entries belong to no trace: they may be sent long after it has ended.
    pub fn set_traceparent(&self, traceparent: Option<Traceparent>) {
        self.core.handover.set_traceparent(traceparent);
    }

    /// Records detections, such as those of a frame. A bad one costs none of its neighbours.
    ///
    /// Under [`Overflow::Block`](crate::Overflow::Block) the timeout is one for the whole call.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a dropped call has recorded some first part of the detections.
    pub async fn record_many(
        &self,
        detections: impl IntoIterator<Item = Detection>,
    ) -> RecordedMany {
        let mut patience = Patience::default();
        let mut recorded = RecordedMany::default();
        for (row_idx, detection) in detections.into_iter().enumerate() {
            let row = Row::Detection(detection);
            recorded.count(row_idx, self.core.record_async(row, &mut patience).await);
        }
        recorded
    }

    /// Records a snapshot of a track, to be stored. It is not cached by this: see
    /// [`AsyncTrackCache::cache_track`].
    ///
    /// # Errors
    ///
    /// [`RecordError::Invalid`] names the field that cannot be stored.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a dropped call has not recorded the row.
    pub async fn track(&self, track: Track) -> Result<Recorded, RecordError> {
        self.put(Row::Track(track)).await
    }

    /// Records that a session began, what it looks at, or that it ended.
    ///
    /// # Errors
    ///
    /// [`RecordError::Invalid`] names the field that cannot be stored.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a dropped call has not recorded the row.
    pub async fn session(&self, session: Session) -> Result<Recorded, RecordError> {
        self.put(Row::Session(session)).await
    }

    async fn put(&self, row: Row) -> Result<Recorded, RecordError> {
        self.core.record_async(row, &mut Patience::default()).await
    }

    /// Waits until Redis has acknowledged all rows recorded before this call. Rows that the overflow
    /// policy drops meanwhile are not waited for; [`AsyncProducer::stats`] counts them.
    ///
    /// # Errors
    ///
    /// [`FlushError`] when rows are left after `timeout`; they are still being published.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn flush(&self, timeout: Duration) -> Result<(), FlushError> {
        Core::flushed(self.core.handover.flush_async(timeout).await)
    }

    /// Waits until all rows recorded before this call are forced onto the disk, in the spool: from then
    /// on they survive a power cut. That Redis has them is [`flush`](Self::flush)'s matter.
    ///
    /// # Errors
    ///
    /// [`SyncError`] when there is no spool, or no working one, or `timeout` is over.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn sync(&self, timeout: Duration) -> Result<(), SyncError> {
        self.core
            .synced(self.core.handover.sync_async(timeout).await)
    }

    /// Accepts nothing more, publishes what is left, and ends the background thread. Further calls, on
    /// any handle, give the same result. Of several timeouts the earliest to end counts.
    ///
    /// # Errors
    ///
    /// [`CloseError`] when rows were left after `timeout`: they are lost, and counted. With a spool they
    /// are not lost: they stay in it for the next run, and are the `spooled` of [`Stats`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the producer closes all the same, and a further call waits for its end.
    pub async fn close(&self, timeout: Duration) -> Result<Stats, CloseError> {
        self.core.close_async(timeout).await
    }

    /// What became of every row so far: a consistent snapshot.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    /// See [`Producer::pressure`](crate::Producer::pressure).
    pub fn pressure(&self) -> f32 {
        self.core.pressure()
    }

    /// Whether rows get through to Redis.
    pub fn health(&self) -> Health {
        self.core.health()
    }

    /// The track cache.
    pub fn cache(&self) -> AsyncTrackCache {
        AsyncTrackCache::new(self.core.cache.clone())
    }
}

impl fmt::Debug for AsyncProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncProducer")
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}
