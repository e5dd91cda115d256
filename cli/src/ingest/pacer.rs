//! Releases rows at the pace at which they were recorded.

use std::{fmt, str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use tokio::time::{Instant, sleep_until};

/// Lets rows through when their media time has come, counted from the first row.
///
/// Every wait is until a moment and not for a duration, so that no delay adds up.
#[derive(Debug)]
pub struct Pacer {
    speed: Speed,
    first: Option<(DateTime<Utc>, Instant)>,
}

impl Pacer {
    /// A pacer that has not seen a row.
    pub fn new(speed: Speed) -> Self {
        Self { speed, first: None }
    }

    /// Returns when a row with this time may go; at once when its time has passed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a dropped call only stops waiting.
    pub async fn release(&mut self, media_time: DateTime<Utc>) {
        let Speed::Times(speed) = self.speed else {
            return;
        };
        let (first_time, start) = *self.first.get_or_insert((media_time, Instant::now()));
        let ahead = (media_time - first_time).to_std().unwrap_or_default();
        let wait = Duration::try_from_secs_f64(ahead.as_secs_f64() / speed).unwrap_or(FOREVER);
        if let Some(moment) = start.checked_add(wait.min(FOREVER)) {
            sleep_until(moment).await;
        }
    }
}

/// Longer than anybody waits, and short enough to add to a clock.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How fast a recording is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Speed {
    /// As fast as it can be read; written `0`.
    #[default]
    Unpaced,
    /// So many times as fast as it was recorded, above 0.
    Times(f64),
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unpaced => f.write_str("0"),
            Self::Times(times) => times.fmt(f),
        }
    }
}

/// A text that is no speed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no speed: 1 is as recorded, 2 is twice as fast, 0 is as fast as possible")]
pub struct InvalidSpeed(String);

impl FromStr for Speed {
    type Err = InvalidSpeed;

    fn from_str(s: &str) -> Result<Self, InvalidSpeed> {
        match s.parse::<f64>() {
            Ok(0.0) => Ok(Self::Unpaced),
            Ok(times) if times.is_finite() && times > 0.0 => Ok(Self::Times(times)),
            _ => Err(InvalidSpeed(crate::visible::excerpt(s))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_a_factor() {
        let check = |text: &str, expected| assert_eq!(text.parse().ok(), expected, "{text}");
        check("0", Some(Speed::Unpaced));
        check("0.0", Some(Speed::Unpaced));
        check("1", Some(Speed::Times(1.0)));
        check("2.5", Some(Speed::Times(2.5)));
        for bad in ["", "-1", "NaN", "inf", "fast"] {
            check(bad, None);
        }
    }

    /// Expects the milliseconds after which each row is released.
    async fn check(speed: &str, rows_ms: &[i64], expected_ms: &[u128]) {
        let recorded: DateTime<Utc> = "2026-09-21T12:00:00Z".parse().unwrap();
        let mut pacer = Pacer::new(speed.parse().unwrap());
        let start = Instant::now();
        let mut released = Vec::new();
        for &ms in rows_ms {
            pacer
                .release(recorded + chrono::Duration::milliseconds(ms))
                .await;
            released.push(start.elapsed().as_millis());
        }
        assert_eq!(released, expected_ms);
    }

    #[tokio::test(start_paused = true)]
    async fn rows_are_released_when_their_time_has_passed() {
        check("1", &[0, 0, 40, 80, 1000], &[0, 0, 40, 80, 1000]).await;
        check("4", &[500, 540, 900], &[0, 10, 100]).await;
        check("0.5", &[0, 100], &[0, 200]).await;
        check("0", &[0, 1_000_000], &[0, 0]).await;
        check("1", &[100, 0, 200], &[0, 0, 100]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_reader_catches_up() {
        let recorded: DateTime<Utc> = "2026-09-21T12:00:00Z".parse().unwrap();
        let mut pacer = Pacer::new(Speed::Times(1.0));
        let start = Instant::now();
        pacer.release(recorded).await;
        tokio::time::advance(Duration::from_millis(950)).await;
        for ms in [500, 900, 1000] {
            pacer
                .release(recorded + chrono::Duration::milliseconds(ms))
                .await;
        }
        assert_eq!(start.elapsed().as_millis(), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn the_slowest_speed_is_no_panic() {
        let mut pacer = Pacer::new(Speed::Times(f64::MIN_POSITIVE));
        pacer.release(DateTime::UNIX_EPOCH).await;
        let never = pacer.release("2099-01-01T00:00:00Z".parse().unwrap());
        assert!(
            tokio::time::timeout(Duration::from_secs(3600), never)
                .await
                .is_err()
        );
    }
}
