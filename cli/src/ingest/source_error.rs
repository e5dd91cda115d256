//! Why a file cannot be read.

use std::{io, sync::Arc};

/// A file that cannot be read at all, as opposed to a bad line in it.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be opened.
    #[error("open `{file}`")]
    Open {
        /// The file, as it was named.
        file: Arc<str>,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is no file.
    #[error("`{file}` is a directory: name the files in it")]
    Directory {
        /// The directory, as it was named.
        file: Arc<str>,
    },
    /// Reading it failed half-way.
    #[error("read `{file}`")]
    Read {
        /// The file, as it was named.
        file: Arc<str>,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What can be read only once could not be kept in a temporary file.
    #[error("keep `{file}` in a temporary file (TMPDIR names the folder)")]
    Spool {
        /// The source, as it was named.
        file: Arc<str>,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Somebody wrote into it meanwhile.
    #[error("`{file}` changed while it was read: read it again when it is complete")]
    Changed {
        /// The file, as it was named.
        file: Arc<str>,
    },
}
