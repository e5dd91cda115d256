//! The buffer's part in the spool: which rows are on disk, in the log, forced onto the disk, sent.

use std::ops::Range;

use chrono::Utc;

use super::{Buffer, Flight};
use crate::{
    batcher::Entry,
    health::{Trouble, TroubleKind},
    spool::{Position, Ring, RowCounts},
    stats::RowStats,
};

/// How far the spool has come, by the numbers of rows.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Rows below this number are in the log.
    framed_below: u64,
    /// Rows below this number are on the disk, whatever becomes of the machine.
    synced_below: u64,
    /// Rows below this number are wanted there.
    wanted_below: u64,
    /// Rows below this number have been sent, or lost.
    settled_below: u64,
    /// There was a ring, and the rows that are left are in it.
    ring_closed: bool,
}

/// What a caller of `sync()` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Synced {
    Yes,
    /// So many rows are not yet there.
    NotYet(u64),
    /// There is no spool, or none any more.
    NoSpool,
}

impl Buffer {
    /// Keeps all rows in the ring as well, until they are in the log.
    pub(crate) fn spool_to(&mut self, ring: Ring, next_seq: u64, recovered: RowCounts) {
        self.ring = Some(ring);
        self.next_seq = next_seq;
        self.progress.framed_below = next_seq;
        self.progress.synced_below = next_seq;
        for (kind, n_rows) in recovered.each() {
            let rows = self.stats.kind_mut(kind);
            rows.recovered += n_rows;
            rows.spooled += n_rows;
        }
    }

    /// The most bytes that the rows which are taken out next take in payloads.
    pub(crate) fn next_flight_bytes(&self) -> usize {
        let waiting = self.blocks.n_bytes();
        waiting.min(self.limits.flight_bytes)
    }

    /// The numbers of the rows that were taken out.
    pub(crate) fn flight_seqs(&self) -> Range<u64> {
        self.flight.first_seq..self.flight.first_seq + self.flight.n_rows as u64
    }

    /// Books the rows that were taken out as being in the log.
    pub(crate) fn framed(&mut self, rows: RowCounts) {
        self.stats.buffered_bytes -= self.flight.n_bytes;
        self.flight = Flight::default();
        for (kind, n_rows) in rows.each() {
            let rows = self.stats.kind_mut(kind);
            rows.buffered -= n_rows;
            rows.spooled += n_rows;
        }
        self.progress.framed_below = self.front_seq();
        self.free_ring();
        self.n_changes += 1;
    }

    /// Frees the room of rows that are in the log, or were dropped.
    pub(super) fn free_ring(&mut self) {
        let front = self.front_seq();
        if let Some(ring) = &mut self.ring
            && self.flight.n_rows == 0
        {
            ring.release_below(front);
        }
    }

    /// Rows below the returned number are in the log.
    pub(crate) fn framed_below(&self) -> u64 {
        self.progress.framed_below
    }

    /// Books the rows below this number as forced onto the disk.
    pub(crate) fn synced(&mut self, below: u64) {
        self.progress.synced_below = self.progress.synced_below.max(below);
        self.n_changes += 1;
    }

    /// Whether somebody waits for rows in the log to be forced onto the disk.
    pub(crate) fn wants_sync(&self) -> bool {
        self.progress.wanted_below > self.progress.synced_below
    }

    /// Asks that all rows recorded so far be forced onto the disk. Returns the number of the first row
    /// that is not among them.
    pub(crate) fn sync(&mut self) -> u64 {
        self.progress.wanted_below = self.next_seq;
        self.flush()
    }

    /// Whether the rows below a number are on the disk.
    pub(crate) fn is_synced(&self, below: u64) -> Synced {
        if self.progress.synced_below >= below && (self.ring.is_some() || self.progress.ring_closed)
        {
            return Synced::Yes;
        }
        if self.ring.is_none() {
            return Synced::NoSpool;
        }
        Synced::NotYet(below - self.progress.synced_below)
    }

    /// Books the rows of an entry from the log as published.
    pub(crate) fn published_from_spool(&mut self, entry: &Entry) {
        let rows = self.stats.kind_mut(entry.kind);
        rows.spooled = rows.spooled.saturating_sub(entry.n_rows as u64);
        rows.published += entry.n_rows as u64;
        self.stats.entries_published += 1;
        self.stats.largest_entry_rows = self.stats.largest_entry_rows.max(entry.n_rows as u64);
        self.stats.bytes_published += entry.payload.len() as u64;
        self.n_changes += 1;
    }

    /// Notes that everything up to a row, and up to a place in the log, has been sent.
    pub(crate) fn settled(&mut self, through_seq: u64, cursor: Position) {
        self.progress.settled_below = self.progress.settled_below.max(through_seq + 1);
        if let Some(ring) = &mut self.ring {
            ring.sent_to(cursor);
        }
        self.n_changes += 1;
    }

    /// Books rows in the log as lost.
    pub(crate) fn lost_from_spool(&mut self, lost: RowCounts, book: fn(&mut RowStats) -> &mut u64) {
        for (kind, n_rows) in lost.each() {
            let rows = self.stats.kind_mut(kind);
            let n_rows = n_rows.min(rows.spooled);
            rows.spooled -= n_rows;
            *book(rows) += n_rows;
        }
        self.n_changes += 1;
    }

    /// How many rows below a number are in the log and not sent.
    pub(super) fn n_spooled(&self, below: u64) -> u64 {
        let n_rows = self.stats.rows().spooled;
        if below >= self.progress.framed_below {
            return n_rows;
        }
        n_rows.min(below.saturating_sub(self.progress.settled_below))
    }

    /// Notes the size of the log.
    pub(crate) fn spool_size(&mut self, n_segments: u64, n_bytes: u64) {
        self.stats.spool.segments = n_segments;
        self.stats.spool.bytes = n_bytes;
    }

    /// Notes places in the spool that cannot be read.
    pub(crate) fn spool_damaged(&mut self, n_places: u64) {
        self.stats.spool.damaged += n_places;
    }

    /// Notes trouble with the spool, or its end.
    pub(crate) fn spool_trouble(&mut self, error: Option<&str>) {
        let since = self.spool_trouble.take().map(|trouble| trouble.since);
        self.spool_trouble = error.map(|error| Trouble {
            kind: TroubleKind::Spool,
            since: since.unwrap_or_else(Utc::now),
            error: error.to_owned(),
        });
    }

    /// Goes on in memory only. Returns the ring, marked; what is left is to be forced onto the disk.
    pub(crate) fn abandon_spool(&mut self, error: &str) -> Option<Ring> {
        let mut ring = self.ring.take()?;
        ring.abandon();
        self.stats.spool.is_abandoned = true;
        self.spool_trouble(Some(error));
        self.n_changes += 1;
        Some(ring)
    }

    /// Takes the ring out of a closed buffer. Its rows stay in it.
    pub(crate) fn close_ring(&mut self) -> Option<Ring> {
        let ring = self.ring.take()?;
        self.progress.ring_closed = true;
        Some(ring)
    }

    /// Whether the rows that are left when the producer ends are on disk.
    pub(super) fn keeps_rows(&self) -> bool {
        self.ring.is_some() || self.progress.ring_closed
    }
}
