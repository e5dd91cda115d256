//! Spans of time, as they are typed.

use std::{ops::Range, time::Duration};

use chrono::{DateTime, Utc};
use clap::Args;
use passerby_consumer::args::parse_duration;

#[derive(Debug, Args)]
pub(crate) struct Span {
    /// From this time on, RFC 3339.
    #[arg(long, value_name = "TIME", conflicts_with = "last")]
    from: Option<DateTime<Utc>>,
    /// Up to this time, itself not included.
    #[arg(long, value_name = "TIME", conflicts_with = "last")]
    to: Option<DateTime<Utc>>,
    /// The last so many minutes, hours or days: 10m, 24h, 7d [default: everything].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    last: Option<Duration>,
}

impl Span {
    /// When it begins, if that was given.
    pub(crate) fn start(&self) -> Option<DateTime<Utc>> {
        self.last.map_or(self.from, |last| Some(Utc::now() - last))
    }

    /// When it ends, if that was given.
    pub(crate) fn end(&self) -> Option<DateTime<Utc>> {
        self.to
    }

    /// Whether a bound was given.
    pub(crate) fn is_given(&self) -> bool {
        self.start().is_some() || self.end().is_some()
    }

    pub(crate) fn range(&self) -> Range<DateTime<Utc>> {
        let forever =
            DateTime::from_timestamp(4_102_444_800, 0).unwrap_or(DateTime::<Utc>::MAX_UTC);
        self.start().unwrap_or(DateTime::UNIX_EPOCH)..self.end().unwrap_or(forever)
    }
}
