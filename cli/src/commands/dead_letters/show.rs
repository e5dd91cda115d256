//! `passerby dead-letters show`: one letter whole, decoded as far as it can be.

use chrono::{DateTime, Utc};
use clap::Args;
use passerby_consumer::{
    args::DatabaseArgs,
    ops::{self, BrokenPayload, LetterContents, LetterField, LetterRow},
    store::{DeadLetterFilter, DeadLetterRecord, LetterState},
};
use passerby_shared::wire::InspectedValue;
use serde::Serialize;

use super::open;
use crate::{
    commands::{Failure, output},
    render::{Cell, Column, Output, TableWriter, Terminal, bytes, counted},
    visible::visible,
};

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The letter's number.
    id: i64,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Of a letter that is a whole entry, at most so many rows: bad ones before good ones.
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    rows: u32,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct ShownLetter {
    #[serde(flatten)]
    head: LetterHead,
    /// The names and values of the entry's fields: text as such, all else as hexadecimal digits.
    fields: Vec<(String, String)>,
    #[serde(flatten)]
    contents: LetterContents,
}

/// What the table has of a letter, beside its fields.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct LetterHead {
    id: i64,
    state: LetterState,
    dead_lettered_at: DateTime<Utc>,
    stream: String,
    entry_id: String,
    /// The row within the entry; `null` for the whole entry.
    row: Option<i32>,
    idempotency_key: String,
    /// `d`, `t` or `s`, where it could be read.
    kind: Option<String>,
    camera_ids: Vec<String>,
    session_ids: Vec<String>,
    reason: String,
    message: String,
    sqlstate: Option<String>,
    requeued_at: Option<DateTime<Utc>>,
    discarded_at: Option<DateTime<Utc>>,
    discarded_by: Option<String>,
    discard_reason: Option<String>,
}

impl From<&DeadLetterRecord> for LetterHead {
    fn from(letter: &DeadLetterRecord) -> Self {
        Self {
            id: letter.id,
            state: letter.state(),
            dead_lettered_at: letter.dead_lettered_at,
            stream: letter.stream.clone(),
            entry_id: letter.entry_id.clone(),
            row: letter.row_idx,
            idempotency_key: letter.key.to_string(),
            kind: letter.kind.clone(),
            camera_ids: letter.camera_ids.clone(),
            session_ids: letter.session_ids.clone(),
            reason: letter.reason.clone(),
            message: letter.message.clone(),
            sqlstate: letter.sqlstate.clone(),
            requeued_at: letter.requeued_at,
            discarded_at: letter.discarded_at,
            discarded_by: letter.discarded_by.clone(),
            discard_reason: letter.discard_reason.clone(),
        }
    }
}

pub(super) async fn show(args: ShowArgs) -> Result<(), Failure> {
    let mut store = open(&args.database).await?;
    let filter = DeadLetterFilter {
        ids: vec![args.id..=args.id],
        limit: 1,
        ..DeadLetterFilter::default()
    };
    let letters = store
        .query_dead_letters(&filter)
        .await
        .map_err(Failure::store)?;
    let Some(letter) = letters.first() else {
        return Err(Failure::new(format_args!(
            "there is no dead letter {}: `passerby dead-letters list` shows what there is",
            args.id
        )));
    };
    let shown = ShownLetter {
        head: letter.into(),
        fields: letter.fields.iter().map(|(n, v)| field(n, v)).collect(),
        contents: ops::read_letter(letter, args.rows as usize),
    };
    if args.json {
        output::json(&shown);
        return Ok(());
    }
    lines(letter, &shown.contents, Terminal::stdout())
        .iter()
        .for_each(|line| output::line(line));
    Ok(())
}

/// The letter for people, line by line, with as many rows as fit on a screen or two.
pub(crate) fn as_lines(letter: &DeadLetterRecord) -> Vec<String> {
    let terminal = Terminal {
        width: None,
        ..Terminal::stdout()
    };
    lines(letter, &ops::read_letter(letter, 5), terminal)
}

fn lines(letter: &DeadLetterRecord, contents: &LetterContents, terminal: Terminal) -> Vec<String> {
    let mut lines = head(letter);
    for row in &contents.rows {
        lines.extend(row_lines(row, terminal));
    }
    let n_more = contents.n_rows.saturating_sub(contents.rows.len());
    if n_more > 0 {
        lines.push(String::new());
        lines.push(format!(
            "{} more: --rows shows them",
            counted(n_more as u64, "row")
        ));
    }
    if let Some(broken) = &contents.broken {
        lines.extend(broken_lines(broken));
    }
    lines
}

/// A field's name and value, as text or as hexadecimal digits.
fn field(name: &[u8], value: &[u8]) -> (String, String) {
    const MAX_HEX_BYTES: usize = 4_096;
    let value = match std::str::from_utf8(value) {
        Ok(text) if name != b"p" && !text.contains(char::is_control) => text.to_owned(),
        _ => {
            let digits = value.iter().take(MAX_HEX_BYTES);
            let hex: String = digits.map(|b| format!("{b:02x}")).collect();
            let cut = if value.len() > MAX_HEX_BYTES {
                "…"
            } else {
                ""
            };
            format!("{hex}{cut}")
        }
    };
    (String::from_utf8_lossy(name).into_owned(), value)
}

