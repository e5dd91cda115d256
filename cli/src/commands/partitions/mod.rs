//! `passerby partitions`: the days of `detections`.

mod drop;
mod list;
mod make;

use std::process::ExitCode;

use chrono::NaiveDate;
use clap::{Args, Subcommand};
use passerby_consumer::{args::DatabaseArgs, store::Store};

use super::Failure;

/// Look at the partitions of `detections`, make them ahead, drop old ones, and empty the default partition.
///
/// Workers make partitions for today and seven days ahead by themselves, and drop old ones with --retention.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  passerby partitions list")]
pub(crate) struct PartitionsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List partitions with their rows and bytes, from the catalog.
    ///
    /// Rows are estimates; those of the default partition are counted by day where it is not large.
    #[command(after_help = "Example:\n  passerby partitions list")]
    List(list::ListArgs),
    /// Make the partitions of today and of days ahead.
    #[command(after_help = "Example:\n  passerby partitions ensure --days-ahead 30")]
    Ensure(make::EnsureArgs),
    /// Drop days of detections for good, with all their rows.
    ///
    /// The ledger goes on knowing their entries, so that none of them is stored again.
    #[command(
        after_help = "Examples:\n  passerby partitions drop --older-than 90d --dry-run\n  \
                      passerby partitions drop 2026-08-01 2026-08-02"
    )]
    Drop(drop::DropArgs),
    /// Move rows out of the default partition, into the partitions of their days.
    ///
    /// Each day is one transaction: its partition is made, its rows move, and nobody misses or sees a row
    /// twice meanwhile. Days more than seven days ahead stay unless they are named, since they come from
    /// cameras with a wrong clock; so do days with too many rows to move at once (--max-rows).
    #[command(after_help = "Example:\n  passerby partitions repair --dry-run")]
    Repair(make::RepairArgs),
}

/// Runs the command.
pub(crate) async fn run(args: PartitionsArgs) -> Result<ExitCode, Failure> {
    match args.what {
        What::List(args) => list::list(args).await,
        What::Ensure(args) => make::ensure(args).await,
        What::Drop(args) => drop::drop(args).await,
        What::Repair(args) => make::repair(args).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn open(database: &DatabaseArgs) -> Result<Store, Failure> {
    let url = database.database_url().map_err(Failure::usage)?;
    let mut store = Store::connect(&url).await.map_err(Failure::store)?;
    store.check_schema().await.map_err(Failure::store)?;
    Ok(store)
}

/// Days in words: the first and the last of many.
fn days(days: &[NaiveDate]) -> String {
    match days {
        [] => "no day".to_owned(),
        [day] => day.to_string(),
        [first, .., last] => format!("{} days from {first} to {last}", days.len()),
    }
}
