//! The plain form: an array of maps with the column names, which anybody can write.
//!
//! What a stranger leaves out gets a neutral value: `session_id` is `default`, `channel_id` and
//! `frame_number` are 0, `detection_id` is the row's index within its entry. Only the time, the
//! camera and the box must be there. Unknown keys are passed over.

use std::borrow::Cow;

use super::{
    BadRow, Undecodable,
    cursor::{Cursor, Malformed, Token},
    decode, encode, value,
};
use crate::{Detection, DetectionRef, Invalid, Session, Track, detection::BBOX_FIELDS};

/// The session of rows that name none.
pub(super) const DEFAULT_SESSION: &str = "default";

/// Writes detections in the plain form, for tools and test vectors; a stranger would write the same.
pub fn encode_plain_detections(detections: &[Detection], out: &mut Vec<u8>) {
    encode::array(out, detections.len());
    for d in detections {
        encode::map(out, 15);
        let text = |out: &mut Vec<u8>, name: &str, value: &str| {
            encode::string(out, name);
            encode::string(out, value);
        };
        let number = |out: &mut Vec<u8>, name: &str, value: Option<i64>| {
            encode::string(out, name);
            encode::optional(out, value, encode::int);
        };
        let float = |out: &mut Vec<u8>, name: &str, value: Option<f32>| {
            encode::string(out, name);
            encode::optional(out, value, encode::float);
        };
        number(out, "timestamp", Some(d.timestamp.timestamp_micros()));
        text(out, "session_id", &d.session_id);
        text(out, "camera_id", &d.camera_id);
        number(out, "channel_id", Some(i64::from(d.channel_id)));
        number(out, "detection_id", Some(d.detection_id));
        number(out, "track_id", d.track_id);
        float(out, "confidence", d.confidence);
        float(out, "bbox_x", Some(d.bbox_x));
        float(out, "bbox_y", Some(d.bbox_y));
        float(out, "bbox_width", Some(d.bbox_width));
        float(out, "bbox_height", Some(d.bbox_height));
        encode::string(out, "gender");
        encode::optional(out, d.gender.map(crate::Gender::as_str), encode::string);
        float(out, "gender_confidence", d.gender_confidence);
        number(out, "frame_number", Some(d.frame_number));
        encode::string(out, "degraded");
        out.push(if d.degraded { 0xc3 } else { 0xc2 });
    }
}

pub(super) fn bad_row(invalid: Invalid, row: &[u8]) -> BadRow {
    let mut payload = Vec::with_capacity(row.len() + 1);
    encode::array(&mut payload, 1);
    payload.extend_from_slice(row);
    BadRow { invalid, payload }
}

/// Walks the fields of a row. `read` gets each value's token, and a cursor at the elements that
/// belong to it. The first complaint is kept and the walk goes on to the row's end.
fn walk<'a>(
    cursor: &mut Cursor<'a>,
    token: Token<'a>,
    mut read: impl FnMut(&mut Cursor<'a>, &[u8], Token<'a>) -> Result<(), Invalid>,
) -> Result<Result<(), Invalid>, Malformed> {
    let Token::Map(n_fields) = token else {
        cursor.skip_rest_of(token)?;
        return Ok(Err(Invalid::new(
            "row",
            format_args!("is {}, expected a map", token.type_name()),
        )));
    };
    let mut bad = None;
    for _ in 0..n_fields {
        let name = cursor.token()?;
        cursor.skip_rest_of(name)?;
        let value = cursor.token()?;
        let start = cursor.clone();
        cursor.skip_rest_of(value)?;
        if let Token::Str(name) | Token::Bin(name) = name
            && let Err(invalid) = read(&mut start.clone(), name, value)
        {
            bad.get_or_insert(invalid);
        }
    }
    Ok(bad.map_or(Ok(()), Err))
}

fn required<T>(field: &'static str, value: Option<T>) -> Result<T, Invalid> {
    value.ok_or_else(|| missing(field))
}

