//! Rows that are the same in every run of a day.

use std::{ops::Range, sync::LazyLock};

use chrono::{DateTime, Days, NaiveTime, TimeDelta, Utc};
use passerby_shared::{Detection, Gender, IdempotencyKey, Track, TrajectoryPoint};

/// The session of [`detections`].
pub const SESSION: &str = "session-1";
/// The camera of [`detections`].
pub const CAMERA: &str = "gate-1";

/// Midnight (UTC) of the day the tests run in: a day that has a partition.
pub static MIDNIGHT: LazyLock<DateTime<Utc>> =
    LazyLock::new(|| Utc::now().date_naive().and_time(NaiveTime::MIN).and_utc());

/// What the names of the day's sessions begin with.
static OPENING: LazyLock<String> = LazyLock::new(|| MIDNIGHT.format("%Y-%m-%dT08:00").to_string());

/// Midnight of another day.
pub fn midnight_in_days(days: u64) -> DateTime<Utc> {
    *MIDNIGHT + Days::new(days)
}

/// The detection with this number: of person `id % 7`, 40 ms after the one before.
pub fn detection(id: i64) -> Detection {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let step = (id % 1_000) as f32;
    let track_id = id.rem_euclid(7);
    Detection {
        timestamp: *MIDNIGHT + TimeDelta::milliseconds(40 * id),
        session_id: SESSION.to_owned(),
        camera_id: CAMERA.to_owned(),
        channel_id: 1,
        detection_id: id,
        track_id: Some(track_id),
        confidence: Some(0.5 + step / 2_500.0),
        bbox_x: 12.25 + step,
        bbox_y: 100.5,
        bbox_width: 48.125,
        bbox_height: 128.0,
        gender: [None, Some(Gender::Male), Some(Gender::Female)]
            [usize::from(track_id % 3 > 0) + usize::from(track_id % 3 > 1)],
        gender_confidence: (track_id % 3 > 0).then_some(0.875),
        frame_number: id,
        degraded: false,
    }
}

/// The detections with these numbers.
pub fn detections(ids: Range<i64>) -> Vec<Detection> {
    ids.map(detection).collect()
}

/// Detections as a pipeline makes them: `n_rows` of a camera's consecutive frames, some people in
/// each, confidences and boxes with all their digits. Each camera has a session of its own, today's.
pub fn realistic_detections(camera: usize, first_id: i64, n_rows: i64) -> Vec<Detection> {
    (first_id..first_id + n_rows)
        .map(|id| realistic_detection(camera, id))
        .collect()
}

/// One of [`realistic_detections`].
pub fn realistic_detection(camera: usize, id: i64) -> Detection {
    // A cheap hash: digits that do not compress and are the same in every run.
    let noise = |salt: i64| {
        let bits =
            (id.wrapping_mul(31) + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.cast_signed());
        #[expect(clippy::cast_precision_loss, reason = "24 bits are exact in an f32")]
        let fraction = (bits.cast_unsigned() >> 40) as f32 / (1 << 24) as f32;
        fraction
    };
    let frame = id / 4;
    Detection {
        timestamp: *MIDNIGHT + TimeDelta::microseconds(33_333 * (frame % 2_500_000)),
        session_id: format!("{}-camera-{camera:02}", *OPENING),
        camera_id: format!("camera-{camera:02}"),
        channel_id: 1,
        detection_id: id,
        track_id: Some(frame / 100 + id % 4),
        confidence: Some(noise(1)),
        bbox_x: noise(2) * 1_920.0,
        bbox_y: noise(3) * 1_080.0,
        bbox_width: 40.0 + noise(4) * 80.0,
        bbox_height: 90.0 + noise(5) * 200.0,
        gender: [Some(Gender::Male), Some(Gender::Female)][usize::from(id % 4 > 1)],
        gender_confidence: Some(noise(6)),
        frame_number: frame,
        degraded: false,
    }
}

/// The snapshot of track `track_id` after `n` detections.
pub fn track(track_id: i64, n: i64) -> Track {
    Track {
        session_id: SESSION.to_owned(),
        camera_id: CAMERA.to_owned(),
        track_id,
        start_time: *MIDNIGHT,
        end_time: *MIDNIGHT + TimeDelta::milliseconds(40 * n),
        detection_count: n,
        avg_confidence: Some(0.75),
        trajectory: vec![TrajectoryPoint {
            offset_ms: u32::try_from(40 * n).expect("small numbers"),
            x: 12.5,
            y: 100.25,
        }],
        gender: Some(Gender::Female),
        gender_confidence: Some(0.625),
        degraded: false,
    }
}

/// The idempotency key with this number.
pub fn key(number: u64) -> IdempotencyKey {
    IdempotencyKey::derived_from("test", &[&number.to_be_bytes()])
}
