//! The books: what became of every row.

use std::{iter::Sum, ops::Add};

use chrono::{DateTime, Utc};
use passerby_shared::wire::Kind;
use serde::Serialize;

/// A consistent snapshot of what a producer has done since it was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// What became of detections.
    pub detections: RowStats,
    /// What became of tracks.
    pub tracks: RowStats,
    /// What became of sessions.
    pub sessions: RowStats,
    /// Memory charged for the rows that wait or are being sent, in bytes.
    pub buffered_bytes: usize,
    /// Entries that Redis acknowledged.
    pub entries_published: u64,
    /// Payload of these entries, in bytes.
    pub bytes_published: u64,
    /// Attempts to connect or to publish that failed and were or will be repeated.
    pub retries: u64,
    /// Connections made after the first one.
    pub reconnects: u64,
    /// What went wrong last, however long ago.
    pub last_error: Option<LastError>,
    /// What the track cache did.
    pub cache: CacheStats,
}

impl Stats {
    /// The rows of all kinds together.
    pub fn rows(&self) -> RowStats {
        [self.detections, self.tracks, self.sessions]
            .into_iter()
            .sum()
    }

    /// The rows of one kind.
    pub fn kind(&self, kind: Kind) -> &RowStats {
        match kind {
            Kind::Detections => &self.detections,
            Kind::Tracks => &self.tracks,
            Kind::Sessions => &self.sessions,
        }
    }

    pub(crate) fn kind_mut(&mut self, kind: Kind) -> &mut RowStats {
        match kind {
            Kind::Detections => &mut self.detections,
            Kind::Tracks => &mut self.tracks,
            Kind::Sessions => &mut self.sessions,
        }
    }
}

/// What became of rows of one kind.
///
/// At every moment `accepted = published + dropped_oldest + dropped_closed + buffered`; the rest
/// counts rows that were never accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RowStats {
    /// Rows that were answered with `Accepted`.
    pub accepted: u64,
    /// Rows that Redis acknowledged.
    pub published: u64,
    /// Accepted rows that made room for newer ones.
    pub dropped_oldest: u64,
    /// Accepted rows that were not known to be published when the producer had to end. Those that
    /// were just being sent may be in the stream all the same.
    pub dropped_closed: u64,
    /// Accepted rows that wait or are being sent.
    pub buffered: u64,
    /// Rows refused because there was no room.
    pub dropped_newest: u64,
    /// Rows refused after waiting for room.
    pub block_timeouts: u64,
    /// Rows refused because they cannot be stored.
    pub invalid: u64,
}

impl RowStats {
    /// Whether every accepted row is accounted for. It is.
    pub fn balances(&self) -> bool {
        self.accepted == self.published + self.dropped_oldest + self.dropped_closed + self.buffered
    }

    /// Rows lost for whatever reason, accepted or not.
    pub fn dropped(&self) -> u64 {
        self.dropped_oldest + self.dropped_closed + self.dropped_newest + self.block_timeouts
    }
}

impl Add for RowStats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            accepted: self.accepted + other.accepted,
            published: self.published + other.published,
            dropped_oldest: self.dropped_oldest + other.dropped_oldest,
            dropped_closed: self.dropped_closed + other.dropped_closed,
            buffered: self.buffered + other.buffered,
            dropped_newest: self.dropped_newest + other.dropped_newest,
            block_timeouts: self.block_timeouts + other.block_timeouts,
            invalid: self.invalid + other.invalid,
        }
    }
}

impl Sum for RowStats {
    fn sum<I: Iterator<Item = Self>>(stats: I) -> Self {
        stats.fold(Self::default(), Add::add)
    }
}

/// What went wrong last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastError {
    /// When (UTC).
    pub at: DateTime<Utc>,
    /// The error and its causes, without passwords.
    pub error: String,
}

/// What the track cache did since the producer was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CacheStats {
    /// Values asked for and found.
    pub hits: u64,
    /// Values asked for and not there.
    pub misses: u64,
    /// Values found in a form that the caller could not read.
    pub undecodable: u64,
    /// Reads that had no answer in time and so gave nothing.
    pub reads_unavailable: u64,
    /// Values written.
    pub writes: u64,
    /// Values not written: the queue was full or Redis away.
    pub writes_dropped: u64,
}
