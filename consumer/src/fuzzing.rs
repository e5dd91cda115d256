//! What fuzzing must reach of what is private: the way of delivered entries into a batch, and whether
//! the batch holds what the entries do.

#![expect(clippy::unwrap_used, reason = "what fails here fails a test")]

use chrono::DateTime;
use passerby_shared::{
    DetectionRef, ErrorChain, Session, Track,
    wire::{self, BadRow, EntryFields, Kind, Undecodable},
};

use crate::{
    batch::{Batch, BatchBuilder, BatchEntry, Origin, RawFields},
    batch_memory::BatchMemories,
    decoder,
    reply::Delivered,
    store::{self, Reason},
};

/// An entry as Redis delivered it: where it stands, its fields unless it is gone, and whether it was
/// delivered before.
pub type Delivery = (Origin, Option<RawFields>, bool);

/// Decodes entries into a batch, as a worker does.
pub fn decode(entries: Vec<Delivery>) -> Batch {
    decode_into(BatchBuilder::default(), entries)
}

/// Decodes one batch after the other, for whoever counts what that takes: the memory of a worker's batches
/// goes round, and stops growing after the first.
#[derive(Debug)]
pub struct Decoding(BatchMemories);

impl Decoding {
    /// Before the first batch.
    pub fn begin() -> Self {
        Self(BatchMemories::new(1, 4 << 20))
    }

    /// Decodes entries into a batch, which is dropped but for its memory.
    pub fn decode(&self, entries: Vec<Delivery>) {
        let batch = BatchBuilder::in_memory(self.0.take());
        self.0.recycle(decode_into(batch, entries));
    }
}

fn decode_into(mut batch: BatchBuilder, entries: Vec<Delivery>) -> Batch {
    for (origin, fields, again) in entries {
        let delivered = Delivered {
            origin,
            fields,
            again,
        };
        decoder::decode(&mut batch, delivered);
    }
    batch.build()
}

/// How many dead letters the batch has.
pub fn n_dead_letters(batch: &Batch) -> usize {
    batch.dead_letters.len()
}

/// Panics unless the batch holds what these entries do: each of them once, its good rows as tuples that
/// Postgres reads back as the same rows, and each of the others as a dead letter.
pub fn check(batch: Batch, delivered: &[Delivery]) {
    assert_eq!(batch.entries().len() + batch.twins.len(), delivered.len());
    check_places(&batch);
    for entry in batch.entries() {
        let origin = entry.origin.as_ref().unwrap();
        let (_, fields, _) = delivered.iter().find(|(at, ..)| at == origin).unwrap();
        check_entry(&batch, entry, fields.as_ref());
    }
    check_halves(batch);
}

/// The entries' ranges follow one another and leave nothing out.
fn check_places(batch: &Batch) {
    let (mut tuples, mut tracks, mut sessions, mut letters) = (0, 0, 0, 0);
    let mut n_tuples = 0;
    for entry in batch.entries() {
        for (end, range) in [
            (&mut tuples, &entry.tuples),
            (&mut tracks, &entry.tracks),
            (&mut sessions, &entry.sessions),
            (&mut letters, &entry.dead_letters),
        ] {
            assert_eq!(range.start, *end);
            *end = range.end;
        }
        let mut rest = &batch.tuples[entry.tuples.clone()];
        while let Some(len) = store::tuple_len(rest) {
            rest = &rest[len..];
            n_tuples += 1;
        }
        assert!(rest.is_empty());
    }
    assert_eq!(tuples, batch.tuples.len());
    assert_eq!(tracks, batch.tracks.len());
    assert_eq!(sessions, batch.sessions.len());
    assert_eq!(letters, batch.dead_letters.len());
    assert_eq!(n_tuples, batch.n_detections());
}

