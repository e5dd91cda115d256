//! Reads one line of NDJSON: an object with the column names of a detection.
//!
//! Unknown keys are passed over, and null counts as left out. A line that names no session, camera or
//! channel gets those of its file. A line without a time gets its frame's.

use passerby_shared::{Detection, Invalid};
use serde::Deserialize;

use super::{LineProblem, SourceParams, json_value::JsonValue, mot::below_first_frame};
use crate::visible::excerpt;

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    timestamp: Option<JsonValue<'a>>,
    session_id: Option<JsonValue<'a>>,
    camera_id: Option<JsonValue<'a>>,
    channel_id: Option<JsonValue<'a>>,
    detection_id: Option<JsonValue<'a>>,
    track_id: Option<JsonValue<'a>>,
    confidence: Option<JsonValue<'a>>,
    bbox_x: Option<JsonValue<'a>>,
    bbox_y: Option<JsonValue<'a>>,
    bbox_width: Option<JsonValue<'a>>,
    bbox_height: Option<JsonValue<'a>>,
    gender: Option<JsonValue<'a>>,
    gender_confidence: Option<JsonValue<'a>>,
    frame_number: Option<JsonValue<'a>>,
    degraded: Option<JsonValue<'a>>,
}

/// Reads the data line at `position`, counted from 0.
pub(super) fn parse(
    line: &str,
    position: u64,
    params: &SourceParams,
) -> Result<Detection, LineProblem> {
    // Serde would read a struct from an array too.
    if !line.starts_with('{') {
        return Err(LineProblem::NotAnObject {
            found: excerpt(line),
        });
    }
    let fields: Fields<'_> =
        serde_json::from_str(line).map_err(|error| LineProblem::json(&error))?;
    let detection = detection(&fields, position, params)?;
    detection.validate()?;
    Ok(detection)
}

fn detection(
    fields: &Fields<'_>,
    position: u64,
    params: &SourceParams,
) -> Result<Detection, Invalid> {
    let frame = optional(&fields.frame_number, |v| v.int("frame_number"))?;
    let timestamp = match (&fields.timestamp, frame) {
        (Some(time), _) => chrono::DateTime::from_timestamp_micros(time.time_us("timestamp")?)
            .ok_or_else(|| Invalid::new("timestamp", "is out of range"))?,
        (None, Some(frame)) if frame < 1 => return Err(below_first_frame(frame)),
        (None, Some(frame)) => params.time_of(frame)?,
        (None, None) => {
            return Err(Invalid::new(
                "timestamp",
                "is missing, and so is the frame_number that it could be made from",
            ));
        }
    };
    Ok(Detection {
        timestamp,
        session_id: optional(&fields.session_id, |v| v.id("session_id"))?
            .unwrap_or_else(|| params.session_id.clone()),
        camera_id: optional(&fields.camera_id, |v| v.id("camera_id"))?
            .unwrap_or_else(|| params.camera_id.clone()),
        channel_id: optional(&fields.channel_id, |v| v.int32("channel_id"))?
            .unwrap_or(params.channel_id),
        detection_id: optional(&fields.detection_id, |v| v.int("detection_id"))?
            .unwrap_or_else(|| SourceParams::detection_id_at(position)),
        track_id: optional(&fields.track_id, |v| v.int("track_id"))?,
        confidence: optional(&fields.confidence, |v| v.float("confidence"))?,
        bbox_x: required("bbox_x", &fields.bbox_x)?,
        bbox_y: required("bbox_y", &fields.bbox_y)?,
        bbox_width: required("bbox_width", &fields.bbox_width)?,
        bbox_height: required("bbox_height", &fields.bbox_height)?,
        gender: optional(&fields.gender, |v| v.gender("gender"))?,
        gender_confidence: optional(&fields.gender_confidence, |v| v.float("gender_confidence"))?,
        frame_number: frame.unwrap_or(0),
        degraded: optional(&fields.degraded, |v| v.boolean("degraded"))?.unwrap_or(false),
    })
}

fn optional<'a, T>(
    value: &Option<JsonValue<'a>>,
    read: impl FnOnce(&JsonValue<'a>) -> Result<T, Invalid>,
) -> Result<Option<T>, Invalid> {
    value.as_ref().map(read).transpose()
}

fn required(field: &'static str, value: &Option<JsonValue<'_>>) -> Result<f32, Invalid> {
    optional(value, |v| v.float(field))?.ok_or_else(|| Invalid::new(field, "is missing"))
}

#[cfg(test)]
mod tests {
    use passerby_shared::Gender;
    use proptest::prelude::*;

    use super::*;

    const BOX: &str = r#""bbox_x":1,"bbox_y":-2.5,"bbox_width":3,"bbox_height":4"#;

    fn params() -> SourceParams {
        SourceParams {
            camera_id: "cam".into(),
            channel_id: 3,
            session_id: "run".into(),
            fps: "10".parse().unwrap(),
            start_time: "2026-09-21T12:00:00Z".parse().unwrap(),
        }
    }

    fn read(fields: &str) -> Result<Detection, LineProblem> {
        parse(&format!("{{{BOX},{fields}}}"), 41, &params())
    }

