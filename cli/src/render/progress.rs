//! Shows how far long work has come: a bar for each camera or file, with rate and time left.
//!
//! Bars are drawn on standard error, and only where it is a terminal; elsewhere a plain line is
//! written every few seconds at most.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::{Terminal, number, plain_progress::PlainProgress};
use crate::visible::visible;

/// The bars of one command, one below the other.
#[derive(Debug, Clone)]
pub struct ProgressBars {
    canvas: Canvas,
}

impl ProgressBars {
    /// Bars on standard error, or plain lines where it is no terminal.
    pub fn stderr() -> Self {
        let target = ProgressDrawTarget::stderr();
        let canvas = if target.is_hidden() {
            Canvas::Lines(Arc::new(PlainProgress::new(Box::new(io::stderr()))))
        } else {
            Canvas::Bars(MultiProgress::with_draw_target(target))
        };
        Self { canvas }
    }

    /// Shows nothing.
    pub fn hidden() -> Self {
        Self {
            canvas: Canvas::Nothing,
        }
    }

    /// Adds work of `total` steps, bytes or rows, below what is there.
    pub fn add(&self, name: &str, total: u64) -> Progress {
        let name = visible(name).into_owned();
        let show = match &self.canvas {
            Canvas::Bars(bars) => {
                let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden())
                    .with_style(style(Terminal::stderr()))
                    .with_prefix(name);
                Show::Bar(bars.add(bar))
            }
            Canvas::Lines(lines) => Show::Lines(name, lines.clone()),
            Canvas::Nothing => Show::Nothing,
        };
        Progress {
            show,
            total,
            n_rows: AtomicU64::new(0),
            start: Instant::now(),
        }
    }

    /// Writes a line above the bars.
    pub fn line(&self, text: &str) {
        match &self.canvas {
            // A terminal that is gone needs no line.
            Canvas::Bars(bars) => drop(bars.println(text)),
            Canvas::Lines(lines) => lines.line(text),
            Canvas::Nothing => {}
        }
    }

    /// Takes the bars away while `write` writes to the terminal, and draws them again.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.canvas {
            Canvas::Bars(bars) => bars.suspend(write),
            Canvas::Lines(_) | Canvas::Nothing => write(),
        }
    }

    /// Takes the bars away for good.
    pub fn clear(&self) {
        if let Canvas::Bars(bars) = &self.canvas {
            // A terminal that is gone needs no clearing.
            drop(bars.clear());
        }
    }
}

/// How far one piece of work has come.
#[derive(Debug)]
pub struct Progress {
    show: Show,
    total: u64,
    n_rows: AtomicU64,
    start: Instant,
}

impl Progress {
    /// Says how many of the steps are done, and how many rows that made.
    pub fn update(&self, done: u64, n_rows: u64) {
        self.n_rows.store(n_rows, Ordering::Relaxed);
        match &self.show {
            Show::Bar(bar) => {
                bar.set_message(number::rate(n_rows, "rows", self.start.elapsed()));
                bar.set_position(done);
            }
            Show::Lines(name, lines) => {
                lines.update(|| plain_line(name, done, self.total, n_rows, self.start.elapsed()));
            }
            Show::Nothing => {}
        }
    }

    /// Says that the work is done, and leaves its result standing.
    pub fn finish(&self) {
        let (n_rows, elapsed) = (self.n_rows.load(Ordering::Relaxed), self.start.elapsed());
        match &self.show {
            Show::Bar(bar) => {
                bar.finish_with_message(number::rate(n_rows, "rows", elapsed));
            }
            Show::Lines(name, lines) => lines.line(&format!(
                "{name}: done, {} rows in {}",
                number::grouped(n_rows),
                number::duration(elapsed)
            )),
            Show::Nothing => {}
        }
    }
}

#[derive(Debug, Clone)]
enum Canvas {
    Bars(MultiProgress),
    Lines(Arc<PlainProgress>),
    Nothing,
}

#[derive(Debug)]
enum Show {
    Bar(ProgressBar),
    Lines(String, Arc<PlainProgress>),
    Nothing,
}

fn style(terminal: Terminal) -> ProgressStyle {
    let template = "{prefix:16!} {wide_bar} {percent:>3} % {msg:>14} {eta:>4} left";
    let style =
        ProgressStyle::with_template(template).expect("the template is well-formed: tested below");
    style.progress_chars(if terminal.is_unicode {
        "█▉▊▋▌▍▎▏ "
    } else {
        "#>-"
    })
}

fn plain_line(name: &str, done: u64, total: u64, n_rows: u64, elapsed: Duration) -> String {
    let done = done.min(total);
    let percent = (u128::from(done) * 100)
        .checked_div(u128::from(total))
        .unwrap_or(100);
    let mut line = format!(
        "{name}: {percent} %, {} rows, {}",
        number::grouped(n_rows),
        number::rate(n_rows, "rows", elapsed)
    );
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let left = elapsed.as_secs_f64() * (total - done) as f64 / done as f64;
    if let Ok(left) = Duration::try_from_secs_f64(left) {
        line.push_str(&format!(", {} left", number::duration(left)));
    }
    line
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::Mutex};

    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let check = |done, total, n_rows, seconds, expected| {
            let line = plain_line("cam", done, total, n_rows, Duration::from_secs(seconds));
            assert_eq!(line, expected);
        };
        check(
            25,
            100,
            61_725,
            5,
            "cam: 25 %, 61,725 rows, 12.3 k rows/s, 15.0 s left",
        );
        check(0, 100, 0, 5, "cam: 0 %, 0 rows, 0 rows/s");
        check(0, 0, 0, 5, "cam: 100 %, 0 rows, 0 rows/s");
        check(200, 100, 10, 5, "cam: 100 %, 10 rows, 2 rows/s, 0 ms left");
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn off_a_terminal_lines_are_seconds_apart() {
        let written = Shared::default();
        let lines = Arc::new(PlainProgress::new(Box::new(written.clone())));
        let bars = ProgressBars {
            canvas: Canvas::Lines(lines),
        };
        let (a, b) = (bars.add("a\u{1b}", 100), bars.add("b", 100));
        for done in 1..=100 {
            tokio::time::advance(Duration::from_millis(100)).await;
            a.update(done, done);
            b.update(done, done);
        }
        b.finish();

        let written = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            written,
            "a\\u{1b}: 50 %, 50 rows, 10 rows/s, 5.0 s left\n\
             a\\u{1b}: 100 %, 100 rows, 10 rows/s, 0 ms left\n\
             b: done, 100 rows in 10.0 s\n"
        );
    }

    #[test]
    fn the_style_is_well_formed() {
        for is_unicode in [false, true] {
            style(Terminal {
                width: None,
                is_unicode,
            });
        }
        let hidden = ProgressBars::hidden();
        hidden.add("a", 0).finish();
        hidden.clear();
        assert_eq!(hidden.suspend(|| 7), 7);
    }
}
