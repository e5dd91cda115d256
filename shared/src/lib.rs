//! The contract between Passerby's producers and its workers.
//!
//! Whatever both sides must agree on stands here, and nothing else: the domain types and what makes
//! a value valid, the wire format of a stream entry, the names of the keys in Redis, and how a
//! connection to Redis is made and judged, and how a metric is declared. There is no Postgres in this
//! crate.

pub mod backlog;
pub mod books;
mod detection;
mod embedding;
mod entry_id;
mod error_chain;
mod host;
mod idempotency_key;
mod metric;
pub mod redis_connection;
mod session;
mod stream_key;
mod traceparent;
mod track;
mod track_builder;
mod validate;
pub mod wire;

pub use backlog::Backlog;
pub use detection::{Detection, DetectionRef, Gender, UnknownGender};
pub use embedding::Embedding;
pub use entry_id::{EntryId, InvalidEntryId};
pub use error_chain::ErrorChain;
pub use host::host_name;
pub use idempotency_key::{IdempotencyKey, InvalidIdempotencyKey};
pub use metric::{Label, Labels, Metric, Series};
pub use session::{Session, SessionSummary};
pub use stream_key::{InvalidKeyPrefix, KeyPrefix, StreamKey, shard_of};
pub use traceparent::{InvalidTraceparent, Traceparent};
pub use track::{Track, TrackId, TrajectoryPoint};
pub use track_builder::TrackBuilder;
pub use validate::{Invalid, MAX_ID_BYTES};
