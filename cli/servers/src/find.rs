//! Finds a server binary: named by the environment, on `PATH`, in the usual folders, or fetched.

use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
    process::{ExitStatus, Output},
    str::FromStr,
    sync::Arc,
    thread,
    time::Duration,
};

use tracing::{debug, info};

use crate::{
    cache::Cache,
    error::ServerError,
    fetch::{self, FetchError},
    folders,
    missing::Missing,
    pins::Pin,
    user::{self, User},
};

/// The two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Redis, or Valkey, which is the same to us.
    Redis,
    /// Postgres.
    Postgres,
}

impl Kind {
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Redis => "PASSERBY_REDIS_BIN",
            Self::Postgres => "PASSERBY_POSTGRES_BIN",
        }
    }

    /// Names of the binary, the preferred one first.
    pub(crate) fn names(self) -> &'static [&'static str] {
        match self {
            Self::Redis => &["valkey-server", "redis-server"],
            Self::Postgres => &["postgres"],
        }
    }

    pub(crate) fn oldest_version(self) -> Version {
        match self {
            // XAUTOCLAIM.
            Self::Redis => Version { major: 6, minor: 2 },
            Self::Postgres => Version {
                major: 14,
                minor: 0,
            },
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "Redis",
            Self::Postgres => "Postgres",
        })
    }
}

/// Where server binaries may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// This machine, and what is missing is fetched.
    Auto,
    /// This machine alone.
    System,
    /// The pinned builds alone, fetched once.
    Fetched,
}

impl FromStr for Source {
    type Err = ServerError;

    fn from_str(value: &str) -> Result<Self, ServerError> {
        match value {
            "auto" => Ok(Self::Auto),
            "system" => Ok(Self::System),
            "fetched" => Ok(Self::Fetched),
            _ => Err(ServerError::Source {
                value: value.to_owned(),
            }),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::System => "system",
            Self::Fetched => "fetched",
        })
    }
}

/// Where to get the binaries. The default leaves everything to the environment.
#[derive(Debug, Clone, Default)]
pub struct Binaries {
    /// `None`: as `PASSERBY_SERVERS` says, or [`Source::Auto`].
    pub source: Option<Source>,
    /// Where fetched servers and templates are kept; `None`: `PASSERBY_CACHE_DIR`, or the user's
    /// cache directory.
    pub cache_dir: Option<PathBuf>,
    /// Called with a line for people before anything that takes long.
    pub on_progress: Progress,
}

impl Binaries {
    fn source(&self) -> Result<Source, ServerError> {
        match (self.source, env::var("PASSERBY_SERVERS")) {
            (Some(source), _) => Ok(source),
            (None, Ok(value)) => value.parse(),
            (None, Err(env::VarError::NotPresent)) => Ok(Source::Auto),
            (None, Err(env::VarError::NotUnicode(value))) => Err(ServerError::Source {
                value: value.to_string_lossy().into_owned(),
            }),
        }
    }

    pub(crate) fn cache(&self, user: Option<&User>) -> Result<Cache, ServerError> {
        Cache::open(self.cache_dir.as_deref(), user)
    }
}

/// Tells someone what takes long. Everything said is logged as well.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<Listener>>);

type Listener = dyn Fn(&str) + Send + Sync;

impl Progress {
    /// Calls `listener` with each message, one line without a newline.
    pub fn new(listener: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    pub(crate) fn say(&self, message: &str) {
        info!(message, "preparing a private server");
        if let Some(listener) = &self.0 {
            listener(message);
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Progress").field(&self.0.is_some()).finish()
    }
}

/// A version as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl Version {
    /// Reads `Redis server v=7.0.15 …`, `Valkey server v=9.1.2 …`, `postgres (PostgreSQL) 15.10 …`.
    fn parse(line: &str) -> Option<Self> {
        let text = match line.split_once(" v=") {
            Some((_, text)) => text,
            None => line.strip_prefix("postgres (PostgreSQL) ")?,
        };
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        let major = numbers.next()?.ok()?;
        // `18beta1` has no second number of its own, and no release does without one.
        let minor = numbers.next().and_then(Result::ok).unwrap_or(0);
        Some(Self { major, minor })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Why a binary is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// It does not run, or not as the user that servers run as.
    #[error("it does not run")]
    NotRun {
        /// The cause.
        source: io::Error,
    },
    /// It runs and fails.
    #[error("it ended with {status} when asked for its version: {output}")]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// What it wrote.
        output: String,
    },
    /// It is something else.
    #[error("it says `{line}`, which is no version we know")]
    Unknown {
        /// What it says.
        line: String,
    },
    /// It lacks what we need.
    #[error("version {found} is older than {oldest}")]
    TooOld {
        /// Its version.
        found: Version,
        /// The oldest that does.
        oldest: Version,
    },
    /// Postgres cannot be set up with it.
    #[error("there is no initdb beside it")]
    NoInitdb,
}

/// A binary that ran and has the right version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binary {
    pub(crate) path: PathBuf,
    pub(crate) version_line: String,
}

