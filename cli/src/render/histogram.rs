//! Draws counts over time as bars.
//!
//! A count above zero is never drawn as nothing.

use std::io::{self, Write};

use chrono::{DateTime, Utc};

use super::{Terminal, TimeBins, number};

/// Rows of characters that the highest bar has.
const HEIGHT: usize = 8;

/// Draws the counts as wide as the terminal, with the peak and the time of day below.
///
/// Where there are more spans than columns, neighbours are drawn as one bar as high as the highest
/// of them: sums would make of people in view people that were never there at once.
///
/// # Errors
///
/// When writing fails.
pub fn write_histogram(
    out: &mut dyn Write,
    title: &str,
    bins: &TimeBins,
    terminal: Terminal,
) -> io::Result<()> {
    let peak = bins.counts().iter().copied().max().unwrap_or(0);
    if peak == 0 {
        return writeln!(out, "{title}: nothing in this time");
    }
    let ink = if terminal.is_unicode {
        &UNICODE
    } else {
        &ASCII
    };
    let scale = [number::grouped(peak), "0".to_owned()];
    let margin = scale[0].len();
    let n_columns = terminal.drawing_width().saturating_sub(margin + 2).max(1);
    let bars = Bars::new(bins.counts(), n_columns);

    let peak_at = bins
        .counts()
        .iter()
        .position(|&count| count == peak)
        .unwrap_or(0);
    let format = TimeFormat::for_bins(bins);
    writeln!(
        out,
        "{title} per {}, peak {} at {} (UTC)",
        span(bins),
        scale[0],
        format.full(bins.start_of(peak_at))
    )?;
    for row in (0..HEIGHT).rev() {
        let label = if row == HEIGHT - 1 { &*scale[0] } else { "" };
        let mark = if label.is_empty() {
            ink.side
        } else {
            ink.side_mark
        };
        let mut line = format!("{label:>margin$} {mark}");
        for column in 0..bars.n_columns() {
            line.push(ink.cell(bars.at(column), peak, row));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    let (axis, labels) = time_axis(&bars, bins, format, ink, n_columns);
    writeln!(out, "{:>margin$} {}{axis}", scale[1], ink.corner)?;
    writeln!(out, "{:margin$}  {labels}", "")
}

/// The length of one span, as short as people say it.
fn span(bins: &TimeBins) -> String {
    let seconds = bins.width().num_seconds();
    if seconds == 0 {
        return format!("{} ms", bins.width().num_milliseconds());
    }
    let units = [
        (86_400, "day"),
        (3600, "hour"),
        (60, "minute"),
        (1, "second"),
    ];
    let unit = units.into_iter().find(|(length, _)| seconds % length == 0);
    let (length, name) = unit.unwrap_or((1, "second"));
    match seconds / length {
        1 => name.to_owned(),
        n => format!("{n} {name}s"),
    }
}

/// The counts as they share the columns.
struct Bars<'a> {
    counts: &'a [u64],
    /// How many counts one bar stands for.
    n_merged: usize,
    /// How many columns one bar has.
    n_repeated: usize,
}

impl<'a> Bars<'a> {
    fn new(counts: &'a [u64], n_columns: usize) -> Self {
        let n_merged = counts.len().div_ceil(n_columns);
        Self {
            counts,
            n_merged,
            n_repeated: n_columns / counts.len().div_ceil(n_merged),
        }
    }

    fn n_columns(&self) -> usize {
        self.counts.len().div_ceil(self.n_merged) * self.n_repeated
    }

    fn first_bin(&self, column: usize) -> usize {
        column / self.n_repeated * self.n_merged
    }

    fn at(&self, column: usize) -> u64 {
        let first = self.first_bin(column);
        let end = (first + self.n_merged).min(self.counts.len());
        self.counts[first..end].iter().copied().max().unwrap_or(0)
    }
}

/// The axis with its ticks, and below them the times.
fn time_axis(
    bars: &Bars<'_>,
    bins: &TimeBins,
    format: TimeFormat,
    ink: &Ink,
    n_columns: usize,
) -> (String, String) {
    let n_drawn = bars.n_columns();
    let label_width = format.short(bins.start_of(0)).len();
    // Ticks stand on whole bars, as many apart as people count, with room for a label and a gap.
    let n_bars = [1, 2, 5, 10, 20].into_iter();
    let mut steps = n_bars.map(|n| n * bars.n_repeated);
    let step = steps
        .find(|&step| step >= label_width + 2)
        .unwrap_or(30 * bars.n_repeated);
    let (mut axis, mut labels) = (String::new(), String::new());
    for column in 0..n_drawn {
        let is_tick = column % step == 0 && column + label_width <= n_columns;
        axis.push(if is_tick { ink.tick } else { ink.base });
        if is_tick {
            let label = format.short(bins.start_of(bars.first_bin(column)));
            labels.push_str(&" ".repeat(column - labels.len()));
            labels.push_str(&label);
        }
    }
    (axis, labels)
}

/// How exactly times are written.
#[derive(Clone, Copy)]
enum TimeFormat {
    Milliseconds,
    Seconds,
    Minutes,
    Days,
}

impl TimeFormat {
    fn for_bins(bins: &TimeBins) -> Self {
        let ms = bins.width().num_milliseconds();
        match ms {
            _ if ms % 86_400_000 == 0 => Self::Days,
            _ if ms % 60_000 == 0 => Self::Minutes,
            _ if ms % 1000 == 0 => Self::Seconds,
            _ => Self::Milliseconds,
        }
    }

    fn short(self, time: DateTime<Utc>) -> String {
        let format = match self {
            Self::Milliseconds => "%H:%M:%S%.3f",
            Self::Seconds => "%H:%M:%S",
            Self::Minutes => "%m-%d %H:%M",
            Self::Days => "%Y-%m-%d",
        };
        time.format(format).to_string()
    }

    fn full(self, time: DateTime<Utc>) -> String {
        let format = match self {
            Self::Milliseconds => "%Y-%m-%d %H:%M:%S%.3f",
            Self::Seconds => "%Y-%m-%d %H:%M:%S",
            Self::Minutes => "%Y-%m-%d %H:%M",
            Self::Days => "%Y-%m-%d",
        };
        time.format(format).to_string()
    }
}

/// The characters to draw with.
struct Ink {
    /// From almost nothing to a full cell.
    levels: &'static [char],
    side: char,
    side_mark: char,
    corner: char,
    base: char,
    tick: char,
}

const UNICODE: Ink = Ink {
    levels: &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
    side: '│',
    side_mark: '┤',
    corner: '└',
    base: '─',
    tick: '┬',
};

const ASCII: Ink = Ink {
    levels: &['.', ':', '#'],
    side: '|',
    side_mark: '+',
    corner: '+',
    base: '-',
    tick: '+',
};

impl Ink {
    /// What a bar shows in a row of characters, counted from the bottom.
    fn cell(&self, count: u64, peak: u64, row: usize) -> char {
        let n_levels = self.levels.len();
        // At least one level for what is there at all.
        let full = (HEIGHT * n_levels) as u128;
        let height = (u128::from(count) * full).div_ceil(u128::from(peak));
        let below = (row * n_levels) as u128;
        match usize::try_from(height.saturating_sub(below)).unwrap_or(n_levels) {
            0 => ' ',
            level => self.levels[level.min(n_levels) - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bins(seconds: i64, max_bins: usize, counts: impl Fn(i64) -> u64) -> TimeBins {
        let start: DateTime<Utc> = "2026-09-21T12:00:00Z".parse().unwrap();
        let at = |s| start + chrono::Duration::seconds(s);
        let mut bins = TimeBins::covering(at(0)..at(seconds), max_bins);
        for s in 0..seconds {
            bins.add(at(s), counts(s));
        }
        bins
    }

    fn draw(bins: &TimeBins, width: u16, is_unicode: bool) -> String {
        let terminal = Terminal {
            width: Some(width),
            is_unicode,
        };
        let mut out = Vec::new();
        write_histogram(&mut out, "people", bins, terminal).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn check(bins: &TimeBins, width: u16, is_unicode: bool, expected: &str) {
        let drawn = draw(bins, width, is_unicode);
        assert_eq!(drawn, expected, "\n{drawn}");
        let fits = drawn
            .lines()
            .skip(1)
            .all(|l| l.chars().count() <= width.into());
        assert!(fits, "\n{drawn}");
    }

    #[test]
    fn bars_rise_to_the_peak() {
        let wave = bins(40, 40, |s| {
            [0, 1, 8, 64, 30, 17][usize::try_from(s % 6).unwrap()]
        });
        check(
            &wave,
            45,
            true,
            "\
people per second, peak 64 at 2026-09-21 12:00:03 (UTC)
64 ┤   █     █     █     █     █     █     █
   │   █     █     █     █     █     █     █
   │   █     █     █     █     █     █     █
   │   █     █     █     █     █     █     █
   │   █▆    █▆    █▆    █▆    █▆    █▆    █
   │   ██▁   ██▁   ██▁   ██▁   ██▁   ██▁   █
   │   ███   ███   ███   ███   ███   ███   █
   │ ▁████ ▁████ ▁████ ▁████ ▁████ ▁████ ▁██
 0 └┬─────────┬─────────┬─────────┬─────────
    12:00:00  12:00:10  12:00:20  12:00:30
",
        );
        check(
            &wave,
            45,
            false,
            "\
people per second, peak 64 at 2026-09-21 12:00:03 (UTC)
64 +   #     #     #     #     #     #     #
   |   #     #     #     #     #     #     #
   |   #     #     #     #     #     #     #
   |   #     #     #     #     #     #     #
   |   ##    ##    ##    ##    ##    ##    #
   |   ##.   ##.   ##.   ##.   ##.   ##.   #
   |   ###   ###   ###   ###   ###   ###   #
   | .#### .#### .#### .#### .#### .#### .##
 0 ++---------+---------+---------+---------
    12:00:00  12:00:10  12:00:20  12:00:30
",
        );
    }

    #[test]
    fn bars_share_the_width_and_too_many_share_a_column() {
        let few = bins(5, 5, |s| u64::try_from(s).unwrap() + 1);
        check(
            &few,
            30,
            false,
            "\
people per second, peak 5 at 2026-09-21 12:00:04 (UTC)
5 +                    #####
  |               :::::#####
  |               ##########
  |          ###############
  |     .....###############
  |     ####################
  |:::::####################
  |#########################
0 ++---------+--------------
   12:00:00  12:00:02
",
        );
        let many = bins(200, 200, |s| u64::from(s == 77));
        check(
            &many,
            30,
            false,
            "\
people per second, peak 1 at 2026-09-21 12:01:17 (UTC)
1 +         #
  |         #
  |         #
  |         #
  |         #
  |         #
  |         #
  |         #
0 ++---------+--------------
   12:00:00  12:01:20
",
        );
    }

    #[test]
    fn nothing_is_said_in_words() {
        check(
            &bins(5, 10, |_| 0),
            30,
            true,
            "people: nothing in this time\n",
        );
    }

    #[test]
    fn no_width_and_no_count_makes_it_panic() {
        for width in 0..200 {
            for n in [1, 2, 59, 79] {
                draw(&bins(n, 80, |_| u64::MAX / 100), width, true);
            }
        }
    }
}
