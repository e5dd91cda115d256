//! Reads one line of MOTChallenge text.
//!
//! The columns are `frame, track id, left, top, width, height, confidence`, the last of which may be
//! missing, and up to three more that say nothing of a box. A track id of -1 is no track and a
//! confidence of -1 is unknown. Other confidences outside 0…1 are a detector's margins: they are
//! clamped, and whoever reads the file hears how many were.

use passerby_shared::{Detection, Invalid};

use super::{LineProblem, SourceParams, json_value::exact_integer};
use crate::visible::excerpt;

/// What one line holds.
#[derive(Debug, PartialEq)]
pub(super) struct MotLine {
    pub(super) detection: Detection,
    /// The confidence was outside 0…1.
    pub(super) is_clamped: bool,
}

/// Reads the data line at `position`, counted from 0.
pub(super) fn parse(
    line: &str,
    position: u64,
    params: &SourceParams,
) -> Result<MotLine, LineProblem> {
    let mut columns = [""; 10];
    let mut found = 0;
    // Some writers end each line with a comma.
    for column in line.strip_suffix(',').unwrap_or(line).split(',') {
        if let Some(place) = columns.get_mut(found) {
            *place = column.trim();
        }
        found += 1;
    }
    if !(6..=columns.len()).contains(&found) {
        return Err(LineProblem::Columns { found });
    }
    let frame = integer("frame_number", columns[0])?;
    if frame < 1 {
        return Err(below_first_frame(frame).into());
    }
    let confidence = match found {
        6 => None,
        _ => Some(float("confidence", columns[6])?),
    };
    let confidence = confidence.filter(|&confidence| !is_unknown(confidence));
    let clamped = confidence.map(|confidence| confidence.clamp(0.0, 1.0));
    let detection = Detection {
        timestamp: params.time_of(frame)?,
        session_id: params.session_id.clone(),
        camera_id: params.camera_id.clone(),
        channel_id: params.channel_id,
        detection_id: SourceParams::detection_id_at(position),
        track_id: Some(integer("track_id", columns[1])?).filter(|&id| id != -1),
        confidence: clamped,
        bbox_x: float("bbox_x", columns[2])?,
        bbox_y: float("bbox_y", columns[3])?,
        bbox_width: float("bbox_width", columns[4])?,
        bbox_height: float("bbox_height", columns[5])?,
        gender: None,
        gender_confidence: None,
        frame_number: frame,
        degraded: false,
    };
    detection.validate()?;
    Ok(MotLine {
        detection,
        is_clamped: clamped != confidence,
    })
}

pub(super) fn below_first_frame(frame: i64) -> Invalid {
    Invalid::new(
        "frame_number",
        format_args!("{frame} is below 1: frames count from 1 where times are made from them"),
    )
}

#[expect(clippy::float_cmp, reason = "the format says exactly -1")]
fn is_unknown(confidence: f32) -> bool {
    confidence == -1.0
}

/// An integer; some writers have `1.0`.
fn integer(field: &'static str, text: &str) -> Result<i64, Invalid> {
    if let Ok(value) = text.parse() {
        return Ok(value);
    }
    text.parse().ok().and_then(exact_integer).ok_or_else(|| {
        Invalid::new(
            field,
            format_args!(
                "`{}` is not a whole number (a header line must begin with #)",
                excerpt(text)
            ),
        )
    })
}

