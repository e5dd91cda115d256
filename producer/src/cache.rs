//! The track cache: what a pipeline wants to know again of a track, in Redis for a while.
//!
//! | key | what it is |
//! |---|---|
//! | `<prefix>:track:{<session>}:<track>` | a payload, MessagePack |
//! | `<prefix>:embedding:{<session>}:<track>` | little-endian `f32`s |
//! | `<prefix>:tracks:{<session>}` | a session's cached tracks, by the time they were cached |
//! | `<prefix>:tracks:{<session>}:expiry` | the same, by the time they expire |
//! | `<prefix>:recent:{<camera>}` | a camera's last detections, newest first, MessagePack |
//!
//! Every key carries a TTL, which it is given by the same command or script that writes it.
//!
//! A cache that is down costs nothing but the cached value. Writes go through a bounded queue and are
//! dropped where it is full; reads wait for `read_timeout` at most; both are counted. The cache has a
//! connection of its own, so it does not delay publishing. While it has none, a read is answered at
//! once, with nothing.

mod handle;
mod query;
mod queue;
mod task;
mod write;

use std::{num::NonZeroUsize, time::Duration};

pub use handle::{AsyncTrackCache, TrackCache};
pub(crate) use queue::CacheQueue;
pub(crate) use task::CacheTask;
pub use write::CacheError;

/// What the track cache needs to know.
#[derive(Debug, Clone, Copy)]
pub struct CacheConfig {
    /// Longest wait of a read: 50 ms. It is as long as a frame may be held up by a server that has
    /// just stopped answering.
    pub read_timeout: Duration,
    /// Most operations that wait to be sent: 1024.
    pub queue_len: NonZeroUsize,
    /// Most bytes of operations that wait to be sent: 8 MiB.
    pub queue_bytes: NonZeroUsize,
    /// Keep each camera's last detections; `None` by default, as each costs about 280 bytes more to send,
    /// where an entry needs 45.
    pub recent_detections: Option<RecentDetectionsConfig>,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            read_timeout: Duration::from_millis(50),
            queue_len: NonZeroUsize::new(1024).expect("not zero"),
            queue_bytes: NonZeroUsize::new(8 << 20).expect("not zero"),
            recent_detections: None,
        }
    }
}

impl CacheConfig {
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.read_timeout.is_zero() || self.read_timeout > Duration::from_secs(10) {
            return Err(format!(
                "cache.read_timeout ({:?}) must be more than 0 and at most 10 s",
                self.read_timeout
            ));
        }
        if self.queue_len.get() > 1 << 20 {
            return Err(format!(
                "cache.queue_len ({}) must be at most 1048576",
                self.queue_len
            ));
        }
        if let Some(recent) = self.recent_detections {
            if recent.per_camera.get() > 10_000 {
                return Err(format!(
                    "cache.recent_detections.per_camera ({}) must be at most 10000",
                    recent.per_camera
                ));
            }
            if recent.ttl < Duration::from_millis(1) {
                return Err(format!(
                    "cache.recent_detections.ttl ({:?}) must be at least 1 ms",
                    recent.ttl
                ));
            }
        }
        Ok(())
    }
}

/// How many of each camera's last detections are kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct RecentDetectionsConfig {
    /// Detections kept of each camera: 100.
    pub per_camera: NonZeroUsize,
    /// A camera's list is gone so long after its last detection: 10 min.
    pub ttl: Duration,
}

impl Default for RecentDetectionsConfig {
    fn default() -> Self {
        Self {
            per_camera: NonZeroUsize::new(100).expect("not zero"),
            ttl: Duration::from_secs(600),
        }
    }
}
