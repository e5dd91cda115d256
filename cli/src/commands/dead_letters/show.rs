//! `passerby dead-letters show`: one letter whole, decoded as far as it can be.

use clap::Args;
use passerby_consumer::{
    args::DatabaseArgs,
    store::{DeadLetterFilter, DeadLetterRecord},
};
use passerby_shared::{
    Detection,
    wire::{EntryFields, Kind, decode_detections},
};
use serde_json::{Value, json};

use super::open;
use crate::{
    commands::{Failure, output},
    visible::visible,
};

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The letter's number.
    id: i64,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
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
    let shown = as_json(letter);
    if args.json {
        output::json(&shown);
        return Ok(());
    }
    as_lines(letter).iter().for_each(|line| output::line(line));
    Ok(())
}

/// The letter for people, line by line.
pub(crate) fn as_lines(letter: &DeadLetterRecord) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, value) in as_json(letter).as_object().into_iter().flatten() {
        let text = match value {
            Value::String(text) => visible(text).into_owned(),
            Value::Null => "-".to_owned(),
            other => serde_json::to_string_pretty(other).unwrap_or_default(),
        };
        let text = format!("{:<16}  {text}", name.replace('_', " "));
        lines.extend(text.lines().map(str::to_owned));
    }
    lines
}

/// The letter with its payload decoded as far as it can be, and as hexadecimal digits.
fn as_json(letter: &DeadLetterRecord) -> Value {
    let fields: serde_json::Map<String, Value> = letter
        .fields
        .iter()
        .map(|(name, value)| {
            (
                String::from_utf8_lossy(name).into_owned(),
                field_json(name, value),
            )
        })
        .collect();
    json!({
        "id": letter.id,
        "dead_lettered_at": letter.dead_lettered_at,
        "stream": letter.stream,
        "entry_id": letter.entry_id,
        "idempotency_key": letter.key.to_string(),
        "row": letter.row_idx,
        "kind": letter.kind,
        "reason": letter.reason,
        "message": letter.message,
        "sqlstate": letter.sqlstate,
        "requeued_at": letter.requeued_at,
        "fields": fields,
        "rows": good_rows(letter),
        "payload": decoded(letter),
    })
}

fn field_json(name: &[u8], value: &[u8]) -> Value {
    const MAX_HEX_BYTES: usize = 4_096;
    match std::str::from_utf8(value) {
        Ok(text) if name != b"p" && !text.contains(char::is_control) => json!(text),
        _ => {
            let hex: String = value
                .iter()
                .take(MAX_HEX_BYTES)
                .map(|b| format!("{b:02x}"))
                .collect();
            let cut = if value.len() > MAX_HEX_BYTES {
                "…"
            } else {
                ""
            };
            json!(format!("{hex}{cut}"))
        }
    }
}

/// The rows that can be read, where the whole entry or a row refused by Postgres is here.
fn good_rows(letter: &DeadLetterRecord) -> Vec<Detection> {
    let pairs = letter
        .fields
        .iter()
        .map(|(name, value)| (&name[..], &value[..]));
    let mut rows = Vec::new();
    if let Ok(entry) = EntryFields::parse(pairs)
        && entry.kind == Kind::Detections
    {
        // What cannot be decoded is what the letter's message is about.
        drop(decode_detections(entry.payload, |_, row| {
            if let Ok(row) = row {
                rows.extend(row.to_detection());
            }
        }));
    }
    rows
}

/// The payload as JSON, where it is MessagePack that JSON can hold.
fn decoded(letter: &DeadLetterRecord) -> Value {
    letter
        .fields
        .iter()
        .find(|(name, _)| name == b"p")
        .and_then(|(_, payload)| rmp_serde::from_slice(payload).ok())
        .unwrap_or(Value::Null)
}
