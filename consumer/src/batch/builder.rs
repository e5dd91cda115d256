//! Builds a batch entry by entry.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, NaiveDate, Utc};
use passerby_shared::{Detection, DetectionRef, IdempotencyKey, Session, Traceparent, Track};

use super::{Batch, BatchEntry, BatchMemory, MAX_LINKS, Origin, RawFields, RowOrder};
use crate::{
    decoder::FIELD_REQUEUED,
    store::{CopyBuffer, DeadLetter},
    timing::{Lap, Timing},
};

/// Builds a [`Batch`] entry by entry.
///
/// Rows of an entry are pushed first; [`BatchBuilder::finish_entry`] then makes them its, or
/// [`BatchBuilder::abandon_entry`] gives them up.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    entries: Vec<BatchEntry>,
    keys: HashSet<IdempotencyKey>,
    tuples: CopyBuffer,
    order: RowOrder,
    /// The sessions of the batch, numbered as they come.
    session_numbers: HashMap<String, u32>,
    tracks: Vec<Track>,
    sessions: Vec<Session>,
    dead_letters: Vec<DeadLetter>,
    days: BTreeSet<NaiveDate>,
    last_day: Option<i64>,
    twins: Vec<Origin>,
    n_detections: usize,
    n_raw_bytes: usize,
    may_be_known: bool,
    pub(crate) timing: Option<Timing>,
    traces: Vec<Traceparent>,
    /// What the entry under construction has so far.
    session_ids: Vec<String>,
    /// The number of the last of these.
    session_number: u32,
    bad_rows: Vec<usize>,
    n_rows: usize,
}

const US_PER_DAY: i64 = 86_400_000_000;

impl BatchBuilder {
    /// A builder of a batch in this memory, which is empty.
    pub(crate) fn in_memory(memory: BatchMemory) -> Self {
        let BatchMemory { tuples, order } = memory;
        Self {
            tuples,
            order,
            ..Self::default()
        }
    }

    #[cfg(test)]
    pub(crate) fn push_raw(&mut self, tuples: &[u8]) {
        self.tuples.push_raw(tuples);
    }

