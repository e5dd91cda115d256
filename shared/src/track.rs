//! One person followed through the frames of one camera.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    Gender,
    validate::{self, Invalid},
};

/// Most points in one trajectory.
const MAX_POINTS: usize = 16_384;

/// What identifies a track: its number is unique only within its session and camera.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackId {
    /// The session.
    pub session_id: String,
    /// The camera.
    pub camera_id: String,
    /// The tracker's number.
    pub track_id: i64,
}

/// The state of a track so far: a snapshot, sent as often as the pipeline likes while it lives.
///
/// Snapshots of one track may be stored in any order and any number of times: see
/// [`Track::merge`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Track {
    /// See [`crate::Detection::session_id`].
    pub session_id: String,
    /// See [`crate::Detection::camera_id`].
    pub camera_id: String,
    /// The tracker's number, unique within session and camera.
    pub track_id: i64,
    /// Time of the first detection.
    pub start_time: DateTime<Utc>,
    /// Time of the last detection so far.
    pub end_time: DateTime<Utc>,
    /// Detections so far.
    pub detection_count: i64,
    /// Mean confidence of the detections that have one, 0…1.
    pub avg_confidence: Option<f32>,
    /// Where the person was, in order of time.
    #[serde(default)]
    pub trajectory: Vec<TrajectoryPoint>,
    /// The vote over the detections' genders.
    pub gender: Option<Gender>,
    /// The share of the vote's weight that the winner has, 0…1.
    pub gender_confidence: Option<f32>,
    /// The producer left fields out because the store was saturated.
    #[serde(default)]
    pub degraded: bool,
}

/// A place that a track passed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TrajectoryPoint {
    /// Milliseconds since the track's `start_time`.
    pub offset_ms: u32,
    /// Horizontal centre of the box in pixels.
    pub x: f32,
    /// Vertical centre of the box in pixels.
    pub y: f32,
}

impl Track {
    /// What identifies this track.
    pub fn id(&self) -> TrackId {
        TrackId {
            session_id: self.session_id.clone(),
            camera_id: self.camera_id.clone(),
            track_id: self.track_id,
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    ///
    /// Names the first field that cannot be stored and says why.
    pub fn validate(&self) -> Result<(), Invalid> {
        validate::id("session_id", &self.session_id)?;
        validate::id("camera_id", &self.camera_id)?;
        validate::timestamp_us("start_time", self.start_time.timestamp_micros())?;
        validate::timestamp_us("end_time", self.end_time.timestamp_micros())?;
        if self.end_time < self.start_time {
            return Err(Invalid::new("end_time", "is before start_time"));
        }
        if self.detection_count < 0 {
            return Err(Invalid::new(
                "detection_count",
                format_args!("{} is negative", self.detection_count),
            ));
        }
        if let Some(confidence) = self.avg_confidence {
            validate::fraction("avg_confidence", confidence)?;
        }
        if let Some(confidence) = self.gender_confidence {
            validate::fraction("gender_confidence", confidence)?;
        }
        if self.trajectory.len() > MAX_POINTS {
            return Err(Invalid::new(
                "trajectory",
                format_args!("has {} points, at most {MAX_POINTS}", self.trajectory.len()),
            ));
        }
        for point in &self.trajectory {
            validate::finite("trajectory", point.x)?;
            validate::finite("trajectory", point.y)?;
        }
        Ok(())
    }

    /// Merges two snapshots of one track: the newer one is the track.
    ///
    /// Newer is the later `end_time`, then the greater `detection_count`: a pipeline must not change
    /// anything else of a track without one of them. So the result does not depend on the order of
    /// the two, and merging the same snapshot again changes nothing; the table `tracks` is updated
    /// by the same rule.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        if self.version() >= other.version() {
            self
        } else {
            other
        }
    }

    fn version(&self) -> (DateTime<Utc>, i64) {
        (self.end_time, self.detection_count)
    }
}
