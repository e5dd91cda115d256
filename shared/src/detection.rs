//! One person seen in one frame.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::validate::{self, Invalid};

/// One person seen in one frame of one camera.
///
/// What was not measured stays `None`; nothing is ever invented for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Detection {
    /// When the frame was captured (UTC, microseconds).
    pub timestamp: DateTime<Utc>,
    /// One run of a tracker over one source. Track ids are unique only within session and camera.
    pub session_id: String,
    /// The camera, at most 64 bytes of UTF-8.
    pub camera_id: String,
    /// The channel of the camera or recorder.
    pub channel_id: i32,
    /// The pipeline's own number for this detection.
    pub detection_id: i64,
    /// The track that the tracker put this detection on.
    pub track_id: Option<i64>,
    /// The detector's confidence, 0…1.
    pub confidence: Option<f32>,
    /// Left edge of the box in pixels; boxes may reach outside the picture.
    pub bbox_x: f32,
    /// Top edge of the box in pixels.
    pub bbox_y: f32,
    /// Width of the box in pixels, not negative.
    pub bbox_width: f32,
    /// Height of the box in pixels, not negative.
    pub bbox_height: f32,
    /// The classifier's verdict; absent when the person was not classified.
    pub gender: Option<Gender>,
    /// The classifier's confidence, 0…1.
    pub gender_confidence: Option<f32>,
    /// The frame's number within its source.
    pub frame_number: i64,
    /// The producer left fields out because the store was saturated, so that "not classified" and
    /// "dropped" can be told apart.
    #[serde(default)]
    pub degraded: bool,
}

impl Detection {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// Names the first field that cannot be stored and says why.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.as_ref().validate()
    }

    /// A borrowed view of this detection.
    pub fn as_ref(&self) -> DetectionRef<'_> {
        DetectionRef {
            timestamp_us: self.timestamp.timestamp_micros(),
            session_id: &self.session_id,
            camera_id: &self.camera_id,
            channel_id: self.channel_id,
            detection_id: self.detection_id,
            track_id: self.track_id,
            confidence: self.confidence,
            bbox: [self.bbox_x, self.bbox_y, self.bbox_width, self.bbox_height],
            gender: self.gender,
            gender_confidence: self.gender_confidence,
            frame_number: self.frame_number,
            degraded: self.degraded,
        }
    }
}

/// A [`Detection`] borrowed from the buffer it was decoded from: the form of the hot path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectionRef<'a> {
    /// Microseconds since the Unix epoch.
    pub timestamp_us: i64,
    /// See [`Detection::session_id`].
    pub session_id: &'a str,
    /// See [`Detection::camera_id`].
    pub camera_id: &'a str,
    /// See [`Detection::channel_id`].
    pub channel_id: i32,
    /// See [`Detection::detection_id`].
    pub detection_id: i64,
    /// See [`Detection::track_id`].
    pub track_id: Option<i64>,
    /// See [`Detection::confidence`].
    pub confidence: Option<f32>,
    /// Left, top, width, height in pixels.
    pub bbox: [f32; 4],
    /// See [`Detection::gender`].
    pub gender: Option<Gender>,
    /// See [`Detection::gender_confidence`].
    pub gender_confidence: Option<f32>,
    /// See [`Detection::frame_number`].
    pub frame_number: i64,
    /// See [`Detection::degraded`].
    pub degraded: bool,
}

/// Names of the box fields, in the order of [`DetectionRef::bbox`].
pub(crate) const BBOX_FIELDS: [&str; 4] = ["bbox_x", "bbox_y", "bbox_width", "bbox_height"];

impl DetectionRef<'_> {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// Names the first field that cannot be stored and says why.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.validate_source()?;
        self.validate_row()
    }

    /// Checks what rows of one source share: session and camera.
    pub(crate) fn validate_source(&self) -> Result<(), Invalid> {
        validate::id("session_id", self.session_id)?;
        validate::id("camera_id", self.camera_id)
    }

    /// Checks what each row has of its own.
    pub(crate) fn validate_row(&self) -> Result<(), Invalid> {
        validate::timestamp_us("timestamp", self.timestamp_us)?;
        if let Some(confidence) = self.confidence {
            validate::fraction("confidence", confidence)?;
        }
        validate::finite(BBOX_FIELDS[0], self.bbox[0])?;
        validate::finite(BBOX_FIELDS[1], self.bbox[1])?;
        validate::size(BBOX_FIELDS[2], self.bbox[2])?;
        validate::size(BBOX_FIELDS[3], self.bbox[3])?;
        if let Some(confidence) = self.gender_confidence {
            validate::fraction("gender_confidence", confidence)?;
        }
        Ok(())
    }

    /// Copies the view into a detection of its own.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the timestamp is not one that `chrono` can represent.
    pub fn to_detection(&self) -> Result<Detection, Invalid> {
        Ok(Detection {
            timestamp: DateTime::from_timestamp_micros(self.timestamp_us)
                .ok_or_else(|| Invalid::new("timestamp", "is out of range"))?,
            session_id: self.session_id.to_owned(),
            camera_id: self.camera_id.to_owned(),
            channel_id: self.channel_id,
            detection_id: self.detection_id,
            track_id: self.track_id,
            confidence: self.confidence,
            bbox_x: self.bbox[0],
            bbox_y: self.bbox[1],
            bbox_width: self.bbox[2],
            bbox_height: self.bbox[3],
            gender: self.gender,
            gender_confidence: self.gender_confidence,
            frame_number: self.frame_number,
            degraded: self.degraded,
        })
    }
}