fn float(field: &'static str, text: &str) -> Result<f32, Invalid> {
    let value: f32 = text
        .parse()
        .map_err(|_| Invalid::new(field, format_args!("`{}` is not a number", excerpt(text))))?;
    if value.is_finite() {
        return Ok(value);
    }
    Err(Invalid::new(
        field,
        format_args!("`{}` is not a finite number", excerpt(text)),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn params() -> SourceParams {
        SourceParams {
            camera_id: "cam".into(),
            channel_id: 3,
            session_id: "run".into(),
            fps: "10".parse().unwrap(),
            start_time: "2026-09-21T12:00:00Z".parse().unwrap(),
        }
    }

    /// Expects `frame track confidence x y width height clamped`, or the problem.
    fn check(line: &str, expected: Result<&str, &str>) {
        let found = parse(line, 0, &params()).map(
            |MotLine {
                 detection: d,
                 is_clamped,
             }| {
                format!(
                    "{} {:?} {:?} {} {} {} {} {is_clamped}",
                    d.frame_number,
                    d.track_id,
                    d.confidence,
                    d.bbox_x,
                    d.bbox_y,
                    d.bbox_width,
                    d.bbox_height,
                )
            },
        );
        let found = found.map_err(|problem| problem.to_string());
        assert_eq!(
            found.as_ref().map(String::as_str).map_err(String::as_str),
            expected,
            "{line}"
        );
    }

    #[test]
    fn a_line_is_read_as_trackers_write_it() {
        check(
            "1,3,113.84,274.5,57.3,130.05,-1,-1,-1,-1",
            Ok("1 Some(3) None 113.84 274.5 57.3 130.05 false"),
        );
        check(
            " 2 , -1 ,\t-5, 0 , 1e1 , 20 ",
            Ok("2 None None -5 0 10 20 false"),
        );
        check(
            "1.0,3.0,1,2,3,4,.5",
            Ok("1 Some(3) Some(0.5) 1 2 3 4 false"),
        );
        check(
            "1,3,1,2,3,4,1,1,0.9,",
            Ok("1 Some(3) Some(1.0) 1 2 3 4 false"),
        );
    }

    #[test]
    fn a_detectors_margin_is_clamped_and_counted() {
        check("1,3,1,2,3,4,2.0026", Ok("1 Some(3) Some(1.0) 1 2 3 4 true"));
        check("1,3,1,2,3,4,-0.25", Ok("1 Some(3) Some(0.0) 1 2 3 4 true"));
        check("1,3,1,2,3,4,-1.0", Ok("1 Some(3) None 1 2 3 4 false"));
    }

    #[test]
    fn a_bad_line_is_told_by_its_field() {
        let columns = |line, n| {
            let expected = format!(
                "the number of columns is {n}, expected 6 to 10: frame, track id, left, top, \
                 width, height, confidence, and up to 3 more"
            );
            check(line, Err(&expected));
        };
        columns("1 2 3 4 5 6", 1);
        columns("1,2,3,4,5", 5);
        columns("1,2,3,4,5,6,7,8,9,10,11", 11);
        check(
            "frame,id,left,top,width,height",
            Err("frame_number: `frame` is not a whole number (a header line must begin with #)"),
        );
        check(
            "1.5,1,1,1,1,1",
            Err("frame_number: `1.5` is not a whole number (a header line must begin with #)"),
        );
        check(
            "0,1,1,1,1,1",
            Err("frame_number: 0 is below 1: frames count from 1 where times are made from them"),
        );
        check(
            "9223372036854775807,1,1,1,1,1",
            Err(
                "frame_number: 9223372036854775807 puts the time out of range: check the frame \
                 rate and the start time",
            ),
        );
        check(
            "99999999999,1,1,1,1,1",
            Err(
                "timestamp: 2343-08-12T05:46:39Z is outside 2000…2100 (a number means \
                 microseconds since 1970)",
            ),
        );
        check(
            "1,1e300,1,1,1,1",
            Err("track_id: `1e300` is not a whole number (a header line must begin with #)"),
        );
        check("1,1,,1,1,1", Err("bbox_x: `` is not a number"));
        check(
            "1,1,1,1e999,1,1",
            Err("bbox_y: `1e999` is not a finite number"),
        );
        check(
            "1,1,1,1,NaN,1",
            Err("bbox_width: `NaN` is not a finite number"),
        );
        check("1,1,1,1,1,-2", Err("bbox_height: -2 is negative"));
        check(
            "1,1,1,1,1,1,inf",
            Err("confidence: `inf` is not a finite number"),
        );
        check(
            "1,1,\u{1b}[2J,1,1,1",
            Err("bbox_x: `\\u{1b}[2J` is not a number"),
        );
    }

    #[test]
    fn a_row_carries_its_source_its_time_and_its_position() {
        let d = parse("11,1,1,1,1,1", 221, &params()).unwrap().detection;
        assert_eq!(d.timestamp.to_rfc3339(), "2026-09-21T12:00:01+00:00");
        assert_eq!(
            (d.session_id.as_str(), d.camera_id.as_str()),
            ("run", "cam")
        );
        assert_eq!((d.channel_id, d.detection_id), (3, 222));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_valid(line in "[-0-9.,eEnNaAiIfF ]{0,80}|\\PC*") {
            if let Ok(row) = parse(&line, 0, &params()) {
                prop_assert_eq!(row.detection.validate(), Ok(()));
            }
        }
    }
}
