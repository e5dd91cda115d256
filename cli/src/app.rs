//! What is typed, and which command it runs.

use std::{ffi::OsString, io::IsTerminal, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};
use passerby_consumer::{
    command_line::WorkerCommandLine,
    config_file::{self, CommandLineError, Program},
};
use passerby_shared::ErrorChain;
use tracing_subscriber::EnvFilter;

use crate::commands::{self, Failure, output};

/// Detections from cameras, through a Redis Stream, each exactly once into Postgres.
#[derive(Debug, Parser)]
#[command(
    name = "passerby",
    version,
    after_help = "Start here:\n  passerby demo\n\nExit codes: 0 done, 1 failed, 2 wrong usage, 3 \
                  unhealthy (doctor, status --check)."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What is logged: error, warn, info, debug, trace, or filters as `passerby_consumer=debug`.
    #[arg(
        long,
        env = "PASSERBY_LOG",
        value_name = "FILTER",
        global = true,
        default_value = "warn"
    )]
    log: String,
    /// Settings in a TOML file; empty for none [default: /etc/passerby/passerby.toml, if it is there].
    #[arg(long, env = "PASSERBY_CONFIG", value_name = "FILE", global = true)]
    config: Option<OsString>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(commands::demo::DemoArgs),
    Ingest(commands::ingest::IngestArgs),
    Migrate(commands::migrate::MigrateArgs),
    Config(commands::config::ConfigArgs),
    Status(commands::status::StatusArgs),
    Doctor(commands::doctor::DoctorArgs),
    Query(commands::query::QueryArgs),
    Pending(commands::pending::PendingArgs),
    Claim(commands::claim::ClaimArgs),
    Consumers(commands::consumers::ConsumersArgs),
    Entry(commands::entry::EntryArgs),
    Tap(commands::tap::TapArgs),
    Top(commands::top::TopArgs),
    Trim(commands::trim::TrimArgs),
    Pause(commands::pause::PauseArgs),
    Resume(commands::pause::ResumeArgs),
    DeadLetters(commands::dead_letters::DeadLettersArgs),
    Replay(commands::replay::ReplayArgs),
    Partitions(commands::partitions::PartitionsArgs),
    Ledger(commands::ledger::LedgerArgs),
    Sessions(commands::sessions::SessionsArgs),
    Spool(commands::spool::SpoolArgs),
    SupportBundle(commands::support_bundle::SupportBundleArgs),
    Completions(commands::completions::CompletionsArgs),
    Man(commands::completions::ManArgs),
}

/// What can be typed: every command with its switches.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command that the process's arguments name.
#[must_use]
pub fn run() -> ExitCode {
    let others = [(Program::Worker, WorkerCommandLine::command())];
    let line = match config_file::read::<Cli>(Program::Passerby, &others) {
        Ok(line) => line,
        Err(CommandLineError::Usage(error)) => error.exit(),
        Err(CommandLineError::File(error)) => {
            return report(&Failure::usage(ErrorChain(&error)));
        }
    };
    if let Some(ignored) = line.file.ignored() {
        output::warning(&format!("warning: {ignored}"));
    }
    let (cli, command, file) = (line.args, line.command, line.file);
    let filter = match EnvFilter::builder().parse(&cli.log) {
        Ok(filter) => filter,
        Err(error) => return report(&Failure::usage(format_args!("--log: {error}"))),
    };
    let is_terminal = std::io::stderr().is_terminal();
    // Lines of a log would be drawn over; in a file they are wanted.
    let has_screen = matches!(cli.command, Command::Top(_)) && is_terminal;
    let filter = if has_screen {
        EnvFilter::new("off")
    } else {
        filter
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(is_terminal)
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::new(format_args!("start the runtime: {error}"))),
    };
    let done = runtime.block_on(async {
        match cli.command {
            Command::Demo(args) => commands::demo::run(args).await,
            Command::Ingest(args) => commands::ingest::run(args).await,
            Command::SupportBundle(args) => {
                commands::support_bundle::run(args, &command, &file).await
            }
            Command::Completions(args) => commands::completions::completions(&args),
            Command::Man(args) => commands::completions::man(&args),
            Command::Config(args) => commands::config::run(&args, &command, &file),
            Command::Status(args) => commands::status::run(args).await,
            Command::Pause(args) => commands::pause::pause(args).await,
            Command::Resume(args) => commands::pause::resume(args).await,
            Command::Doctor(args) => commands::doctor::run(args).await,
            Command::Migrate(args) => commands::migrate::run(args).await,
            Command::Query(args) => commands::query::run(args).await,
            Command::Pending(args) => commands::pending::run(args).await,
            Command::Claim(args) => commands::claim::run(args).await,
            Command::Consumers(args) => commands::consumers::run(args).await,
            Command::Entry(args) => commands::entry::run(args).await,
            Command::Tap(args) => commands::tap::run(args).await,
            Command::Top(args) => commands::top::run(args).await,
            Command::Trim(args) => commands::trim::run(args).await,
            Command::DeadLetters(args) => commands::dead_letters::run(args).await,
            Command::Replay(args) => commands::replay::run(args).await,
            Command::Partitions(args) => commands::partitions::run(args).await,
            Command::Ledger(args) => commands::ledger::run(args).await,
            Command::Sessions(args) => commands::sessions::run(args).await,
            Command::Spool(args) => commands::spool::run(args).await,
        }
    });
    done.unwrap_or_else(|failure| report(&failure))
}

fn report(failure: &Failure) -> ExitCode {
    output::warning(&format!("error: {failure}"));
    if failure.is_usage() {
        output::warning("\nFor more information, try '--help'.");
        return ExitCode::from(2);
    }
    ExitCode::from(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &clap::Command) {
        for arg in command.get_arguments() {
            let (Some(flag), Some(variable)) = (arg.get_long(), arg.get_env()) else {
                continue;
            };
            // A command may have a shorter name for it, as `trim --grace`.
            let name = format!("_{}", flag.to_uppercase().replace('-', "_"));
            let variable = variable.to_str().unwrap_or_default();
            assert!(
                variable.starts_with("PASSERBY_") && variable.ends_with(&name),
                "{variable}"
            );
            // A variable that somebody has forgotten must not turn a trial into a change.
            assert!(!["yes", "dry-run", "json"].contains(&flag), "{flag}");
        }
        command.get_subcommands().for_each(check);
    }

    #[test]
    fn a_variable_has_the_name_of_its_flag_and_belongs_to_the_installation() {
        let command = command();
        command.clone().debug_assert();
        check(&command);
    }
}
