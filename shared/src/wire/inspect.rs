//! Takes a payload apart for people: every value with its name and its place.
//!
//! Decoding hands out rows or says what is wrong with them; this shows what stands there. It judges nothing,
//! and goes on where decoding gives a row up: only bytes whose structure is broken end it.

use std::{borrow::Cow, fmt, ops::Range};

use serde::{Serialize, Serializer};

use super::{
    Kind,
    cursor::{Cursor, Malformed, Token},
    decode::Previous,
};

/// One value of a row, as it stands in the payload.
#[derive(Debug, Clone, PartialEq)]
pub struct InspectedField<'a> {
    /// The row within the entry.
    pub row_idx: usize,
    /// The name, as in the wire format and the table; of a value beyond those of this version, its place.
    pub name: Cow<'a, str>,
    /// The bytes of the payload that it takes. Of what rows share they are those of the group.
    pub bytes: Range<usize>,
    /// The value; where the payload holds a difference, what it comes to.
    pub value: InspectedValue<'a>,
}

/// A value of any type that MessagePack has.
#[derive(Debug, Clone, PartialEq)]
pub enum InspectedValue<'a> {
    /// Nothing.
    Nil,
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number above 2⁶³ − 1.
    BigUint(u64),
    /// A 32-bit float.
    F32(f32),
    /// A 64-bit float.
    F64(f64),
    /// Text; bytes that are no UTF-8 are replaced.
    Text(Cow<'a, str>),
    /// Binary data.
    Binary(&'a [u8]),
    /// An array of so many elements.
    Array(u32),
    /// A map of so many entries.
    Map(u32),
    /// An extension type.
    Extension(i8, &'a [u8]),
}

/// Where a payload's structure is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Offset in the payload.
    pub offset: usize,
    /// What is wrong there, or what was expected.
    pub problem: String,
    /// The row that was being read.
    pub row_idx: Option<usize>,
    /// The field of that row that was being read.
    pub field: Option<&'static str>,
}

const DETECTION: [&str; 12] = [
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
const TRACK: [&str; 9] = [
    "track_id",
    "start_time",
    "end_time",
    "detection_count",
    "avg_confidence",
    "gender",
    "gender_confidence",
    "trajectory",
    "degraded",
];
const SESSION: [&str; 4] = ["session_id", "started_at", "ended_at", "source"];

/// Shows every value of a payload to `see`, in order, and returns the number of rows; or the place where its
/// structure is broken, after everything before it was shown.
///
/// # Errors
///
/// [`Broken`] where decoding is [`super::Undecodable`] for the payload's structure.
pub fn inspect<'a>(
    kind: Kind,
    payload: &'a [u8],
    mut see: impl FnMut(InspectedField<'a>),
) -> Result<usize, Broken> {
    let mut inspector = Inspector {
        cursor: Cursor::new(payload),
        see: &mut see,
        n_rows: 0,
        field: None,
        is_in_row: false,
    };
    match inspector.payload(kind) {
        Ok(()) => Ok(inspector.n_rows),
        Err(malformed) => Err(Broken {
            offset: malformed.offset,
            problem: malformed.problem.into_owned(),
            row_idx: inspector.is_in_row.then_some(inspector.n_rows),
            field: inspector.field,
        }),
    }
}

struct Inspector<'a, 's> {
    cursor: Cursor<'a>,
    see: &'s mut dyn FnMut(InspectedField<'a>),
    /// Rows that were read to their end.
    n_rows: usize,
    /// What is being read.
    field: Option<&'static str>,
    is_in_row: bool,
}

/// What ends the inspection.
struct Stop {
    offset: usize,
    problem: Cow<'static, str>,
}

impl From<Malformed> for Stop {
    fn from(malformed: Malformed) -> Self {
        Self {
            offset: malformed.offset,
            problem: malformed.problem.into(),
        }
    }
}

/// A value that all rows of a group share.
type Shared<'a> = (&'static str, Range<usize>, InspectedValue<'a>);

impl<'a> Inspector<'a, '_> {
    fn payload(&mut self, kind: Kind) -> Result<(), Stop> {
        let n_elements = self.array("an array of rows")?;
        let is_compact = kind != Kind::Sessions
            && n_elements > 0
            && matches!(self.cursor.clone().token()?, Token::Array(_));
        for _ in 0..n_elements {
            match kind {
                Kind::Detections if is_compact => self.group(3, &DETECTION, 11)?,
                Kind::Tracks if is_compact => self.group(2, &TRACK, 8)?,
                _ => self.row_of_its_own()?,
            }
        }
        if self.cursor.is_at_end() {
            return Ok(());
        }
        Err(self.stop("bytes follow after the last row"))
    }

    fn group(
        &mut self,
        n_shared: usize,
        names: &[&'static str],
        n_needed: u32,
    ) -> Result<(), Stop> {
        const SHARED: [&str; 3] = ["session_id", "camera_id", "channel_id"];
        let least = u32::try_from(n_shared).unwrap_or(u32::MAX) + 1;
        let n_fields = self.array_of(least, "a group")?;
        let mut shared = Vec::with_capacity(n_shared);
        for name in &SHARED[..n_shared] {
            self.field = Some(name);
            let (bytes, value) = self.value()?;
            shared.push((*name, bytes, value));
        }
        self.field = None;
        let n_rows = self.array("the group's rows")?;
        let mut previous = Previous::default();
        for _ in 0..n_rows {
            self.is_in_row = true;
            self.compact_row(&shared, names, n_needed, &mut previous)?;
            self.is_in_row = false;
            self.n_rows += 1;
        }
        for _ in least..n_fields {
            self.cursor.skip()?;
        }
        Ok(())
    }

    fn compact_row(
        &mut self,
        shared: &[Shared<'a>],
        names: &[&'static str],
        n_needed: u32,
        previous: &mut Previous,
    ) -> Result<(), Stop> {
        for (name, bytes, value) in shared {
            self.show((*name).into(), bytes.clone(), value.clone());
        }
        let n_fields = self.array_of(n_needed, "a row")?;
        let mut start_us = 0;
        for at in 0..n_fields as usize {
            let Some(name) = names.get(at) else {
                let (bytes, value) = self.value()?;
                self.show(format!("element {at}").into(), bytes, value);
                continue;
            };
            self.field = Some(name);
            let (bytes, value) = self.value()?;
            let before = match *name {
                "timestamp" => Some(&mut previous.timestamp_us),
                "detection_id" => Some(&mut previous.detection_id),
                "frame_number" => Some(&mut previous.frame_number),
                "end_time" => Some(&mut start_us),
                _ => None,
            };
            let value = match (before, &value) {
                (Some(before), InspectedValue::Int(difference)) => {
                    *before = before.wrapping_add(*difference);
                    InspectedValue::Int(*before)
                }
                _ => value,
            };
            if let ("start_time", InspectedValue::Int(us)) = (*name, &value) {
                start_us = *us;
            }
            let is_difference = matches!(*name, "timestamp" | "detection_id" | "frame_number");
            let is_number = matches!(
                value,
                InspectedValue::Int(_) | InspectedValue::F32(_) | InspectedValue::F64(_)
            );
            let offset = bytes.start;
            self.show((*name).into(), bytes, value);
            if is_difference && !is_number {
                return Err(Stop {
                    offset,
                    problem: "expected a whole number, from which later rows count".into(),
                });
            }
        }
        self.field = None;
        Ok(())
    }

    /// A map of names and values, or a session's array.
    fn row_of_its_own(&mut self) -> Result<(), Stop> {
        self.is_in_row = true;
        let at = self.cursor.offset();
        match self.cursor.token()? {
            Token::Map(n_fields) => {
                for _ in 0..n_fields {
                    let (_, name) = self.value()?;
                    let (bytes, value) = self.value()?;
                    let name = match name {
                        InspectedValue::Text(name) => name,
                        InspectedValue::Binary(name) => String::from_utf8_lossy(name),
                        other => other.to_string().into(),
                    };
                    self.show(name, bytes, value);
                }
            }
            Token::Array(n_fields) => {
                for at in 0..n_fields as usize {
                    self.field = SESSION.get(at).copied();
                    let (bytes, value) = self.value()?;
                    let name = self
                        .field
                        .map_or_else(|| format!("element {at}").into(), Cow::Borrowed);
                    self.show(name, bytes, value);
                }
                self.field = None;
            }
            token => {
                self.cursor.skip_rest_of(token)?;
                let bytes = at..self.cursor.offset();
                self.show("row".into(), bytes, token.into());
            }
        }
        self.is_in_row = false;
        self.n_rows += 1;
        Ok(())
    }

    fn show(&mut self, name: Cow<'a, str>, bytes: Range<usize>, value: InspectedValue<'a>) {
        (self.see)(InspectedField {
            row_idx: self.n_rows,
            name,
            bytes,
            value,
        });
    }

    /// Reads one whole value.
    fn value(&mut self) -> Result<(Range<usize>, InspectedValue<'a>), Stop> {
        let start = self.cursor.offset();
        let token = self.cursor.token()?;
        self.cursor.skip_rest_of(token)?;
        Ok((start..self.cursor.offset(), token.into()))
    }

    fn array(&mut self, expected: &str) -> Result<u32, Stop> {
        self.array_of(0, expected)
    }

    fn array_of(&mut self, least: u32, expected: &str) -> Result<u32, Stop> {
        let offset = self.cursor.offset();
        let found = match self.cursor.token()? {
            Token::Array(len) if len >= least => return Ok(len),
            Token::Array(len) => format!("an array of {len}, expected {expected} of {least}"),
            other => format!("{}, expected {expected}", other.type_name()),
        };
        Err(Stop {
            offset,
            problem: found.into(),
        })
    }

    fn stop(&self, problem: &'static str) -> Stop {
        self.cursor.malformed(problem).into()
    }
}

impl<'a> From<Token<'a>> for InspectedValue<'a> {
    fn from(token: Token<'a>) -> Self {
        match token {
            Token::Nil => Self::Nil,
            Token::Bool(value) => Self::Bool(value),
            Token::Int(value) => Self::Int(value),
            Token::BigUint(value) => Self::BigUint(value),
            Token::F32(value) => Self::F32(value),
            Token::F64(value) => Self::F64(value),
            Token::Str(bytes) => Self::Text(String::from_utf8_lossy(bytes)),
            Token::Bin(bytes) => Self::Binary(bytes),
            Token::Array(len) => Self::Array(len),
            Token::Map(len) => Self::Map(len),
            Token::Ext(kind, bytes) => Self::Extension(kind, bytes),
        }
    }
}

impl InspectedValue<'_> {
    /// The value's type, as error messages name it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "boolean",
            Self::Int(_) | Self::BigUint(_) => "integer",
            Self::F32(_) | Self::F64(_) => "float",
            Self::Text(_) => "string",
            Self::Binary(_) => "binary",
            Self::Array(_) => "array",
            Self::Map(_) => "map",
            Self::Extension(..) => "extension",
        }
    }
}