fn head(letter: &DeadLetterRecord) -> Vec<String> {
    let time = |time: DateTime<Utc>| time.format("%Y-%m-%d %H:%M:%S%.3f").to_string();
    let row = letter
        .row_idx
        .map_or("the whole entry".to_owned(), |row| format!("row {row}"));
    let state = match (letter.state(), letter.requeued_at, letter.discarded_at) {
        (LetterState::Requeued, Some(at), _) => format!("put back at {}", time(at)),
        (LetterState::Discarded, _, Some(at)) => format!(
            "discarded at {} by {}: {}",
            time(at),
            visible(letter.discarded_by.as_deref().unwrap_or("somebody")),
            visible(
                letter
                    .discard_reason
                    .as_deref()
                    .unwrap_or("no reason given")
            ),
        ),
        (state, ..) => state.as_str().to_owned(),
    };
    let unknown = |ids: &[String]| match ids {
        [] => "unknown".to_owned(),
        ids => visible(&ids.join(", ")).into_owned(),
    };
    let fields: Vec<String> = letter
        .fields
        .iter()
        .map(|(name, value)| match &**name {
            b"p" => format!("p ({})", bytes(value.len() as u64)),
            _ => {
                let (name, value) = field(name, value);
                format!("{} {}", visible(&name), visible(&value))
            }
        })
        .collect();
    let mut lines = vec![
        ("state", state),
        ("dead-lettered", time(letter.dead_lettered_at)),
        (
            "from",
            format!(
                "{row} of {} in {}",
                letter.entry_id,
                visible(&letter.stream)
            ),
        ),
        ("key", letter.key.to_string()),
        ("camera", unknown(&letter.camera_ids)),
        ("session", unknown(&letter.session_ids)),
        ("reason", letter.reason.clone()),
        ("message", visible(&letter.message).into_owned()),
        ("fields", fields.join(", ")),
    ];
    if let Some(sqlstate) = &letter.sqlstate {
        lines.insert(7, ("sqlstate", sqlstate.clone()));
    }
    let title = format!("dead letter {}", letter.id);
    let line = |(name, text): (&str, String)| format!("  {name:<13}  {text}");
    std::iter::once(title)
        .chain(lines.into_iter().map(line))
        .collect()
}

const FIELDS: &[Column] = &[
    Column::text(" "),
    Column::text("field"),
    Column::text("value"),
    Column::text("type"),
    Column::number("byte"),
];

fn row_lines(row: &LetterRow, terminal: Terminal) -> Vec<String> {
    let bad = row.problem.as_ref().and_then(|p| p.field.as_deref());
    let cells = |field: &LetterField| {
        // An arrow, since colours are not seen by everybody.
        let mark = if bad == Some(&*field.name) { ">" } else { " " };
        vec![
            mark.into(),
            field.name.clone().into(),
            for_people(field).into(),
            field.type_name.into(),
            Cell::Id(i64::try_from(field.offset).unwrap_or(i64::MAX)),
        ]
    };
    let mut table = Vec::new();
    let mut writer = TableWriter::new(&mut table, FIELDS, Output::Table, terminal);
    // Writing to memory does not fail.
    let written = row
        .fields
        .iter()
        .try_for_each(|field| writer.row(cells(field)))
        .and_then(|()| writer.finish().map(drop));
    debug_assert!(written.is_ok(), "{written:?}");
    let mut lines = vec![String::new(), format!("row {}", row.row)];
    lines.extend(String::from_utf8_lossy(&table).lines().map(str::to_owned));
    if let Some(problem) = &row.problem {
        let field = bad.map(|field| format!("{}: ", visible(field)));
        lines.push(format!(
            "> {}{}",
            field.unwrap_or_default(),
            visible(&problem.problem)
        ));
    }
    lines
}

/// The value; times and genders in words besides.
fn for_people(field: &LetterField) -> String {
    let value = field.value.get();
    let words = match (&*field.name, value) {
        (
            "timestamp" | "start_time" | "end_time" | "started_at" | "ended_at",
            InspectedValue::Int(us),
        ) => DateTime::from_timestamp_micros(*us)
            .map(|time| time.format("%Y-%m-%d %H:%M:%S%.6f").to_string()),
        ("gender", InspectedValue::Int(0)) => Some("unknown".to_owned()),
        ("gender", InspectedValue::Int(1)) => Some("male".to_owned()),
        ("gender", InspectedValue::Int(2)) => Some("female".to_owned()),
        _ => None,
    };
    match words {
        Some(words) => format!("{value} ({words})"),
        None => value.to_string(),
    }
}

/// The bytes around the place, sixteen a line, with the place marked below.
fn broken_lines(broken: &BrokenPayload) -> Vec<String> {
    let place = match (broken.row, broken.field) {
        (Some(row), Some(field)) => format!(", in {field} of row {row}"),
        (Some(row), None) => format!(", in row {row}"),
        (None, Some(field)) => format!(", in {field}"),
        (None, None) => String::new(),
    };
    let mut lines = vec![
        String::new(),
        format!(
            "the payload breaks at byte {}{place}: {}",
            broken.offset,
            visible(&broken.problem)
        ),
    ];
    let digits: Vec<&str> = broken
        .hex
        .as_bytes()
        .chunks(2)
        .filter_map(|pair| std::str::from_utf8(pair).ok())
        .collect();
    for (n, line) in digits.chunks(16).enumerate() {
        let offset = broken.hex_offset + 16 * n;
        let text: String = line
            .iter()
            .map(|pair| match u8::from_str_radix(pair, 16) {
                Ok(byte @ 0x20..=0x7e) => char::from(byte),
                _ => '.',
            })
            .collect();
        lines.push(format!("  {offset:08x}  {:<47}  {text}", line.join(" ")));
        if (offset..offset + 16).contains(&broken.offset) {
            let at = broken.offset - offset;
            lines.push(format!("  {:8}  {:width$}^^", "", "", width = 3 * at));
        }
    }
    // The payload ends where more was expected.
    if digits.len().is_multiple_of(16) && broken.offset == broken.hex_offset + digits.len() {
        lines.push(format!("  {:08x}  ^^", broken.offset));
    }
    lines
}
