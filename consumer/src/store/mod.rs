//! What Passerby keeps in Postgres; usable without Redis.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use passerby_consumer::store::{DetectionFilter, Store};
//! use futures_util::TryStreamExt;
//!
//! let mut store = Store::connect(&"postgresql://localhost/passerby".parse()?).await?;
//! store.migrate().await?;
//! let hour = "2026-11-22T10:00:00Z".parse()?.."2026-11-22T11:00:00Z".parse()?;
//! let mut rows = std::pin::pin!(
//!     store.query_detections_by_time(hour, &DetectionFilter::camera("gate-1")).await?
//! );
//! while let Some(detection) = rows.try_next().await? {
//!     println!("{} at {}", detection.track_id.unwrap_or(-1), detection.timestamp);
//! }
//! # Ok(()) }
//! ```

mod books;
mod commit;
mod comparison;
mod connection;
mod copy;
mod database_url;
mod dead_letters;
mod demographics;
mod detections;
mod error;
mod fault;
mod ledger;
mod ledger_size;
mod migrations;
mod partitions;
mod pieces;
mod pruning;
mod retention;
mod sessions;
mod sources;
mod stalled;
mod table_stats;
mod tls;
mod tracks;
mod whereabouts;

pub use books::{ReasonCount, StoreBooks};
pub use commit::{CommitError, CommitReport, CommitTimes, Settled};
pub use comparison::ComparisonTable;
pub use connection::{Store, StoreTimeouts};
pub use copy::CopyBuffer;
pub(crate) use copy::{first_timestamp_us, tuple_len};
pub use database_url::{DatabaseUrl, InvalidDatabaseUrl};
pub use dead_letters::{
    DeadLetter, DeadLetterCount, DeadLetterFilter, DeadLetterRecord, Discard, LetterState, Reason,
    ReasonCounts, TakenLetters,
};
pub use demographics::{Bucket, Counted, Demographics, DemographicsFilter};
pub use detections::DetectionFilter;
pub use error::{Recovery, StoreError};
pub use fault::Fault;
pub use ledger_size::LedgerSize;
pub use migrations::MigrationReport;
pub(crate) use migrations::{HISTORY_TABLE, wanted_version};
pub use partitions::{DAYS_AHEAD, DefaultDay, DefaultPartition, Made, Partition, Partitions};
pub use retention::RetentionReport;
pub use sessions::{ListedSession, SessionFilter, SessionRecord};
pub use sources::{SourceMismatch, SourceRecord, SourceState};
pub use table_stats::TableStats;
pub use tracks::TrackFilter;
pub use whereabouts::{EntryLetter, FoundRows, LedgerEntry};
