//! The bounded buffer and its books: which row is kept, which makes room, and what became of each.
//!
//! A row counts against the bounds until it is published: taking it out to send it makes no room.
//! Rows are numbered as they are accepted and leave in the order of their numbers, so that "all that
//! was recorded before" is one number. This is the rule alone; [`crate::handover`] shares it between
//! threads.

mod spooled;

use std::time::Duration;

use chrono::Utc;
use passerby_shared::wire::Kind;
use tokio::time::Instant;

use crate::{
    blocks::{Block, Blocks},
    config::ProducerConfig,
    health::{Health, Trouble, TroubleKind},
    overflow::Overflow,
    row::Row,
    spool::Ring,
    stats::{LastError, RowStats, Stats},
};
pub(crate) use spooled::Synced;

/// Most entries' worth of rows that are taken out to be sent together.
const MAX_FLIGHT_ENTRIES: usize = 16;

pub(crate) struct Buffer {
    limits: Limits,
    overflow: Overflow,
    blocks: Blocks,
    flight: Flight,
    /// The number of the next row that is accepted.
    next_seq: u64,
    /// When the first of the rows that wait came into an empty buffer.
    waiting_since: Option<Instant>,
    /// When the flusher looks without being woken.
    looks: Looks,
    /// Rows below this number are to be sent without delay.
    flush_below: u64,
    /// Grows whenever rows settle or the producer closes: what callers wait for.
    n_changes: u64,
    closed: bool,
    ended: bool,
    attempted: bool,
    trouble: Option<Trouble>,
    stats: Stats,
    /// Where the rows are on disk, too, when there is a spool.
    ring: Option<Ring>,
    progress: spooled::Progress,
    spool_trouble: Option<Trouble>,
}

#[derive(Debug)]
struct Limits {
    buffer_rows: usize,
    buffer_bytes: usize,
    flush_rows: usize,
    flush_bytes: usize,
    max_delay: Duration,
    flight_rows: usize,
    flight_bytes: usize,
    /// 0 without a spool.
    spool_bytes: u64,
}

/// When the flusher looks for rows that are due.
///
/// Waking it costs whoever records a row a system call, as long as recording a hundred others. So as long
/// as rows keep coming it looks by itself, each `max_delay`, and only sleeps when it has found none in one.
#[derive(Debug, Clone, Copy)]
enum Looks {
    /// Not before it is woken.
    Woken,
    /// Once more at a time, though there were no rows when it looked.
    At(Instant),
    /// When it is done with those that it sends.
    Next,
}

/// The rows that were taken out and are not yet published.
#[derive(Debug, Default)]
struct Flight {
    first_seq: u64,
    n_rows: usize,
    n_bytes: usize,
}

/// A row on offer.
pub(crate) struct Offer {
    row: Option<Row>,
    kind: Kind,
    n_bytes: usize,
}

impl Offer {
    pub(crate) fn new(row: Row) -> Self {
        Self {
            kind: row.kind(),
            n_bytes: row.n_bytes(),
            row: Some(row),
        }
    }
}

/// What became of an offer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The row is kept.
    Accepted {
        /// Something may be due now that was not before.
        wake_flusher: bool,
        /// Rows were dropped that somebody may be waiting for.
        wake_waiting: bool,
    },
    /// The row is refused, and booked as such.
    Dropped,
    /// The row stays with the offer: its caller is to wait for room.
    NoRoom,
    /// No row is accepted any more.
    Closed,
}

/// When rows are to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Now,
    At(Instant),
    /// When there are any.
    Later,
    /// There will never be any again.
    Never,
}

