//! Progress where no bar can be drawn: a line now and then.

use std::{
    fmt,
    io::Write,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The least time between two lines, however many files are read at once.
const INTERVAL: Duration = Duration::from_secs(5);

/// Writes at most one line every few seconds.
pub(super) struct PlainProgress {
    state: Mutex<State>,
}

struct State {
    out: Box<dyn Write + Send>,
    last_line: Instant,
}

impl PlainProgress {
    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        Self {
            state: Mutex::new(State {
                out,
                last_line: Instant::now(),
            }),
        }
    }

    /// Writes the line if it is time for one.
    pub(super) fn update(&self, line: impl FnOnce() -> String) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last_line.elapsed() >= INTERVAL {
            state.last_line = Instant::now();
            state.write(&line());
        }
    }

    /// Writes a line that must be seen.
    pub(super) fn line(&self, line: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.write(line);
    }
}

impl State {
    fn write(&mut self, line: &str) {
        // Whoever closed the output wants to see no progress.
        drop(writeln!(self.out, "{line}").and_then(|()| self.out.flush()));
    }
}

impl fmt::Debug for PlainProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainProgress").finish_non_exhaustive()
    }
}