impl fmt::Display for InspectedValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| {
            const SHOWN: usize = 32;
            bytes
                .iter()
                .take(SHOWN)
                .try_for_each(|byte| write!(f, "{byte:02x}"))?;
            f.write_str(if bytes.len() > SHOWN { "…" } else { "" })
        };
        match self {
            Self::Nil => f.write_str("nil"),
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::BigUint(value) => value.fmt(f),
            Self::F32(value) => value.fmt(f),
            Self::F64(value) => value.fmt(f),
            Self::Text(text) => text.fmt(f),
            Self::Binary(bytes) => hex(f, bytes),
            Self::Array(len) => write!(f, "array of {len}"),
            Self::Map(len) => write!(f, "map of {len}"),
            Self::Extension(kind, bytes) => {
                write!(f, "extension {kind}: ")?;
                hex(f, bytes)
            }
        }
    }
}

/// As JSON has it; what JSON has not, as text.
impl Serialize for InspectedValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Nil => serializer.serialize_none(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::BigUint(value) => serializer.serialize_u64(*value),
            Self::F32(value) if value.is_finite() => serializer.serialize_f32(*value),
            Self::F64(value) if value.is_finite() => serializer.serialize_f64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            other => serializer.collect_str(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{self, Undecodable};

    fn undecodable_at(kind: Kind, payload: &[u8]) -> Option<usize> {
        let decoded = match kind {
            Kind::Detections => wire::decode_detections(payload, |_, _| {}),
            Kind::Tracks => wire::decode_tracks(payload, |_, _| {}),
            Kind::Sessions => wire::decode_sessions(payload, |_, _| {}),
        };
        match decoded.err()? {
            Undecodable::Malformed(malformed) => Some(malformed.offset),
            Undecodable::Shape { offset, .. } => Some(offset),
            other => panic!("{other}"),
        }
    }

    /// A payload in the compact form: a group of three rows of 40 ms.
    fn compact() -> Vec<u8> {
        let mut payload = vec![0x91, 0x94, 0xa1, b's', 0xa1, b'c', 7, 0x93];
        for n in 0..3u8 {
            payload.extend([0x9b, 40, 1, 0xc0, 0xca, 0x3f, 0, 0, 0]);
            payload.extend([1, 2, 3, 4, n, 0xc0, 2]);
        }
        payload
    }

    fn seen(kind: Kind, payload: &[u8]) -> Vec<String> {
        let mut seen = Vec::new();
        let done = inspect(kind, payload, |field| {
            let InspectedField {
                row_idx,
                name,
                bytes,
                value,
            } = field;
            seen.push(format!("{row_idx} {name} {}: {value}", bytes.start));
        });
        seen.push(format!("{done:?}"));
        seen
    }

    #[test]
    fn every_value_has_a_name_and_a_place_and_differences_are_added_up() {
        let seen = seen(Kind::Detections, &compact());
        assert_eq!(seen.len(), 3 * (3 + 11) + 1);
        assert_eq!(
            seen[14..],
            [
                "1 session_id 2: s",
                "1 camera_id 4: c",
                "1 channel_id 6: 7",
                "1 timestamp 25: 80",
                "1 detection_id 26: 2",
                "1 track_id 27: nil",
                "1 confidence 28: 0.5",
                "1 bbox_x 33: 1",
                "1 bbox_y 34: 2",
                "1 bbox_width 35: 3",
                "1 bbox_height 36: 4",
                "1 gender 37: 1",
                "1 gender_confidence 38: nil",
                "1 frame_number 39: 4",
            ]
            .iter()
            .map(ToString::to_string)
            .chain(seen[28..].to_vec())
            .collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_break_is_named_by_row_and_field() {
        let mut payload = compact();
        payload[36] = 0xc1; // the second row's bbox_height
        let broken = inspect(Kind::Detections, &payload, |_| {}).unwrap_err();
        assert_eq!(
            broken,
            Broken {
                offset: 36,
                problem: "0xc1 is never used".into(),
                row_idx: Some(1),
                field: Some("bbox_height"),
            }
        );
    }

    fn check_agreement(kind: Kind, payload: &[u8]) {
        let broken = inspect(kind, payload, |field| {
            assert!(field.bytes.end <= payload.len());
        });
        // What decoding refuses for a value, and not for its structure, is shown as it stands.
        if let Some(offset) = undecodable_at(kind, payload)
            && let Err(broken) = &broken
        {
            assert!(broken.offset >= offset, "{broken:?} {offset} {payload:x?}");
        } else if let Err(broken) = broken {
            panic!("{broken:?} of what can be decoded: {payload:x?}");
        }
    }

    proptest! {
        #[test]
        fn what_can_be_decoded_can_be_inspected(
            at in 0..56_usize, byte: u8, cut in 0..57_usize, kind in 0..3,
        ) {
            let kind = [Kind::Detections, Kind::Tracks, Kind::Sessions][usize::try_from(kind).unwrap()];
            let mut payload = compact();
            payload[at.min(55)] = byte;
            payload.truncate(cut.max(1));
            check_agreement(kind, &payload);
        }

        #[test]
        fn any_bytes_can_be_inspected(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            for kind in [Kind::Detections, Kind::Tracks, Kind::Sessions] {
                check_agreement(kind, &payload);
            }
        }
    }
}