impl Buffer {
    pub(crate) fn new(config: &ProducerConfig) -> Self {
        let (max_rows, max_bytes) = (config.max_rows.get(), config.max_bytes.get());
        let n_entries = usize::from(config.shards.get()).min(MAX_FLIGHT_ENTRIES);
        let segment_bytes = config.spool.as_ref().map(|spool| spool.segment_bytes);
        let half_a_segment = segment_bytes
            .and_then(|bytes| usize::try_from(bytes / 2).ok())
            .unwrap_or(usize::MAX);
        Self {
            limits: Limits {
                buffer_rows: config.buffer_rows.get(),
                buffer_bytes: config.buffer_bytes.get(),
                flush_rows: max_rows,
                flush_bytes: max_bytes,
                max_delay: config.max_delay,
                // What is in flight cannot make room for newer rows.
                spool_bytes: config.spool.as_ref().map_or(0, |spool| spool.max_bytes),
                flight_rows: (max_rows * n_entries).min(config.buffer_rows.get() / 2),
                flight_bytes: (max_bytes * n_entries)
                    .min(config.buffer_bytes.get() / 2)
                    .min(half_a_segment),
            },
            overflow: config.overflow,
            blocks: Blocks::new(max_rows, max_bytes),
            flight: Flight::default(),
            next_seq: 0,
            waiting_since: None,
            looks: Looks::Woken,
            flush_below: 0,
            n_changes: 0,
            closed: false,
            ended: false,
            attempted: false,
            trouble: None,
            stats: Stats::default(),
            ring: None,
            progress: spooled::Progress::default(),
            spool_trouble: None,
        }
    }

    /// Accepts a row, or applies the overflow policy.
    pub(crate) fn offer(&mut self, offer: &mut Offer) -> Answer {
        if self.closed {
            return Answer::Closed;
        }
        let mut wake_waiting = false;
        if !self.has_room(offer) {
            let fits_ever = offer.n_bytes <= self.limits.buffer_bytes && self.ring_can_hold(offer);
            match self.overflow {
                Overflow::Block(_) if fits_ever => return Answer::NoRoom,
                Overflow::DropOldest if fits_ever && self.fits_beside_flight(offer) => {
                    wake_waiting = self.front_seq() < self.flush_below;
                    self.n_changes += u64::from(wake_waiting);
                    while !self.has_room(offer) {
                        self.drop_oldest();
                    }
                }
                _ => {
                    self.stats.kind_mut(offer.kind).dropped_newest += 1;
                    return Answer::Dropped;
                }
            }
        }
        let row = offer.row.take().expect("an offer is accepted at most once");
        Answer::Accepted {
            wake_flusher: self.push(row, offer.kind, offer.n_bytes),
            wake_waiting,
        }
    }

    fn has_room(&self, offer: &Offer) -> bool {
        let (rows, bytes) = (&self.blocks, &self.flight);
        rows.n_rows() + bytes.n_rows < self.limits.buffer_rows
            && (rows.n_held_bytes() + bytes.n_bytes).saturating_add(offer.n_bytes)
                <= self.limits.buffer_bytes
            && self.ring_has_room(offer)
    }

    /// Whether dropping all rows that wait would make room.
    fn fits_beside_flight(&self, offer: &Offer) -> bool {
        self.flight.n_rows < self.limits.buffer_rows
            && self.flight.n_bytes.saturating_add(offer.n_bytes) <= self.limits.buffer_bytes
            // The ring is freed from its oldest row on, and those in flight are older.
            && (self.flight.n_rows == 0 || self.ring_has_room(offer))
    }

    fn ring_has_room(&self, offer: &Offer) -> bool {
        let row = offer.row.as_ref();
        self.ring
            .as_ref()
            .zip(row)
            .is_none_or(|(ring, row)| ring.has_room(row))
    }

    fn ring_can_hold(&self, offer: &Offer) -> bool {
        let row = offer.row.as_ref();
        self.ring
            .as_ref()
            .zip(row)
            .is_none_or(|(ring, row)| ring.can_hold(row))
    }

    /// Returns whether the flusher, if it sleeps, must look again.
    fn push(&mut self, row: Row, kind: Kind, n_bytes: usize) -> bool {
        let was_full = self.is_full_for_flush();
        let was_empty = self.blocks.n_rows() == 0;
        if was_empty {
            self.waiting_since = Some(Instant::now());
        }
        if let Some(ring) = &mut self.ring {
            // It has room: the caller has looked.
            ring.push(self.next_seq, &row);
        }
        self.blocks.push(row, n_bytes);
        self.next_seq += 1;
        self.stats.buffered_bytes += n_bytes;
        let rows = self.stats.kind_mut(kind);
        rows.accepted += 1;
        rows.buffered += 1;
        let is_asleep = matches!(self.looks, Looks::Woken);
        (was_empty && is_asleep) || (!was_full && self.is_full_for_flush())
    }