fn check_entry(batch: &Batch, entry: &BatchEntry, fields: Option<&RawFields>) {
    let tuples = &batch.tuples[entry.tuples.clone()];
    let tracks = &batch.tracks[entry.tracks.clone()];
    let sessions = &batch.sessions[entry.sessions.clone()];
    let letters = &batch.dead_letters[entry.dead_letters.clone()];
    let as_a_whole = |reason: Reason, message: Option<String>| {
        let [letter] = letters else {
            panic!("{} dead letters of one entry", letters.len());
        };
        assert!(tuples.is_empty() && tracks.is_empty() && sessions.is_empty());
        assert_eq!((letter.row_idx, letter.reason), (None, reason));
        assert!(message.is_none_or(|message| message == letter.message));
        assert_eq!(letter.key, entry.key);
        assert_eq!(letter.fields, fields.cloned().unwrap_or_default());
    };
    let Some(fields) = fields else {
        return as_a_whole(Reason::Lost, None);
    };
    let pairs = fields.iter().map(|(name, value)| (&name[..], &value[..]));
    let rows = EntryFields::parse(pairs).and_then(|parsed| Rows::of(&parsed));
    let rows = match rows {
        Ok(rows) => rows,
        Err(error) => {
            let message = ErrorChain(&error).to_string();
            return as_a_whole(Reason::Undecodable, Some(message));
        }
    };
    assert_eq!(entry.fields, *fields);
    assert_eq!(entry.n_rows, rows.n_good() + rows.bad.len());
    assert!(
        rows.bad
            .iter()
            .map(|(row_idx, _)| row_idx)
            .eq(&entry.bad_rows)
    );
    assert_eq!(letters.len(), rows.bad.len());
    for (letter, (row_idx, bad)) in letters.iter().zip(&rows.bad) {
        assert_eq!(letter.row_idx, Some(*row_idx));
        assert_eq!(letter.reason, Reason::InvalidRow);
        assert_eq!(letter.kind, Some(rows.kind.as_str()));
        assert_eq!(letter.message, bad.invalid.to_string());
        assert_eq!(
            letter.fields,
            decoder::row_fields(rows.kind, bad.payload.clone())
        );
    }
    assert_eq!(tracks, rows.tracks);
    assert_eq!(sessions, rows.sessions);
    let mut rest = tuples;
    for tuple in &rows.tuples {
        let row;
        (row, rest) = read_tuple(rest);
        assert_eq!(Bits::of(&row), *tuple);
        let day = DateTime::from_timestamp_micros(row.timestamp_us)
            .unwrap()
            .date_naive();
        assert!(batch.days.contains(&day));
    }
    assert!(rest.is_empty());
    let mut session_ids = rows.session_ids;
    session_ids.sort_unstable();
    session_ids.dedup();
    assert_eq!(entry.session_ids, session_ids);
    for &row_idx in rows.good.iter().take(2).chain(rows.good.last()) {
        check_single_row(fields, row_idx);
    }
}

/// A row that Postgres refuses is kept as an entry of its own, which has this row alone.
fn check_single_row(fields: &RawFields, row_idx: usize) {
    let (kind, single) = decoder::single_row(fields, row_idx);
    let rows_of = |fields: &RawFields| {
        let pairs = fields.iter().map(|(name, value)| (&name[..], &value[..]));
        Rows::of(&EntryFields::parse(pairs).unwrap()).unwrap()
    };
    let (all, single) = (rows_of(fields), rows_of(&single));
    let at = all.good.iter().position(|at| *at == row_idx).unwrap();
    assert_eq!(kind, all.kind);
    assert!(single.bad.is_empty());
    assert_eq!(single.tuples, all.tuples.get(at..=at).unwrap_or_default());
    assert_eq!(single.tracks, all.tracks.get(at..=at).unwrap_or_default());
    assert_eq!(
        single.sessions,
        all.sessions.get(at..=at).unwrap_or_default()
    );
}

/// A batch that is taken apart loses nothing.
fn check_halves(batch: Batch) {
    if batch.entries().len() < 2 {
        return;
    }
    let parts = |batch: &Batch| -> Vec<_> {
        let part = |entry: &BatchEntry| {
            let tuples = batch.tuples.slice(entry.tuples.clone());
            let (tracks, sessions) = (entry.tracks.len(), entry.sessions.len());
            (
                entry.key,
                tuples,
                tracks,
                sessions,
                entry.dead_letters.len(),
            )
        };
        batch.entries().iter().map(part).collect()
    };
    let whole = parts(&batch);
    let (first, second) = batch.halves();
    assert_eq!([parts(&first), parts(&second)].concat(), whole);
    // They are settled with whatever is settled last, which is for the committer to know.
    assert!(first.twins.is_empty() && second.twins.is_empty());
    for half in [first, second] {
        check_places(&half);
        check_halves(half);
    }
}

/// The rows of an entry, straight from the wire format.
struct Rows {
    kind: Kind,
    good: Vec<usize>,
    bad: Vec<(usize, BadRow)>,
    tuples: Vec<Bits>,
    tracks: Vec<Track>,
    sessions: Vec<Session>,
    session_ids: Vec<String>,
}

