//! Reads payloads, handing out each row as soon as it is read.

use std::borrow::Cow;

use chrono::{DateTime, Utc};

use super::{
    compact_row,
    cursor::{Cursor, Malformed, Token},
    encode, plain, plain_row, value,
};
use crate::{DetectionRef, Invalid, MAX_ID_BYTES, Session, Track, TrajectoryPoint};

/// An entry of which no row can be read; it goes to the dead letters whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// The entry was written by a newer producer.
    #[error(
        "wire version {version} is newer than this worker, which reads up to {}",
        super::WIRE_VERSION
    )]
    TooNew {
        /// The entry's version.
        version: u64,
    },
    /// The version is no number.
    #[error("`{0}` is no wire version")]
    BadVersion(String),
    /// The kind is not one of this version.
    #[error("kind `{0}` is none of d, t, s")]
    UnknownKind(String),
    /// The idempotency key cannot be read.
    #[error(transparent)]
    BadKey(#[from] crate::InvalidIdempotencyKey),
    /// The entry has no field `p`.
    #[error("the entry has no payload: field `p` is missing")]
    NoPayload,
    /// The payload is not MessagePack.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The payload is MessagePack of another shape.
    #[error("the payload at byte {offset} is not as documented: {problem}")]
    Shape {
        /// Offset in the payload.
        offset: usize,
        /// What was found and what was expected.
        problem: String,
    },
}

/// A row that can be read but not stored; its neighbours are not touched by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// What is wrong with it.
    pub invalid: Invalid,
    /// A payload of the same kind with this row alone.
    pub payload: Vec<u8>,
}

/// Most bad rows that one entry may have beside its good ones. An empty map is a bad row of one
/// byte, of which a dead letter makes several hundred: beyond this the entry is kept whole instead.
const MAX_BAD_ROWS: usize = 10_000;

/// After so many rows that the quick reader gave up, one after the other, it is not asked again in this entry.
const MAX_GIVEN_UP: usize = 8;

/// Counts the bad rows of an entry.
#[derive(Debug, Default)]
struct BadRows(usize);

impl BadRows {
    fn add(&mut self, invalid: &Invalid, cursor: &Cursor<'_>) -> Result<(), Undecodable> {
        self.0 += 1;
        if self.0 <= MAX_BAD_ROWS {
            return Ok(());
        }
        Err(shape(
            cursor,
            format_args!("more than {MAX_BAD_ROWS} rows cannot be stored, the last by {invalid}"),
        ))
    }
}

