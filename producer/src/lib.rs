//! Records what a video pipeline sees, without ever blocking a frame.
//!
//! ```text
//! pipeline ──record()──▶ buffer ──▶ batcher ──▶ publisher ──XADD──▶ Redis Stream ──▶ workers
//!                         bounded    entries     retries for ever
//!                               spool on disk
//! ```
//!
//! ```
//! use std::time::Duration;
//!
//! use passerby_producer::{Detection, Producer, ProducerConfig, Recorded};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = ProducerConfig::new("redis://localhost:6379".parse()?);
//! let producer = Producer::start(config)?; // Redis may be away, now and later
//!
//! let seen = Detection {
//!     timestamp: chrono::Utc::now(),
//!     session_id: "2026-09-21-entrance".into(),
//!     camera_id: "cam-entrance-01".into(),
//!     channel_id: 1,
//!     detection_id: 1,
//!     track_id: Some(7),
//!     confidence: Some(0.87),
//!     bbox_x: 412.0,
//!     bbox_y: 96.0,
//!     bbox_width: 62.0,
//!     bbox_height: 180.0,
//!     gender: None,
//!     gender_confidence: None,
//!     frame_number: 1,
//!     degraded: false,
//! };
//! assert_eq!(producer.record(seen)?, Recorded::Accepted);
//!
//! if let Err(lost) = producer.close(Duration::from_millis(100)) {
//!     eprintln!("{lost}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Promises
//!
//! * `record()` never waits: not for Redis, not for a lock that is held while something else is
//!   waited for. Only [`Overflow::Block`] makes it wait, for as long as it says.
//! * What was [`Recorded::Accepted`] reaches Redis, or is counted as dropped for one reason. The books
//!   balance at every moment: see [`RowStats`].
//! * An entry's idempotency key is made before its first attempt and kept through all others, so
//!   that the workers store its rows once, however often it was sent.
//! * The entries of one shard, and so of one camera, are published in order.
//! * Memory is bounded by rows and by bytes, however long Redis is away.
//! * With a [`spool`], what was [`Recorded::Accepted`] survives the death of the process at
//!   any moment, and a power cut from its [`sync`](Producer::sync) on. The next run sends it, and it is
//!   stored once.
//!
//! An acknowledgement of Redis is the end of the producer's part: how safe an entry then is, is a
//! matter of Redis' own persistence. For a Redis that comes back without its last seconds, or another
//! one in its place, the producer remembers what it sent in
//! [`resend_window`](ProducerConfig::resend_window), and sends it again.
//!
//! # When the store cannot keep up
//!
//! [`Producer::pressure`] tells the pipeline before anything is dropped. Where that changes nothing, what
//! matters least is left out of rows: see [`SaturationConfig`].
//!
//! # Where what is
//!
//! In the order of a row's life: `row`, `overflow` and `buffer` (what is kept), `handover` (from the
//! pipeline's threads to the background thread), `flusher` (that thread), `batcher` (rows into
//! entries), `publisher` (entries into Redis), `resend` (what it sent last). With a [`spool`], its log
//! stands between `batcher` and `publisher`, and the buffer's rows are in its ring.
//! `cache` is the track cache, on the same thread with a connection of its own.

mod async_producer;
mod batcher;
mod blocks;
mod books;
mod buffer;
mod cache;
mod config;
mod flusher;
mod handover;
mod health;
mod lifecycle;
pub mod metrics;
mod overflow;
mod producer;
mod publisher;
mod resend;
mod row;
mod saturation;
pub mod spool;
mod stats;

pub use passerby_shared::{
    Detection, Embedding, Gender, Invalid, InvalidTraceparent, KeyPrefix, Session, Traceparent,
    Track, TrackBuilder, TrajectoryPoint,
    redis_connection::{RedisTimeouts, RedisUrl},
};

pub use crate::{
    async_producer::AsyncProducer,
    cache::{AsyncTrackCache, CacheConfig, CacheError, RecentDetectionsConfig, TrackCache},
    config::{InvalidConfig, MAX_ENTRY_BYTES, ProducerConfig},
    handover::Recorded,
    health::{Health, Trouble, TroubleKind},
    lifecycle::{CloseError, FlushError, RecordError, RecordedMany, StartError, SyncError},
    overflow::Overflow,
    producer::Producer,
    saturation::{Degradation, SaturationConfig},
    spool::{Fsync, SpoolConfig, SpoolError, SpoolFull},
    stats::{CacheStats, LastError, RowStats, SaturationStats, SpoolStats, Stats},
};
