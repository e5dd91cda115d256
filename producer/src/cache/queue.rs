//! Operations on their way to the cache's task, bounded by number and by bytes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use passerby_shared::{Embedding, KeyPrefix};
use redis::{Arg, Cmd, Value};
use serde::Serialize;
use tokio::{sync::mpsc, time::Instant};

use super::{CacheConfig, CacheError, CacheTask, write};
use crate::{
    batcher::RecentDetections, config::ProducerConfig, handover::after, saturation::Saturation,
    stats::CacheStats,
};

/// How long closing a producer waits for writes to the cache, at most.
const DRAIN: Duration = Duration::from_millis(250);

/// The way to the cache's task: cheap to clone, and nobody ever waits in it.
#[derive(Clone)]
pub(crate) struct CacheQueue {
    pub(super) shared: Arc<Shared>,
    sender: mpsc::Sender<Operation>,
}

pub(super) struct Shared {
    pub(super) saturation: Saturation,
    pub(super) prefix: KeyPrefix,
    pub(super) config: CacheConfig,
    pub(super) counters: Counters,
    queued_bytes: AtomicUsize,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) undecodable: AtomicU64,
    pub(super) reads_unavailable: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) writes_dropped: AtomicU64,
}

/// One command, and who waits for its reply.
pub(super) struct Operation {
    pub(super) command: Cmd,
    pub(super) read: Option<Read>,
    n_bytes: usize,
    shared: Arc<Shared>,
}

pub(super) struct Read {
    /// Nobody waits for the reply any more after this.
    pub(super) deadline: Instant,
    /// Takes the reply. Dropped without a call, it tells the reader that there is none.
    pub(super) reply: Box<dyn FnOnce(Value) + Send>,
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.shared.queued_bytes.fetch_sub(self.n_bytes, Relaxed);
    }
}

impl CacheQueue {
    /// The queue, and the task that is to work on it.
    pub(crate) fn new(config: &ProducerConfig, saturation: Saturation) -> (Self, CacheTask) {
        let (sender, receiver) = mpsc::channel(config.cache.queue_len.get());
        let shared = Arc::new(Shared {
            saturation,
            prefix: config.key_prefix.clone(),
            config: config.cache,
            counters: Counters::default(),
            queued_bytes: AtomicUsize::new(0),
        });
        let task = CacheTask::new(config, Arc::clone(&shared), receiver);
        (Self { shared, sender }, task)
    }

    pub(crate) fn saturation(&self) -> &Saturation {
        &self.shared.saturation
    }

    pub(super) fn cache_track<T: Serialize + ?Sized>(
        &self,
        session_id: &str,
        track_id: i64,
        payload: &T,
        ttl: Duration,
    ) -> Result<(), CacheError> {
        let prefix = &self.shared.prefix;
        self.write(write::cache_track(
            prefix, session_id, track_id, payload, ttl,
        )?);
        Ok(())
    }

    pub(super) fn cache_embedding(
        &self,
        session_id: &str,
        track_id: i64,
        embedding: &Embedding,
        ttl: Duration,
    ) -> Result<(), CacheError> {
        let prefix = &self.shared.prefix;
        let write = write::cache_embedding(prefix, session_id, track_id, embedding, ttl)?;
        if !self.shared.saturation.leaves_out_embedding() {
            self.write(write);
        }
        Ok(())
    }

    /// Queues a write, or drops and counts it.
    fn write(&self, command: Cmd) {
        if !self.push(command, None) {
            self.shared.counters.writes_dropped.fetch_add(1, Relaxed);
        }
    }

    /// Queues a read; `reply` is dropped when it cannot be.
    pub(super) fn read(&self, command: Cmd, reply: impl FnOnce(Value) + Send + 'static) {
        let read = Read {
            deadline: after(self.shared.config.read_timeout),
            reply: Box::new(reply),
        };
        // The reader counts what it does not get.
        self.push(command, Some(read));
    }

    fn push(&self, command: Cmd, read: Option<Read>) -> bool {
        let n_bytes = command
            .args_iter()
            .map(|arg| match arg {
                Arg::Simple(bytes) => bytes.len(),
                _ => 0,
            })
            .sum();
        let before = self.shared.queued_bytes.fetch_add(n_bytes, Relaxed);
        // From here on the bytes are given back when the operation is dropped, wherever that is.
        let operation = Operation {
            command,
            read,
            n_bytes,
            shared: Arc::clone(&self.shared),
        };
        before + n_bytes <= self.shared.config.queue_bytes.get()
            && self.sender.try_send(operation).is_ok()
    }

    /// Adds a camera's detections to its list, if the cache is to keep it.
    pub(crate) fn push_recent_detections(&self, recent: RecentDetections) {
        if let Some(config) = self.shared.config.recent_detections {
            self.write(write::push_recent_detections(
                &self.shared.prefix,
                config,
                recent,
            ));
        }
    }

    /// Waits until what was queued has been sent or dropped, but not for long.
    pub(crate) async fn drain(&self, time_left: Duration) {
        if self.shared.queued_bytes.load(Relaxed) == 0 {
            return;
        }
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.read(redis::cmd("PING"), move |value| drop(sender.send(value)));
        // Operations are worked on in order. Whether it was answered does not matter.
        drop(tokio::time::timeout(time_left.min(DRAIN), receiver).await);
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let counters = &self.shared.counters;
        CacheStats {
            hits: counters.hits.load(Relaxed),
            misses: counters.misses.load(Relaxed),
            undecodable: counters.undecodable.load(Relaxed),
            reads_unavailable: counters.reads_unavailable.load(Relaxed),
            writes: counters.writes.load(Relaxed),
            writes_dropped: counters.writes_dropped.load(Relaxed),
        }
    }
}