/// Reads the rows of a payload of detections, in order, and returns their number.
///
/// `row` gets each row's index within the entry, with the row or with what is wrong with it. When an
/// error is returned the rows handed out before it must be given up: the entry is undecodable as a
/// whole.
///
/// # Errors
///
/// [`Undecodable`] when the payload's structure is broken.
pub fn decode_detections(
    payload: &[u8],
    mut row: impl FnMut(usize, Result<DetectionRef<'_>, BadRow>),
) -> Result<usize, Undecodable> {
    let mut cursor = Cursor::new(payload);
    let n_elements = array(&mut cursor, "an array of rows")?;
    let mut n_rows = 0;
    let mut bad_rows = BadRows::default();
    if is_compact(&cursor, n_elements)? {
        for _ in 0..n_elements {
            n_rows += detection_group(&mut cursor, n_rows, &mut bad_rows, &mut row)?;
        }
    } else {
        let mut known = plain_row::Known::default();
        let mut n_given_up = 0;
        for row_idx in 0..n_elements as usize {
            if n_given_up < MAX_GIVEN_UP
                && let Some((detection, len)) = plain_row::read(cursor.rest(), row_idx, &mut known)
            {
                n_given_up = 0;
                cursor.skip_bytes(len);
                row(row_idx, Ok(detection));
                n_rows += 1;
                continue;
            }
            n_given_up += 1;
            if let Err(bad) = plain::detection(&mut cursor, row_idx, |d| row(row_idx, Ok(d)))? {
                bad_rows.add(&bad.invalid, &cursor)?;
                row(row_idx, Err(bad));
            }
            n_rows += 1;
        }
    }
    at_end(&cursor)?;
    Ok(n_rows)
}

/// Reads the rows of a payload of tracks; see [`decode_detections`].
///
/// # Errors
///
/// [`Undecodable`] when the payload's structure is broken.
pub fn decode_tracks(
    payload: &[u8],
    mut row: impl FnMut(usize, Result<Track, BadRow>),
) -> Result<usize, Undecodable> {
    let mut cursor = Cursor::new(payload);
    let n_elements = array(&mut cursor, "an array of tracks")?;
    let mut n_rows = 0;
    let mut bad_rows = BadRows::default();
    if is_compact(&cursor, n_elements)? {
        for _ in 0..n_elements {
            n_rows += track_group(&mut cursor, n_rows, &mut bad_rows, &mut row)?;
        }
    } else {
        for row_idx in 0..n_elements as usize {
            let track = plain::track(&mut cursor)?;
            if let Err(bad) = &track {
                bad_rows.add(&bad.invalid, &cursor)?;
            }
            row(row_idx, track);
            n_rows += 1;
        }
    }
    at_end(&cursor)?;
    Ok(n_rows)
}

/// Reads the rows of a payload of sessions; see [`decode_detections`].
///
/// # Errors
///
/// [`Undecodable`] when the payload's structure is broken.
pub fn decode_sessions(
    payload: &[u8],
    mut row: impl FnMut(usize, Result<Session, BadRow>),
) -> Result<usize, Undecodable> {
    let mut cursor = Cursor::new(payload);
    let n_elements = array(&mut cursor, "an array of sessions")? as usize;
    let mut bad_rows = BadRows::default();
    for row_idx in 0..n_elements {
        let at = cursor.clone();
        let token = cursor.token()?;
        let session = match token {
            Token::Array(n_fields) if n_fields < SESSION_FIELDS => {
                return Err(shape(
                    &at,
                    format_args!("a session of {n_fields} elements, expected {SESSION_FIELDS}"),
                ));
            }
            Token::Array(n_fields) => session_row(&mut cursor, n_fields)?,
            other => plain::session(&mut cursor, other)?,
        };
        let session = session.and_then(|session| session.validate().map(|()| session));
        if let Err(invalid) = &session {
            bad_rows.add(invalid, &cursor)?;
        }
        row(
            row_idx,
            session.map_err(|invalid| plain::bad_row(invalid, cursor.since(at.offset()))),
        );
    }
    at_end(&cursor)?;
    Ok(n_elements)
}

fn shape(cursor: &Cursor<'_>, problem: impl ToString) -> Undecodable {
    Undecodable::Shape {
        offset: cursor.offset(),
        problem: problem.to_string(),
    }
}

fn array(cursor: &mut Cursor<'_>, expected: &str) -> Result<u32, Undecodable> {
    let at = cursor.clone();
    match cursor.token()? {
        Token::Array(len) => Ok(len),
        other => Err(shape(
            &at,
            format_args!("{}, expected {expected}", other.type_name()),
        )),
    }
}

/// The first element tells the form: an array is a group. Anything else is a row, good or bad.
fn is_compact(cursor: &Cursor<'_>, n_elements: u32) -> Result<bool, Malformed> {
    Ok(n_elements > 0 && matches!(cursor.clone().token()?, Token::Array(_)))
}

fn at_end(cursor: &Cursor<'_>) -> Result<(), Undecodable> {
    if cursor.is_at_end() {
        return Ok(());
    }
    Err(shape(cursor, "bytes follow after the last row"))
}

fn skip_values(cursor: &mut Cursor<'_>, n: u32) -> Result<(), Malformed> {
    (0..n).try_for_each(|_| cursor.skip())
}

/// Longest session and camera id of a group, in bytes. Longer than allowed they make bad rows, each
/// with a copy of them; beyond this the group is no group.
const MAX_GROUP_ID_BYTES: usize = 4 * MAX_ID_BYTES;

/// The head of a group: session and camera.
fn group_head<'a>(
    cursor: &mut Cursor<'a>,
    min_fields: u32,
) -> Result<(Cow<'a, str>, Cow<'a, str>, u32), Undecodable> {
    let at = cursor.clone();
    let n_fields = array(cursor, "a group")?;
    if n_fields < min_fields {
        return Err(shape(
            &at,
            format_args!("a group of {n_fields} elements, expected {min_fields}"),
        ));
    }
    let mut id = |field| -> Result<Cow<'a, str>, Undecodable> {
        let at = cursor.clone();
        let token = cursor.token()?;
        let id = value::id(field, token).map_err(|invalid| shape(&at, invalid))?;
        if id.len() > MAX_GROUP_ID_BYTES {
            crate::validate::id(field, &id).map_err(|invalid| shape(&at, invalid))?;
        }
        Ok(id)
    };
    Ok((id("session_id")?, id("camera_id")?, n_fields))
}