    #[test]
    fn every_column_is_read_by_its_name() {
        let d = read(
            r#""timestamp":"2026-09-21T14:13:20.123456+02:00","session_id":"s","camera_id":7,
               "channel_id":-1,"detection_id":9,"track_id":5,"confidence":0.5,"gender":"F",
               "gender_confidence":1,"frame_number":12,"degraded":true,"hat":{"colour":["red"]}"#,
        )
        .unwrap();
        let expected = Detection {
            timestamp: "2026-09-21T12:13:20.123456Z".parse().unwrap(),
            session_id: "s".into(),
            camera_id: "7".into(),
            channel_id: -1,
            detection_id: 9,
            track_id: Some(5),
            confidence: Some(0.5),
            bbox_x: 1.0,
            bbox_y: -2.5,
            bbox_width: 3.0,
            bbox_height: 4.0,
            gender: Some(Gender::Female),
            gender_confidence: Some(1.0),
            frame_number: 12,
            degraded: true,
        };
        assert_eq!(d, expected);
        let written = serde_json::to_string(&expected).unwrap();
        assert_eq!(parse(&written, 0, &params()), Ok(expected));
    }

    #[test]
    fn what_a_line_leaves_out_comes_from_the_file() {
        let d = read(r#""frame_number":11,"track_id":null,"gender":null"#).unwrap();
        assert_eq!(d.timestamp.to_rfc3339(), "2026-09-21T12:00:01+00:00");
        assert_eq!(
            (d.session_id.as_str(), d.camera_id.as_str()),
            ("run", "cam")
        );
        assert_eq!((d.channel_id, d.detection_id, d.track_id), (3, 42, None));
        assert_eq!((d.confidence, d.gender), (None, None));
    }

    #[test]
    fn a_time_may_be_text_or_microseconds() {
        let check = |time: &str| {
            let d = read(&format!(r#""timestamp":{time}"#)).unwrap();
            assert_eq!(d.timestamp.timestamp_micros(), 1_790_000_000_123_456);
        };
        check("1790000000123456");
        check("1790000000123456.25");
        check("1.790000000123456e15");
        check(r#""2026-09-21T14:13:20.123456Z""#);
        check(r#""2026-09-21T14:13:20.123456999Z""#);
    }

    #[test]
    fn a_bad_field_is_told_by_its_name() {
        let check = |fields: &str, expected: &str| {
            assert_eq!(read(fields).unwrap_err().to_string(), expected, "{fields}");
        };
        check(
            r#""track_id":1"#,
            "timestamp: is missing, and so is the frame_number that it could be made from",
        );
        check(
            r#""frame_number":0"#,
            "frame_number: 0 is below 1: frames count from 1 where times are made from them",
        );
        check(
            r#""timestamp":"yesterday""#,
            "timestamp: `yesterday` is not RFC 3339, as in 2026-09-21T12:00:00.040Z: premature end \
             of input",
        );
        check(
            r#""timestamp":1790000000"#,
            "timestamp: 1970-01-01T00:29:50Z is outside 2000…2100 (a number means microseconds \
             since 1970)",
        );
        check(
            r#""timestamp":9223372036854775807"#,
            "timestamp: is out of range",
        );
        check(
            r#""timestamp":[1]"#,
            "timestamp: is an array, expected RFC 3339 text or microseconds since 1970",
        );
        let with_frame = |fields: &str, expected: &str| {
            check(&format!(r#""frame_number":1,{fields}"#), expected);
        };
        with_frame(
            r#""camera_id":1.5"#,
            "camera_id: is a number, expected a string or an integer",
        );
        with_frame(
            r#""channel_id":3000000000"#,
            "channel_id: 3000000000 does not fit into 32 bits",
        );
        with_frame(
            r#""detection_id":18446744073709551615"#,
            "detection_id: 18446744073709551615 does not fit into 64 bits with a sign",
        );
        with_frame(
            r#""track_id":"5""#,
            "track_id: is a string, expected an integer",
        );
        with_frame(r#""track_id":1.5"#, "track_id: 1.5 is not a whole number");
        with_frame(r#""confidence":1.5"#, "confidence: 1.5 is outside 0…1");
        with_frame(
            r#""gender":"\u001b[31m""#,
            "gender: `\\u{1b}[31m` is none of male, female, unknown, M, F",
        );
        with_frame(
            r#""confidence":1e300"#,
            "confidence: does not fit into a 32-bit float",
        );
    }

    #[test]
    fn a_line_that_is_no_object_says_what_to_write() {
        let check = |line: &str, expected: &str| {
            assert_eq!(parse(line, 0, &params()).unwrap_err().to_string(), expected);
        };
        check(
            "[",
            "`[` is no JSON object: write one object a line, {\"timestamp\": …}",
        );
        check("{\"a\":1", "column 6: EOF while parsing an object");
        check("{\"bbox_x\":1e999}", "column 15: number out of range");
        check("{\"a\":NaN}", "column 6: expected value");
        check("{} x", "column 4: trailing characters");
        check("{\"frame_number\":1}", "bbox_x: is missing");
        check(
            "{\"gender\":\"M\",\"gender\":\"F\"}",
            "column 22: duplicate field `gender`",
        );
        check(
            &format!("{{\"a\":{}", "[".repeat(100_000)),
            "column 100005: EOF while parsing a list",
        );
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_valid(
            name in "timestamp|session_id|camera_id|track_id|confidence|bbox_x|gender|frame_number",
            value in "-?[0-9]{1,20}(\\.[0-9]{1,3})?(e[0-9]{1,3})?|\"\\PC{0,80}\"|\\PC*",
        ) {
            let line = format!(r#"{{"bbox_y":0,"bbox_width":0,"bbox_height":0,"{name}":{value}}}"#);
            if let Ok(d) = parse(&line, 0, &params()) {
                prop_assert_eq!(d.validate(), Ok(()));
            }
        }
    }
}
