//! `passerby migrate`: brings the schema to this program's version.

use std::process::ExitCode;

use clap::Args;
use passerby_consumer::{args::DatabaseArgs, store::Store};

use super::{Failure, output};

/// Bring the schema to this program's version.
///
/// All missing migrations are applied in one transaction; running it again, or several at once, is
/// harmless. Workers do the same at start.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  passerby migrate --database-url postgresql://localhost/passerby"
)]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(args: MigrateArgs) -> Result<ExitCode, Failure> {
    let url = args.database.database_url().map_err(Failure::usage)?;
    let mut store = Store::connect(&url).await.map_err(Failure::store)?;
    let report = if args.dry_run {
        store.pending_migrations().await
    } else {
        store.migrate().await
    }
    .map_err(Failure::store)?;
    if !args.dry_run {
        store
            .ensure_partitions_ahead()
            .await
            .map_err(Failure::store)?;
    }
    if args.json {
        output::json(&report);
    } else if report.applied.is_empty() {
        output::line(&format!("schema version {}: nothing to do", report.to));
    } else {
        let done = if args.dry_run {
            "would apply"
        } else {
            "applied"
        };
        for migration in &report.applied {
            output::line(&format!("{done} {migration}"));
        }
        output::line(&format!("schema version {}", report.to));
    }
    Ok(ExitCode::SUCCESS)
}
