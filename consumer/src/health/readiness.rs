//! Which part of a worker is ready.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer, ser::SerializeMap};

/// Whether a worker can store what it reads, part by part.
#[derive(Debug, Clone, PartialEq)]
pub struct Readiness {
    /// Where the worker is in its life.
    pub phase: Phase,
    /// Redis answers.
    pub redis: Part,
    /// Postgres answers.
    pub postgres: Part,
    /// The schema is the one this program works with.
    pub schema: Part,
    /// How long ago that was seen.
    pub seen_seconds_ago: Option<f64>,
}

/// Where a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Connecting, and bringing the schema to its version.
    Starting,
    /// Working.
    Running,
    /// Told to stop: it finishes what it has read.
    Stopping,
}

/// Whether one part is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// It is.
    Ready,
    /// It is not, for this reason.
    NotReady(String),
}

impl Part {
    /// Ready, unless there is a reason why not.
    pub(crate) fn unless(reason: Option<String>) -> Self {
        reason.map_or(Self::Ready, Self::NotReady)
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Ready => None,
            Self::NotReady(reason) => Some(reason),
        }
    }
}

impl Readiness {
    /// Nobody has looked, or not since.
    pub(super) fn unknown(phase: Phase, since: Option<Duration>) -> Self {
        let part = || {
            Part::NotReady(match since {
                None => "not asked yet".to_owned(),
                Some(since) => format!("not asked for {} s", since.as_secs()),
            })
        };
        Self {
            phase,
            redis: part(),
            postgres: part(),
            schema: part(),
            seen_seconds_ago: since.map(|since| since.as_secs_f64()),
        }
    }

    fn parts(&self) -> [(&'static str, &Part); 3] {
        [
            ("redis", &self.redis),
            ("postgres", &self.postgres),
            ("schema", &self.schema),
        ]
    }

    /// Whether all of it is ready.
    pub fn is_ready(&self) -> bool {
        let is_ready = |(_, part): (_, &Part)| *part == Part::Ready;
        self.phase == Phase::Running && self.parts().into_iter().all(is_ready)
    }
}

/// One line for people.
impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.phase {
            Phase::Starting => return f.write_str("not ready: starting"),
            Phase::Stopping => return f.write_str("not ready: stopping"),
            Phase::Running if self.is_ready() => return f.write_str("ready"),
            Phase::Running => f.write_str("not ready")?,
        }
        let mut separator = ": ";
        for (name, part) in self.parts() {
            if let Some(reason) = part.reason() {
                write!(f, "{separator}{name}: {reason}")?;
                separator = "; ";
            }
        }
        Ok(())
    }
}

impl Serialize for Readiness {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct PartJson<'a> {
            ready: bool,
            reason: Option<&'a str>,
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("ready", &self.is_ready())?;
        map.serialize_entry("phase", &self.phase)?;
        for (name, part) in self.parts() {
            let reason = part.reason();
            let part = PartJson {
                ready: reason.is_none(),
                reason,
            };
            map.serialize_entry(name, &part)?;
        }
        map.serialize_entry("seen_seconds_ago", &self.seen_seconds_ago)?;
        map.end()
    }
}
