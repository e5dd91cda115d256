//! Turns delivered entries into batches of rows that are ready for COPY.
//!
//! A batch closes at a number of rows or bytes, or when its first entry has waited for `linger`.
//! Nothing an entry holds can stop the stream: a row that cannot be stored and an entry that cannot be
//! read become dead letters within the batch.

use std::{num::NonZeroUsize, panic::AssertUnwindSafe, time::Duration};

use bytes::Bytes;
use passerby_shared::{
    ErrorChain, IdempotencyKey,
    wire::{
        self, BadRow, EntryFields, FIELD_KIND, FIELD_PAYLOAD, FIELD_VERSION, Kind, Undecodable,
        WIRE_VERSION,
    },
};
use tokio::{sync::mpsc, time::Instant};
use tracing::warn;

use crate::{
    batch::{Batch, BatchBuilder, Origin, RawFields},
    batch_memory::BatchMemories,
    health::Turning,
    reply::{Delivered, Read},
    store::{DeadLetter, Reason},
    timing::{Lap, Timing},
};

/// After so many rows, some 100 µs, whoever waits on the same thread has its turn before the next entry, above
/// all who waits for Postgres' answer to a commit. An entry is decoded in one go: a producer's has
/// at most 1,000 rows by default, and whatever is set no more than fit in 1 MiB.
const ROWS_IN_ONE_GO: usize = 250;

/// The field that says which dead letter an entry was put back from. What an operator puts back and Postgres
/// refuses again says nothing about the entries that producers send.
pub(crate) const FIELD_REQUEUED: &str = "requeued";

pub(crate) struct Decoder {
    pub(crate) batch_rows: NonZeroUsize,
    pub(crate) batch_bytes: NonZeroUsize,
    pub(crate) linger: Duration,
    pub(crate) turning: Turning,
    pub(crate) buffers: BatchMemories,
}

impl Decoder {
    /// Runs until the reader is gone and everything it sent has been passed on.
    pub(crate) async fn run(self, mut reads: mpsc::Receiver<Read>, batches: mpsc::Sender<Batch>) {
        let empty = || BatchBuilder::in_memory(self.buffers.take());
        let mut batch = empty();
        let mut closes_at = None;
        loop {
            self.turning.waits();
            let next = match closes_at {
                None => reads.recv().await,
                Some(at) => match tokio::time::timeout_at(at, reads.recv()).await {
                    Ok(next) => next,
                    Err(_) => {
                        closes_at = None;
                        let full = std::mem::replace(&mut batch, empty());
                        if batches.send(full.build()).await.is_err() {
                            return;
                        }
                        continue;
                    }
                },
            };
            let Some(read) = next else { break };
            self.turning.turns();
            let mut lap = Lap::begin();
            let mut n_rows_in_one_go = 0;
            for entry in read.entries {
                batch
                    .timing
                    .get_or_insert_with(|| Timing::of(read.at, read.took));
                let n_rows_before = batch.n_rows();
                decode(&mut batch, entry);
                n_rows_in_one_go += (batch.n_rows() - n_rows_before).max(1);
                if n_rows_in_one_go >= ROWS_IN_ONE_GO {
                    n_rows_in_one_go = 0;
                    batch.decoded(lap.next());
                    tokio::task::yield_now().await;
                    lap = Lap::begin();
                }
                if batch.n_rows() >= self.batch_rows.get()
                    || batch.n_bytes() >= self.batch_bytes.get()
                {
                    closes_at = None;
                    batch.decoded(lap.next());
                    let full = std::mem::replace(&mut batch, empty());
                    // The committers are gone: so is everything that could become of the batch.
                    self.turning.waits();
                    if batches.send(full.build()).await.is_err() {
                        return;
                    }
                    self.turning.turns();
                    lap = Lap::begin();
                }
            }
            batch.decoded(lap.next());
            if closes_at.is_none() && !batch.is_empty() {
                closes_at = Some(Instant::now() + self.linger);
            }
        }
        if !batch.is_empty() {
            // As above.
            drop(batches.send(batch.build()).await);
        }
    }
}

pub(crate) fn pairs(fields: &RawFields) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
    fields.iter().map(|(name, value)| (&name[..], &value[..]))
}

