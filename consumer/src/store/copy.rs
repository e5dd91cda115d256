//! Rows as Postgres' binary COPY wants them.
//!
//! A tuple is the number of its fields (i16) and for each field its length (i32, −1 for NULL) and
//! its bytes, big-endian; times are microseconds since 2000-01-01. The format is described in the
//! Postgres manual under COPY, "Binary Format".
//!
//! The driver's own `BinaryCopyInWriter` dispatches every field through a trait object and flushes
//! every 4 KiB; rows are therefore encoded here, and sent in large pieces.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    time::Duration,
};

use bytes::{BufMut, Bytes};
use futures_util::{
    SinkExt,
    future::{MaybeDone, maybe_done},
};
use passerby_shared::{DetectionRef, Gender};
use tokio_postgres::{CopyInSink, Statement, error::DbError};

use super::{
    StoreError,
    connection::{Connection, answer},
    pieces::Piece,
};

/// Signature, flags and length of the header extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: &[u8] = &(-1_i16).to_be_bytes();
/// 2000-01-01T00:00:00Z in microseconds since the Unix epoch.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

pub(super) const COPY_DETECTIONS: &str = "COPY detections (\
    timestamp, detection_id, track_id, frame_number, channel_id, confidence, \
    bbox_x, bbox_y, bbox_width, bbox_height, gender_confidence, degraded, \
    gender, camera_id, session_id) FROM STDIN (FORMAT binary)";
const DETECTION_FIELDS: i16 = 15;
/// The length of a NULL.
const NULL: [u8; 4] = (-1_i32).to_be_bytes();

/// Detections encoded for COPY.
#[derive(Debug, Default)]
pub struct CopyBuffer {
    tuples: Vec<u8>,
}

/// The columns before `gender`, when none of them is NULL: nearly every row has them all, and they are
/// written at places that the compiler knows.
const FIXED_COLUMNS: [u8; 111] = {
    let lengths = [8, 8, 8, 8, 4, 4, 4, 4, 4, 4, 4, 1];
    let mut columns = [0; 111];
    columns[1] = DETECTION_FIELDS.to_be_bytes()[1];
    let (mut nth, mut at) = (0, 2);
    while nth < lengths.len() {
        columns[at + 3] = lengths[nth];
        at += 4 + lengths[nth] as usize;
        nth += 1;
    }
    assert!(at == columns.len());
    columns
};

impl CopyBuffer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty buffer with room for `n_bytes`.
    pub fn with_capacity(n_bytes: usize) -> Self {
        Self {
            tuples: Vec::with_capacity(n_bytes),
        }
    }

    /// An empty buffer in the memory of rows that were sent, which nobody else reads.
    pub(crate) fn reusing(sent: Bytes) -> Self {
        let mut tuples = Vec::from(sent);
        tuples.clear();
        Self { tuples }
    }

    /// Bytes there is room for.
    pub(crate) fn capacity(&self) -> usize {
        self.tuples.capacity()
    }

    #[cfg(test)]
    pub(crate) fn push_raw(&mut self, tuples: &[u8]) {
        self.tuples.extend_from_slice(tuples);
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.tuples.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.tuples.is_empty()
    }

    /// Gives up everything behind the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.tuples.truncate(len);
    }

    /// Appends a row, which must be valid.
    pub fn push(&mut self, d: &DetectionRef<'_>) {
        let out = &mut self.tuples;
        out.reserve(160 + d.camera_id.len() + d.session_id.len());
        if let (Some(track_id), Some(confidence), Some(gender_confidence)) =
            (d.track_id, d.confidence, d.gender_confidence)
        {
            let mut columns = FIXED_COLUMNS;
            let us = d.timestamp_us - POSTGRES_EPOCH_US;
            columns[6..14].copy_from_slice(&us.to_be_bytes());
            columns[18..26].copy_from_slice(&d.detection_id.to_be_bytes());
            columns[30..38].copy_from_slice(&track_id.to_be_bytes());
            columns[42..50].copy_from_slice(&d.frame_number.to_be_bytes());
            columns[54..58].copy_from_slice(&d.channel_id.to_be_bytes());
            columns[62..66].copy_from_slice(&confidence.to_be_bytes());
            columns[70..74].copy_from_slice(&d.bbox[0].to_be_bytes());
            columns[78..82].copy_from_slice(&d.bbox[1].to_be_bytes());
            columns[86..90].copy_from_slice(&d.bbox[2].to_be_bytes());
            columns[94..98].copy_from_slice(&d.bbox[3].to_be_bytes());
            columns[102..106].copy_from_slice(&gender_confidence.to_be_bytes());
            columns[110] = u8::from(d.degraded);
            out.extend_from_slice(&columns);
        } else {
            put_columns(out, d);
        }
        match d.gender {
            Some(Gender::Male) => out.extend_from_slice(b"\0\0\0\x04male"),
            Some(Gender::Female) => out.extend_from_slice(b"\0\0\0\x06female"),
            Some(Gender::Unknown) => out.extend_from_slice(b"\0\0\0\x07unknown"),
            None => out.extend_from_slice(&NULL),
        }
        put_text(out, d.camera_id);
        put_text(out, d.session_id);
    }

    /// The rows, for [`Store::copy_raw`](super::Store::copy_raw).
    pub fn freeze(self) -> Bytes {
        self.tuples.into()
    }
}

