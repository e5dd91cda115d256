//! `passerby config`: which settings hold, and a file to begin with.

use std::process::ExitCode;

use clap::{Args, Command, CommandFactory, Subcommand};
use passerby_consumer::{
    command_line::WorkerCommandLine,
    config_file::{self, ConfigFile, Program},
};

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
        let path = file.path();
        return output::json(&serde_json::json!({ "file": path, "settings": settings }));
    }
    match file.path() {
        Some(path) => output::line(&format!("# {}", visible(&path.to_string_lossy()))),
        None => output::line("# no file"),
    }
    for shown in settings {
        output::line(&visible(&shown.line()));
    }
}