/// What the first rows of a group differ from, and each later row from the one before.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Previous {
    pub(super) timestamp_us: i64,
    pub(super) detection_id: i64,
    pub(super) frame_number: i64,
}

fn detection_group(
    cursor: &mut Cursor<'_>,
    first_row_idx: usize,
    bad_rows: &mut BadRows,
    row: &mut impl FnMut(usize, Result<DetectionRef<'_>, BadRow>),
) -> Result<usize, Undecodable> {
    let (session_id, camera_id, n_fields) = group_head(cursor, 4)?;
    let at = cursor.clone();
    let channel_id =
        value::int32("channel_id", cursor.token()?).map_err(|invalid| shape(&at, invalid))?;
    let n_rows = array(cursor, "the group's rows")? as usize;

    let template = DetectionRef {
        timestamp_us: 0,
        session_id: &session_id,
        camera_id: &camera_id,
        channel_id,
        detection_id: 0,
        track_id: None,
        confidence: None,
        bbox: [0.0; 4],
        gender: None,
        gender_confidence: None,
        frame_number: 0,
        degraded: false,
    };
    let source = template.validate_source();
    let mut previous = Previous::default();
    for row_idx in first_row_idx..first_row_idx + n_rows {
        if source.is_ok()
            && let Some((detection, len)) =
                compact_row::read(cursor.rest(), &template, &mut previous)
        {
            cursor.skip_bytes(len);
            row(row_idx, Ok(detection));
            continue;
        }
        let start = cursor.clone();
        let before = previous;
        let decoded = detection_row(cursor, &template, &mut previous)?
            .and_then(|detection| source.clone().map(|()| detection))
            .and_then(|detection| detection.validate_row().map(|()| detection));
        match decoded {
            Ok(detection) => row(row_idx, Ok(detection)),
            Err(invalid) => {
                bad_rows.add(&invalid, cursor)?;
                let payload = row_as_plain(start, &template, before)?;
                row(row_idx, Err(BadRow { invalid, payload }));
            }
        }
    }
    skip_values(cursor, n_fields - 4)?;
    Ok(n_rows)
}

const ROW_FIELDS: u32 = 11;

/// Reads one compact row. A wrong type in a field that later rows count from breaks the entry; in
/// any other field it costs the row alone.
pub(super) fn detection_row<'g>(
    cursor: &mut Cursor<'_>,
    template: &DetectionRef<'g>,
    previous: &mut Previous,
) -> Result<Result<DetectionRef<'g>, Invalid>, Undecodable> {
    let at = cursor.clone();
    let n_fields = array(cursor, "a row")?;
    if n_fields < ROW_FIELDS {
        return Err(shape(
            &at,
            format_args!("a row of {n_fields} elements, expected {ROW_FIELDS}"),
        ));
    }
    let mut bad = None;
    let mut missing = None;
    let mut d = *template;
    previous.timestamp_us = previous
        .timestamp_us
        .wrapping_add(difference(cursor, "timestamp")?);
    previous.detection_id = previous
        .detection_id
        .wrapping_add(difference(cursor, "detection_id")?);
    d.track_id = field(cursor, &mut bad, |t| {
        value::optional(t, |t| value::int("track_id", t))
    })?;
    d.confidence = field(cursor, &mut bad, |t| {
        value::optional(t, |t| value::float("confidence", t))
    })?;
    for (value, name) in d.bbox.iter_mut().zip(crate::detection::BBOX_FIELDS) {
        *value = field(cursor, &mut bad, |t| match t {
            Token::Nil => {
                missing.get_or_insert(name);
                Ok(0.0)
            }
            t => value::float(name, t),
        })?;
    }
    d.gender = field(cursor, &mut bad, |t| {
        value::optional(t, |t| value::gender("gender", t))
    })?;
    d.gender_confidence = field(cursor, &mut bad, |t| {
        value::optional(t, |t| value::float("gender_confidence", t))
    })?;
    previous.frame_number = previous
        .frame_number
        .wrapping_add(difference(cursor, "frame_number")?);
    if n_fields > ROW_FIELDS {
        d.degraded = field(cursor, &mut bad, |t| value::boolean("degraded", t))?;
        skip_values(cursor, n_fields - ROW_FIELDS - 1)?;
    }
    d.timestamp_us = previous.timestamp_us;
    d.detection_id = previous.detection_id;
    d.frame_number = previous.frame_number;
    // As in the plain form: what is missing is named after what is wrong.
    let bad = bad.or_else(|| missing.map(plain::missing));
    Ok(bad.map_or(Ok(d), Err))
}

