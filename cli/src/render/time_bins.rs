//! Counts over time, in spans of a width that people read off a clock.

use std::{
    collections::{HashSet, hash_map::RandomState},
    hash::{BuildHasher, Hash},
    ops::Range,
};

use chrono::{DateTime, Duration, Utc};

/// Counts in successive spans of equal width.
#[derive(Debug, Clone)]
pub struct TimeBins {
    start_us: i64,
    width_us: i64,
    counts: Vec<u64>,
    /// Bin and hash of what was counted once. A collision of 64-bit hashes costs one count.
    seen: HashSet<(usize, u64)>,
    hasher: RandomState,
}

impl TimeBins {
    /// At most `max_bins` spans that cover the range, of the smallest width that a clock would have:
    /// 1, 2, 5 … ms, 1, 2, 5, 10, 15, 30 s, and so on to days. The first begins on a multiple of it.
    pub fn covering(range: Range<DateTime<Utc>>, max_bins: usize) -> Self {
        let max_bins = i64::try_from(max_bins).unwrap_or(i64::MAX).max(1);
        let (start, end) = (range.start.timestamp_micros(), range.end.timestamp_micros());
        let n_bins = |width: i64| {
            let n = end.saturating_sub(1).max(start).div_euclid(width) - start.div_euclid(width);
            n.saturating_add(1)
        };
        let mut widths = CLOCK_WIDTHS_MS.iter().map(|ms| ms * 1000);
        let width_us = widths.find(|&width| n_bins(width) <= max_bins);
        // Beyond the table, whole days, doubled.
        let width_us = width_us.unwrap_or_else(|| {
            let mut width = DAY_MS * 1000;
            while n_bins(width) > max_bins && width < i64::MAX / 4 {
                width *= 2;
            }
            width
        });
        let n_bins = usize::try_from(n_bins(width_us).min(max_bins)).unwrap_or(1);
        Self {
            start_us: start.div_euclid(width_us) * width_us,
            width_us,
            counts: vec![0; n_bins],
            seen: HashSet::new(),
            hasher: RandomState::new(),
        }
    }

    /// Counts `n` at a time. A time outside all spans is not counted.
    pub fn add(&mut self, time: DateTime<Utc>, n: u64) {
        if let Some(bin) = self.bin_of(time) {
            self.counts[bin] += n;
        }
    }

    /// Counts somebody once in each span, however often they are seen in it.
    pub fn add_once(&mut self, time: DateTime<Utc>, who: impl Hash) {
        if let Some(bin) = self.bin_of(time)
            && self.seen.insert((bin, self.hasher.hash_one(who)))
        {
            self.counts[bin] += 1;
        }
    }

    fn bin_of(&self, time: DateTime<Utc>) -> Option<usize> {
        let offset = i128::from(time.timestamp_micros()) - i128::from(self.start_us);
        let bin = usize::try_from(offset.div_euclid(self.width_us.into())).ok()?;
        (bin < self.counts.len()).then_some(bin)
    }

    /// The counts, span after span.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// How long one span is.
    pub fn width(&self) -> Duration {
        Duration::microseconds(self.width_us)
    }

    /// When span `bin` begins.
    pub fn start_of(&self, bin: usize) -> DateTime<Utc> {
        let bin = i64::try_from(bin).unwrap_or(i64::MAX);
        let us = self
            .start_us
            .saturating_add(bin.saturating_mul(self.width_us));
        DateTime::from_timestamp_micros(us).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

const SECOND_MS: i64 = 1000;
const MINUTE_MS: i64 = 60 * SECOND_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

const CLOCK_WIDTHS_MS: [i64; 30] = [
    1,
    2,
    5,
    10,
    20,
    50,
    100,
    200,
    500,
    SECOND_MS,
    2 * SECOND_MS,
    5 * SECOND_MS,
    10 * SECOND_MS,
    15 * SECOND_MS,
    30 * SECOND_MS,
    MINUTE_MS,
    2 * MINUTE_MS,
    5 * MINUTE_MS,
    10 * MINUTE_MS,
    15 * MINUTE_MS,
    30 * MINUTE_MS,
    HOUR_MS,
    2 * HOUR_MS,
    3 * HOUR_MS,
    6 * HOUR_MS,
    12 * HOUR_MS,
    DAY_MS,
    2 * DAY_MS,
    7 * DAY_MS,
    14 * DAY_MS,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> DateTime<Utc> {
        let start: DateTime<Utc> = "2026-09-21T12:00:00Z".parse().unwrap();
        #[expect(clippy::cast_possible_truncation, reason = "small in tests")]
        let ms = (seconds * 1000.0) as i64;
        start + Duration::milliseconds(ms)
    }

    #[test]
    fn widths_are_those_of_a_clock() {
        let check = |seconds, max_bins, expected_ms, expected_bins| {
            let bins = TimeBins::covering(at(0.0)..at(seconds), max_bins);
            assert_eq!(bins.width().num_milliseconds(), expected_ms);
            assert_eq!(bins.counts().len(), expected_bins);
        };
        check(79.5, 70, 2_000, 40);
        check(2.84, 70, 50, 57);
        check(3600.0, 60, 60_000, 60);
        check(3600.001, 60, 120_000, 31);
        check(0.0, 70, 1, 1);
        check(-5.0, 70, 1, 1);
        check(1e9, 70, 256 * DAY_MS, 47);
        check(10.0, 0, 10_000, 1);
    }

    #[test]
    fn the_longest_range_is_no_overflow() {
        let all = DateTime::<Utc>::MIN_UTC..DateTime::<Utc>::MAX_UTC;
        let mut bins = TimeBins::covering(all, 70);
        assert!(bins.counts().len() <= 70);
        bins.add(DateTime::<Utc>::MIN_UTC, 1);
        bins.add(DateTime::<Utc>::MAX_UTC - Duration::days(1), 1);
        assert_eq!(bins.counts().iter().sum::<u64>(), 2);
    }

    #[test]
    fn people_count_once_in_each_span() {
        let mut bins = TimeBins::covering(at(0.5)..at(4.0), 4);
        for (seconds, track) in [(0.5, 1), (0.9, 1), (0.9, 2), (1.0, 1), (3.9, 3), (4.0, 4)] {
            bins.add_once(at(seconds), ("cam", track));
        }
        assert_eq!(bins.counts(), [2, 1, 0, 1]);
        bins.add(at(0.2), 5);
        bins.add(at(-0.1), 5);
        assert_eq!(bins.counts(), [7, 1, 0, 1]);
        assert_eq!(bins.start_of(3), at(3.0));
    }
}
