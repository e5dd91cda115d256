//! The entries that are committed in one transaction.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, NaiveDate, Utc};
use passerby_shared::{EntryId, IdempotencyKey, Session, StreamKey, Traceparent, Track};

use crate::{
    store::{CopyBuffer, DeadLetter, Reason},
    timing::Timing,
};

mod builder;
mod order;

pub use builder::BatchBuilder;
pub(crate) use builder::made_at;
pub(crate) use order::RowOrder;

/// Most traces that one batch is linked to.
pub(crate) const MAX_LINKS: usize = 128;

/// Where an entry stands in Redis.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The stream's key.
    pub stream: Arc<StreamKey>,
    /// The entry's ID.
    pub id: EntryId,
}

/// The names and values of an entry's fields, as Redis holds them. Those of an entry that was read keep the
/// reply in memory that it came with.
pub type RawFields = Vec<(Bytes, Bytes)>;

/// One entry of a batch: its part of the rows, and where it came from.
#[derive(Debug)]
pub struct BatchEntry {
    /// The name under which the ledger remembers it.
    pub key: IdempotencyKey,
    /// Where it stands in Redis; `None` when it did not come through a stream.
    pub origin: Option<Origin>,
    /// When its key was made, by the key's own account; `None` for a key that does not tell, which the
    /// ledger never forgets.
    pub made_at: Option<DateTime<Utc>>,
    /// It was put back from the dead letters.
    pub(crate) is_requeued: bool,
    /// Rows it carries, good and bad.
    pub n_rows: usize,
    /// Its detections' bytes within the batch's COPY data.
    pub(crate) tuples: Range<usize>,
    pub(crate) tracks: Range<usize>,
    pub(crate) sessions: Range<usize>,
    pub(crate) dead_letters: Range<usize>,
    pub(crate) session_ids: Vec<String>,
    /// Indices of its rows that are dead letters, ascending.
    pub(crate) bad_rows: Vec<usize>,
    /// The fields, for the dead letters, should Postgres refuse a row that looked good.
    pub(crate) fields: RawFields,
}

/// Entries that are committed together: all of them, or none.
#[derive(Debug)]
pub struct Batch {
    entries: Vec<BatchEntry>,
    pub(crate) tuples: Bytes,
    /// In which order the fast path sends them; `None` for a part of a batch and for what is left of one: as
    /// they lie.
    pub(crate) order: Option<Arc<RowOrder>>,
    pub(crate) tracks: Vec<Track>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) dead_letters: Vec<DeadLetter>,
    pub(crate) days: BTreeSet<NaiveDate>,
    /// Entries whose key another entry of this batch has too: settled together with that one.
    pub(crate) twins: Vec<Origin>,
    n_detections: usize,
    /// Some entry may be in the ledger already: it was redelivered, or is being repeated.
    pub(crate) may_be_known: bool,
    /// The traces that its entries belong to, up to [`MAX_LINKS`], each once.
    pub(crate) traces: Vec<Traceparent>,
    /// Where its time went; `None` of one that did not come through a stream.
    pub(crate) timing: Option<Timing>,
}

/// What the rows of a batch were kept in, emptied.
#[derive(Debug, Default)]
pub(crate) struct BatchMemory {
    pub(crate) tuples: CopyBuffer,
    pub(crate) order: RowOrder,
}

impl BatchMemory {
    /// Bytes there is room for.
    pub(crate) fn capacity_bytes(&self) -> usize {
        self.tuples.capacity() + self.order.capacity_bytes()
    }
}

impl Batch {
    /// The entries, in the order they were read.
    pub fn entries(&self) -> &[BatchEntry] {
        &self.entries
    }

    /// The memory of its rows, unless somebody else still reads them.
    pub(crate) fn into_memory(self) -> Option<BatchMemory> {
        if !self.tuples.is_unique() {
            return None;
        }
        let mut order = self.order.and_then(Arc::into_inner).unwrap_or_default();
        order.clear();
        Some(BatchMemory {
            tuples: CopyBuffer::reusing(self.tuples),
            order,
        })
    }

    /// Detections to be stored.
    pub fn n_detections(&self) -> usize {
        self.n_detections
    }

    /// What the keys begin with in the Redis it came from; empty when it did not come through a stream. Entries of a
    /// batch share it, except letters of several that are replayed at once, which are no rows of producers.
    pub(crate) fn key_prefix(&self) -> &str {
        let mut origins = self
            .entries
            .iter()
            .filter_map(|entry| entry.origin.as_ref());
        origins
            .next()
            .map_or("", |origin| origin.stream.key_prefix())
    }

    /// The first entry of the batch that came from a stream.
    pub fn first_entry_id(&self) -> Option<EntryId> {
        self.entries
            .iter()
            .find_map(|entry| entry.origin.as_ref().map(|origin| origin.id))
    }

