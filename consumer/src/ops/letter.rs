//! What a dead letter holds, decoded as far as it can be, and where it is wrong.

use std::collections::BTreeMap;

use passerby_shared::wire::{
    self, BadRow, Broken, EntryFields, InspectedField, InspectedValue, Kind, Undecodable, inspect,
};
use serde::{Serialize, Serializer};

use crate::{
    decoder,
    store::{DeadLetterRecord, Reason},
};

/// Bytes shown before and after the place where a payload breaks.
const CONTEXT_BYTES: usize = 32;

/// What a dead letter holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LetterContents {
    /// Rows in the payload, up to where it breaks.
    pub n_rows: usize,
    /// The first of them, and those that are bad before those that are good.
    pub rows: Vec<LetterRow>,
    /// Where the payload's structure is broken.
    pub broken: Option<BrokenPayload>,
}

/// A row as it stands in a payload.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LetterRow {
    /// The row within the entry.
    pub row: usize,
    /// What is wrong with it.
    pub problem: Option<RowProblem>,
    /// Its values.
    pub fields: Vec<LetterField>,
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RowProblem {
    /// The field; `None` where nobody knows which.
    pub field: Option<String>,
    /// What was found, and what was expected.
    pub problem: String,
}

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LetterField {
    /// Its name.
    pub name: String,
    /// Its type in MessagePack.
    #[serde(rename = "type")]
    pub type_name: &'static str,
    /// The value; what JSON cannot hold, as text.
    pub value: ShownValue,
    /// Where it stands in the payload.
    pub offset: usize,
    /// How many bytes it takes.
    pub bytes: usize,
}

/// A value as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct ShownValue(InspectedValue<'static>);

impl ShownValue {
    /// The value.
    pub fn get(&self) -> &InspectedValue<'static> {
        &self.0
    }
}

impl Serialize for ShownValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// As a value of JSON.
#[cfg(feature = "schema")]
impl schemars::JsonSchema for ShownValue {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ShownValue".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["null", "boolean", "number", "string"] })
    }
}

/// Where a payload's structure is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BrokenPayload {
    /// Offset in the payload.
    pub offset: usize,
    /// What is wrong there, or what was expected.
    pub problem: String,
    /// The row that was being read.
    pub row: Option<usize>,
    /// The field that was being read.
    pub field: Option<&'static str>,
    /// Where `hex` begins.
    pub hex_offset: usize,
    /// The bytes around it, as hexadecimal digits.
    pub hex: String,
}

/// Decodes a letter as far as it can be; at most `max_rows` of its rows are kept.
pub fn read_letter(letter: &DeadLetterRecord, max_rows: usize) -> LetterContents {
    let mut contents = LetterContents {
        n_rows: 0,
        rows: Vec::new(),
        broken: None,
    };
    let Ok(entry) = EntryFields::parse(decoder::pairs(&letter.fields)) else {
        return contents; // its version, kind or key is wrong, or there is no payload: see the message
    };
    let (problems, broken_at) = problems(entry.kind, entry.payload);
    let mut good = Vec::new();
    let mut bad = Vec::new();
    let mut row: Option<LetterRow> = None;
    let mut keep = |row: LetterRow| {
        let rows = if row.problem.is_some() {
            &mut bad
        } else {
            &mut good
        };
        if rows.len() < max_rows {
            rows.push(row);
        }
    };
    let inspected = inspect(entry.kind, entry.payload, |field| {
        if row.as_ref().is_none_or(|row| row.row != field.row_idx) {
            let next = LetterRow {
                row: field.row_idx,
                problem: problems.get(&field.row_idx).cloned(),
                fields: Vec::new(),
            };
            if let Some(done) = row.replace(next) {
                keep(done);
            }
        }
        if let Some(row) = &mut row {
            row.fields.push(shown(field));
        }
    });
    if let Some(last) = row.take() {
        keep(last);
    }
    contents.n_rows = match &inspected {
        Ok(n_rows) => *n_rows,
        Err(broken) => broken.row_idx.unwrap_or(0),
    };
    contents.broken = broken(entry.payload, inspected.err(), broken_at);
    bad.extend(good);
    bad.truncate(max_rows);
    bad.sort_by_key(|row| row.row);
    contents.rows = bad;
    if let ([row], Some(row_idx)) = (&mut contents.rows[..], letter.row_idx) {
        row.row = usize::try_from(row_idx).unwrap_or(0);
        if row.problem.is_none() && letter.reason == Reason::Refused.as_str() {
            row.problem = Some(refused(letter, &row.fields));
        }
    }
    contents
}

