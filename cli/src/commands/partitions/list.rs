//! `passerby partitions list`.

use clap::Args;
use passerby_consumer::args::DatabaseArgs;

use super::open;
use crate::{
    commands::{Failure, output},
    render::{Cell, Column, Output, bytes, counted, grouped},
};

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Count the rows of the default partition by day, however large it is.
    #[arg(long)]
    count: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

const COLUMNS: &[Column] = &[
    Column::text("day"),
    Column::text("partition"),
    Column::number("rows_estimate"),
    Column::number("size"),
    Column::number("indices"),
    Column::text("brin_summarized"),
];

pub(super) async fn list(args: ListArgs) -> Result<(), Failure> {
    let mut store = open(&args.database).await?;
    let found = store.partitions(args.count).await.map_err(Failure::store)?;
    if args.json {
        output::json(&found);
        return Ok(());
    }
    let size = |n: i64| Cell::Text(bytes(n.unsigned_abs()));
    let rows = found.partitions.iter().map(|partition| {
        let day = match (partition.day(), partition.from, partition.to) {
            (Some(day), ..) => day.to_string(),
            (None, Some(from), Some(to)) => format!("{from} to {to}"),
            _ => "open".to_owned(),
        };
        let summarized = match (partition.brin_ranges_summarized, partition.brin_ranges) {
            (Some(n), Some(of)) => Cell::Text(format!("{} of {}", grouped(n), grouped(of))),
            _ => Cell::Absent,
        };
        vec![
            day.into(),
            partition.name.clone().into(),
            Cell::Count(partition.rows_estimate),
            size(partition.bytes),
            size(partition.index_bytes),
            summarized,
        ]
    });
    output::table(COLUMNS, Output::Table, rows);
    let Some(default) = &found.default else {
        output::line("no default partition: rows of days without a partition are refused");
        return Ok(());
    };
    let rows = match &default.days {
        Some(days) => u64::try_from(days.iter().map(|day| day.rows).sum::<i64>()).unwrap_or(0),
        None => default.rows_estimate.unsigned_abs(),
    };
    let about = if default.days.is_none() { "about " } else { "" };
    output::line(&format!(
        "default partition: {about}{}, {}",
        counted(rows, "row"),
        bytes((default.bytes + default.index_bytes).unsigned_abs())
    ));
    for day in default.days.iter().flatten() {
        output::line(&format!("  {}  {:>12}", day.day, grouped(day.rows)));
    }
    if rows > 0 {
        output::line("`passerby partitions repair` moves them to the partitions of their days");
    }
    Ok(())
}