/// Adds an entry to the batch, with whatever of it cannot be stored as dead letters.
pub(crate) fn decode(batch: &mut BatchBuilder, entry: Delivered) {
    let Delivered {
        origin,
        fields,
        again,
    } = entry;
    let Some(fields) = fields else {
        let key = IdempotencyKey::derived_from_entry(&origin.stream, origin.id);
        let lost = "the entry was trimmed or deleted in Redis while it was pending: unless it was stored \
                    before that, its rows are lost";
        return dead_letter_entry(
            batch,
            origin,
            key,
            RawFields::new(),
            Reason::Lost,
            lost.into(),
        );
    };
    let parsed = EntryFields::parse(pairs(&fields));
    let key = key_of_parsed(&parsed, &origin, &fields);
    if batch.contains(key) {
        return batch.push_twin(origin);
    }
    if again {
        batch.may_be_known();
    }
    if let Some(traceparent) = parsed.as_ref().ok().and_then(|parsed| parsed.traceparent) {
        batch.belongs_to(traceparent);
    }
    let mut n_detections = 0;
    let decoded = parsed.and_then(|parsed| {
        // A bug in decoding costs the entry it is met with, not the worker.
        std::panic::catch_unwind(AssertUnwindSafe(|| {
            decode_rows(batch, &origin, key, &parsed, &mut n_detections).map(|()| None)
        }))
        .unwrap_or_else(|panic| Ok(Some(panic_message(&*panic))))
    });
    let (reason, message) = match decoded {
        Ok(None) => return batch.finish_entry(key, Some(origin), fields),
        Ok(Some(panic)) => (Reason::Panic, panic),
        Err(error) => (Reason::Undecodable, ErrorChain(&error).to_string()),
    };
    batch.abandon_entry(n_detections);
    dead_letter_entry(batch, origin, key, fields, reason, message);
}

/// The key under which the ledger remembers an entry.
pub(crate) fn key_of(entry: &Delivered) -> IdempotencyKey {
    let Delivered { origin, fields, .. } = entry;
    match fields {
        Some(fields) => key_of_parsed(&EntryFields::parse(pairs(fields)), origin, fields),
        None => IdempotencyKey::derived_from_entry(&origin.stream, origin.id),
    }
}

fn key_of_parsed(
    parsed: &Result<EntryFields<'_>, Undecodable>,
    origin: &Origin,
    fields: &RawFields,
) -> IdempotencyKey {
    match parsed {
        Ok(parsed) => parsed.key_or_derived(&origin.stream, origin.id),
        Err(_) => wire::key_of(pairs(fields))
            .unwrap_or_else(|| IdempotencyKey::derived_from_entry(&origin.stream, origin.id)),
    }
}

fn dead_letter_entry(
    batch: &mut BatchBuilder,
    origin: Origin,
    key: IdempotencyKey,
    fields: RawFields,
    reason: Reason,
    message: String,
) {
    warn!(
        stream = %origin.stream,
        entry_id = %origin.id,
        reason = reason.as_str(),
        "entry dead-lettered"
    );
    // All that is asked of the fields from here on is where the entry came from.
    let is_mark = |(name, _): &&(Bytes, Bytes)| name == FIELD_REQUEUED.as_bytes();
    let marks = fields.iter().filter(is_mark).cloned().collect();
    batch.push_dead_letter(DeadLetter {
        origin: origin.clone(),
        key,
        row_idx: None,
        kind: None,
        reason,
        message,
        sqlstate: None,
        fields,
    });
    batch.finish_entry(key, Some(origin), marks);
}

fn decode_rows(
    batch: &mut BatchBuilder,
    origin: &Origin,
    key: IdempotencyKey,
    entry: &EntryFields<'_>,
    n_detections: &mut usize,
) -> Result<(), Undecodable> {
    let bad = |row_idx: usize, bad: BadRow| DeadLetter {
        origin: origin.clone(),
        key,
        row_idx: Some(row_idx),
        kind: Some(entry.kind.as_str()),
        reason: Reason::InvalidRow,
        message: bad.invalid.to_string(),
        sqlstate: None,
        fields: row_fields(entry.kind, bad.payload),
    };
    match entry.kind {
        Kind::Detections => wire::decode_detections(entry.payload, |row_idx, row| match row {
            Ok(detection) => {
                *n_detections += 1;
                batch.push_detection(&detection);
                #[cfg(test)]
                assert_ne!(detection.camera_id, tests::BUG, "a bug");
            }
            Err(row) => batch.push_dead_letter(bad(row_idx, row)),
        }),
        Kind::Tracks => wire::decode_tracks(entry.payload, |row_idx, row| match row {
            Ok(track) => batch.push_track(track),
            Err(row) => batch.push_dead_letter(bad(row_idx, row)),
        }),
        Kind::Sessions => wire::decode_sessions(entry.payload, |row_idx, row| match row {
            Ok(session) => batch.push_session(session),
            Err(row) => batch.push_dead_letter(bad(row_idx, row)),
        }),
    }
    .map(drop)
}

/// The fields of an entry that carries one row alone.
pub(crate) fn row_fields(kind: Kind, payload: Vec<u8>) -> RawFields {
    vec![
        (FIELD_VERSION.into(), WIRE_VERSION.to_string().into()),
        (FIELD_KIND.into(), kind.as_str().into()),
        (FIELD_PAYLOAD.into(), payload.into()),
    ]
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    format!("decoding panicked: {text}")
}