/// The columns before `gender`.
fn put_columns(out: &mut Vec<u8>, d: &DetectionRef<'_>) {
    out.put_i16(DETECTION_FIELDS);
    put_timestamp(out, d.timestamp_us);
    put_i64(out, d.detection_id);
    put_optional(out, d.track_id, put_i64);
    put_i64(out, d.frame_number);
    put_i32(out, d.channel_id);
    put_optional(out, d.confidence, put_f32);
    for value in d.bbox {
        put_f32(out, value);
    }
    put_optional(out, d.gender_confidence, put_f32);
    put_bool(out, d.degraded);
}

/// The length of the first tuple in bytes; `None` when there is no whole one.
pub(crate) fn tuple_len(tuples: &[u8]) -> Option<usize> {
    let n_fields = i16::from_be_bytes(*tuples.first_chunk()?);
    let mut len = 2;
    for _ in 0..n_fields {
        let field_len = i32::from_be_bytes(*tuples.get(len..)?.first_chunk()?);
        len += 4 + usize::try_from(field_len).unwrap_or(0);
    }
    (len <= tuples.len()).then_some(len)
}

/// The timestamp of the first tuple, in microseconds since the Unix epoch; `None` when there is none.
pub(crate) fn first_timestamp_us(tuples: &[u8]) -> Option<i64> {
    let us = i64::from_be_bytes(*tuples.get(6..)?.first_chunk()?);
    Some(us + POSTGRES_EPOCH_US)
}

/// A COPY that the server has begun. Dropped, it stores nothing.
pub(super) struct CopyIn {
    sink: Pin<Box<CopyInSink<Piece>>>,
    silence: Duration,
    doing: String,
}

impl CopyIn {
    /// Begins a COPY.
    pub(super) async fn begin(
        connection: &Connection,
        doing: String,
        statement: &Statement,
    ) -> Result<Self, StoreError> {
        let silence = connection.silence;
        let sink = connection.client.copy_in(statement);
        let sink = answer(silence, doing.clone(), sink).await?;
        Ok(Self {
            sink: Box::pin(sink),
            silence,
            doing,
        })
    }

    /// Sends tuples and returns how many the server has taken. It takes each piece, and answers in the
    /// end, within `silence`.
    pub(super) async fn send(
        self,
        pieces: impl IntoIterator<Item = Piece>,
    ) -> Result<u64, StoreError> {
        self.send_then(pieces, std::future::ready(())).await.0
    }

