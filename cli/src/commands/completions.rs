//! `passerby completions` and `passerby man`: what shells and readers want to know of the command line.

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Args, Command, CommandFactory, ValueEnum};
use clap_complete::Shell;
use passerby_consumer::command_line::WorkerCommandLine;

use super::{Failure, output};

/// Print what a shell needs to complete commands and switches.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  passerby completions bash > /usr/share/bash-completion/completions/passerby
  passerby completions zsh > \"${fpath[1]}/_passerby\"
  passerby completions fish > ~/.config/fish/completions/passerby.fish
  passerby completions bash --program passerby-worker > \\
      /usr/share/bash-completion/completions/passerby-worker")]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
    /// The program.
    #[arg(long, value_enum, default_value_t = Program::Passerby)]
    program: Program,
}

/// Write man pages: of every command, and of passerby-worker.
///
/// Without a directory the page of `passerby` itself is printed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  passerby man /usr/local/share/man/man1
  passerby man | man -l -")]
pub(crate) struct ManArgs {
    /// Where to; made if it is not there.
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Program {
    /// This one.
    Passerby,
    /// The worker.
    PasserbyWorker,
}

impl Program {
    fn command(self) -> Command {
        match self {
            Self::Passerby => crate::app::command(),
            Self::PasserbyWorker => WorkerCommandLine::command(),
        }
    }
}

/// Runs `passerby completions`.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    let mut command = args.program.command();
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut text);
    output::raw(&String::from_utf8_lossy(&text));
    Ok(ExitCode::SUCCESS)
}

/// Runs `passerby man`.
pub(crate) fn man(args: &ManArgs) -> Result<ExitCode, Failure> {
    let Some(dir) = &args.dir else {
        let mut text = Vec::new();
        let page = clap_mangen::Man::new(Program::Passerby.command());
        page.render(&mut text)
            .map_err(|error| Failure::new(format_args!("write the page: {error}")))?;
        output::raw(&String::from_utf8_lossy(&text));
        return Ok(ExitCode::SUCCESS);
    };
    let write = || -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        for program in [Program::Passerby, Program::PasserbyWorker] {
            clap_mangen::generate_to(program.command(), dir)?;
        }
        Ok(())
    };
    write().map_err(|error| Failure::new(format_args!("write to {}: {error}", dir.display())))?;
    output::line(&format!("man pages written to {}", dir.display()));
    Ok(ExitCode::SUCCESS)
}