/// The kind of an entry that was decoded before, and the fields of an entry that carries its row
/// `row_idx` alone.
pub(crate) fn single_row(fields: &RawFields, row_idx: usize) -> (Kind, RawFields) {
    let mut payload = Vec::new();
    let Ok(entry) = EntryFields::parse(pairs(fields)) else {
        return (Kind::Detections, row_fields(Kind::Detections, payload));
    };
    // There is nothing new to be heard of its errors.
    let _heard = match entry.kind {
        Kind::Detections => wire::decode_detections(entry.payload, |at, row| {
            if at == row_idx
                && let Ok(detection) = row
                && let Ok(detection) = detection.to_detection()
            {
                wire::encode_plain_detections(&[detection], &mut payload);
            }
        }),
        Kind::Tracks => wire::decode_tracks(entry.payload, |at, row| {
            if at == row_idx
                && let Ok(track) = row
            {
                wire::encode_tracks(&[track], &mut payload);
            }
        }),
        Kind::Sessions => wire::decode_sessions(entry.payload, |at, row| {
            if at == row_idx
                && let Ok(session) = row
            {
                wire::encode_sessions(&[session], &mut payload);
            }
        }),
    };
    (entry.kind, row_fields(entry.kind, payload))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::DateTime;
    use passerby_shared::{Detection, EntryId, StreamKey};

    use super::*;
    use crate::Health;

    /// A camera whose rows make decoding panic.
    pub(super) const BUG: &str = "bug";

    fn delivered(seq: u64, cameras: &[&str]) -> Delivered {
        let detection = |camera: &&str| Detection {
            timestamp: DateTime::from_timestamp(1_790_000_000, 0).unwrap(),
            session_id: "s".into(),
            camera_id: (*camera).into(),
            channel_id: 0,
            detection_id: 0,
            track_id: None,
            confidence: None,
            bbox_x: 0.0,
            bbox_y: 0.0,
            bbox_width: 0.0,
            bbox_height: 0.0,
            gender: None,
            gender_confidence: None,
            frame_number: 0,
            degraded: false,
        };
        let detections: Vec<Detection> = cameras.iter().map(detection).collect();
        let mut payload = Vec::new();
        wire::encode_detections(&detections, &mut payload);
        Delivered {
            origin: Origin {
                stream: Arc::new(StreamKey::from_name("s")),
                id: EntryId { ms: 1, seq },
            },
            fields: Some(row_fields(Kind::Detections, payload)),
            again: false,
        }
    }

    /// Polls on a runtime with one thread that another task got while ten times the rows were decoded that are
    /// decoded in one go.
    #[tokio::test]
    async fn whoever_waits_on_the_same_thread_does_not_wait_for_the_whole_read() {
        let cameras = ["a"; ROWS_IN_ONE_GO / 2];
        let entries = (0..20).map(|seq| delivered(seq, &cameras)).collect();
        let decoder = Decoder {
            batch_rows: NonZeroUsize::MAX,
            batch_bytes: NonZeroUsize::MAX,
            linger: Duration::from_secs(60),
            turning: Health::default().watch("decoder"),
            buffers: BatchMemories::new(1, 1 << 20),
        };
        let (reads, reads_rx) = mpsc::channel(1);
        let (batches_tx, mut batches) = mpsc::channel(1);
        let read = Read {
            entries,
            at: Instant::now(),
            took: Duration::ZERO,
        };
        reads.send(read).await.unwrap();
        drop(reads);
        tokio::spawn(decoder.run(reads_rx, batches_tx));

        let mut n_turns = 0;
        let batch = loop {
            match batches.try_recv() {
                Ok(batch) => break batch,
                Err(_) => tokio::task::yield_now().await,
            }
            n_turns += 1;
        };
        assert_eq!(batch.entries().len(), 20);
        assert!(n_turns >= 10, "{n_turns}");
    }

    #[test]
    fn a_panic_costs_the_entry_it_is_met_with_and_no_other() {
        let mut batch = BatchBuilder::default();
        let poisoned = delivered(1, &["a", "b", BUG, "c"]);
        let fields = poisoned.fields.clone().unwrap();
        for entry in [delivered(0, &["a"]), poisoned, delivered(2, &["a", "b"])] {
            decode(&mut batch, entry);
        }
        let batch = batch.build();

        let n_tuples = |at: usize| {
            let mut tuples = &batch.tuples[batch.entries()[at].tuples.clone()];
            let mut n_tuples = 0;
            while let Some(len) = crate::store::tuple_len(tuples) {
                tuples = &tuples[len..];
                n_tuples += 1;
            }
            n_tuples
        };
        assert_eq!([0, 1, 2].map(n_tuples), [1, 0, 2]);
        assert_eq!(batch.n_detections(), 3);
        let [letter] = &batch.dead_letters[..] else {
            panic!("{:?}", batch.dead_letters);
        };
        assert_eq!(letter.origin.id, EntryId { ms: 1, seq: 1 });
        assert_eq!((letter.row_idx, letter.reason), (None, Reason::Panic));
        assert!(letter.message.starts_with("decoding panicked: "));
        assert_eq!(letter.fields, fields);
    }
}