fn difference(cursor: &mut Cursor<'_>, name: &'static str) -> Result<i64, Undecodable> {
    let at = cursor.clone();
    let token = cursor.token()?;
    value::int(name, token).map_err(|invalid| shape(&at, invalid))
}

#[inline]
fn field<'a, T: Default>(
    cursor: &mut Cursor<'a>,
    bad: &mut Option<Invalid>,
    read: impl FnOnce(Token<'a>) -> Result<T, Invalid>,
) -> Result<T, Malformed> {
    let token = cursor.token()?;
    match read(token) {
        Ok(value) => Ok(value),
        Err(invalid) => {
            cursor.skip_rest_of(token)?;
            bad.get_or_insert(invalid);
            Ok(T::default())
        }
    }
}

/// Writes a compact row again in the plain form, where it stands for itself: differences become
/// values, everything else is copied as it came.
fn row_as_plain(
    mut cursor: Cursor<'_>,
    template: &DetectionRef<'_>,
    mut previous: Previous,
) -> Result<Vec<u8>, Undecodable> {
    const NAMES: [&str; 12] = [
        "timestamp",
        "detection_id",
        "track_id",
        "confidence",
        "bbox_x",
        "bbox_y",
        "bbox_width",
        "bbox_height",
        "gender",
        "gender_confidence",
        "frame_number",
        "degraded",
    ];
    let n_fields = array(&mut cursor, "a row")?.min(12);
    let mut out = Vec::with_capacity(256);
    encode::array(&mut out, 1);
    encode::map(&mut out, n_fields + 3);
    encode::string(&mut out, "session_id");
    encode::string(&mut out, template.session_id);
    encode::string(&mut out, "camera_id");
    encode::string(&mut out, template.camera_id);
    encode::string(&mut out, "channel_id");
    encode::int(&mut out, i64::from(template.channel_id));
    for name in NAMES.iter().take(n_fields as usize) {
        encode::string(&mut out, name);
        let absolute = match *name {
            "timestamp" => Some(&mut previous.timestamp_us),
            "detection_id" => Some(&mut previous.detection_id),
            "frame_number" => Some(&mut previous.frame_number),
            _ => None,
        };
        match absolute {
            Some(value) => {
                *value = value.wrapping_add(difference(&mut cursor, "row")?);
                encode::int(&mut out, *value);
            }
            None => {
                let start = cursor.offset();
                cursor.skip()?;
                out.extend_from_slice(cursor.since(start));
            }
        }
    }
    Ok(out)
}

fn track_group(
    cursor: &mut Cursor<'_>,
    first_row_idx: usize,
    bad_rows: &mut BadRows,
    row: &mut impl FnMut(usize, Result<Track, BadRow>),
) -> Result<usize, Undecodable> {
    let (session_id, camera_id, n_fields) = group_head(cursor, 3)?;
    let n_rows = array(cursor, "the group's tracks")? as usize;
    for row_idx in first_row_idx..first_row_idx + n_rows {
        let start = cursor.offset();
        let track = track_row(cursor, &session_id, &camera_id)?
            .and_then(|track| track.validate().map(|()| track));
        if let Err(invalid) = &track {
            bad_rows.add(invalid, cursor)?;
        }
        row(
            row_idx,
            track.map_err(|invalid| {
                let mut payload = Vec::with_capacity(256);
                encode::array(&mut payload, 1);
                encode::array(&mut payload, 3);
                encode::string(&mut payload, &session_id);
                encode::string(&mut payload, &camera_id);
                encode::array(&mut payload, 1);
                payload.extend_from_slice(cursor.since(start));
                BadRow { invalid, payload }
            }),
        );
    }
    skip_values(cursor, n_fields - 3)?;
    Ok(n_rows)
}

const TRACK_FIELDS: u32 = 8;

