//! Says what was tried for a server that is not to be had, and what its owner can do about it.

use std::{fmt, path::PathBuf};

use crate::{
    fetch::FetchError,
    find::{Kind, Source, Unfit},
};

/// Everything that was tried for a server, in order.
#[derive(Debug)]
pub struct Missing {
    /// The server.
    pub kind: Kind,
    /// Where binaries were allowed to come from.
    pub source: Source,
    /// The places where there was none.
    pub places: Vec<String>,
    /// Those found that do not do.
    pub unfit: Vec<(PathBuf, Unfit)>,
    /// Why none was fetched; `None` when that was not allowed.
    pub fetch: Option<FetchError>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind;
        let (variable, oldest) = (kind.variable(), kind.oldest_version());
        writeln!(f, "no {kind} server of version {oldest} or later")?;
        if !self.places.is_empty() {
            writeln!(f, "  looked in {}", self.places.join(", "))?;
        }
        for (path, unfit) in &self.unfit {
            writeln!(f, "  passed over {}: {}", path.display(), Chain(unfit))?;
        }
        match &self.fetch {
            Some(error) => writeln!(f, "  not fetched: {}", Chain(error))?,
            None => writeln!(f, "  not fetched: PASSERBY_SERVERS is {}", self.source)?,
        }
        let (debian, fedora, macos, what) = match kind {
            Kind::Redis => (
                "redis-server",
                "valkey",
                "valkey",
                "to a redis-server or valkey-server",
            ),
            Kind::Postgres => (
                "postgresql",
                "postgresql-server",
                "postgresql@18",
                "to the directory of postgres and initdb",
            ),
        };
        writeln!(f, "  install one: Debian and Ubuntu: apt install {debian}")?;
        writeln!(f, "               Fedora: dnf install {fedora}")?;
        writeln!(f, "               macOS: brew install {macos}")?;
        write!(f, "  or set {variable} {what}")?;
        if self.source != Source::Auto {
            write!(f, ", with PASSERBY_SERVERS=auto")?;
        }
        Ok(())
    }
}

/// An error with its causes.
struct Chain<'a>(&'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