impl Rows {
    fn of(entry: &EntryFields<'_>) -> Result<Self, Undecodable> {
        let mut rows = Self {
            kind: entry.kind,
            good: Vec::new(),
            bad: Vec::new(),
            tuples: Vec::new(),
            tracks: Vec::new(),
            sessions: Vec::new(),
            session_ids: Vec::new(),
        };
        match entry.kind {
            Kind::Detections => wire::decode_detections(entry.payload, |row_idx, row| {
                if let Some(row) = rows.note(row_idx, row) {
                    rows.session_ids.push(row.session_id.to_owned());
                    rows.tuples.push(Bits::of(&row));
                }
            }),
            Kind::Tracks => wire::decode_tracks(entry.payload, |row_idx, row| {
                if let Some(row) = rows.note(row_idx, row) {
                    rows.session_ids.push(row.session_id.clone());
                    rows.tracks.push(row);
                }
            }),
            Kind::Sessions => wire::decode_sessions(entry.payload, |row_idx, row| {
                if let Some(row) = rows.note(row_idx, row) {
                    rows.sessions.push(row);
                }
            }),
        }?;
        Ok(rows)
    }

    fn note<T>(&mut self, row_idx: usize, row: Result<T, BadRow>) -> Option<T> {
        match row {
            Ok(row) => {
                self.good.push(row_idx);
                Some(row)
            }
            Err(bad) => {
                self.bad.push((row_idx, bad));
                None
            }
        }
    }

    fn n_good(&self) -> usize {
        self.good.len()
    }
}

/// A detection that is compared to the bit: −0 is not 0.
#[derive(Debug, PartialEq)]
struct Bits {
    numbers: [Option<i64>; 5],
    floats: [Option<u32>; 6],
    texts: [Option<String>; 3],
    degraded: bool,
}

impl Bits {
    fn of(d: &DetectionRef<'_>) -> Self {
        let [x, y, width, height] = d.bbox.map(Some);
        let floats = [x, y, width, height, d.confidence, d.gender_confidence];
        Self {
            numbers: [
                Some(d.timestamp_us),
                Some(d.detection_id),
                d.track_id,
                Some(d.frame_number),
                Some(i64::from(d.channel_id)),
            ],
            floats: floats.map(|float| float.map(f32::to_bits)),
            texts: [
                Some(d.session_id.to_owned()),
                Some(d.camera_id.to_owned()),
                d.gender.map(|gender| gender.as_str().to_owned()),
            ],
            degraded: d.degraded,
        }
    }
}

/// Reads one tuple of binary COPY by the Postgres manual, and returns what follows it.
fn read_tuple(bytes: &[u8]) -> (DetectionRef<'_>, &[u8]) {
    /// 2000-01-01 in microseconds since 1970.
    const EPOCH_US: i64 = 30 * 365 * 86_400_000_000 + 7 * 86_400_000_000;
    let (n_fields, mut rest) = bytes.split_first_chunk::<2>().unwrap();
    assert_eq!(i16::from_be_bytes(*n_fields), 15);
    let mut next = || {
        let (len, after) = rest.split_first_chunk::<4>().unwrap();
        let len = i32::from_be_bytes(*len);
        let (field, after) = after.split_at(usize::try_from(len).unwrap_or(0));
        rest = after;
        assert!(len >= -1);
        (len >= 0).then_some(field)
    };
    let i64_of = |field: &[u8]| i64::from_be_bytes(field.try_into().unwrap());
    let f32_of = |field: &[u8]| f32::from_be_bytes(field.try_into().unwrap());
    let timestamp_us = i64_of(next().unwrap()) + EPOCH_US;
    let detection_id = i64_of(next().unwrap());
    let track_id = next().map(i64_of);
    let frame_number = i64_of(next().unwrap());
    let channel_id = i32::from_be_bytes(next().unwrap().try_into().unwrap());
    let confidence = next().map(f32_of);
    let bbox = [(); 4].map(|()| f32_of(next().unwrap()));
    let gender_confidence = next().map(f32_of);
    let degraded = match next() {
        Some([0]) => false,
        Some([1]) => true,
        other => panic!("{other:?} is no boolean"),
    };
    let gender = next().map(|field| text(field).parse().unwrap());
    let camera_id = text(next().unwrap());
    let session_id = text(next().unwrap());
    let row = DetectionRef {
        timestamp_us,
        session_id,
        camera_id,
        channel_id,
        detection_id,
        track_id,
        confidence,
        bbox,
        gender,
        gender_confidence,
        frame_number,
        degraded,
    };
    (row, rest)
}

/// Text that Postgres takes.
fn text(field: &[u8]) -> &str {
    assert!(!field.contains(&0));
    std::str::from_utf8(field).unwrap()
}