fn track_row(
    cursor: &mut Cursor<'_>,
    session_id: &str,
    camera_id: &str,
) -> Result<Result<Track, Invalid>, Undecodable> {
    let at = cursor.clone();
    let n_fields = array(cursor, "a track")?;
    if n_fields < TRACK_FIELDS {
        return Err(shape(
            &at,
            format_args!("a track of {n_fields} elements, expected {TRACK_FIELDS}"),
        ));
    }
    let mut bad = None;
    let track_id = field(cursor, &mut bad, |t| value::int("track_id", t))?;
    let start_us = field(cursor, &mut bad, |t| value::int("start_time", t))?;
    let duration_us = field(cursor, &mut bad, |t| value::int("end_time", t))?;
    let detection_count = field(cursor, &mut bad, |t| value::int("detection_count", t))?;
    let avg_confidence = field(cursor, &mut bad, |t| {
        value::optional(t, |t| value::float("avg_confidence", t))
    })?;
    let gender = field(cursor, &mut bad, |t| {
        value::optional(t, |t| value::gender("gender", t))
    })?;
    let gender_confidence = field(cursor, &mut bad, |t| {
        value::optional(t, |t| value::float("gender_confidence", t))
    })?;
    let token = cursor.token()?;
    let trajectory = trajectory(cursor, token, &mut bad)?;
    let mut degraded = false;
    if n_fields > TRACK_FIELDS {
        degraded = field(cursor, &mut bad, |t| value::boolean("degraded", t))?;
        skip_values(cursor, n_fields - TRACK_FIELDS - 1)?;
    }
    if let Some(invalid) = bad {
        return Ok(Err(invalid));
    }
    let times = datetime("start_time", start_us).and_then(|start| {
        Ok((
            start,
            datetime("end_time", start_us.wrapping_add(duration_us))?,
        ))
    });
    Ok(times.map(|(start_time, end_time)| Track {
        session_id: session_id.to_owned(),
        camera_id: camera_id.to_owned(),
        track_id,
        start_time,
        end_time,
        detection_count,
        avg_confidence,
        trajectory,
        gender,
        gender_confidence,
        degraded,
    }))
}

/// Reads `[offset ms, x, y, offset ms, x, y, …]`, of which `token` was just read.
pub(super) fn trajectory(
    cursor: &mut Cursor<'_>,
    token: Token<'_>,
    bad: &mut Option<Invalid>,
) -> Result<Vec<TrajectoryPoint>, Malformed> {
    let n_numbers = match token {
        Token::Nil => 0,
        Token::Array(n) => n,
        other => {
            cursor.skip_rest_of(other)?;
            bad.get_or_insert(Invalid::new("trajectory", "is not an array"));
            return Ok(Vec::new());
        }
    };
    if n_numbers % 3 != 0 {
        skip_values(cursor, n_numbers)?;
        bad.get_or_insert(Invalid::new(
            "trajectory",
            "its length is no multiple of 3: expected [offset ms, x, y, …]",
        ));
        return Ok(Vec::new());
    }
    let mut points = Vec::new();
    for _ in 0..n_numbers / 3 {
        let offset_ms = field(cursor, bad, |t| {
            u32::try_from(value::int("trajectory", t)?)
                .map_err(|_| Invalid::new("trajectory", "has an offset outside 0…2³² ms"))
        })?;
        let x = field(cursor, bad, |t| value::float("trajectory", t))?;
        let y = field(cursor, bad, |t| value::float("trajectory", t))?;
        points.push(TrajectoryPoint { offset_ms, x, y });
    }
    Ok(points)
}

const SESSION_FIELDS: u32 = 4;

fn session_row(
    cursor: &mut Cursor<'_>,
    n_fields: u32,
) -> Result<Result<Session, Invalid>, Malformed> {
    let mut bad = None;
    let session_id = field(cursor, &mut bad, |t| {
        value::id("session_id", t).map(Cow::into_owned)
    })?;
    let started = field(cursor, &mut bad, |t| {
        value::optional(t, |t| value::int("started_at", t))
    })?;
    let ended = field(cursor, &mut bad, |t| {
        value::optional(t, |t| value::int("ended_at", t))
    })?;
    let source = field(cursor, &mut bad, |t| {
        value::optional(t, |t| value::text("source", t).map(str::to_owned))
    })?;
    skip_values(cursor, n_fields - SESSION_FIELDS)?;
    if let Some(invalid) = bad {
        return Ok(Err(invalid));
    }
    Ok(session(session_id, started, ended, source))
}

pub(super) fn session(
    session_id: String,
    started_us: Option<i64>,
    ended_us: Option<i64>,
    source: Option<String>,
) -> Result<Session, Invalid> {
    Ok(Session {
        session_id,
        started_at: started_us
            .map(|us| datetime("started_at", us))
            .transpose()?,
        ended_at: ended_us.map(|us| datetime("ended_at", us)).transpose()?,
        source,
    })
}

pub(super) fn datetime(field: &'static str, us: i64) -> Result<DateTime<Utc>, Invalid> {
    crate::validate::timestamp_us(field, us)?;
    DateTime::from_timestamp_micros(us).ok_or_else(|| Invalid::new(field, "is out of range"))
}
