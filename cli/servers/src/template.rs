//! Gives every Postgres a fresh data directory without waiting for `initdb`.
//!
//! `initdb` takes a second or two; a copy of what it made takes a few hundredths. So it runs once per
//! build of Postgres, and its result stays in the cache.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sha2::{Digest, Sha256};
use tracing::debug;

use crate::{
    cache::Cache,
    error::ServerError,
    find::{Binaries, Binary},
    user::{self, User},
    wheel::hex,
};

/// Part of the name of the template, so that a change here makes a new one.
const INITDB_ARGS: &[&str] = &[
    "-A",
    "trust",
    "-U",
    "postgres",
    "--no-sync",
    "--encoding",
    "UTF8",
    "--locale",
    "C",
    "-D",
    "data",
];

/// Makes `data` in the private directory `dir`.
pub(crate) fn make_data_dir(
    dir: &Path,
    postgres: &Binary,
    binaries: &Binaries,
    user: Option<&User>,
) -> Result<(), ServerError> {
    let template = |cache: &Cache| {
        cache.entry(
            &entry_name(postgres),
            || {},
            |entry| {
                initdb(dir, postgres, user)?;
                run(Command::new("cp")
                    .args(["-R", "data"])
                    .arg(entry)
                    .current_dir(dir))?;
                if user.is_some() {
                    // The copy is ours and has to be readable by the servers' user. There is nothing
                    // secret in an empty cluster.
                    run(Command::new("chmod").args(["-R", "go+rX"]).arg(entry))?;
                }
                Ok::<(), ServerError>(())
            },
        )
    };
    match binaries.cache(user).and_then(|cache| template(&cache)) {
        Ok(_) if dir.join("data").is_dir() => Ok(()),
        Ok(entry) => {
            let data = entry.join("data");
            run(user::command(Path::new("cp"), user)
                .arg("-R")
                .arg(data)
                .arg(".")
                .current_dir(dir))?;
            // Postgres insists.
            run(user::command(Path::new("chmod"), user)
                .args(["-R", "go-rwx", "data"])
                .current_dir(dir))
        }
        Err(error @ (ServerError::Tool { .. } | ServerError::Run { .. })) => Err(error),
        Err(error) => {
            debug!(%error, "no template kept");
            if dir.join("data").is_dir() {
                Ok(())
            } else {
                initdb(dir, postgres, user)
            }
        }
    }
}

fn initdb(dir: &Path, postgres: &Binary, user: Option<&User>) -> Result<(), ServerError> {
    let initdb = postgres.path.with_file_name("initdb");
    run(user::command(&initdb, user)
        .args(INITDB_ARGS)
        .current_dir(dir))
}

/// Names the template after all that it depends on. Two builds may share a version line, so the
/// place of the binary is in it too.
fn entry_name(postgres: &Binary) -> String {
    let identity = format!(
        "{}\n{}\n{INITDB_ARGS:?}",
        postgres.version_line,
        postgres.path.display()
    );
    let hash = hex(&Sha256::digest(identity.as_bytes()));
    let version = postgres.version_line.strip_prefix("postgres (PostgreSQL) ");
    let version: String = version
        .unwrap_or_default()
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '.')
        .collect();
    format!("data-{version}-{}", &hash[..16])
}

fn run(command: &mut Command) -> Result<(), ServerError> {
    let program = PathBuf::from(command.get_program());
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(source) => return Err(ServerError::Run { program, source }),
    };
    if output.status.success() {
        return Ok(());
    }
    let output_text = [output.stdout, output.stderr].concat();
    let output_text = String::from_utf8_lossy(&output_text).trim().to_owned();
    Err(ServerError::Tool {
        program,
        status: output.status,
        output: output_text,
    })
}
