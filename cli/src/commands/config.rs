//! `passerby config`: which settings hold, and a file to begin with.

use std::process::ExitCode;

use clap::{Args, Command, CommandFactory, Subcommand};
use passerby_consumer::{
    command_line::WorkerCommandLine,
    config_file::{self, ConfigFile, Program, Shown},
};
use serde::Serialize;

use super::{Failure, output};
use crate::visible::visible;

/// Show which settings hold, or print a file to begin with.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  passerby config show")]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the settings of `passerby` that hold, without passwords, and where each comes from.
    ///
    /// `passerby-worker --print-config` does the same for a worker, in the worker's environment.
    #[command(after_help = "Example:\n  passerby config show --config ./passerby.toml")]
    Show(ShowArgs),
    /// Print a file with every setting and its default, commented out.
    #[command(after_help = "Example:\n  passerby config example > /etc/passerby/passerby.toml")]
    Example,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Print them as JSON.
    #[arg(long)]
    json: bool,
}

/// What `config show --json` prints.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Settings {
    /// The file that was read.
    file: Option<String>,
    /// The settings that hold.
    settings: Vec<Shown>,
}

/// Runs the command.
pub(crate) fn run(
    args: &ConfigArgs,
    command: &Command,
    file: &ConfigFile,
) -> Result<ExitCode, Failure> {
    match &args.what {
        What::Example => output::raw(&config_file::example(
            &WorkerCommandLine::command(),
            &crate::app::command(),
        )),
        What::Show(ShowArgs { json }) => show(*json, command, file),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(json: bool, command: &Command, file: &ConfigFile) {
    let settings = config_file::show(Program::Passerby, command, file, None);
    if json {
        return output::json(&Settings {
            file: file.path().map(|path| path.to_string_lossy().into_owned()),
            settings,
        });
    }
    match file.path() {
        Some(path) => output::line(&format!("# {}", visible(&path.to_string_lossy()))),
        None => output::line("# no file"),
    }
    for shown in settings {
        output::line(&visible(&shown.line()));
    }
}