pub(super) fn missing(field: &'static str) -> Invalid {
    Invalid::new(field, "is missing")
}

/// A field of a detection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Field {
    Timestamp,
    SessionId,
    CameraId,
    ChannelId,
    DetectionId,
    TrackId,
    Confidence,
    /// The one with this place among [`BBOX_FIELDS`].
    Bbox(usize),
    Gender,
    GenderConfidence,
    FrameNumber,
    Degraded,
}

impl Field {
    /// The field with this key; `None` of what a row may have beside its fields.
    pub(super) fn named(key: &[u8]) -> Option<Self> {
        Some(match key {
            b"timestamp" => Self::Timestamp,
            b"session_id" => Self::SessionId,
            b"camera_id" => Self::CameraId,
            b"channel_id" => Self::ChannelId,
            b"detection_id" => Self::DetectionId,
            b"track_id" => Self::TrackId,
            b"confidence" => Self::Confidence,
            b"bbox_x" => Self::Bbox(0),
            b"bbox_y" => Self::Bbox(1),
            b"bbox_width" => Self::Bbox(2),
            b"bbox_height" => Self::Bbox(3),
            b"gender" => Self::Gender,
            b"gender_confidence" => Self::GenderConfidence,
            b"frame_number" => Self::FrameNumber,
            b"degraded" => Self::Degraded,
            _ => return None,
        })
    }
}

