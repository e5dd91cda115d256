//! `passerby top`, without the terminal: what is known, what a key does, and how it looks.
//!
//! Data is fetched elsewhere and comes in as [`Update`]s; a key may ask for something by a [`Request`]. So a server
//! that does not answer never keeps a key or the screen waiting, and a test draws whatever it likes.

mod draw;
mod fetch;
mod history;
mod keys;
mod lines;
mod run;
mod whole;

use std::time::Duration;

use chrono::{DateTime, Utc};
use passerby_consumer::{
    ops::{CameraSample, PendingReport, StatusReport, Thresholds},
    store::DeadLetterRecord,
};

pub use draw::draw;
pub use fetch::{Fetcher, Source};
pub(crate) use run::run;

use crate::render::duration;
use history::History;

/// What the terminal can show.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Whether characters beyond ASCII are shown.
    pub is_unicode: bool,
    /// Whether colours are wanted. They never say anything that words do not.
    pub is_coloured: bool,
}

/// What came in.
#[derive(Debug)]
pub enum Update {
    /// How everything is.
    Status(Box<StatusReport>),
    /// What arrives from the cameras.
    Cameras(Result<CameraSample, String>),
    /// What is pending.
    Pending(Result<PendingReport, String>),
    /// The dead letters that wait for somebody.
    Letters(Result<Vec<DeadLetterRecord>, String>),
    /// What became of something that was asked for.
    Done(Result<String, String>),
}

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// The pending entries, decoded.
    Pending,
    /// The dead letters.
    Letters,
    /// That workers stop reading.
    Pause,
    /// That workers read again.
    Resume,
}

/// What is on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Everything at a glance.
    Overview,
    /// The pending entries.
    Pending,
    /// The dead letters.
    Letters,
    /// What is chosen in the list below, whole.
    Details(List),
    /// What the keys do.
    Help,
    /// A question, to be answered with y.
    Confirm(Request),
}

/// A list that things are chosen from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// The pending entries.
    Pending,
    /// The dead letters.
    Letters,
}

/// What is known and what is shown of it.
#[derive(Debug)]
pub struct Model {
    interval: Duration,
    thresholds: Thresholds,
    view: View,
    report: Option<StatusReport>,
    /// When Redis last answered.
    redis_at: Option<DateTime<Utc>>,
    /// When Postgres last answered.
    store_at: Option<DateTime<Utc>>,
    history: History,
    cameras: Option<Result<CameraSample, String>>,
    pending: Option<Result<PendingReport, String>>,
    letters: Option<Result<Vec<DeadLetterRecord>, String>>,
    selected: usize,
    scrolled: u16,
    message: Option<String>,
    has_quit: bool,
}

impl Model {
    /// Nothing is known yet.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            thresholds: Thresholds::default(),
            view: View::Overview,
            report: None,
            redis_at: None,
            store_at: None,
            history: History::default(),
            cameras: None,
            pending: None,
            letters: None,
            selected: 0,
            scrolled: 0,
            message: None,
            has_quit: false,
        }
    }

    /// Judges what it is told by these.
    #[must_use]
    pub fn judged_by(mut self, thresholds: Thresholds) -> Self {
        self.thresholds = thresholds;
        self
    }

    /// Whether somebody has seen enough.
    pub fn has_quit(&self) -> bool {
        self.has_quit
    }

    /// What is on the screen.
    pub fn view(&self) -> View {
        self.view
    }

    /// Takes in what came.
    pub fn update(&mut self, update: Update) {
        match update {
            Update::Status(report) => self.take_status(*report),
            Update::Cameras(sample) => {
                if let Ok(sample) = &sample {
                    self.history.take_cameras(sample);
                }
                self.cameras = Some(sample);
            }
            Update::Pending(report) => {
                self.pending = Some(report);
                self.keep_selection();
            }
            Update::Letters(letters) => {
                self.letters = Some(letters);
                self.keep_selection();
            }
            Update::Done(done) => self.message = Some(done.unwrap_or_else(|error| error)),
        }
    }

    fn take_status(&mut self, mut report: StatusReport) {
        if let Some(earlier) = &self.report {
            report.compare(earlier);
        }
        self.history.take_status(&report);
        if report.redis.is_some() {
            self.redis_at = Some(report.at);
        }
        if report.store.is_some() {
            self.store_at = Some(report.at);
        }
        // What a server said last stays on the screen while it does not answer.
        if let Some(earlier) = self.report.take() {
            report.redis = report.redis.or(earlier.redis);
            report.store = report.store.or(earlier.store);
            report.balance = report.balance.or(earlier.balance);
        }
        self.report = Some(report);
    }

    fn n_listed(&self) -> usize {
        match self.view {
            View::Pending => match &self.pending {
                Some(Ok(report)) => report.entries.len(),
                _ => 0,
            },
            View::Letters => match &self.letters {
                Some(Ok(letters)) => letters.len(),
                _ => 0,
            },
            _ => 0,
        }
    }

    fn keep_selection(&mut self) {
        if matches!(self.view, View::Pending | View::Letters) {
            self.selected = self.selected.min(self.n_listed().saturating_sub(1));
        }
    }

    fn is_paused(&self) -> bool {
        let redis = self
            .report
            .as_ref()
            .and_then(|report| report.redis.as_ref());
        redis.is_some_and(|redis| redis.paused.is_some())
    }

    /// What on the screen is old because a server does not answer.
    fn stale(&self, now: DateTime<Utc>) -> Vec<String> {
        let Some(report) = &self.report else {
            return Vec::new();
        };
        let servers = [
            ("Redis", &report.redis_error, self.redis_at),
            ("Postgres", &report.store_error, self.store_at),
        ];
        servers
            .into_iter()
            .filter(|(_, error, _)| error.is_some())
            .filter_map(|(server, _, at)| {
                let age = (now - at?).to_std().unwrap_or_default();
                Some(format!(
                    "what is shown of {server} is {} old",
                    duration(age)
                ))
            })
            .collect()
    }

    /// How long ago the servers were last asked.
    fn age(&self, now: DateTime<Utc>) -> Option<Duration> {
        let report = self.report.as_ref()?;
        (now - report.at).to_std().ok()
    }
}
