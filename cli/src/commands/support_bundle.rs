//! `passerby support-bundle`: all that somebody who is to help wants to see, in one file.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Command};
use passerby_consumer::{
    args::{DatabaseArgs, RedisArgs},
    config_file::{self, ConfigFile, Program},
    ops::{self, BUNDLE_FILES, BundleConfig, BundleFile, DoctorConfig},
};
use serde::Serialize;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::{Failure, output};
use crate::{
    render::{Cell, Column, Output, bytes},
    visible::visible,
};

/// Collect what somebody who is to help wants to see, in one file.
///
/// Versions, settings, what doctor and status say, streams, tables and sessions: no row, no query and no
/// password. Works when a server is down. Nothing is sent anywhere: look through it, and send it yourself.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  passerby support-bundle --log-file /var/log/passerby/worker.log"
)]
pub(crate) struct SupportBundleArgs {
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// The file to write [default: passerby-support-<time>.zip].
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A log of a worker, of which the last MiB goes in as it is.
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Say what would go in, and ask no server.
    #[arg(long)]
    dry_run: bool,
    /// Print what went in as JSON.
    #[arg(long)]
    json: bool,
}

/// What `support-bundle --json` prints.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Bundled {
    /// The file that was written; none with `--dry-run`.
    path: Option<String>,
    /// What it holds.
    files: Vec<Listed>,
}

/// A file in the bundle.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Listed {
    /// Its name.
    name: String,
    /// What it holds.
    what: String,
    /// Its size; none with `--dry-run`.
    bytes: Option<u64>,
}

const COLUMNS: &[Column] = &[
    Column::text("name"),
    Column::number("size"),
    Column::text("what"),
];

/// Runs the command.
pub(crate) async fn run(
    args: SupportBundleArgs,
    command: &Command,
    file: &ConfigFile,
) -> Result<ExitCode, Failure> {
    if args.dry_run {
        let has_log = args.log_file.is_some();
        let files = BUNDLE_FILES
            .iter()
            .filter(|(name, _)| has_log || *name != "log.txt");
        let files = files.map(|(name, what)| Listed {
            name: (*name).to_owned(),
            what: (*what).to_owned(),
            bytes: None,
        });
        show(None, files.collect(), args.json);
        return Ok(ExitCode::SUCCESS);
    }
    let path = args.output.unwrap_or_else(|| {
        let now = chrono::Utc::now().format("%Y%m%d-%H%M%S");
        format!("passerby-support-{now}.zip").into()
    });
    // Before the servers are asked for half a minute.
    if path.exists() {
        return Err(Failure::new(format_args!(
            "{} exists already: choose another --output, or remove it",
            path.display()
        )));
    }
    let doctor = DoctorConfig {
        key_prefix: args.redis.key_prefix.clone(),
        shards: args.redis.shards,
        group: args.redis.group.clone(),
        ..DoctorConfig::new(
            args.redis.redis_url().map_err(Failure::usage)?,
            args.database.database_url().map_err(Failure::usage)?,
        )
    };
    let shown = config_file::show(Program::Passerby, command, file, None);
    let settings: Vec<String> = shown.iter().map(config_file::Shown::line).collect();
    let config = BundleConfig {
        doctor,
        settings: settings.join("\n") + "\n",
        log: args.log_file,
    };
    let files = ops::support_bundle(&config).await;
    write(&path, &files)
        .map_err(|error| Failure::new(format_args!("write {}: {error}", path.display())))?;
    let listed = files.iter().map(|file| Listed {
        name: file.name.to_owned(),
        what: file.what.to_owned(),
        bytes: Some(file.text.len() as u64),
    });
    show(Some(&path), listed.collect(), args.json);
    Ok(ExitCode::SUCCESS)
}

/// Writes a new file that only its owner can read.
fn write(path: &Path, files: &[BundleFile]) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let written = write_to(file, files);
    if written.is_err() {
        // Half of it would be of no use, and in the way of the next one.
        drop(fs::remove_file(path));
    }
    written
}

fn write_to(file: fs::File, files: &[BundleFile]) -> io::Result<()> {
    let mut zip = ZipWriter::new(file);
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for file in files {
        zip.start_file(file.name, options)?;
        zip.write_all(file.text.as_bytes())?;
    }
    zip.finish()?.sync_all()
}

fn show(path: Option<&Path>, files: Vec<Listed>, json: bool) {
    let path = path.map(|path| path.to_string_lossy().into_owned());
    let bundled = Bundled { path, files };
    if json {
        return output::json(&bundled);
    }
    let rows = bundled.files.iter().map(|file| {
        vec![
            Cell::Text(file.name.clone()),
            file.bytes.map_or(Cell::Absent, |n| Cell::Text(bytes(n))),
            Cell::Text(file.what.clone()),
        ]
    });
    output::table(COLUMNS, Output::Table, rows);
    match &bundled.path {
        Some(path) => output::line(&format!(
            "\nwritten to {}: look through it before you send it to anybody",
            visible(path)
        )),
        None => output::line("\nnothing was written"),
    }
}
