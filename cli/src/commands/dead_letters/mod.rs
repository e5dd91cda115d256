//! `passerby dead-letters`: what could not be stored, and what is done about it.

mod discard;
mod export;
mod filter;
mod list;
mod requeue;
mod show;

#[cfg(feature = "schema")]
pub(crate) use list::ListedLetter;
#[cfg(feature = "schema")]
pub(crate) use {discard::Discarded, requeue::Requeued, show::ShownLetter};

use std::process::ExitCode;

use clap::{Args, Subcommand};
use passerby_consumer::{args::DatabaseArgs, store::Store};

pub(crate) use show::as_lines;

use super::Failure;

/// Look at what could not be stored, put it back after a fix, or set it aside.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  passerby dead-letters list --state waiting")]
pub(crate) struct DeadLettersArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List dead letters, oldest first, or count them by reason.
    #[command(
        after_help = "Example:\n  passerby dead-letters list --state waiting --last 2h --summary"
    )]
    List(list::ListArgs),
    /// Show one dead letter whole, decoded as far as it can be.
    #[command(after_help = "Example:\n  passerby dead-letters show 17")]
    Show(show::ShowArgs),
    /// Put dead letters back into their streams, to be stored by the workers.
    ///
    /// Safe to repeat and to interrupt: a letter put back twice is stored once. One that is refused again
    /// becomes a new dead letter. Letters that are `too-old` may have been stored before the ledger forgot
    /// them: look for their rows first, and then name them by number or with `--reason too-old`.
    ///
    /// A flood is put back no faster than workers store it, so that producers do not notice: nothing is
    /// added while more than --max-backlog entries wait, and it stops when they do not become fewer, or when
    /// Redis has used 70 % of its maxmemory.
    #[command(
        after_help = "Example:\n  passerby dead-letters requeue --reason refused --sqlstate 23514 --dry-run"
    )]
    Requeue(requeue::RequeueArgs),
    /// Set dead letters aside that are not to be stored, without destroying them.
    ///
    /// A discarded letter stays as it is, with who discarded it, when and why, until it is purged;
    /// --restore lets it wait again, and `requeue ID` puts it back all the same.
    #[command(
        after_help = "Examples:\n  passerby dead-letters discard --camera-id gate-1 --because 'wrong clock'\n  \
                      passerby dead-letters discard --purge --older-than 30d"
    )]
    Discard(discard::DiscardArgs),
    /// Write dead letters to a file or stdout, whole, oldest first.
    ///
    /// The number of the last one is said on stderr: --after goes on behind it.
    #[command(
        after_help = "Example:\n  passerby dead-letters export --reason undecodable --output letters.ndjson"
    )]
    Export(export::ExportArgs),
}

/// Runs the command.
pub(crate) async fn run(args: DeadLettersArgs) -> Result<ExitCode, Failure> {
    match args.what {
        What::List(args) => list::list(args).await,
        What::Show(args) => show::show(args).await,
        What::Requeue(args) => requeue::requeue(args).await,
        What::Discard(args) => discard::discard(args).await,
        What::Export(args) => export::export(args).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn open(database: &DatabaseArgs) -> Result<Store, Failure> {
    let url = database.database_url().map_err(Failure::usage)?;
    let mut store = Store::connect(&url).await.map_err(Failure::store)?;
    store.check_schema().await.map_err(Failure::store)?;
    Ok(store)
}
