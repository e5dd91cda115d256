//! `passerby entry`: what became of one entry, as a story and then in detail.

use std::{process::ExitCode, str::FromStr, time::Duration};

use clap::Args;
use passerby_consumer::{
    args::{DatabaseArgs, RedisArgs},
    ops::{
        self, DecodedEntry, Delivery, EntryName, EntryPlace, EntryReport, EntryRows, Whereabouts,
    },
    store::Store,
};
use passerby_shared::{EntryId, IdempotencyKey};

use super::{Failure, output, target, trim::times};
use crate::{
    render::{bytes, counted, duration, grouped},
    visible::visible,
};

/// Find out what became of an entry: where it is, who had it, whether it is stored.
///
/// Tells one story in sentences, then the details. An entry is named by its ID or by its idempotency key. What
/// is no longer in the stream is found in the ledger by its key; if only its ID is known, by the time its key was
/// made at: in the quarter of an hour before it was added.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  passerby entry 1792000000000-0\n  passerby entry 0199f3a2-6c1e-7b4d-9f00-1c2d3e4f5a6b --rows"
)]
pub(crate) struct EntryArgs {
    /// The entry's ID, or its idempotency key.
    #[arg(value_name = "ID")]
    name: Name,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Show its rows, at most 1000 of them.
    #[arg(long)]
    rows: bool,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy)]
struct Name(EntryName);

impl FromStr for Name {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        if let Ok(id) = s.parse::<EntryId>() {
            return Ok(Self(EntryName::Id(id)));
        }
        s.parse::<IdempotencyKey>()
            .map(|key| Self(EntryName::Key(key)))
            .map_err(|_| {
                "expected an entry ID, as 1792000000000-0, or an idempotency key, which is a UUID"
                    .to_owned()
            })
    }
}

/// Runs the command.
pub(crate) async fn run(args: EntryArgs) -> Result<ExitCode, Failure> {
    let url = args.database.database_url().map_err(Failure::usage)?;
    let mut target = target(&args.redis)?;
    let mut store = Store::connect(&url).await.map_err(Failure::store)?;
    let report = ops::entry(&mut target, &mut store, args.name.0, args.rows)
        .await
        .map_err(Failure::ops)?;
    if args.json {
        output::json(&report);
        return Ok(ExitCode::SUCCESS);
    }
    output::line(&story(&report));
    let details = details(&report);
    if !details.is_empty() {
        output::line("");
    }
    for (name, value) in details {
        output::line(&format!("{name:<16}  {value}"));
    }
    if let Some(rows) = &report.rows {
        output::line("");
        print_rows(rows);
    }
    Ok(ExitCode::SUCCESS)
}

fn print_rows(rows: &EntryRows) {
    match rows {
        EntryRows::Detections(rows) => rows.iter().for_each(output::json_line),
        EntryRows::Tracks(rows) => rows.iter().for_each(output::json_line),
        EntryRows::Sessions(rows) => rows.iter().for_each(output::json_line),
    }
}

/// What became of it, in sentences.
fn story(report: &EntryReport) -> String {
    let mut sentences = Vec::new();
    match (report.entry_id, report.idempotency_key) {
        (None, Some(key)) if report.ledger.is_none() => sentences.push(format!(
            "No entry with the key {key} is known: not in the ledger, and not among the entries that came \
             into the streams after it was made."
        )),
        (None, _) => {}
        (Some(id), _) => {
            for place in &report.places {
                sentences.push(where_it_is(id, place));
                sentences.extend(who_had_it(place, &report.group));
            }
        }
    }
    if report.entry_id.is_some() || report.ledger.is_some() {
        sentences.push(is_stored(report));
    }
    sentences.extend(dead_letters(report));
    sentences.join(" ")
}

fn where_it_is(id: EntryId, place: &EntryPlace) -> String {
    let stream = visible(&place.stream);
    let age = duration(Duration::from_millis(place.age_ms));
    match place.whereabouts {
        Whereabouts::There => format!("Entry {id} was added to {stream} {age} ago and is there."),
        Whereabouts::Trimmed => {
            format!("Entry {id} is no longer in {stream}: what came {age} ago is trimmed.")
        }
        Whereabouts::Missing => format!(
            "Entry {id} is not in {stream}, where younger and older ones are: it never was, or somebody deleted it."
        ),
        Whereabouts::NotYet => format!(
            "Entry {id} is not in {stream}, which has given no ID as great: it is of another stream, or the \
             stream began anew."
        ),
        Whereabouts::NoStream => format!("There is no stream {stream}."),
    }
}

fn who_had_it(place: &EntryPlace, group: &str) -> Option<String> {
    let group = visible(group);
    Some(match &place.delivery {
        Delivery::Pending {
            consumer,
            idle_ms,
            delivery_count,
        } => {
            let lost = match place.whereabouts {
                Whereabouts::There => "",
                _ => " Its rows are lost in Redis, and will be a dead letter.",
            };
            format!(
                "{} holds it and has shown no sign of life for {}; it was delivered {}.{lost}",
                visible(consumer),
                duration(Duration::from_millis(*idle_ms)),
                times(*delivery_count)
            )
        }
        Delivery::NoGroup if place.whereabouts == Whereabouts::There => {
            format!("The group {group} does not read this stream.")
        }
        Delivery::NotDelivered if place.whereabouts == Whereabouts::There => {
            format!("No worker of the group {group} has read it yet.")
        }
        Delivery::Acknowledged if place.whereabouts == Whereabouts::There => {
            format!("The group {group} has acknowledged it.")
        }
        _ => return None,
    })
}