/// What a classifier said of a person. `Unknown` is its verdict too: it looked and could not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Gender {
    /// Classified as male.
    Male,
    /// Classified as female.
    Female,
    /// Classified, without a verdict.
    Unknown,
}

impl Gender {
    /// The text stored in Postgres.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Male => "male",
            Self::Female => "female",
            Self::Unknown => "unknown",
        }
    }

    /// The number on the wire, as ISO/IEC 5218 has it: 0 not known, 1 male, 2 female.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Male => 1,
            Self::Female => 2,
        }
    }

    pub(crate) const fn from_code(code: i64) -> Option<Self> {
        match code {
            0 => Some(Self::Unknown),
            1 => Some(Self::Male),
            2 => Some(Self::Female),
            _ => None,
        }
    }
}

impl fmt::Display for Gender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no gender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of male, female, unknown, M, F")]
pub struct UnknownGender(String);

impl FromStr for Gender {
    type Err = UnknownGender;

    fn from_str(s: &str) -> Result<Self, UnknownGender> {
        for (gender, name, letter) in [
            (Self::Male, "male", "m"),
            (Self::Female, "female", "f"),
            (Self::Unknown, "unknown", "u"),
        ] {
            if s.eq_ignore_ascii_case(name) || s.eq_ignore_ascii_case(letter) {
                return Ok(gender);
            }
        }
        Err(UnknownGender(s.chars().take(32).collect()))
    }
}

impl<'de> Deserialize<'de> for Gender {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detection() -> Detection {
        Detection {
            timestamp: DateTime::from_timestamp(1_790_000_000, 0).unwrap(),
            session_id: "s".into(),
            camera_id: "c".into(),
            channel_id: 0,
            detection_id: 1,
            track_id: None,
            confidence: Some(0.5),
            bbox_x: -3.0,
            bbox_y: 0.0,
            bbox_width: 10.0,
            bbox_height: 20.0,
            gender: None,
            gender_confidence: None,
            frame_number: 1,
            degraded: false,
        }
    }

    fn check(change: impl FnOnce(&mut Detection), expected: &str) {
        let mut d = detection();
        change(&mut d);
        let said = d
            .validate()
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default();
        assert_eq!(said, expected);
    }

    #[test]
    fn an_invalid_value_is_refused_by_the_name_of_its_field() {
        check(|_| {}, "");
        check(|d| d.session_id.clear(), "session_id: is empty");
        check(
            |d| d.camera_id = "x".repeat(65),
            "camera_id: is 65 bytes long, at most 64 are allowed",
        );
        check(
            |d| d.camera_id = "a\0b".into(),
            "camera_id: contains a NUL character, which Postgres cannot store",
        );
        check(
            |d| d.confidence = Some(1.5),
            "confidence: 1.5 is outside 0…1",
        );
        check(
            |d| d.confidence = Some(f32::NAN),
            "confidence: NaN is not a finite number",
        );
        check(
            |d| d.bbox_x = f32::INFINITY,
            "bbox_x: inf is not a finite number",
        );
        check(|d| d.bbox_width = -1.0, "bbox_width: -1 is negative");
        check(
            |d| d.gender_confidence = Some(-0.1),
            "gender_confidence: -0.1 is outside 0…1",
        );
        check(
            |d| d.timestamp = DateTime::from_timestamp(0, 0).unwrap(),
            "timestamp: 1970-01-01T00:00:00Z is outside 2000…2100 (a number means microseconds \
             since 1970)",
        );
    }

    #[test]
    fn gender_is_read_in_the_forms_that_pipelines_write() {
        assert_eq!("M".parse(), Ok(Gender::Male));
        assert_eq!("female".parse(), Ok(Gender::Female));
        assert_eq!("Unknown".parse(), Ok(Gender::Unknown));
        assert!("person".parse::<Gender>().is_err());
    }
}
