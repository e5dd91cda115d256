//! Writes the compact form of payloads.
//!
//! ```text
//! detections = [group…]            group = [session_id, camera_id, channel_id, [row…]]
//! row        = [Δtimestamp µs, Δdetection_id, track_id, confidence, x, y, width, height,
//!               gender, gender_confidence, Δframe_number, degraded?]
//! tracks     = [group…]            group = [session_id, camera_id, [track…]]
//! track      = [track_id, start µs, end − start µs, detection_count, avg_confidence, gender,
//!               gender_confidence, [offset ms, x, y, …], degraded?]
//! sessions   = [session…]          session = [session_id, started_at µs, ended_at µs, source]
//! ```
//!
//! A difference is to the row before in the same group, the first row's to 0, both wrapping. Gender
//! is a number of ISO/IEC 5218. `degraded` is left out when it is false.

use std::{borrow::Borrow, collections::HashMap, hash::Hash};

use rmp::encode as mp;

use crate::{Detection, Gender, Session, Track};

/// Appends the compact payload of `detections` to `out`.
///
/// Rows are grouped by session, camera and channel; within a group they keep their order.
pub fn encode_detections<D: Borrow<Detection>>(detections: &[D], out: &mut Vec<u8>) {
    let groups = group_by(detections.iter().map(D::borrow), |d| {
        (&*d.session_id, &*d.camera_id, d.channel_id)
    });
    array(out, groups.len());
    for ((session_id, camera_id, channel_id), rows) in groups {
        array(out, 4);
        string(out, session_id);
        string(out, camera_id);
        int(out, i64::from(channel_id));
        array(out, rows.len());
        let (mut timestamp, mut detection_id, mut frame_number) = (0_i64, 0_i64, 0_i64);
        for d in rows {
            // The longest row: nothing below has to grow the buffer.
            out.reserve(MAX_ROW_BYTES);
            out.push(if d.degraded { 0x9c } else { 0x9b });
            let us = d.timestamp.timestamp_micros();
            int(out, us.wrapping_sub(timestamp));
            int(out, d.detection_id.wrapping_sub(detection_id));
            optional(out, d.track_id, int);
            optional(out, d.confidence, float);
            float(out, d.bbox_x);
            float(out, d.bbox_y);
            float(out, d.bbox_width);
            float(out, d.bbox_height);
            optional(out, d.gender.map(Gender::code).map(i64::from), int);
            optional(out, d.gender_confidence, float);
            int(out, d.frame_number.wrapping_sub(frame_number));
            if d.degraded {
                out.push(TRUE);
            }
            (timestamp, detection_id, frame_number) = (us, d.detection_id, d.frame_number);
        }
    }
}

/// Appends the compact payload of `tracks` to `out`.
pub fn encode_tracks<T: Borrow<Track>>(tracks: &[T], out: &mut Vec<u8>) {
    let groups = group_by(tracks.iter().map(T::borrow), |t| {
        (&*t.session_id, &*t.camera_id)
    });
    array(out, groups.len());
    for ((session_id, camera_id), rows) in groups {
        array(out, 3);
        string(out, session_id);
        string(out, camera_id);
        array(out, rows.len());
        for t in rows {
            array(out, if t.degraded { 9 } else { 8 });
            int(out, t.track_id);
            int(out, t.start_time.timestamp_micros());
            int(
                out,
                t.end_time
                    .timestamp_micros()
                    .wrapping_sub(t.start_time.timestamp_micros()),
            );
            int(out, t.detection_count);
            optional(out, t.avg_confidence, float);
            optional(out, t.gender.map(Gender::code).map(i64::from), int);
            optional(out, t.gender_confidence, float);
            array(out, 3 * t.trajectory.len());
            for point in &t.trajectory {
                int(out, i64::from(point.offset_ms));
                float(out, point.x);
                float(out, point.y);
            }
            if t.degraded {
                out.push(TRUE);
            }
        }
    }
}

/// Appends the payload of `sessions` to `out`.
pub fn encode_sessions<S: Borrow<Session>>(sessions: &[S], out: &mut Vec<u8>) {
    array(out, sessions.len());
    for s in sessions.iter().map(S::borrow) {
        array(out, 4);
        string(out, &s.session_id);
        optional(out, s.started_at.map(|t| t.timestamp_micros()), int);
        optional(out, s.ended_at.map(|t| t.timestamp_micros()), int);
        optional(out, s.source.as_deref(), string);
    }
}

/// The length of the array, four integers, a gender, six floats and `degraded`.
const MAX_ROW_BYTES: usize = 1 + 4 * 9 + 1 + 6 * 5 + 1;

const NIL: u8 = 0xc0;
const TRUE: u8 = 0xc3;

/// Groups rows by key, groups and rows both in the order of their first appearance.
fn group_by<'a, T, K: Eq + Hash + Copy>(
    rows: impl Iterator<Item = &'a T>,
    key: impl Fn(&'a T) -> K,
) -> Vec<(K, Vec<&'a T>)> {
    let mut groups: Vec<(K, Vec<&'a T>)> = Vec::new();
    let mut index: HashMap<K, usize> = HashMap::new();
    let mut last = None;
    for row in rows {
        let key = key(row);
        // Rows of one camera mostly follow one another, which spares the hash.
        let at = match last {
            Some((last_key, at)) if last_key == key => at,
            _ => *index.entry(key).or_insert_with(|| {
                groups.push((key, Vec::new()));
                groups.len() - 1
            }),
        };
        groups[at].1.push(row);
        last = Some((key, at));
    }
    groups
}

pub(super) fn array(out: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).expect("an entry has far fewer than 2³² elements");
    infallible(mp::write_array_len(out, len).map(drop));
}

