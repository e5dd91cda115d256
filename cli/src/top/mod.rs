//! `passerby top`, without the terminal: what is known, what a key does, and how it looks.
//!
//! Data is fetched elsewhere and comes in as [`Update`]s; a key may ask for something by a [`Request`]. So a server
//! that does not answer never keeps a key or the screen waiting, and a test draws whatever it likes.

mod draw;
mod fetch;
mod lines;
mod run;

use std::{collections::VecDeque, time::Duration};

use chrono::{DateTime, Utc};
use passerby_consumer::{
    ops::{CameraSample, PendingReport, StatusReport},
    store::DeadLetterRecord,
};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

pub use draw::draw;
pub use fetch::{Fetcher, Source};
pub(crate) use run::run;

/// Samples that are kept: more than a wide terminal has columns.
const MAX_HISTORY: usize = 240;

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

/// Rates at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    arriving: f64,
    settled: f64,
    stored: f64,
    backlog: f64,
}

/// What is known and what is shown of it.
#[derive(Debug)]
pub struct Model {
    interval: Duration,
    view: View,
    report: Option<StatusReport>,
    history: VecDeque<Sample>,
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
            view: View::Overview,
            report: None,
            history: VecDeque::new(),
            cameras: None,
            pending: None,
            letters: None,
            selected: 0,
            scrolled: 0,
            message: None,
            has_quit: false,
        }
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
            Update::Cameras(sample) => self.cameras = Some(sample),
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
        if let Some(flow) = &report.flow {
            #[expect(clippy::cast_precision_loss, reason = "drawn with eight levels")]
            let backlog = report.backlog_entries().unwrap_or(0) as f64;
            self.history.push_back(Sample {
                arriving: flow.arriving_entries,
                settled: flow.settled_entries,
                stored: flow.stored_detections,
                backlog,
            });
            if self.history.len() > MAX_HISTORY {
                self.history.pop_front();
            }
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

    /// Does what a key asks for; what is returned somebody else has to do.
    pub fn key(&mut self, key: KeyEvent) -> Option<Request> {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            self.has_quit = true;
            return None;
        }
        if let View::Confirm(request) = self.view {
            self.view = View::Overview;
            if key.code == KeyCode::Char('y') {
                self.message = Some("asking for it…".to_owned());
                return Some(request);
            }
            self.message = Some("not confirmed: nothing was changed".to_owned());
            return None;
        }
        self.message = None;
        match key.code {
            KeyCode::Char('q') if self.view == View::Overview => self.has_quit = true,
            KeyCode::Char('q') | KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => self.back(),
            KeyCode::Char('?' | 'h') => self.open(View::Help),
            KeyCode::Char('p') if self.is_paused() => {
                self.message = Some("paused already: r resumes".to_owned());
            }
            KeyCode::Char('p') => self.open(View::Confirm(Request::Pause)),
            KeyCode::Char('r') if !self.is_paused() => {
                self.message = Some("not paused".to_owned());
            }
            KeyCode::Char('r') => self.open(View::Confirm(Request::Resume)),
            KeyCode::Char('e') => {
                self.open(View::Pending);
                return Some(Request::Pending);
            }
            KeyCode::Char('d') => {
                self.open(View::Letters);
                return Some(Request::Letters);
            }
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.step(10),
            KeyCode::PageUp => self.step(-10),
            KeyCode::Enter | KeyCode::Right if self.n_listed() > 0 => {
                self.scrolled = 0;
                self.view = match self.view {
                    View::Pending => View::Details(List::Pending),
                    _ => View::Details(List::Letters),
                };
            }
            _ => {}
        }
        None
    }

    fn open(&mut self, view: View) {
        self.view = view;
        self.selected = 0;
        self.scrolled = 0;
    }

    fn back(&mut self) {
        self.view = match self.view {
            View::Details(List::Pending) => View::Pending,
            View::Details(List::Letters) => View::Letters,
            _ => View::Overview,
        };
    }

    fn step(&mut self, by: i16) {
        if matches!(self.view, View::Details(_)) {
            self.scrolled = self.scrolled.saturating_add_signed(by);
            return;
        }
        let last = self.n_listed().saturating_sub(1);
        self.selected = self
            .selected
            .saturating_add_signed(isize::from(by))
            .min(last);
    }

    /// How long ago the servers were last asked.
    fn age(&self, now: DateTime<Utc>) -> Option<Duration> {
        let report = self.report.as_ref()?;
        (now - report.at).to_std().ok()
    }
}
