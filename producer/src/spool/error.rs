//! Why a spool cannot be used, and what to do about it.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a spool cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// Another producer, or `passerby spool drain`, uses it.
    #[error(
        "spool directory `{}` is in use by process {}: stop that one, or use another directory",
        dir.display(),
        pid.map_or_else(|| "(unknown)".to_owned(), |pid| pid.to_string())
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Who holds its lock.
        pid: Option<u32>,
    },
    /// There is something else of that name.
    #[error("`{}` is not a directory: name another spool directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// There is no spool there.
    #[error("there is no spool in `{}`: name the directory that the pipeline was given", dir.display())]
    NoSpool {
        /// The directory.
        dir: PathBuf,
    },
    /// It was written by a later version of this library.
    #[error(
        "`{}` has format version {version}, newer than {known}: use the version of the program that \
         wrote it, or have that one drain it",
        path.display()
    )]
    Newer {
        /// The file that says so.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// The newest version this library reads.
        known: u32,
    },
    /// A file is not what it should be.
    #[error("`{}` {what}: move the directory away, or name another one", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// It belongs to another installation.
    #[error(
        "the spool in `{}` was made for the key prefix `{recorded}`, not `{configured}`: use another \
         directory, or empty it with `passerby spool drain` and remove it",
        dir.display()
    )]
    OtherPrefix {
        /// The directory.
        dir: PathBuf,
        /// The prefix it was made with.
        recorded: String,
        /// The prefix of this producer.
        configured: String,
    },
    /// What it holds belongs to streams that this producer does not have.
    #[error(
        "the spool in `{}` holds rows for shard {shard}, and this producer has {configured} (from 0 on): \
         empty it with `passerby spool drain` first",
        dir.display()
    )]
    FewerShards {
        /// The directory.
        dir: PathBuf,
        /// The highest shard that it holds rows for.
        shard: u16,
        /// The shards of this producer.
        configured: u16,
    },
    /// There is no room for it.
    #[error(
        "there is no room for `{}`, {n_bytes} bytes: free some space, or make the spool smaller",
        path.display()
    )]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// Its size.
        n_bytes: u64,
        /// What the system said.
        source: io::Error,
    },
    /// It may not be written to.
    #[error(
        "{doing} `{}`: make the directory writable for this user, or name another one",
        path.display()
    )]
    NotWritable {
        /// What we were doing with it.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk fails.
    #[error("{doing} `{}`", path.display())]
    Io {
        /// What we were doing with it.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Whether a write failed because there is no room for it: on the disk, or in a quota.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl SpoolError {
    /// For `map_err` on an operation on `path`.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| match source.kind() {
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                Self::NotADirectory { path }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NotWritable {
                    doing,
                    path,
                    source,
                }
            }
            _ => Self::Io {
                doing,
                path,
                source,
            },
        }
    }

    /// As [`SpoolError::io`], where the file was to become so long.
    pub(crate) fn allocate(path: &Path, n_bytes: u64) -> impl FnOnce(io::Error) -> Self {
        let other = Self::io("allocate", path);
        let path = path.to_path_buf();
        move |source| {
            if is_full(&source) {
                Self::NoRoom {
                    path,
                    n_bytes,
                    source,
                }
            } else {
                other(source)
            }
        }
    }

    /// Whether it is a matter of room that may come.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::NoRoom { .. } => true,
            Self::Io { source, .. } => is_full(source),
            _ => false,
        }
    }
}