    /// Whether there is nothing to commit or acknowledge.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.twins.is_empty()
    }

    /// Rows of all kinds so far.
    pub fn n_rows(&self) -> usize {
        self.n_detections + self.tracks.len() + self.sessions.len() + self.dead_letters.len()
    }

    /// Bytes held so far.
    pub fn n_bytes(&self) -> usize {
        self.tuples.len() + self.n_raw_bytes
    }

    /// Whether an entry with this key is in the batch.
    pub fn contains(&self, key: IdempotencyKey) -> bool {
        self.keys.contains(&key)
    }

    /// Notes the trace that an entry belongs to. What cannot be read is no trace.
    pub(crate) fn belongs_to(&mut self, traceparent: &[u8]) {
        if let Ok(trace) = Traceparent::from_field(traceparent)
            && self.traces.len() < MAX_LINKS
            && !self.traces.contains(&trace)
        {
            self.traces.push(trace);
        }
    }

    /// Notes how long decoding has taken.
    pub(crate) fn decoded(&mut self, took: Duration) {
        if let Some(timing) = &mut self.timing {
            timing.decoded(took);
        }
    }

    /// Adds an entry of which another copy is in the batch already.
    pub fn push_twin(&mut self, origin: Origin) {
        self.twins.push(origin);
    }

    /// Says that some entry may be in the ledger already, so that the ledger is asked first.
    pub fn may_be_known(&mut self) {
        self.may_be_known = true;
    }

    /// Adds a valid detection to the entry under construction.
    pub fn push_detection(&mut self, d: &DetectionRef<'_>) {
        self.n_rows += 1;
        self.n_detections += 1;
        let session = self.note_session(d.session_id);
        let day = d.timestamp_us.div_euclid(US_PER_DAY);
        if self.last_day != Some(day) {
            self.last_day = Some(day);
            if let Some(time) = DateTime::from_timestamp_micros(d.timestamp_us) {
                self.days.insert(time.date_naive());
            }
        }
        self.order.push(session, d.track_id, self.tuples.len());
        self.tuples.push(d);
    }

    /// Adds a valid track to the entry under construction.
    pub fn push_track(&mut self, track: Track) {
        self.n_rows += 1;
        self.note_session(&track.session_id);
        self.tracks.push(track);
    }

    /// Adds a valid session to the entry under construction.
    pub fn push_session(&mut self, session: Session) {
        self.n_rows += 1;
        self.sessions.push(session);
    }

    /// Adds a row, or the whole of the entry under construction, to the dead letters.
    pub fn push_dead_letter(&mut self, letter: DeadLetter) {
        if let Some(row_idx) = letter.row_idx {
            self.n_rows += 1;
            self.bad_rows.push(row_idx);
        }
        self.n_raw_bytes += n_bytes_of(&letter.fields);
        self.dead_letters.push(letter);
    }

    /// Returns the session's number within the batch.
    fn note_session(&mut self, session_id: &str) -> u32 {
        if self
            .session_ids
            .last()
            .is_none_or(|last| last != session_id)
        {
            self.session_ids.push(session_id.to_owned());
            self.session_number = match self.session_numbers.get(session_id) {
                Some(&number) => number,
                None => {
                    let number = u32::try_from(self.session_numbers.len()).unwrap_or(u32::MAX);
                    self.session_numbers.insert(session_id.to_owned(), number);
                    number
                }
            };
        }
        self.session_number
    }

    /// Makes everything pushed since the last entry the rows of this one.
    pub fn finish_entry(&mut self, key: IdempotencyKey, origin: Option<Origin>, fields: RawFields) {
        let (tuples, tracks, sessions, letters) = self.marks();
        self.order.keep();
        self.n_raw_bytes += n_bytes_of(&fields);
        self.keys.insert(key);
        self.session_ids.sort_unstable();
        self.session_ids.dedup();
        self.entries.push(BatchEntry {
            key,
            made_at: made_at(key, origin.as_ref()),
            is_requeued: fields
                .iter()
                .any(|(name, _)| name == FIELD_REQUEUED.as_bytes()),
            origin,
            n_rows: self.n_rows,
            tuples: tuples..self.tuples.len(),
            tracks: tracks..self.tracks.len(),
            sessions: sessions..self.sessions.len(),
            dead_letters: letters..self.dead_letters.len(),
            session_ids: std::mem::take(&mut self.session_ids),
            bad_rows: std::mem::take(&mut self.bad_rows),
            fields,
        });
        self.n_rows = 0;
    }

    /// Gives up everything pushed since the last entry; `n_detections` of it were detections.
    pub fn abandon_entry(&mut self, n_detections: usize) {
        let (tuples, tracks, sessions, letters) = self.marks();
        self.tuples.truncate(tuples);
        self.tracks.truncate(tracks);
        self.sessions.truncate(sessions);
        for letter in self.dead_letters.drain(letters..) {
            self.n_raw_bytes -= n_bytes_of(&letter.fields);
        }
        self.n_detections -= n_detections;
        self.order.give_up();
        self.session_ids.clear();
        self.bad_rows.clear();
        self.n_rows = 0;
    }

    fn marks(&self) -> (usize, usize, usize, usize) {
        self.entries.last().map_or((0, 0, 0, 0), BatchEntry::ends)
    }

    /// The batch.
    pub fn build(mut self) -> Batch {
        let mut lap = Lap::begin();
        self.order.sort();
        if let Some(timing) = &mut self.timing {
            timing.decoded(lap.next());
            timing.built();
        }
        Batch {
            entries: self.entries,
            tuples: self.tuples.freeze(),
            order: Some(Arc::new(self.order)),
            tracks: self.tracks,
            sessions: self.sessions,
            dead_letters: self.dead_letters,
            days: self.days,
            twins: self.twins,
            n_detections: self.n_detections,
            may_be_known: self.may_be_known,
            timing: self.timing,
            traces: self.traces,
        }
    }

    /// A batch of one entry that did not come through a stream; the rows must be valid.
    pub fn push_entry(&mut self, key: IdempotencyKey, detections: &[Detection]) {
        for detection in detections {
            self.push_detection(&detection.as_ref());
        }
        self.finish_entry(key, None, RawFields::new());
    }
}

fn n_bytes_of(fields: &RawFields) -> usize {
    fields.iter().map(|(n, v)| n.len() + v.len()).sum()
}

/// A version 7 key holds the time; a key that was derived from an entry is as old as the entry.
pub(crate) fn made_at(key: IdempotencyKey, origin: Option<&Origin>) -> Option<DateTime<Utc>> {
    let ms = key.made_at_ms().or_else(|| {
        let Origin { stream, id } = origin?;
        (key == IdempotencyKey::derived_from_entry(stream, *id)).then_some(id.ms)
    })?;
    DateTime::from_timestamp_millis(i64::try_from(ms).ok()?)
}
