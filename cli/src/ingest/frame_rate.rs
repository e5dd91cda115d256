//! The time of a frame, from its number.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};

/// Frames a second, as a fraction, so that no time drifts over the length of a file.
///
/// Written `25`, `29.97` or `30000/1001`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRate {
    frames: u32,
    seconds: u32,
}

impl FrameRate {
    /// The time of frame `frame`, the first of which has number 1 and was taken at `start`.
    ///
    /// Exact to the microsecond, halves rounded up. `None` when no calendar reaches that far.
    pub fn time_of(self, start: DateTime<Utc>, frame: i64) -> Option<DateTime<Utc>> {
        // Below 2⁶³ × 2²⁰ × 2³²: no overflow.
        let us_times_frames = (i128::from(frame) - 1) * 1_000_000 * i128::from(self.seconds);
        let frames = i128::from(self.frames);
        let offset_us = (us_times_frames + frames / 2).div_euclid(frames);
        let us = i128::from(start.timestamp_micros()) + offset_us;
        DateTime::from_timestamp_micros(i64::try_from(us).ok()?)
    }

    /// The rate as a number.
    pub fn as_f64(self) -> f64 {
        f64::from(self.frames) / f64::from(self.seconds)
    }

    fn new(frames: u64, seconds: u64) -> Option<Self> {
        let divisor = greatest_common_divisor(frames, seconds).max(1);
        let frames = u32::try_from(frames / divisor).ok()?;
        let seconds = u32::try_from(seconds / divisor).ok()?;
        // More than one frame a microsecond would give two frames one time.
        let is_positive = frames > 0 && seconds > 0;
        (is_positive && u64::from(frames) <= u64::from(seconds) * 1_000_000)
            .then_some(Self { frames, seconds })
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

impl fmt::Display for FrameRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if 1_000_000 % self.seconds == 0 {
            write!(f, "{}", self.as_f64())
        } else {
            write!(f, "{}/{}", self.frames, self.seconds)
        }
    }
}

/// A text that is no frame rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no frame rate: write frames a second above 0, as in 25, 29.97 or 30000/1001")]
pub struct InvalidFrameRate(String);

impl FromStr for FrameRate {
    type Err = InvalidFrameRate;

    fn from_str(s: &str) -> Result<Self, InvalidFrameRate> {
        let parse = || {
            if let Some((frames, seconds)) = s.split_once('/') {
                return Self::new(digits(frames)?, digits(seconds)?);
            }
            let (whole, fraction) = s.split_once('.').unwrap_or((s, "0"));
            let seconds = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
            let frames = digits(whole)?.checked_mul(seconds)?;
            Self::new(frames.checked_add(digits(fraction)?)?, seconds)
        };
        parse().ok_or_else(|| InvalidFrameRate(crate::visible::excerpt(s)))
    }
}

/// Digits only: `u64`'s own parser takes a sign too.
fn digits(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_written_as_cameras_state_it() {
        let check = |text: &str, expected: Option<(u32, u32, &str)>| {
            let rate = text.parse::<FrameRate>().ok();
            let found = rate.map(|r| (r.frames, r.seconds, r.to_string()));
            let found = found.as_ref().map(|(f, s, text)| (*f, *s, text.as_str()));
            assert_eq!(found, expected, "{text}");
        };
        check("25", Some((25, 1, "25")));
        check("10.0", Some((10, 1, "10")));
        check("29.97", Some((2997, 100, "29.97")));
        check("30000/1001", Some((30000, 1001, "30000/1001")));
        check("1/60", Some((1, 60, "1/60")));
        check("0.5", Some((1, 2, "0.5")));
        check("1000000", Some((1_000_000, 1, "1000000")));
        for bad in [
            "",
            "0",
            "0.0",
            "-25",
            "+25",
            "25fps",
            "1/0",
            "0/1",
            "/",
            ".",
            "1.",
            ".5",
            "1e3",
            "NaN",
            "inf",
            "1000001",
            "99999999999999999999",
            "1.00000000000000000000001",
            "1/2/3",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn times_are_exact_however_long_the_file() {
        let start = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        let check = |fps: &str, frame, expected_us: i64| {
            let fps: FrameRate = fps.parse().unwrap();
            let time = fps.time_of(start, frame).unwrap();
            assert_eq!((time - start).num_microseconds(), Some(expected_us));
        };
        check("25", 1, 0);
        check("25", 2, 40_000);
        check("10", 795, 79_400_000);
        check("30", 2, 33_333);
        check("30", 3, 66_667);
        check("30", 31, 1_000_000);
        check("30", 300_000_001, 10_000_000_000_000);
        check("30000/1001", 30_001, 1_001_000_000);
        check("25", 0, -40_000);
        assert_eq!(
            "25".parse::<FrameRate>().unwrap().time_of(start, i64::MAX),
            None
        );
        assert_eq!(
            "1/60"
                .parse::<FrameRate>()
                .unwrap()
                .time_of(start, i64::MIN),
            None
        );
    }
}