/// Reads one detection and hands it to `row`, or returns what is wrong with it.
pub(super) fn detection(
    cursor: &mut Cursor<'_>,
    row_idx: usize,
    row: impl FnOnce(DetectionRef<'_>),
) -> Result<Result<(), BadRow>, Undecodable> {
    let start = cursor.offset();
    let token = cursor.token()?;
    let mut session_id = Cow::Borrowed(DEFAULT_SESSION);
    let mut camera_id = None;
    let mut timestamp_us = None;
    let mut bbox = [None; 4];
    let mut d = DetectionRef {
        timestamp_us: 0,
        session_id: "",
        camera_id: "",
        channel_id: 0,
        detection_id: i64::try_from(row_idx).unwrap_or(i64::MAX),
        track_id: None,
        confidence: None,
        bbox: [0.0; 4],
        gender: None,
        gender_confidence: None,
        frame_number: 0,
        degraded: false,
    };
    let walked = walk(cursor, token, |_, name, token| {
        // What is nil counts as left out.
        if token == Token::Nil {
            return Ok(());
        }
        match Field::named(name) {
            Some(Field::Timestamp) => timestamp_us = Some(value::time("timestamp", token)?),
            Some(Field::SessionId) => session_id = value::id("session_id", token)?,
            Some(Field::CameraId) => camera_id = Some(value::id("camera_id", token)?),
            Some(Field::ChannelId) => d.channel_id = value::int32("channel_id", token)?,
            Some(Field::DetectionId) => d.detection_id = value::int("detection_id", token)?,
            Some(Field::TrackId) => d.track_id = Some(value::int("track_id", token)?),
            Some(Field::Confidence) => d.confidence = Some(value::float("confidence", token)?),
            Some(Field::Bbox(nth)) => bbox[nth] = Some(value::float(BBOX_FIELDS[nth], token)?),
            Some(Field::Gender) => d.gender = Some(value::gender("gender", token)?),
            Some(Field::GenderConfidence) => {
                d.gender_confidence = Some(value::float("gender_confidence", token)?);
            }
            Some(Field::FrameNumber) => d.frame_number = value::int("frame_number", token)?,
            Some(Field::Degraded) => d.degraded = value::boolean("degraded", token)?,
            None => {}
        }
        Ok(())
    })?;
    let complete = || -> Result<(i64, Cow<'_, str>, [f32; 4]), Invalid> {
        walked?;
        let mut values = [0.0; 4];
        for ((value, read), name) in values.iter_mut().zip(bbox).zip(BBOX_FIELDS) {
            *value = required(name, read)?;
        }
        Ok((
            required("timestamp", timestamp_us)?,
            required("camera_id", camera_id)?,
            values,
        ))
    };
    let decoded = complete().and_then(|(timestamp_us, camera_id, bbox)| {
        let d = DetectionRef {
            timestamp_us,
            session_id: &session_id,
            camera_id: &camera_id,
            bbox,
            ..d
        };
        d.validate()?;
        row(d);
        Ok(())
    });
    Ok(decoded.map_err(|invalid| bad_row(invalid, cursor.since(start))))
}

pub(super) fn track(cursor: &mut Cursor<'_>) -> Result<Result<Track, BadRow>, Undecodable> {
    let start = cursor.offset();
    let token = cursor.token()?;
    let mut session_id = Cow::Borrowed(DEFAULT_SESSION);
    let (mut camera_id, mut track_id) = (None, None);
    let (mut start_us, mut end_us) = (None, None);
    let mut detection_count = 0;
    let (mut avg_confidence, mut gender, mut gender_confidence) = (None, None, None);
    let mut trajectory = Vec::new();
    let mut degraded = false;
    let walked = walk(cursor, token, |rest, name, token| {
        if token == Token::Nil {
            return Ok(());
        }
        match name {
            b"session_id" => session_id = value::id("session_id", token)?,
            b"camera_id" => camera_id = Some(value::id("camera_id", token)?),
            b"track_id" => track_id = Some(value::int("track_id", token)?),
            b"start_time" => start_us = Some(value::time("start_time", token)?),
            b"end_time" => end_us = Some(value::time("end_time", token)?),
            b"detection_count" => detection_count = value::int("detection_count", token)?,
            b"avg_confidence" => avg_confidence = Some(value::float("avg_confidence", token)?),
            b"gender" => gender = Some(value::gender("gender", token)?),
            b"gender_confidence" => {
                gender_confidence = Some(value::float("gender_confidence", token)?);
            }
            b"trajectory" => {
                let mut bad = None;
                trajectory = decode::trajectory(rest, token, &mut bad)
                    .map_err(|error| Invalid::new("trajectory", error))?;
                if let Some(invalid) = bad {
                    return Err(invalid);
                }
            }
            b"degraded" => degraded = value::boolean("degraded", token)?,
            _ => {}
        }
        Ok(())
    });
    walked
        .map(|walked| {
            let complete = || -> Result<Track, Invalid> {
                walked?;
                let track = Track {
                    session_id: session_id.into_owned(),
                    camera_id: required("camera_id", camera_id)?.into_owned(),
                    track_id: required("track_id", track_id)?,
                    start_time: decode::datetime("start_time", required("start_time", start_us)?)?,
                    end_time: decode::datetime("end_time", required("end_time", end_us)?)?,
                    detection_count,
                    avg_confidence,
                    trajectory,
                    gender,
                    gender_confidence,
                    degraded,
                };
                track.validate().map(|()| track)
            };
            complete().map_err(|invalid| bad_row(invalid, cursor.since(start)))
        })
        .map_err(Undecodable::from)
}

pub(super) fn session<'a>(
    cursor: &mut Cursor<'a>,
    token: Token<'a>,
) -> Result<Result<Session, Invalid>, Undecodable> {
    let (mut session_id, mut started, mut ended, mut source) = (None, None, None, None);
    let walked = walk(cursor, token, |_, name, token| {
        if token == Token::Nil {
            return Ok(());
        }
        match name {
            b"session_id" => session_id = Some(value::id("session_id", token)?.into_owned()),
            b"started_at" => started = Some(value::time("started_at", token)?),
            b"ended_at" => ended = Some(value::time("ended_at", token)?),
            b"source" => source = Some(value::text("source", token)?.to_owned()),
            _ => {}
        }
        Ok(())
    })?;
    Ok(walked
        .and_then(|()| required("session_id", session_id))
        .and_then(|session_id| decode::session(session_id, started, ended, source)))
}
