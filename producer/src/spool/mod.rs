//! The spool: accepted rows on disk until Redis has them.
//!
//! ```text
//! record() ──▶ buffer ──▶ batcher ──▶ log ──▶ publisher ──▶ Redis
//!                │ ring                │ segments
//!                └──── on disk ────────┘
//! ```
//!
//! With [`ProducerConfig::spool`](crate::ProducerConfig::spool) set, everything goes through it:
//!
//! * A row is written to the **ring**, a file in memory, before it is accepted. That survives the death
//!   of the process at any moment, under every [`Fsync`], and does not wait for the disk.
//! * A flush becomes one **frame** of the **log**, with the idempotency keys of its entries, before any
//!   of it is sent. A run that ends before Redis has answered leaves a frame that the next run sends
//!   again with the same keys, and the workers' ledger stores it once. Rows of the ring that are in no
//!   frame were never sent; they are made entries at the next start.
//! * A row survives a power cut once its frame was forced onto the disk: after
//!   [`sync`](crate::Producer::sync), or by itself after the flush's delay and the interval of
//!   [`Fsync::Interval`].
//!
//! Frames are sent in order, those of earlier runs first. While Redis is away the log grows up to
//! [`SpoolConfig::max_bytes`]; then [`SpoolFull`] decides.
//!
//! A disk that fails (anything but being full) ends the spool, not the producer: it says so in the log
//! and in [`Health`](crate::Health), and goes on in memory only. The ring is marked, so that no later
//! run makes entries of rows that went on in memory.
//!
//! # Files
//!
//! | file | what it is |
//! |---|---|
//! | `spool` | the version, key prefix and number of shards it was made for |
//! | `lock` | locked by the producer that uses it, whose process ID it holds |
//! | `buffer.ring` | the rows of the buffer; how far the log has been sent |
//! | `00000001.seg` … | the log's segments, of which the last one is written |
//! | `spare.seg` | the next segment, so that a disk filled by others does not stop the log |
//! | `….seg.damaged` | a segment of which something could not be read, kept for a person to look at |

mod config;
mod directory;
mod drain;
mod error;
mod files;
mod frame;
mod inspect;
mod journal;
mod le;
mod log;
mod open;
mod registration;
mod ring;
mod row_codec;
mod segment;

pub use config::{Fsync, SpoolConfig, SpoolFull};
pub use drain::Drain;
pub use error::SpoolError;
pub use frame::RowCounts;
pub use inspect::{DamagedPart, Inspection, WaitingEntries, inspect};
pub(crate) use journal::Journal;
pub(crate) use log::Position;
pub(crate) use open::open;
pub(crate) use registration::{Registration, spool_id};
pub(crate) use ring::Ring;
#[cfg(test)]
pub(crate) use ring::read as read_ring;

/// Reads what recovery reads, out of any bytes: for fuzzing. Returns how many entries and rows were
/// found.
#[doc(hidden)]
pub fn recover_bytes(segment: u64, log: &[u8], ring: &[u8]) -> (usize, usize) {
    let n_entries = frame::Scan::new(log, segment, 0)
        .map(|found| found.entries.len())
        .sum();
    let n_rows = ring::read(ring).map_or(0, |left| left.rows.len());
    (n_entries, n_rows)
}