/// What is wrong with which row, and where decoding gave the payload up.
fn problems(kind: Kind, payload: &[u8]) -> (BTreeMap<usize, RowProblem>, Option<(usize, String)>) {
    let mut problems = BTreeMap::new();
    let mut note = |row_idx: usize, bad: BadRow| {
        let problem = RowProblem {
            field: Some(bad.invalid.field().to_owned()),
            problem: bad.invalid.problem().to_owned(),
        };
        problems.insert(row_idx, problem);
    };
    let decoded = match kind {
        Kind::Detections => wire::decode_detections(payload, |row_idx, row| {
            row.map_or_else(|bad| note(row_idx, bad), drop);
        }),
        Kind::Tracks => wire::decode_tracks(payload, |row_idx, row| {
            row.map_or_else(|bad| note(row_idx, bad), drop);
        }),
        Kind::Sessions => wire::decode_sessions(payload, |row_idx, row| {
            row.map_or_else(|bad| note(row_idx, bad), drop);
        }),
    };
    let broken_at = match decoded {
        Err(Undecodable::Malformed(malformed)) => {
            Some((malformed.offset, malformed.problem.to_owned()))
        }
        Err(Undecodable::Shape { offset, problem }) => Some((offset, problem)),
        Ok(_) | Err(_) => None,
    };
    (problems, broken_at)
}

fn shown(field: InspectedField<'_>) -> LetterField {
    /// Of binary data and text; a letter of a stranger may hold any.
    const MAX_TEXT: usize = 256;
    let value = match field.value {
        InspectedValue::Nil => InspectedValue::Nil,
        InspectedValue::Bool(value) => InspectedValue::Bool(value),
        InspectedValue::Int(value) => InspectedValue::Int(value),
        InspectedValue::BigUint(value) => InspectedValue::BigUint(value),
        InspectedValue::F32(value) => InspectedValue::F32(value),
        InspectedValue::F64(value) => InspectedValue::F64(value),
        InspectedValue::Array(len) => InspectedValue::Array(len),
        InspectedValue::Map(len) => InspectedValue::Map(len),
        ref text @ InspectedValue::Text(ref all) if all.len() <= MAX_TEXT => {
            InspectedValue::Text(text.to_string().into())
        }
        InspectedValue::Text(ref all) => {
            let cut: String = all.chars().take(MAX_TEXT).collect();
            InspectedValue::Text(format!("{cut}…").into())
        }
        ref other @ (InspectedValue::Binary(_) | InspectedValue::Extension(..)) => {
            InspectedValue::Text(other.to_string().into())
        }
    };
    LetterField {
        type_name: field.value.type_name(),
        name: field.name.into_owned(),
        value: ShownValue(value),
        offset: field.bytes.start,
        bytes: field.bytes.len(),
    }
}

/// Postgres names a column where it can.
fn refused(letter: &DeadLetterRecord, fields: &[LetterField]) -> RowProblem {
    let is_named = |field: &&LetterField| letter.message.contains(&format!("\"{}\"", field.name));
    RowProblem {
        field: fields.iter().find(is_named).map(|field| field.name.clone()),
        problem: letter.message.clone(),
    }
}

/// Where decoding gave up, with what was being read there.
fn broken(
    payload: &[u8],
    inspected: Option<Broken>,
    decoding: Option<(usize, String)>,
) -> Option<BrokenPayload> {
    let (offset, problem) = match (&decoding, &inspected) {
        (Some(decoding), _) => decoding.clone(),
        (None, Some(broken)) => (broken.offset, broken.problem.clone()),
        (None, None) => return None,
    };
    let begin = offset.saturating_sub(CONTEXT_BYTES) / 16 * 16;
    let end = payload.len().min(offset + CONTEXT_BYTES);
    Some(BrokenPayload {
        offset,
        problem,
        row: inspected.as_ref().and_then(|broken| broken.row_idx),
        field: inspected.as_ref().and_then(|broken| broken.field),
        hex_offset: begin,
        hex: payload
            .get(begin..end)
            .unwrap_or_default()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    })
}