pub(super) fn map(out: &mut Vec<u8>, len: u32) {
    infallible(mp::write_map_len(out, len).map(drop));
}

pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    infallible(mp::write_str(out, text));
}

/// Writes an integer in as few bytes as it takes.
#[inline]
pub(super) fn int(out: &mut Vec<u8>, value: i64) {
    #![expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the ranges are those of the types"
    )]
    match value {
        -0x20..=0x7f => out.push(value as u8),
        0x80..=0xff => out.extend_from_slice(&[0xcc, value as u8]),
        0x100..=0xffff => tagged(out, 0xcd, (value as u16).to_be_bytes()),
        0x1_0000..=0xffff_ffff => tagged(out, 0xce, (value as u32).to_be_bytes()),
        0x1_0000_0000.. => tagged(out, 0xcf, value.to_be_bytes()),
        -0x80..-0x20 => out.extend_from_slice(&[0xd0, value as u8]),
        -0x8000..-0x80 => tagged(out, 0xd1, (value as i16).to_be_bytes()),
        -0x8000_0000..-0x8000 => tagged(out, 0xd2, (value as i32).to_be_bytes()),
        ..-0x8000_0000 => tagged(out, 0xd3, value.to_be_bytes()),
    }
}

#[inline]
fn tagged<const N: usize>(out: &mut Vec<u8>, tag: u8, bytes: [u8; N]) {
    out.push(tag);
    out.extend_from_slice(&bytes);
}

/// Writes a number in 5 bytes, or as an integer where that is exact and shorter: many detectors
/// have boxes of whole pixels.
#[inline]
pub(super) fn float(out: &mut Vec<u8>, value: f32) {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the cast back tells whether it was exact"
    )]
    let whole = value as i32;
    #[expect(
        clippy::cast_precision_loss,
        reason = "exact below 2²⁴, and compared by bits"
    )]
    let back = whole as f32;
    if back.to_bits() == value.to_bits() && (-0x8000..=0xffff).contains(&whole) {
        int(out, i64::from(whole));
    } else {
        tagged(out, 0xca, value.to_be_bytes());
    }
}

pub(super) fn optional<T>(
    out: &mut Vec<u8>,
    value: Option<T>,
    write: impl FnOnce(&mut Vec<u8>, T),
) {
    match value {
        Some(value) => write(out, value),
        None => out.push(NIL),
    }
}

fn infallible<E: std::fmt::Debug>(written: Result<(), E>) {
    written.expect("writing to a Vec does not fail");
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    /// One flush of a busy camera: eight people a frame, 25 frames a second, boxes with fractions.
    fn realistic(row: u16) -> Detection {
        let (frame, person) = (row / 8, row % 8);
        let fraction = f32::from(row) / 128.0;
        let classified = !row.is_multiple_of(10);
        Detection {
            timestamp: DateTime::from_timestamp_micros(
                1_790_000_000_123_456 + 40_000 * i64::from(frame),
            )
            .unwrap(),
            session_id: "2026-09-21-entrance".into(),
            camera_id: "cam-entrance-01".into(),
            channel_id: 1,
            detection_id: 5_000_000 + i64::from(row),
            track_id: Some(12_000 + i64::from(person)),
            confidence: Some(0.871 + fraction / 10.0),
            bbox_x: 412.3 + fraction,
            bbox_y: 96.7 + fraction,
            bbox_width: 61.9 + fraction,
            bbox_height: 180.4 + fraction,
            gender: classified.then_some(Gender::Female),
            gender_confidence: classified.then_some(0.734 + fraction / 10.0),
            frame_number: 900_000 + i64::from(frame),
            degraded: false,
        }
    }

    #[test]
    fn a_hundred_realistic_rows_take_at_most_45_bytes_each() {
        let detections: Vec<Detection> = (0..100).map(realistic).collect();
        assert!(detections.iter().all(|d| d.validate().is_ok()));
        let mut payload = Vec::new();
        encode_detections(&detections, &mut payload);
        assert!(payload.len() <= 45 * 100, "{} bytes", payload.len());
        let mut plain = Vec::new();
        super::super::encode_plain_detections(&detections, &mut plain);
        assert!(plain.len() > 5 * payload.len(), "{} bytes", plain.len());
    }

    #[test]
    fn an_integer_takes_as_few_bytes_as_hold_it() {
        let edges = (0..64).flat_map(|bit| [1_i64 << bit, (1_i64 << bit).wrapping_sub(1)]);
        for value in edges.flat_map(|edge| [edge, edge.wrapping_neg(), !edge]) {
            let (mut out, mut expected) = (Vec::new(), Vec::new());
            int(&mut out, value);
            mp::write_sint(&mut expected, value).unwrap();
            assert_eq!(out, expected, "{value}");
        }
    }

    #[test]
    fn a_float_takes_as_few_bytes_as_keep_it_exact() {
        for (value, n_bytes) in [
            (0.0, 1),
            (1.0, 1),
            (412.0, 3),
            (-32_768.0, 3),
            (65_535.0, 3),
            (65_536.0, 5),
            (-0.0, 5),
            (0.5, 5),
            (f32::NAN, 5),
        ] {
            let mut out = Vec::new();
            float(&mut out, value);
            assert_eq!(out.len(), n_bytes, "{value}");
        }
    }
}
