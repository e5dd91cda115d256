//! The books: what became of every row.

use std::{iter::Sum, ops::Add};

use chrono::{DateTime, Utc};
use passerby_shared::wire::Kind;
use serde::Serialize;

use crate::saturation::Degradation;

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
    /// Rows of the largest of these entries.
    pub largest_entry_rows: u64,
    /// Payload of these entries, in bytes.
    pub bytes_published: u64,
    /// Attempts to connect or to publish that failed and were or will be repeated.
    pub retries: u64,
    /// Connections made after the first one.
    pub reconnects: u64,
    /// What went wrong last, however long ago.
    pub last_error: Option<LastError>,
    /// Entries sent again because Redis was another server than before, or the same one started anew.
    pub entries_resent: u64,
    /// Entries that were forgotten before `resend_window` was over, because `resend_bytes` were reached.
    pub resend_cut: u64,
    /// What the spool holds.
    pub spool: SpoolStats,
    /// How near the store is to its limits, and what was left out because of that.
    pub saturation: SaturationStats,
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
/// At every moment `accepted + recovered = published + dropped_oldest + dropped_closed +
/// dropped_spool_full + dropped_spool_damaged + buffered + spooled`; the rest counts rows that were
/// never accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RowStats {
    /// Rows that were answered with `Accepted`.
    pub accepted: u64,
    /// Rows that an earlier run had accepted, found in the spool at the start.
    pub recovered: u64,
    /// Rows that Redis acknowledged.
    pub published: u64,
    /// Accepted rows that made room for newer ones.
    pub dropped_oldest: u64,
    /// Accepted rows that were not known to be published when the producer had to end. Those that
    /// were just being sent may be in the stream all the same.
    pub dropped_closed: u64,
    /// Rows in the spool that made room for newer ones, with
    /// [`SpoolFull::DropOldest`](crate::SpoolFull::DropOldest).
    pub dropped_spool_full: u64,
    /// Rows that could not be read back from the spool.
    pub dropped_spool_damaged: u64,
    /// Accepted rows in memory that wait or are being sent. With a spool they are on disk, too.
    pub buffered: u64,
    /// Rows in the spool's log that wait or are being sent; of a producer that was closed, all that it
    /// left in the spool for the next run.
    pub spooled: u64,
    /// Rows refused because there was no room.
    pub dropped_newest: u64,
    /// Rows refused after waiting for room.
    pub block_timeouts: u64,
    /// Rows refused because they cannot be stored.
    pub invalid: u64,
}

impl RowStats {
    /// Whether every row that was accepted or recovered is accounted for. It is.
    pub fn balances(&self) -> bool {
        self.accepted + self.recovered
            == self.published
                + self.dropped_oldest
                + self.dropped_closed
                + self.dropped_spool_full
                + self.dropped_spool_damaged
                + self.buffered
                + self.spooled
    }

    /// Rows lost for whatever reason, accepted or not.
    pub fn dropped(&self) -> u64 {
        self.dropped_oldest
            + self.dropped_closed
            + self.dropped_spool_full
            + self.dropped_spool_damaged
            + self.dropped_newest
            + self.block_timeouts
    }

    /// Rows that wait or are being sent, in memory or on disk.
    pub fn waiting(&self) -> u64 {
        self.buffered + self.spooled
    }
}

impl Add for RowStats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            accepted: self.accepted + other.accepted,
            recovered: self.recovered + other.recovered,
            published: self.published + other.published,
            dropped_oldest: self.dropped_oldest + other.dropped_oldest,
            dropped_closed: self.dropped_closed + other.dropped_closed,
            dropped_spool_full: self.dropped_spool_full + other.dropped_spool_full,
            dropped_spool_damaged: self.dropped_spool_damaged + other.dropped_spool_damaged,
            buffered: self.buffered + other.buffered,
            spooled: self.spooled + other.spooled,
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

/// What the spool holds, and how it fares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SpoolStats {
    /// Bytes of frames in the log, sent ones in segments that are not free yet included.
    pub bytes: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Places in the log that could not be read, and whose rows are lost.
    pub damaged: u64,
    /// The disk failed, and the producer goes on in memory only.
    pub is_abandoned: bool,
}

/// How near the store is to its limits, and what was left out because of that.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct SaturationStats {
    /// See [`Producer::pressure`](crate::Producer::pressure).
    pub pressure: f32,
    /// What is left out of rows now.
    pub left_out: Degradation,
    /// Detections that were recorded without something they had.
    pub detections_degraded: u64,
    /// Tracks that were recorded without something they had.
    pub tracks_degraded: u64,
    /// Embeddings that were not cached.
    pub embeddings_left_out: u64,
}

impl PartialEq for SaturationStats {
    fn eq(&self, other: &Self) -> bool {
        // As bits: a pressure is never NaN, and two snapshots are the same or not.
        self.pressure.to_bits() == other.pressure.to_bits()
            && self.left_out == other.left_out
            && self.detections_degraded == other.detections_degraded
            && self.tracks_degraded == other.tracks_degraded
            && self.embeddings_left_out == other.embeddings_left_out
    }
}

impl Eq for SaturationStats {}

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
