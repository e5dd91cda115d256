//! What can go wrong on the way to a running server.

use std::{io, path::Path, path::PathBuf, time::Duration};

use crate::{
    find::{Kind, Unfit},
    missing::Missing,
};

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// `PASSERBY_SERVERS` says something else than `auto`, `system` or `fetched`.
    #[error("PASSERBY_SERVERS is `{value}`: it can be auto, system or fetched")]
    Source {
        /// What it says.
        value: String,
    },
    /// The binary that the environment names cannot be used.
    #[error("{variable} names `{path}`, which cannot be used")]
    Named {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
        /// What is wrong with it.
        source: Unfit,
    },
    /// Neither found nor fetched. The message says what was tried and what to do.
    #[error("{0}")]
    Missing(Box<Missing>),
    /// We are root, and there is no user that the servers could run as.
    #[error("servers do not run as root, and there is no user named {}", names.join(", "))]
    NoUser {
        /// The users looked for.
        names: &'static [&'static str],
    },
    /// A file or directory of ours.
    #[error("{doing} `{path}`")]
    Io {
        /// What we were doing with it.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The servers' user may not enter the cache.
    #[error(
        "the servers run as {user}, who may not enter `{barrier}`, so the cache `{dir}` is of no use; \
         set PASSERBY_CACHE_DIR to a directory that everybody may enter"
    )]
    CacheOutOfReach {
        /// The cache.
        dir: PathBuf,
        /// The directory on the way there that is closed.
        barrier: PathBuf,
        /// The user.
        user: String,
    },
    /// The shell that looks after the server did not start.
    #[error("start the supervisor of {kind}")]
    Supervise {
        /// The server.
        kind: Kind,
        /// The cause.
        source: io::Error,
    },
    /// The server's private directory could not be made.
    #[error("make a private directory for {kind} in `{parent}`: the shell said {said}")]
    PrivateDir {
        /// The server.
        kind: Kind,
        /// Where it should be.
        parent: PathBuf,
        /// What the shell said.
        said: String,
    },
    /// The machine has no port left.
    #[error("find a free port for {kind}")]
    Port {
        /// The server.
        kind: Kind,
        /// The cause.
        source: io::Error,
    },
    /// A tool that prepares the data directory did not start.
    #[error("run `{program}`")]
    Run {
        /// The tool.
        program: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A tool that prepares the data directory stopped with an error.
    #[error("`{program}` ended with {status}:\n{output}")]
    Tool {
        /// The tool.
        program: PathBuf,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it wrote.
        output: String,
    },
    /// The server stopped before it answered.
    #[error("{kind} stopped while starting; its last words:\n{log_tail}")]
    ExitedAtStart {
        /// The server.
        kind: Kind,
        /// The last lines of its log.
        log_tail: String,
    },
    /// The server runs and does not answer.
    #[error("{kind} did not answer within {waited:?} of its start; its last words:\n{log_tail}")]
    Silent {
        /// The server.
        kind: Kind,
        /// How long we waited.
        waited: Duration,
        /// The last lines of its log.
        log_tail: String,
    },
    /// The server was killed, or died, and has not been restarted.
    #[error("{kind} is not running")]
    NotRunning {
        /// The server.
        kind: Kind,
    },
    /// A signal could not be sent.
    #[error("send a signal to {kind}, process {pid}")]
    Signal {
        /// The server.
        kind: Kind,
        /// Its process ID.
        pid: u32,
        /// The cause.
        source: io::Error,
    },
    /// The server outlived SIGKILL, or a child of it did.
    #[error("{kind}, process {pid}, is still there after being killed")]
    Unkillable {
        /// The server.
        kind: Kind,
        /// Its process ID.
        pid: u32,
    },
}

impl ServerError {
    /// For `map_err` on an operation on `path`.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}