    fn drop_oldest(&mut self) {
        if let Some(row) = self.blocks.pop_oldest() {
            self.stats.buffered_bytes -= row.n_bytes();
            let rows = self.stats.kind_mut(row.kind());
            rows.buffered -= 1;
            rows.dropped_oldest += 1;
            self.free_ring();
        }
    }

    /// Books rows of one kind that were refused for another reason.
    pub(crate) fn refused(&mut self, kind: Kind, book: impl FnOnce(&mut RowStats)) {
        book(self.stats.kind_mut(kind));
    }

    /// Books the row of an offer whose caller has waited long enough.
    pub(crate) fn give_up(&mut self, offer: &Offer) {
        self.stats.kind_mut(offer.kind).block_timeouts += 1;
    }

    fn is_full_for_flush(&self) -> bool {
        self.blocks.n_rows() >= self.limits.flush_rows
            || self.blocks.n_bytes() >= self.limits.flush_bytes
    }

    /// When rows are to be sent: the flusher asks again at the time that it is told, and when it is woken.
    pub(crate) fn due(&mut self) -> Due {
        let now = Instant::now();
        if self.blocks.n_rows() == 0 {
            return match self.looks {
                _ if self.closed => Due::Never,
                Looks::Next => {
                    let at = now + self.limits.max_delay;
                    self.looks = Looks::At(at);
                    Due::At(at)
                }
                Looks::At(at) if at > now => Due::At(at),
                Looks::At(_) | Looks::Woken => {
                    self.looks = Looks::Woken;
                    Due::Later
                }
            };
        }
        if self.closed || self.is_full_for_flush() || self.front_seq() < self.flush_below {
            return Due::Now;
        }
        let latest = self
            .waiting_since
            .map(|since| since + self.limits.max_delay);
        let at = match self.looks {
            // Before the first row has waited for long: nobody was woken for it.
            Looks::At(at) => latest.map(|latest| at.min(latest)),
            Looks::Woken | Looks::Next => latest,
        };
        match at.filter(|at| *at > now) {
            Some(at) => Due::At(at),
            None => Due::Now,
        }
    }

    /// Takes out the oldest rows, to be sent together. Nothing is in flight when this is called.
    pub(crate) fn take(&mut self) -> Vec<Block> {
        let first_seq = self.front_seq();
        let (blocks, n_rows, n_bytes) = self
            .blocks
            .take(self.limits.flight_rows, self.limits.flight_bytes);
        self.flight = Flight {
            first_seq,
            n_rows,
            n_bytes,
        };
        self.looks = Looks::Next;
        // What stays behind keeps the time: it is due at once if it has waited long enough.
        blocks
    }

    /// Takes emptied blocks back, and returns those that are too many.
    pub(crate) fn recycle(&mut self, emptied: Vec<Block>) -> Vec<Block> {
        self.blocks.recycle(emptied)
    }

    /// How large a block is to be made ahead, if one is.
    pub(crate) fn wants_block(&self) -> Option<usize> {
        let n_rows = self.blocks.n_rows() + self.flight.n_rows;
        let room_rows = self.limits.buffer_rows.saturating_sub(n_rows);
        self.blocks.wants_block(room_rows)
    }

    /// Takes a block that was made ahead.
    pub(crate) fn add_block(&mut self, block: Block) {
        self.blocks.add(block);
    }

    /// Books the rows of an entry as published.
    pub(crate) fn published(
        &mut self,
        kind: Kind,
        n_rows: usize,
        n_bytes: usize,
        n_payload_bytes: usize,
    ) {
        self.flight.n_rows -= n_rows;
        self.flight.n_bytes -= n_bytes;
        self.stats.buffered_bytes -= n_bytes;
        let rows = self.stats.kind_mut(kind);
        rows.buffered -= n_rows as u64;
        rows.published += n_rows as u64;
        self.stats.entries_published += 1;
        self.stats.largest_entry_rows = self.stats.largest_entry_rows.max(n_rows as u64);
        self.stats.bytes_published += n_payload_bytes as u64;
        self.n_changes += 1;
    }

    /// Books a successful attempt to connect or to publish.
    pub(crate) fn succeeded(&mut self) {
        self.attempted = true;
        self.trouble = None;
    }

