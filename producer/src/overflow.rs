//! What happens to a row for which there is no room.

use std::time::Duration;

/// What happens to a row for which the buffer has no room, because Redis is away or slower than the
/// pipeline.
///
/// Every row that is dropped is counted in [`crate::RowStats`] under the policy's own name.
///
/// With a [spool](crate::spool) rows leave the buffer for the disk within a flush, Redis or no Redis, so
/// that the buffer is full only when the spool is, too, or the disk is slower than the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// Refuses the row, so that what was accepted stays accepted: the default.
    #[default]
    DropNewest,
    /// Makes room by dropping the rows that have waited longest, so that after an outage the store
    /// has its latest part. Rows that are being sent are not dropped; where nothing else is left,
    /// the new row is.
    DropOldest,
    /// Makes the caller wait for room, at most so long; then the row is refused. The only policy that
    /// can hold up a frame: for programs that read files.
    Block(Duration),
}
