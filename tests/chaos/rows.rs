//! The rows of a session: which, with what in them, is decided by the session's name and a number.

use chrono::{DateTime, TimeDelta, Utc};
use passerby_shared::{Detection, Gender, Session, Track, TrajectoryPoint};
use passerby_tests::fixtures::MIDNIGHT;

use crate::random;

/// A row of this channel is refused by Postgres, until that is mended: see `World::refuse_rows`.
const REFUSED_CHANNEL: i32 = 666;
/// What Postgres demands of `detections`.
pub(crate) const NO_REFUSED_DETECTION: &str = "channel_id <> 666";
/// What Postgres demands of `tracks`: a snapshot of one session's track in 1,600 rows is refused, and with
/// it its entry, since Postgres does not say which row of an upsert it is.
pub(crate) const NO_REFUSED_TRACK: &str =
    "NOT (session_id LIKE '%-p0' AND track_id = 6 AND detection_count % 200 = 19)";
/// One row in so many is refused.
const REFUSED_EVERY: i64 = 400;
const N_TRACKS: i64 = 8;

/// The clock of a camera is wrong for some rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClockStep {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) by: TimeDelta,
}

/// Where rows come from: one session of one camera.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) session_id: String,
    pub(crate) rows_per_second: i64,
    pub(crate) steps: Vec<ClockStep>,
}

impl Source {
    pub(crate) fn new(session_id: String, rows_per_second: i64) -> Self {
        Self {
            session_id,
            rows_per_second,
            steps: Vec::new(),
        }
    }

    fn camera_id(&self) -> String {
        format!("cam-{}", random::of_text(&self.session_id) % 16)
    }

    /// When row `n` was seen, by a clock that is right.
    fn seen_at(&self, n: i64) -> DateTime<Utc> {
        *MIDNIGHT
            + TimeDelta::hours(12)
            + TimeDelta::microseconds(1_000_000 / self.rows_per_second * n)
    }

    /// Whether Postgres refuses some of the session's tracks.
    pub(crate) fn has_refused_tracks(&self) -> bool {
        self.session_id.ends_with("-p0")
    }

    /// Whether Postgres refuses row `n`.
    pub(crate) fn is_refused(n: i64) -> bool {
        n % REFUSED_EVERY == REFUSED_EVERY - 1
    }

    /// Row `n`.
    pub(crate) fn detection(&self, n: i64) -> Detection {
        let bits = random::mix(random::of_text(&self.session_id) ^ n.cast_unsigned());
        // 16 bits are exact in an f32.
        let number =
            |shift: u32| f32::from(u16::try_from((bits >> shift) & 0xffff).expect("16 bits"));
        let step = self
            .steps
            .iter()
            .find(|step| (step.first..=step.last).contains(&n));
        let is_refused = Self::is_refused(n);
        // A refused row is today's: only that partition refuses.
        let wrong_by = step
            .filter(|_| !is_refused)
            .map_or(TimeDelta::zero(), |step| step.by);
        Detection {
            timestamp: self.seen_at(n) + wrong_by,
            session_id: self.session_id.clone(),
            camera_id: self.camera_id(),
            channel_id: if is_refused { REFUSED_CHANNEL } else { 1 },
            detection_id: n,
            track_id: Some(n % N_TRACKS),
            confidence: Some(number(0) / 65_536.0),
            bbox_x: number(16) / 32.0,
            bbox_y: number(32) / 64.0,
            bbox_width: 40.0 + number(48) / 512.0,
            bbox_height: 120.0,
            gender: [None, Some(Gender::Male), Some(Gender::Female)][(bits % 3) as usize],
            gender_confidence: None,
            frame_number: n / 4,
            degraded: false,
        }
    }

    /// The track that row `n` is on, as of that row.
    pub(crate) fn track(&self, n: i64) -> Track {
        Track {
            session_id: self.session_id.clone(),
            camera_id: self.camera_id(),
            track_id: n % N_TRACKS,
            start_time: self.seen_at(n % N_TRACKS),
            end_time: self.seen_at(n),
            detection_count: n / N_TRACKS + 1,
            avg_confidence: Some(0.5),
            trajectory: vec![TrajectoryPoint {
                offset_ms: 0,
                x: 1.0,
                y: 2.0,
            }],
            gender: None,
            gender_confidence: None,
            degraded: false,
        }
    }

    /// What is said of the session when it begins, or when it ends.
    pub(crate) fn session(&self, ended_after: Option<i64>) -> Session {
        Session {
            session_id: self.session_id.clone(),
            started_at: Some(self.seen_at(0)),
            ended_at: ended_after.map(|n| self.seen_at(n)),
            source: ended_after.is_none().then(|| "chaos".to_owned()),
        }
    }
}
