//! A row as bytes in the ring: fixed fields, little-endian, then text.
//!
//! Not the wire format: that is compact because rows share what they have in common, and takes
//! longer. Here one row is written, within the lock that every `record()` takes.

use chrono::{DateTime, Utc};
use passerby_shared::{Detection, Gender, Session, Track, TrajectoryPoint};

use crate::row::Row;

const DETECTION: u8 = 1;
const TRACK: u8 = 2;
const SESSION: u8 = 3;

/// Bytes of a detection besides its text: tag, four sets of flags and codes, numbers, two lengths.
const DETECTION_BYTES: usize = 1 + 1 + 1 + 8 + 4 + 8 + 8 + 4 + 16 + 4 + 8 + 2 * 4;
const TRACK_BYTES: usize = 1 + 1 + 1 + 8 + 8 + 8 + 8 + 4 + 4 + 4 + 2 * 4;
const SESSION_BYTES: usize = 1 + 1 + 8 + 8 + 2 * 4;
const POINT_BYTES: usize = 12;

/// How many bytes [`encode`] writes.
pub(crate) fn encoded_len(row: &Row) -> usize {
    match row {
        Row::Detection(d) => DETECTION_BYTES + d.session_id.len() + d.camera_id.len(),
        Row::Track(t) => {
            TRACK_BYTES + t.session_id.len() + t.camera_id.len() + t.trajectory.len() * POINT_BYTES
        }
        Row::Session(s) => {
            SESSION_BYTES + s.session_id.len() + s.source.as_ref().map_or(0, String::len)
        }
    }
}

/// Writes a row into `out`, which is [`encoded_len`] bytes long.
pub(crate) fn encode(row: &Row, out: &mut [u8]) {
    let mut out = Put(out);
    match row {
        Row::Detection(d) => {
            out.bytes([
                DETECTION,
                u8::from(d.track_id.is_some())
                    | u8::from(d.confidence.is_some()) << 1
                    | u8::from(d.gender_confidence.is_some()) << 2
                    | u8::from(d.degraded) << 3,
                gender_code(d.gender),
            ]);
            out.bytes(d.timestamp.timestamp_micros().to_le_bytes());
            out.bytes(d.channel_id.to_le_bytes());
            out.bytes(d.detection_id.to_le_bytes());
            out.bytes(d.track_id.unwrap_or_default().to_le_bytes());
            out.bytes(d.confidence.unwrap_or_default().to_le_bytes());
            for side in [d.bbox_x, d.bbox_y, d.bbox_width, d.bbox_height] {
                out.bytes(side.to_le_bytes());
            }
            out.bytes(d.gender_confidence.unwrap_or_default().to_le_bytes());
            out.bytes(d.frame_number.to_le_bytes());
            out.text(&d.session_id);
            out.text(&d.camera_id);
        }
        Row::Track(t) => {
            out.bytes([
                TRACK,
                u8::from(t.avg_confidence.is_some())
                    | u8::from(t.gender_confidence.is_some()) << 1
                    | u8::from(t.degraded) << 2,
                gender_code(t.gender),
            ]);
            out.bytes(t.track_id.to_le_bytes());
            out.bytes(t.start_time.timestamp_micros().to_le_bytes());
            out.bytes(t.end_time.timestamp_micros().to_le_bytes());
            out.bytes(t.detection_count.to_le_bytes());
            out.bytes(t.avg_confidence.unwrap_or_default().to_le_bytes());
            out.bytes(t.gender_confidence.unwrap_or_default().to_le_bytes());
            out.len(t.trajectory.len());
            out.text(&t.session_id);
            out.text(&t.camera_id);
            for point in &t.trajectory {
                out.bytes(point.offset_ms.to_le_bytes());
                out.bytes(point.x.to_le_bytes());
                out.bytes(point.y.to_le_bytes());
            }
        }
        Row::Session(s) => {
            out.bytes([
                SESSION,
                u8::from(s.started_at.is_some())
                    | u8::from(s.ended_at.is_some()) << 1
                    | u8::from(s.source.is_some()) << 2,
            ]);
            let us = |time: Option<DateTime<Utc>>| time.map_or(0, |t| t.timestamp_micros());
            out.bytes(us(s.started_at).to_le_bytes());
            out.bytes(us(s.ended_at).to_le_bytes());
            out.text(&s.session_id);
            out.text(s.source.as_deref().unwrap_or_default());
        }
    }
}

