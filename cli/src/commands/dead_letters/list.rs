//! `passerby dead-letters list`: the letters, or how many there are of what.

use clap::Args;
use passerby_consumer::{
    args::DatabaseArgs,
    store::{DeadLetterCount, DeadLetterFilter, DeadLetterRecord},
};

use super::{filter::FilterArgs, open, show::LetterHead};
use crate::{
    commands::{Failure, output},
    render::{Cell, Column, Output},
};

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// Only those with a greater number.
    #[arg(long, value_name = "N", default_value = "0")]
    after: i64,
    /// At most so many.
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
    /// Count all that match, by reason, SQLSTATE and field.
    #[arg(long, conflicts_with = "limit")]
    summary: bool,
    /// Print one JSON object a line.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print comma-separated values.
    #[arg(long)]
    csv: bool,
}

/// A line of JSON: a letter, or with --summary how many there are of what.
#[cfg(feature = "schema")]
#[derive(schemars::JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "says what is printed")]
pub(crate) enum ListedLetter {
    Letter(Box<LetterHead>),
    Count(DeadLetterCount),
}

/// What people look for first.
const TABLE: &[Column] = &[
    Column::number("id"),
    Column::text("dead_lettered_at"),
    Column::text("camera"),
    Column::number("row"),
    Column::text("reason"),
    Column::text("message"),
    Column::text("state"),
];

const ALL: &[Column] = &[
    Column::number("id"),
    Column::text("dead_lettered_at"),
    Column::text("stream"),
    Column::text("entry_id"),
    Column::number("row"),
    Column::text("camera_ids"),
    Column::text("session_ids"),
    Column::text("reason"),
    Column::text("sqlstate"),
    Column::text("message"),
    Column::text("state"),
    Column::text("requeued_at"),
    Column::text("discarded_at"),
    Column::text("discarded_by"),
    Column::text("discard_reason"),
];

const COUNTS: &[Column] = &[
    Column::text("reason"),
    Column::text("sqlstate"),
    Column::text("field"),
    Column::number("waiting"),
    Column::number("requeued"),
    Column::number("discarded"),
    Column::text("oldest"),
    Column::text("newest"),
];

pub(super) async fn list(args: ListArgs) -> Result<(), Failure> {
    let mut store = open(&args.database).await?;
    let filter = DeadLetterFilter {
        after: args.after,
        ..args.filter.filter(args.limit)
    };
    let form = output::form(args.json, args.csv);
    if args.summary {
        let counts = store
            .count_dead_letters(&filter)
            .await
            .map_err(Failure::store)?;
        if args.json {
            counts.iter().for_each(output::json_line);
        } else {
            write_counts(&counts, form);
        }
        return Ok(());
    }
    let letters = store
        .list_dead_letters(&filter)
        .await
        .map_err(Failure::store)?;
    if args.json {
        letters
            .iter()
            .for_each(|letter| output::json_line(&LetterHead::from(letter)));
    } else if form == Output::Table {
        output::table(TABLE, form, letters.iter().map(in_short));
    } else {
        output::table(ALL, form, letters.iter().map(in_full));
    }
    Ok(())
}

/// Writes how many letters there are of what.
pub(super) fn write_counts(counts: &[DeadLetterCount], form: Output) {
    output::table(COUNTS, form, counts.iter().map(count));
}

fn count(count: &DeadLetterCount) -> Vec<Cell> {
    let n = |n: u64| Cell::Count(i64::try_from(n).unwrap_or(i64::MAX));
    vec![
        count.reason.clone().into(),
        count.sqlstate.clone().into(),
        count.field.clone().into(),
        n(count.waiting),
        n(count.requeued),
        n(count.discarded),
        count.oldest.into(),
        count.newest.into(),
    ]
}

fn row(letter: &DeadLetterRecord) -> Cell {
    letter.row_idx.map(|row| Cell::Id(i64::from(row))).into()
}

fn in_short(letter: &DeadLetterRecord) -> Vec<Cell> {
    let camera = match &letter.camera_ids[..] {
        [] => "unknown".to_owned(),
        [camera] => camera.clone(),
        [camera, others @ ..] => format!("{camera} and {} more", others.len()),
    };
    vec![
        Cell::Id(letter.id),
        Cell::Time(letter.dead_lettered_at),
        camera.into(),
        row(letter),
        letter.reason.clone().into(),
        letter.message.clone().into(),
        letter.state().as_str().into(),
    ]
}

fn in_full(letter: &DeadLetterRecord) -> Vec<Cell> {
    vec![
        Cell::Id(letter.id),
        letter.dead_lettered_at.into(),
        letter.stream.clone().into(),
        letter.entry_id.clone().into(),
        row(letter),
        Cell::List(letter.camera_ids.clone()),
        Cell::List(letter.session_ids.clone()),
        letter.reason.clone().into(),
        letter.sqlstate.clone().into(),
        letter.message.clone().into(),
        letter.state().as_str().into(),
        letter.requeued_at.into(),
        letter.discarded_at.into(),
        letter.discarded_by.clone().into(),
        letter.discard_reason.clone().into(),
    ]
}