    /// Two batches, of about half of the entries each; the second is empty when there is only one. Twins are
    /// for the caller to settle when both are: see [`Batch::take_twins`].
    pub(crate) fn halves(mut self) -> (Self, Self) {
        let mut first = self.entries;
        let mut second = first.split_off(first.len().div_ceil(2));
        let ends = first.last().map_or((0, 0, 0, 0), BatchEntry::ends);
        for entry in &mut second {
            entry.move_back(ends);
        }
        let (tuples, tracks, sessions, letters) = ends;
        let rest = Self {
            tuples: self.tuples.split_off(tuples),
            order: None,
            tracks: self.tracks.split_off(tracks),
            sessions: self.sessions.split_off(sessions),
            dead_letters: self.dead_letters.split_off(letters),
            days: self.days.clone(),
            twins: Vec::new(),
            n_detections: 0,
            may_be_known: true,
            timing: self.timing,
            traces: self.traces.clone(),
            entries: second,
        };
        let rest = Self {
            n_detections: count_tuples(&rest.tuples),
            ..rest
        };
        let first = Self {
            n_detections: self.n_detections - rest.n_detections,
            order: None,
            may_be_known: true,
            entries: first,
            twins: Vec::new(),
            ..self
        };
        (first, rest)
    }

    /// Whether there is nothing to write but detections.
    pub(crate) fn is_only_detections(&self) -> bool {
        self.tracks.is_empty() && self.sessions.is_empty() && self.dead_letters.is_empty()
    }

    /// Whether some entry is older than this time.
    pub(crate) fn is_older_than(&self, horizon: DateTime<Utc>) -> bool {
        self.entries.iter().any(|e| e.is_older_than(horizon))
    }

    /// Entries that were not put back from the dead letters, and their rows.
    pub(crate) fn n_first_hand(&self) -> (usize, usize) {
        let entries = || self.entries.iter().filter(|entry| !entry.is_requeued);
        (entries().count(), entries().map(|entry| entry.n_rows).sum())
    }

    /// Takes the twins out, to be given to the part of the batch that is settled last.
    pub(crate) fn take_twins(&mut self) -> Vec<Origin> {
        std::mem::take(&mut self.twins)
    }

    /// Whether Postgres has refused something of it.
    pub(crate) fn has_refusals(&self) -> bool {
        let refused = |letter: &DeadLetter| letter.reason == Reason::Refused;
        self.dead_letters.iter().any(refused)
    }

    /// Rows of the batch's only entry that are to be stored: all are of one kind.
    pub(crate) fn n_rows_to_store(&self) -> usize {
        self.n_detections
            .max(self.tracks.len())
            .max(self.sessions.len())
    }

    /// A batch of some of these rows, to try whether Postgres takes them; not to be committed.
    pub(crate) fn only_rows(&self, rows: Range<usize>) -> Self {
        let of = |len: usize| rows.start.min(len)..rows.end.min(len);
        let (tracks, sessions) = (of(self.tracks.len()), of(self.sessions.len()));
        let tuples = match (self.nth_tuple(rows.start), rows.end.checked_sub(1)) {
            (Some(first), Some(last)) => {
                first.start
                    ..self
                        .nth_tuple(last)
                        .map_or(self.tuples.len(), |last| last.end)
            }
            _ => 0..0,
        };
        let part = Self {
            entries: Vec::new(),
            tuples: self.tuples.slice(tuples),
            order: None,
            tracks: self.tracks[tracks.clone()].to_vec(),
            sessions: self.sessions[sessions.clone()].to_vec(),
            dead_letters: Vec::new(),
            days: self.days.clone(),
            twins: Vec::new(),
            n_detections: 0,
            may_be_known: true,
            timing: None,
            traces: Vec::new(),
        };
        let entries = self.entries.first().map(|entry| BatchEntry {
            key: entry.key,
            made_at: None,
            is_requeued: entry.is_requeued,
            origin: None,
            n_rows: rows.len(),
            tuples: 0..part.tuples.len(),
            tracks: 0..tracks.len(),
            sessions: 0..sessions.len(),
            dead_letters: 0..0,
            session_ids: entry.session_ids.clone(),
            bad_rows: Vec::new(),
            fields: RawFields::new(),
        });
        Self {
            n_detections: count_tuples(&part.tuples),
            entries: entries.into_iter().collect(),
            ..part
        }
    }

    fn nth_tuple(&self, nth: usize) -> Option<Range<usize>> {
        let mut start = 0;
        for _ in 0..nth {
            start += crate::store::tuple_len(&self.tuples[start..])?;
        }
        Some(start..start + crate::store::tuple_len(&self.tuples[start..])?)
    }

    /// Moves one row of the batch's only entry, found by its place among the rows to be stored, to the
    /// dead letters.
    pub(crate) fn reject_nth(
        &mut self,
        nth: usize,
        make: impl FnOnce(&BatchEntry, usize) -> DeadLetter,
    ) {
        if let Some(tuple) = self.nth_tuple(nth) {
            return self.remove(0, tuple, nth, make);
        }
        let letter = self.note_bad_row(0, nth, make);
        let entry = &mut self.entries[0];
        if nth < self.tracks.len() {
            self.tracks.remove(nth);
            entry.tracks.end -= 1;
        } else if nth < self.sessions.len() {
            self.sessions.remove(nth);
            entry.sessions.end -= 1;
        }
        entry.dead_letters.end += 1;
        self.dead_letters.push(letter);
    }

