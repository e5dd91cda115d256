//! Whether this host, Redis and Postgres agree on the time.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    check::{Outcome, Unknown, Verdict},
    patient::Patient,
};

/// A clock, compared with this host's: it is ahead by at least the one and at most the other. What lies
/// between is the time that asking took.
#[derive(Debug, Clone, Copy)]
struct Offset {
    least: TimeDelta,
    most: TimeDelta,
}

impl Offset {
    fn new(before: DateTime<Utc>, theirs: DateTime<Utc>, after: DateTime<Utc>) -> Self {
        Self {
            least: theirs - after,
            most: theirs - before,
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            least: self.least - other.most,
            most: self.most - other.least,
        }
    }

    /// How far the clocks are apart at the very least.
    fn certain(self) -> TimeDelta {
        let zero = TimeDelta::zero();
        if self.least > zero {
            self.least
        } else if self.most < zero {
            -self.most
        } else {
            zero
        }
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |span: TimeDelta| span.as_seconds_f64();
        if self.least > TimeDelta::zero() {
            write!(f, "{:.3} s ahead of", seconds(self.least))
        } else {
            write!(f, "{:.3} s behind", seconds(-self.most))
        }
    }
}

pub(super) async fn clocks(patient: &Patient<'_>) -> Outcome {
    let (redis, postgres) = (patient.redis()?, patient.postgres()?);
    let clock = patient.config.clock;
    let before = clock();
    let (seconds, micros): (i64, u32) = redis
        .query(&redis::cmd("TIME"))
        .await
        .map_err(|error| Unknown::redis("TIME", &error))?;
    let of_redis = DateTime::from_timestamp(seconds, micros * 1_000)
        .ok_or_else(|| Unknown::new("Redis tells a time that is none"))?;
    let of_redis = Offset::new(before, of_redis, clock());
    let before = clock();
    let row = postgres.one("SELECT clock_timestamp()", &[]).await?;
    let of_postgres = Offset::new(before, row.get(0), clock());
    let pairs = [
        ("Redis", of_redis, "this host"),
        ("Postgres", of_postgres, "this host"),
        ("Redis", of_redis.minus(of_postgres), "Postgres"),
    ];
    Ok(judge(&pairs))
}

/// From here on, times of cameras, of the stream and of commits cannot be compared any more.
const WARN: TimeDelta = TimeDelta::seconds(2);
/// From here on, days and horizons are missed.
const ALARM: TimeDelta = TimeDelta::seconds(300);

fn judge(pairs: &[(&str, Offset, &str)]) -> Verdict {
    let worst = pairs.iter().max_by_key(|(_, offset, _)| offset.certain());
    let Some((one, offset, other)) = worst else {
        return Verdict::ok("no two clocks to compare");
    };
    let fix = "have all hosts follow one time: `timedatectl set-ntp true`, `chronyc tracking`";
    let what = format!("the clock of {one} is at least {offset} that of {other}");
    match offset.certain() {
        apart if apart >= ALARM => Verdict::problem(what, fix),
        apart if apart >= WARN => Verdict::warning(what, fix),
        _ => {
            let widest = pairs
                .iter()
                .map(|(_, offset, _)| offset.most - offset.least)
                .max();
            let widest = widest.unwrap_or_default().as_seconds_f64();
            Verdict::ok(format!(
                "this host, Redis and Postgres agree, as far as {widest:.3} s of asking tell"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Status;

    #[test]
    fn only_what_is_certain_counts() {
        let at = |ms: i64| DateTime::from_timestamp_millis(1_790_000_000_000 + ms).unwrap();
        let check = |before, theirs, after, expected, word: &str| {
            let offset = Offset::new(at(before), at(theirs), at(after));
            let verdict = judge(&[("Redis", offset, "this host")]);
            assert_eq!(verdict.status, expected, "{verdict:?}");
            assert!(verdict.what.contains(word), "{verdict:?}");
        };
        check(0, 5, 10, Status::Ok, "0.010 s");
        check(0, 1_900, 10, Status::Ok, "");
        // Asking took four seconds: it may be that long ago that the clock was read.
        check(0, 3_000, 4_000, Status::Ok, "");
        check(0, 3_000, 10, Status::Warning, "2.990 s ahead of");
        check(5_000, 0, 5_010, Status::Warning, "5.000 s behind");
        check(0, 400_000, 10, Status::Problem, "ahead");
    }
}