/// Reads a row that [`encode`] wrote; `None` when the bytes are no row that can be stored.
pub(crate) fn decode(bytes: &[u8]) -> Option<Row> {
    let mut bytes = Get(bytes);
    let [tag, flags] = bytes.take()?;
    let has = |bit: u8| flags & (1 << bit) != 0;
    let row = match tag {
        DETECTION => {
            let gender = gender_of(bytes.take::<1>()?[0])?;
            let timestamp = time(i64::from_le_bytes(bytes.take()?))?;
            let channel_id = i32::from_le_bytes(bytes.take()?);
            let detection_id = i64::from_le_bytes(bytes.take()?);
            let track_id = i64::from_le_bytes(bytes.take()?);
            let confidence = f32::from_le_bytes(bytes.take()?);
            let bbox_x = f32::from_le_bytes(bytes.take()?);
            let bbox_y = f32::from_le_bytes(bytes.take()?);
            let bbox_width = f32::from_le_bytes(bytes.take()?);
            let bbox_height = f32::from_le_bytes(bytes.take()?);
            let gender_confidence = f32::from_le_bytes(bytes.take()?);
            let frame_number = i64::from_le_bytes(bytes.take()?);
            Row::Detection(Detection {
                timestamp,
                session_id: bytes.text()?,
                camera_id: bytes.text()?,
                channel_id,
                detection_id,
                track_id: has(0).then_some(track_id),
                confidence: has(1).then_some(confidence),
                bbox_x,
                bbox_y,
                bbox_width,
                bbox_height,
                gender,
                gender_confidence: has(2).then_some(gender_confidence),
                frame_number,
                degraded: has(3),
            })
        }
        TRACK => {
            let gender = gender_of(bytes.take::<1>()?[0])?;
            let track_id = i64::from_le_bytes(bytes.take()?);
            let start_time = time(i64::from_le_bytes(bytes.take()?))?;
            let end_time = time(i64::from_le_bytes(bytes.take()?))?;
            let detection_count = i64::from_le_bytes(bytes.take()?);
            let avg_confidence = f32::from_le_bytes(bytes.take()?);
            let gender_confidence = f32::from_le_bytes(bytes.take()?);
            let n_points = bytes.len()?;
            let (session_id, camera_id) = (bytes.text()?, bytes.text()?);
            // What is left is the trajectory: nothing is allocated for a length that is only said.
            if Some(bytes.0.len()) != n_points.checked_mul(POINT_BYTES) {
                return None;
            }
            let mut trajectory = Vec::with_capacity(n_points);
            for _ in 0..n_points {
                trajectory.push(TrajectoryPoint {
                    offset_ms: u32::from_le_bytes(bytes.take()?),
                    x: f32::from_le_bytes(bytes.take()?),
                    y: f32::from_le_bytes(bytes.take()?),
                });
            }
            Row::Track(Track {
                session_id,
                camera_id,
                track_id,
                start_time,
                end_time,
                detection_count,
                avg_confidence: has(0).then_some(avg_confidence),
                trajectory,
                gender,
                gender_confidence: has(1).then_some(gender_confidence),
                degraded: has(2),
            })
        }
        SESSION => {
            let started_at = time(i64::from_le_bytes(bytes.take()?))?;
            let ended_at = time(i64::from_le_bytes(bytes.take()?))?;
            let (session_id, source) = (bytes.text()?, bytes.text()?);
            Row::Session(Session {
                session_id,
                started_at: has(0).then_some(started_at),
                ended_at: has(1).then_some(ended_at),
                source: has(2).then_some(source),
            })
        }
        _ => return None,
    };
    (bytes.0.is_empty() && row.validate().is_ok()).then_some(row)
}

fn gender_code(gender: Option<Gender>) -> u8 {
    match gender {
        None => 0,
        Some(Gender::Unknown) => 1,
        Some(Gender::Male) => 2,
        Some(Gender::Female) => 3,
    }
}

/// The outer `None` when there is no such code.
#[expect(clippy::option_option, reason = "no gender, and no such code")]
fn gender_of(code: u8) -> Option<Option<Gender>> {
    match code {
        0 => Some(None),
        1 => Some(Some(Gender::Unknown)),
        2 => Some(Some(Gender::Male)),
        3 => Some(Some(Gender::Female)),
        _ => None,
    }
}

fn time(us: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(us)
}

/// Room to be filled.
struct Put<'a>(&'a mut [u8]);

impl Put<'_> {
    fn slice(&mut self, bytes: &[u8]) {
        let room = std::mem::take(&mut self.0);
        let (here, rest) = room.split_at_mut(bytes.len());
        here.copy_from_slice(bytes);
        self.0 = rest;
    }

    fn bytes<const N: usize>(&mut self, bytes: [u8; N]) {
        self.slice(&bytes);
    }

    fn len(&mut self, len: usize) {
        let len = u32::try_from(len).expect("a valid row's parts are far shorter than 4 GiB");
        self.bytes(len.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.len(text.len());
        self.slice(text.as_bytes());
    }
}

/// Bytes to be read.
struct Get<'a>(&'a [u8]);

impl Get<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (here, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*here)
    }

    fn len(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.take()?)).ok()
    }

    fn text(&mut self) -> Option<String> {
        let len = self.len()?;
        let (here, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        String::from_utf8(here.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::row::tests::{detection, session, track};

    fn encoded(row: &Row) -> Vec<u8> {
        let mut bytes = vec![0; encoded_len(row)];
        encode(row, &mut bytes);
        bytes
    }

    fn rows() -> Vec<Row> {
        let mut plain = detection("c", 1);
        (plain.track_id, plain.confidence, plain.gender) = (None, None, None);
        (plain.gender_confidence, plain.degraded) = (None, false);
        plain.bbox_x = -0.0;
        let mut bare = session("s");
        (bare.started_at, bare.source) = (None, None);
        vec![
            Row::Detection(detection("camera", i64::MAX)),
            Row::Detection(plain),
            Row::Track(track("camera", 0)),
            Row::Track(track("camera", 17)),
            Row::Session(session("session")),
            Row::Session(bare),
        ]
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        for row in rows() {
            let read = decode(&encoded(&row)).unwrap();
            assert_eq!(format!("{read:?}"), format!("{row:?}"));
        }
    }

    #[test]
    fn a_row_that_is_cut_short_or_too_long_is_none() {
        for row in rows() {
            let bytes = encoded(&row);
            for len in 0..bytes.len() {
                assert!(decode(&bytes[..len]).is_none());
            }
            assert!(decode(&[&bytes[..], &[0]].concat()).is_none());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, row in 0..6usize, at: prop::sample::Index, to: u8) {
            drop(decode(&bytes));
            let mut bytes = encoded(&rows()[row]);
            let at = at.index(bytes.len());
            bytes[at] = to;
            drop(decode(&bytes));
        }
    }
}