    /// Gives up the rows of the batch's only entry: the entry as a whole becomes a dead letter.
    pub(crate) fn reject_entry(&mut self, make: impl FnOnce(&BatchEntry) -> DeadLetter) {
        let [entry] = &mut self.entries[..] else {
            return;
        };
        self.dead_letters = vec![make(entry)];
        self.tuples = Bytes::new();
        self.order = None;
        self.tracks.clear();
        self.sessions.clear();
        self.n_detections = 0;
        entry.tuples = 0..0;
        entry.tracks = 0..0;
        entry.sessions = 0..0;
        entry.dead_letters = 0..1;
    }

    /// Moves one detection, found by its place in the COPY of `included` entries, from the rows to
    /// the dead letters. Returns `false` when there is no such row.
    pub(crate) fn reject_row(
        &mut self,
        included: &[usize],
        mut row_idx: usize,
        make: impl FnOnce(&BatchEntry, usize) -> DeadLetter,
    ) -> bool {
        for &at in included {
            let entry = &self.entries[at];
            let mut n_tuples = 0;
            let tuples = self.tuples.slice(entry.tuples.clone());
            let mut rest = &tuples[..];
            while let Some(len) = crate::store::tuple_len(rest) {
                if row_idx == n_tuples {
                    let start = entry.tuples.start + tuples.len() - rest.len();
                    self.remove(at, start..start + len, n_tuples, make);
                    return true;
                }
                rest = &rest[len..];
                n_tuples += 1;
            }
            row_idx -= n_tuples;
        }
        false
    }

    fn remove(
        &mut self,
        at: usize,
        tuple: Range<usize>,
        nth_tuple: usize,
        make: impl FnOnce(&BatchEntry, usize) -> DeadLetter,
    ) {
        let letter = self.note_bad_row(at, nth_tuple, make);
        let mut tuples = BytesMut::with_capacity(self.tuples.len());
        tuples.extend_from_slice(&self.tuples[..tuple.start]);
        tuples.extend_from_slice(&self.tuples[tuple.end..]);
        self.tuples = tuples.freeze();
        self.order = None;
        let letters_at = self.entries[at].dead_letters.end;
        self.dead_letters.insert(letters_at, letter);
        self.entries[at].tuples.end -= tuple.len();
        self.entries[at].dead_letters.end += 1;
        for later in &mut self.entries[at + 1..] {
            later.tuples.start -= tuple.len();
            later.tuples.end -= tuple.len();
            later.dead_letters.start += 1;
            later.dead_letters.end += 1;
        }
        self.n_detections -= 1;
    }

    /// The dead letter of a row that is the `nth` of those of its entry that are to be stored.
    fn note_bad_row(
        &mut self,
        at: usize,
        nth: usize,
        make: impl FnOnce(&BatchEntry, usize) -> DeadLetter,
    ) -> DeadLetter {
        // The row's index in its entry counts the rows that are not to be stored, too.
        let mut row_idx = nth;
        for &bad in &self.entries[at].bad_rows {
            if bad <= row_idx {
                row_idx += 1;
            }
        }
        let letter = make(&self.entries[at], row_idx);
        let bad_rows = &mut self.entries[at].bad_rows;
        bad_rows.push(row_idx);
        bad_rows.sort_unstable();
        letter
    }
}

impl BatchEntry {
    /// Whether it came through a stream, and not from one of our producers, which make keys that tell their
    /// time: from a program that keeps no books.
    pub(crate) fn is_foreign(&self) -> bool {
        self.origin.is_some() && self.key.made_at_ms().is_none()
    }

    /// Whether its key was made before this time, and it has rows that may be stored already.
    pub(crate) fn is_older_than(&self, horizon: DateTime<Utc>) -> bool {
        let has_rows =
            !(self.tuples.is_empty() && self.tracks.is_empty() && self.sessions.is_empty());
        has_rows && self.made_at.is_some_and(|made_at| made_at < horizon)
    }

    /// Where its tuples, tracks, sessions and dead letters end.
    fn ends(&self) -> (usize, usize, usize, usize) {
        (
            self.tuples.end,
            self.tracks.end,
            self.sessions.end,
            self.dead_letters.end,
        )
    }

    /// Moves its ranges towards the beginning.
    fn move_back(&mut self, (tuples, tracks, sessions, letters): (usize, usize, usize, usize)) {
        let back = |range: &mut Range<usize>, by: usize| {
            range.start -= by;
            range.end -= by;
        };
        back(&mut self.tuples, tuples);
        back(&mut self.tracks, tracks);
        back(&mut self.sessions, sessions);
        back(&mut self.dead_letters, letters);
    }
}

fn count_tuples(mut tuples: &[u8]) -> usize {
    let mut n_tuples = 0;
    while let Some(len) = crate::store::tuple_len(tuples) {
        tuples = &tuples[len..];
        n_tuples += 1;
    }
    n_tuples
}