/// Finds the server, or fetches it where that is allowed.
pub(crate) fn find(
    kind: Kind,
    binaries: &Binaries,
    user: Option<&User>,
) -> Result<Binary, ServerError> {
    let source = binaries.source()?;
    let mut missing = Missing {
        kind,
        source,
        places: Vec::new(),
        unfit: Vec::new(),
        fetch: None,
    };
    if source != Source::Fetched {
        let variable = kind.variable();
        if let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) {
            let path = PathBuf::from(path);
            return named(kind, &path, user).map_err(|source| ServerError::Named {
                variable,
                path,
                source,
            });
        }
        missing.places.push(format!("{variable} (not set)"));
        if let Some(binary) = in_places(kind, &mut missing, &folders::on_path(), user) {
            return Ok(binary);
        }
        missing.places.push("PATH".to_owned());
        for pattern in folders::USUAL {
            if let Some(binary) = in_places(kind, &mut missing, &folders::expand(pattern), user) {
                return Ok(binary);
            }
            missing.places.push((*pattern).to_owned());
        }
    }
    if source != Source::System {
        match fetched(kind, binaries, user) {
            Ok(path) => match probe(kind, &path, user) {
                Ok(binary) => return Ok(binary),
                Err(unfit) => missing.unfit.push((path, unfit)),
            },
            Err(error) => missing.fetch = Some(error),
        }
    }
    Err(ServerError::Missing(Box::new(missing)))
}

/// The binary that the environment names, which may be a directory.
fn named(kind: Kind, path: &Path, user: Option<&User>) -> Result<Binary, Unfit> {
    let inside = kind
        .names()
        .iter()
        .map(|name| path.join(name))
        .find(|path| path.is_file());
    probe(kind, inside.as_deref().unwrap_or(path), user)
}

fn in_places(
    kind: Kind,
    missing: &mut Missing,
    dirs: &[PathBuf],
    user: Option<&User>,
) -> Option<Binary> {
    let candidates = dirs
        .iter()
        .flat_map(|dir| kind.names().iter().map(|name| dir.join(name)));
    for path in candidates.filter(|path| path.is_file()) {
        match probe(kind, &path, user) {
            Ok(binary) => return Some(binary),
            Err(unfit) => {
                debug!(path = %path.display(), %unfit, "binary passed over");
                missing.unfit.push((path, unfit));
            }
        }
    }
    None
}

fn fetched(kind: Kind, binaries: &Binaries, user: Option<&User>) -> Result<PathBuf, FetchError> {
    let none = FetchError::NoBuild {
        os: env::consts::OS,
        arch: env::consts::ARCH,
    };
    let pin = Pin::for_this_machine(kind).ok_or(none)?;
    let cache = binaries.cache(user)?;
    fetch::fetch(&pin, &cache, &binaries.on_progress)
}

/// Asks a binary for its version, as the user that it would run as.
fn probe(kind: Kind, path: &Path, user: Option<&User>) -> Result<Binary, Unfit> {
    let path = match kind {
        // `redis-server` may be a symlink to a binary that looks at the name it is called by.
        Kind::Redis => std::path::absolute(path),
        // A symlink on PATH has no initdb beside it; the file it stands for has.
        Kind::Postgres => fs::canonicalize(path),
    };
    let path = path.map_err(|source| Unfit::NotRun { source })?;
    let output = version_output(&path, user).map_err(|source| Unfit::NotRun { source })?;
    if !output.status.success() {
        let output_text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Unfit::Failed {
            status: output.status,
            output: output_text,
        });
    }
    let version_line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let Some(found) = Version::parse(&version_line) else {
        return Err(Unfit::Unknown { line: version_line });
    };
    let oldest = kind.oldest_version();
    if found < oldest {
        return Err(Unfit::TooOld { found, oldest });
    }
    if kind == Kind::Postgres && !path.with_file_name("initdb").is_file() {
        return Err(Unfit::NoInitdb);
    }
    Ok(Binary { path, version_line })
}

fn version_output(path: &Path, user: Option<&User>) -> io::Result<Output> {
    let mut n_left = 50;
    loop {
        match user::command(path, user).arg("--version").output() {
            // The file is new, and another thread forked while it was being written: the child holds
            // it open for writing until its own exec.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && n_left > 0 => {
                n_left -= 1;
                thread::park_timeout(Duration::from_millis(10));
            }
            output => return output,
        }
    }
}

#[cfg(test)]
#[path = "find_tests.rs"]
mod tests;