fn is_stored(report: &EntryReport) -> String {
    let n_found: i64 = report.stored.iter().map(|found| found.n_rows).sum();
    let n_found = u64::try_from(n_found).unwrap_or(0);
    match &report.ledger {
        Some(ledger) => {
            let n_rows = u64::try_from(ledger.n_rows).unwrap_or(0);
            let mut text = format!(
                "It was committed at {} with {}.",
                ledger.committed_at.format("%Y-%m-%d %H:%M:%S%.3f UTC"),
                counted(n_rows, "row")
            );
            if report.looked_for > 0 {
                let all = if n_found == report.looked_for {
                    "all"
                } else {
                    "only"
                };
                text.push_str(&format!(
                    " Of the {} it holds, {all} {} are there now.",
                    counted(report.looked_for, "row"),
                    grouped(n_found)
                ));
            }
            text
        }
        None if report.idempotency_key.is_none() => {
            "Nothing in the ledger tells of it: it was not stored, or its key was made long before it was sent, \
             or the ledger has forgotten it."
                .to_owned()
        }
        None if n_found > 0 => format!(
            "The ledger does not have it, but rows like {} of its {} are stored: by another entry, or before the \
             ledger forgot it.",
            grouped(n_found),
            grouped(report.looked_for)
        ),
        None => "It is not stored: the ledger does not have its key.".to_owned(),
    }
}

fn dead_letters(report: &EntryReport) -> Option<String> {
    let first = report.dead_letters.first()?;
    let what = match (report.dead_letters.len() as u64, first.row) {
        (_, None) => "It is in the dead letters, as".to_owned(),
        (1, Some(_)) => "1 of its rows is in the dead letters, as".to_owned(),
        (n, Some(_)) => format!("{n} of its rows are in the dead letters, the first as"),
    };
    Some(format!(
        "{what} {}: {}",
        first.reason,
        visible(&first.message)
    ))
}

fn details(report: &EntryReport) -> Vec<(&'static str, String)> {
    let mut details = Vec::new();
    let mut add = |name, value: String| details.push((name, value));
    if let Some(id) = report.entry_id {
        add("entry id", id.to_string());
    }
    if let Some(key) = report.idempotency_key {
        let derived = report
            .places
            .iter()
            .filter_map(|place| place.entry.as_ref())
            .any(|entry| entry.key_is_derived);
        let derived = if derived {
            ", derived from where it stands"
        } else {
            ""
        };
        add("idempotency key", format!("{key}{derived}"));
    }
    for place in &report.places {
        if let (Some(first), Some(last)) = (place.first_entry_id, place.last_entry_id) {
            add(
                "stream",
                format!("{} from {first} to {last}", visible(&place.stream)),
            );
        }
        if let Some(entry) = &place.entry {
            for (name, value) in contents(entry) {
                add(name, value);
            }
        }
    }
    for found in &report.stored {
        add(
            "stored in",
            format!(
                "{}: {}",
                visible(&found.table),
                counted(u64::try_from(found.n_rows).unwrap_or(0), "row")
            ),
        );
    }
    for letter in &report.dead_letters {
        let row = letter
            .row
            .map_or_else(String::new, |row| format!(" row {row}"));
        let requeued = if letter.requeued_at.is_some() {
            ", put back"
        } else {
            ""
        };
        add(
            "dead letter",
            format!(
                "{}{row}: {}: {}{requeued}",
                letter.id,
                letter.reason,
                visible(&letter.message)
            ),
        );
    }
    details
}

/// What is in an entry, by name.
pub(crate) fn contents(entry: &DecodedEntry) -> Vec<(&'static str, String)> {
    let mut details = vec![(
        "holds",
        format!(
            "{} of {}, {}",
            counted(entry.rows, "row"),
            entry.kind.unwrap_or("nothing that can be read"),
            bytes(entry.bytes)
        ),
    )];
    let names = |names: &[String]| {
        let names: Vec<_> = names.iter().map(|name| visible(name)).collect();
        names.join(", ")
    };
    if !entry.camera_ids.is_empty() {
        details.push(("cameras", names(&entry.camera_ids)));
    }
    if !entry.session_ids.is_empty() {
        details.push(("sessions", names(&entry.session_ids)));
    }
    if let (Some(first), Some(last)) = (entry.first_captured_at, entry.last_captured_at) {
        let time = "%Y-%m-%d %H:%M:%S%.3f";
        details.push((
            "captured",
            format!("{} to {} (UTC)", first.format(time), last.format(time)),
        ));
    }
    if let Some(letter) = &entry.requeued_from {
        details.push(("put back from", format!("dead letter {}", visible(letter))));
    }
    if let Some(problem) = &entry.problem {
        let n = if entry.bad_rows > 0 {
            format!("{} bad, the first ", counted(entry.bad_rows, "row"))
        } else {
            String::new()
        };
        details.push(("problem", format!("{n}{}", visible(problem))));
    }
    details
}
