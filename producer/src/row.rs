//! What is recorded: one row of any kind, and the memory it takes.

use std::mem::size_of;

use passerby_shared::{Detection, Invalid, Session, Track, wire::Kind};

/// Memory charged for a point of a trajectory. A point takes 12 bytes in memory and at most 15 in a
/// payload, and the charge must not be less than either.
const POINT_BYTES: usize = 16;

/// A row on its way into an entry.
#[derive(Debug)]
pub(crate) enum Row {
    Detection(Detection),
    Track(Track),
    Session(Session),
}

impl Row {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Detection(_) => Kind::Detections,
            Self::Track(_) => Kind::Tracks,
            Self::Session(_) => Kind::Sessions,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), Invalid> {
        match self {
            Self::Detection(detection) => detection.validate(),
            Self::Track(track) => track.validate(),
            Self::Session(session) => session.validate(),
        }
    }

    /// The camera or session whose rows must stay in order.
    pub(crate) fn shard_id(&self) -> &str {
        match self {
            Self::Detection(detection) => &detection.camera_id,
            Self::Track(track) => &track.camera_id,
            Self::Session(session) => &session.session_id,
        }
    }

    /// The memory this row takes, which is never less than what it adds to a payload.
    pub(crate) fn n_bytes(&self) -> usize {
        let heap = match self {
            Self::Detection(d) => d.session_id.capacity() + d.camera_id.capacity(),
            Self::Track(t) => {
                t.session_id.capacity()
                    + t.camera_id.capacity()
                    + t.trajectory.capacity().saturating_mul(POINT_BYTES)
            }
            Self::Session(s) => {
                s.session_id.capacity() + s.source.as_ref().map_or(0, String::capacity)
            }
        };
        size_of::<Self>().saturating_add(heap)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use chrono::DateTime;
    use passerby_shared::{Gender, TrajectoryPoint, wire};

    use super::*;

    pub(crate) fn detection(camera_id: &str, detection_id: i64) -> Detection {
        Detection {
            timestamp: DateTime::from_timestamp_micros(1_790_000_000_123_456).unwrap(),
            session_id: "session".into(),
            camera_id: camera_id.into(),
            channel_id: i32::MIN,
            detection_id,
            track_id: Some(i64::MIN),
            confidence: Some(0.3),
            bbox_x: 0.1,
            bbox_y: 0.1,
            bbox_width: 0.1,
            bbox_height: 0.1,
            gender: Some(Gender::Male),
            gender_confidence: Some(0.3),
            frame_number: i64::MIN,
            degraded: true,
        }
    }

    pub(crate) fn track(camera_id: &str, n_points: usize) -> Track {
        let point = TrajectoryPoint {
            offset_ms: u32::MAX,
            x: 0.1,
            y: 0.1,
        };
        Track {
            session_id: "session".into(),
            camera_id: camera_id.into(),
            track_id: i64::MIN,
            start_time: DateTime::from_timestamp_micros(1_790_000_000_123_456).unwrap(),
            end_time: DateTime::from_timestamp_micros(4_000_000_000_123_456).unwrap(),
            detection_count: i64::MAX,
            avg_confidence: Some(0.3),
            trajectory: vec![point; n_points],
            gender: Some(Gender::Female),
            gender_confidence: Some(0.3),
            degraded: true,
        }
    }

    pub(crate) fn session(session_id: &str) -> Session {
        Session {
            session_id: session_id.into(),
            started_at: DateTime::from_timestamp_micros(1_790_000_000_123_456),
            ended_at: DateTime::from_timestamp_micros(1_790_000_000_123_456),
            source: Some("file.mp4".into()),
        }
    }

    #[test]
    fn a_payload_is_never_larger_than_what_its_rows_are_charged() {
        let check = |charged: usize, payload: &[u8]| assert!(payload.len() <= charged);

        let mut payload = Vec::new();
        wire::encode_detections(&[detection(&"c".repeat(64), i64::MIN)], &mut payload);
        check(
            Row::Detection(detection(&"c".repeat(64), 0)).n_bytes(),
            &payload,
        );

        for n_points in [0, 1, 16_384] {
            payload.clear();
            wire::encode_tracks(&[track("c", n_points)], &mut payload);
            check(Row::Track(track("c", n_points)).n_bytes(), &payload);
        }

        payload.clear();
        wire::encode_sessions(&[session(&"s".repeat(64))], &mut payload);
        check(Row::Session(session(&"s".repeat(64))).n_bytes(), &payload);
    }
}
