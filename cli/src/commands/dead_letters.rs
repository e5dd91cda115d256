//! `passerby dead-letters`: what could not be stored, and putting it back after a fix.

use std::{collections::BTreeSet, process::ExitCode};

use clap::{Args, Subcommand};
use passerby_consumer::{
    args::{DatabaseArgs, RedisArgs},
    ops::{self, RequeueReport},
    store::{DeadLetterFilter, DeadLetterRecord, Reason, Store},
};
use passerby_shared::{
    Detection,
    wire::{EntryFields, Kind, decode_detections},
};
use serde_json::{Value, json};

use super::{Failure, confirm, output, target};
use crate::{
    render::{Cell, Column, grouped},
    visible::visible,
};

/// Look at what could not be stored, and put it back after a fix.
#[derive(Debug, Args)]
pub(crate) struct DeadLettersArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List dead letters, oldest first.
    #[command(after_help = "Example:\n  passerby dead-letters list --reason invalid-row")]
    List(ListArgs),
    /// Show one dead letter whole, decoded as far as it can be.
    #[command(after_help = "Example:\n  passerby dead-letters show 17")]
    Show(ShowArgs),
    /// Put dead letters back into their streams, to be stored by the workers.
    ///
    /// Safe to repeat: a letter put back twice is stored once. One that is refused again becomes a new
    /// dead letter. Letters that are `too-old` may have been stored before the ledger forgot them: look for
    /// their rows first, and then name them by number or with `--reason too-old`.
    #[command(after_help = "Example:\n  passerby dead-letters requeue --reason refused --dry-run")]
    Requeue(RequeueArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Only this reason.
    #[arg(long, value_name = "REASON", value_parser = REASONS)]
    reason: Option<String>,
    /// Only those with a greater number.
    #[arg(long, value_name = "N", default_value = "0")]
    after: i64,
    /// At most so many.
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
    /// Print one JSON object a line.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print comma-separated values.
    #[arg(long)]
    csv: bool,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// The letter's number.
    id: i64,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct RequeueArgs {
    /// The letters' numbers [default: all that match and were not put back yet].
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
    /// Only this reason.
    #[arg(long, value_name = "REASON", value_parser = REASONS)]
    reason: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N", default_value = "10000", value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
    /// Say how many match, and put none back.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// As in the table.
const REASONS: [&str; 6] = [
    Reason::Undecodable.as_str(),
    Reason::InvalidRow.as_str(),
    Reason::Refused.as_str(),
    Reason::Lost.as_str(),
    Reason::TooOld.as_str(),
    Reason::Panic.as_str(),
];

/// Runs the command.
pub(crate) async fn run(args: DeadLettersArgs) -> Result<ExitCode, Failure> {
    match args.what {
        What::List(args) => list(args).await,
        What::Show(args) => show(args).await,
        What::Requeue(args) => requeue(args).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn open(database: &DatabaseArgs) -> Result<Store, Failure> {
    let url = database.database_url().map_err(Failure::usage)?;
    Store::connect(&url).await.map_err(Failure::store)
}

const COLUMNS: &[Column] = &[
    Column::number("id"),
    Column::text("dead_lettered_at"),
    Column::text("entry_id"),
    Column::number("row"),
    Column::text("reason"),
    Column::text("message"),
    Column::text("requeued_at"),
];

async fn list(args: ListArgs) -> Result<(), Failure> {
    let mut store = open(&args.database).await?;
    let filter = DeadLetterFilter {
        reason: args.reason,
        after: args.after,
        limit: args.limit,
        ..DeadLetterFilter::default()
    };
    let letters = store
        .query_dead_letters(&filter)
        .await
        .map_err(Failure::store)?;
    output::table(
        COLUMNS,
        output::form(args.json, args.csv),
        letters.iter().map(cells),
    );
    Ok(())
}

fn cells(letter: &DeadLetterRecord) -> Vec<Cell> {
    vec![
        Cell::Id(letter.id),
        Cell::Time(letter.dead_lettered_at),
        Cell::Text(letter.entry_id.clone()),
        letter
            .row_idx
            .map_or(Cell::Absent, |row| Cell::Id(i64::from(row))),
        Cell::Text(letter.reason.clone()),
        Cell::Text(letter.message.clone()),
        letter.requeued_at.map_or(Cell::Absent, Cell::Time),
    ]
}

async fn show(args: ShowArgs) -> Result<(), Failure> {
    let mut store = open(&args.database).await?;
    let filter = DeadLetterFilter {
        ids: vec![args.id],
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
    for (name, value) in shown.as_object().into_iter().flatten() {
        let text = match value {
            Value::String(text) => visible(text).into_owned(),
            Value::Null => "-".to_owned(),
            other => serde_json::to_string_pretty(other).unwrap_or_default(),
        };
        output::line(&format!("{:<16}  {text}", name.replace('_', " ")));
    }
    Ok(())
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

async fn requeue(args: RequeueArgs) -> Result<(), Failure> {
    let mut store = open(&args.database).await?;
    let mut target = target(&args.redis)?;
    let filter = DeadLetterFilter {
        not_requeued: args.ids.is_empty(),
        ids: args.ids,
        reason: args.reason,
        limit: args.limit,
        ..DeadLetterFilter::default()
    };
    let found = ops::requeue(&mut target, &mut store, &filter, true)
        .await
        .map_err(Failure::ops)?;
    let n_named = filter.ids.iter().collect::<BTreeSet<_>>().len();
    if found.matched < n_named {
        return Err(Failure::new(format_args!(
            "{} of the {n_named} numbers given are of dead letters that match: `passerby \
             dead-letters list` shows what there is; nothing was put back",
            found.matched
        )));
    }
    if args.dry_run || found.matched == 0 {
        if args.json {
            output::json(&found);
        } else {
            output::line(&format!(
                "{} dead letters match{}",
                grouped(found.matched as u64),
                left_alone(&found)
            ));
        }
        return Ok(());
    }
    let n_meant = found.matched - found.doubtful;
    confirm(
        args.yes,
        &format!("put {} dead letters back", grouped(n_meant as u64)),
    )?;
    let report = ops::requeue(&mut target, &mut store, &filter, false)
        .await
        .map_err(Failure::ops)?;
    if args.json {
        output::json(&report);
    } else {
        output::line(&format!(
            "{} of {} dead letters put back{}",
            grouped(report.requeued as u64),
            grouped(report.matched as u64),
            left_alone(&report),
        ));
    }
    Ok(())
}

/// Which letters are not put back, and why.
fn left_alone(report: &RequeueReport) -> String {
    let mut text = String::new();
    if report.empty > 0 {
        text.push_str(&format!("; {} hold nothing to put back", report.empty));
    }
    if report.doubtful > 0 {
        text.push_str(&format!(
            "; {} are too old to tell whether they were stored: look for their rows, then name them by \
             number or with --reason too-old",
            report.doubtful
        ));
    }
    text
}