    /// Books a failed attempt to connect or to publish.
    pub(crate) fn failed(&mut self, kind: TroubleKind, error: &str) {
        let at = Utc::now();
        self.attempted = true;
        self.trouble = Some(Trouble {
            kind,
            since: self.trouble.as_ref().map_or(at, |trouble| trouble.since),
            error: error.to_owned(),
        });
        self.stats.retries += 1;
        self.stats.last_error = Some(LastError {
            at,
            error: error.to_owned(),
        });
    }

    pub(crate) fn reconnected(&mut self) {
        self.stats.reconnects += 1;
    }

    /// Books an entry that was sent again, to a server that may not have had it.
    pub(crate) fn resent(&mut self) {
        self.stats.entries_resent += 1;
    }

    /// Books entries that were forgotten too early to be sent again.
    pub(crate) fn resend_cut(&mut self, n_entries: u64) {
        self.stats.resend_cut += n_entries;
    }

    /// Asks that all rows recorded so far be sent without delay. Returns the number of the first row
    /// that is not among them.
    pub(crate) fn flush(&mut self) -> u64 {
        self.flush_below = self.next_seq;
        self.next_seq
    }

    /// The number of the oldest row that waits.
    fn front_seq(&self) -> u64 {
        self.next_seq - self.blocks.n_rows() as u64
    }

    /// How many rows below a number wait, here or in the spool, or are being sent. Of a producer that
    /// has ended: how many rows it lost or left in the spool.
    pub(crate) fn n_left(&self, below: u64) -> u64 {
        if self.ended {
            let rows = self.stats.rows();
            return rows.dropped_closed + rows.spooled;
        }
        let waiting = below.saturating_sub(self.front_seq());
        let in_flight = below
            .saturating_sub(self.flight.first_seq)
            .min(self.flight.n_rows as u64);
        waiting + in_flight + self.n_spooled(below)
    }

    /// Whether [`Buffer::n_left`] is final.
    pub(crate) fn is_settled(&self, below: u64) -> bool {
        self.ended || self.n_left(below) == 0
    }

    /// The number of the next row that is accepted.
    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    pub(crate) fn n_changes(&self) -> u64 {
        self.n_changes
    }

    /// Accepts nothing more.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.n_changes += 1;
    }

    /// Books everything that is left: as spooled when it is on disk, else as lost, as nobody will publish
    /// it any more.
    pub(crate) fn end(&mut self) {
        self.closed = true;
        self.ended = true;
        self.n_changes += 1;
        self.blocks.clear();
        self.flight = Flight::default();
        self.stats = self.stats_at_end();
    }

    /// The books as they will be when the producer ends now.
    pub(crate) fn stats_at_end(&self) -> Stats {
        let mut stats = self.stats.clone();
        stats.buffered_bytes = 0;
        let keeps_rows = self.keeps_rows();
        for kind in [Kind::Detections, Kind::Tracks, Kind::Sessions] {
            let rows = stats.kind_mut(kind);
            if keeps_rows {
                rows.spooled += rows.buffered;
            } else {
                rows.dropped_closed += rows.buffered;
            }
            rows.buffered = 0;
        }
        stats
    }

    /// Whether the last attempt to connect or to publish failed.
    pub(crate) fn is_in_trouble(&self) -> bool {
        self.trouble.is_some()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The share of the buffer, and of the spool, that is full.
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub(crate) fn pressure(&self) -> f32 {
        let share = |used: f32, of: f32| if of > 0.0 { (used / of).min(1.0) } else { 0.0 };
        let n_rows = self.blocks.n_rows() + self.flight.n_rows;
        let rows = share(n_rows as f32, self.limits.buffer_rows as f32);
        let bytes = share(
            self.stats.buffered_bytes as f32,
            self.limits.buffer_bytes as f32,
        );
        let spool = share(
            self.stats.spool.bytes as f32,
            self.limits.spool_bytes as f32,
        );
        rows.max(bytes).max(spool)
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    pub(crate) fn health(&self) -> Health {
        match self.trouble.as_ref().or(self.spool_trouble.as_ref()) {
            _ if self.closed => Health::Closed,
            Some(trouble) => Health::Trouble(trouble.clone()),
            None if self.attempted => Health::Up,
            None => Health::Starting,
        }
    }
}

#[cfg(test)]
mod tests;