    /// As [`CopyIn::send`], and begins `next` when the last piece is on its way: what it asks of the server
    /// leaves in the same packet. It is to be awaited if the COPY has succeeded; if it has not, the
    /// transaction has failed, and so has whatever was asked next.
    pub(super) async fn send_then<T>(
        mut self,
        pieces: impl IntoIterator<Item = Piece>,
        next: impl Future<Output = T>,
    ) -> (Result<u64, StoreError>, impl Future<Output = T>) {
        let mut next = Box::pin(maybe_done(next));
        // Errors while feeding are the server's verdict on earlier rows, or the end of the connection;
        // either way `finish` knows more.
        let fed = self.feed(pieces).await;
        if let Err(timed_out @ StoreError::TimedOut { .. }) = fed {
            return (Err(timed_out), outcome(next));
        }
        let finishing = async {
            let mut finish = pin!(self.sink.as_mut().finish());
            poll_fn(|cx| {
                let finished = finish.as_mut().poll(cx);
                if fed.is_ok() {
                    // That it is ready is found out when it is awaited.
                    let _sent = next.as_mut().poll(cx);
                }
                finished
            })
            .await
        };
        let finished = answer(self.silence, self.doing, finishing).await;
        let copied = match (fed, finished) {
            (Ok(()), finished) => finished,
            (Err(_), Err(finished)) => Err(finished),
            // Never report success for rows that were not sent.
            (Err(fed), Ok(_)) => Err(fed),
        };
        (copied, outcome(next))
    }

    async fn feed(&mut self, pieces: impl IntoIterator<Item = Piece>) -> Result<(), StoreError> {
        self.feed_one(Piece::AsItLies(Bytes::from_static(HEADER)))
            .await?;
        for piece in pieces {
            self.feed_one(piece).await?;
        }
        self.feed_one(Piece::AsItLies(Bytes::from_static(TRAILER)))
            .await
    }

    async fn feed_one(&mut self, piece: Piece) -> Result<(), StoreError> {
        answer(self.silence, self.doing.clone(), self.sink.feed(piece)).await
    }
}

async fn outcome<T>(mut begun: Pin<Box<MaybeDone<impl Future<Output = T>>>>) -> T {
    begun.as_mut().await;
    begun
        .as_mut()
        .take_output()
        .expect("it is done, and nobody else takes its output")
}

/// The line of a COPY that the server complained about, counted from 1.
///
/// Postgres gives it in the error's context also for binary COPY, CHECK constraints and partitions
/// (seen on 15 and 18): `COPY detections, line 3, column …`.
pub(super) fn line_of(db: &DbError) -> Option<usize> {
    let context = db.where_()?;
    let line = context
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("COPY "))?;
    let (_, number) = line.split_once(", line ")?;
    number
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

fn put_timestamp(out: &mut Vec<u8>, unix_us: i64) {
    put_i64(out, unix_us - POSTGRES_EPOCH_US);
}

fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.put_i32(8);
    out.put_i64(value);
}

fn put_i32(out: &mut Vec<u8>, value: i32) {
    out.put_i32(4);
    out.put_i32(value);
}

fn put_f32(out: &mut Vec<u8>, value: f32) {
    out.put_i32(4);
    out.put_f32(value);
}

fn put_bool(out: &mut Vec<u8>, value: bool) {
    out.put_i32(1);
    out.put_u8(u8::from(value));
}

fn put_bytes(out: &mut Vec<u8>, value: &[u8]) {
    out.put_i32(i32::try_from(value.len()).expect("ids and keys are far shorter than 2 GiB"));
    out.put_slice(value);
}

fn put_text(out: &mut Vec<u8>, value: &str) {
    put_bytes(out, value.as_bytes());
}

fn put_optional<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        Some(value) => put(out, value),
        None => out.extend_from_slice(&NULL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_at_places_the_compiler_knows_are_those_written_one_by_one() {
        let d = DetectionRef {
            timestamp_us: 1_790_000_000_123_456,
            session_id: "session",
            camera_id: "camera",
            channel_id: -2,
            detection_id: i64::MIN,
            track_id: Some(i64::MAX),
            confidence: Some(0.1),
            bbox: [1.5, -2.5, 3.25, 4.125],
            gender: Some(Gender::Female),
            gender_confidence: Some(0.9),
            frame_number: 0x0102_0304_0506_0708,
            degraded: true,
        };
        for gender in [
            None,
            Some(Gender::Male),
            Some(Gender::Female),
            Some(Gender::Unknown),
        ] {
            let d = DetectionRef { gender, ..d };
            let mut buffer = CopyBuffer::new();
            buffer.push(&d);
            let mut expected = Vec::new();
            put_columns(&mut expected, &d);
            put_optional(&mut expected, gender.map(Gender::as_str), put_text);
            put_text(&mut expected, "camera");
            put_text(&mut expected, "session");
            assert_eq!(first_timestamp_us(&expected), Some(d.timestamp_us));
            assert_eq!(buffer.freeze(), expected);
        }
    }
}
