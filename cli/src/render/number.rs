//! Writes numbers for people.

use std::time::Duration;

/// A count with its digits in threes: `2,744`.
pub fn grouped(count: impl Into<i128>) -> String {
    let count = count.into();
    let digits = count.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    if count < 0 {
        text.push('-');
    }
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with what is counted: `1 track`, `2,744 tracks`.
pub fn counted(n: u64, one: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{} {one}{s}", grouped(n))
}

/// A span of time in its two largest units: `340 ms`, `1.2 s`, `1 m 20 s`, `2 d 3 h`.
pub fn duration(span: Duration) -> String {
    let ms = rounded_to(span, 1_000_000);
    if ms < 1000 {
        return format!("{ms} ms");
    }
    let tenths = rounded_to(span, 100_000_000);
    if tenths < 600 {
        return format!("{}.{} s", tenths / 10, tenths % 10);
    }
    let seconds = rounded_to(span, 1_000_000_000);
    let minutes = seconds / 60;
    match (
        minutes / 1440,
        minutes / 60 % 24,
        minutes % 60,
        seconds % 60,
    ) {
        (0, 0, m, s) => format!("{m} m {s} s"),
        (0, h, m, _) => format!("{h} h {m} m"),
        (d, h, _, _) => format!("{} d {h} h", grouped_u128(d)),
    }
}

/// How many units of `unit_ns` a span has, rounded.
fn rounded_to(span: Duration, unit_ns: u128) -> u128 {
    (span.as_nanos() + unit_ns / 2) / unit_ns
}

fn grouped_u128(count: u128) -> String {
    i128::try_from(count).map_or_else(|_| count.to_string(), grouped)
}

/// How many a second: `12.3 k rows/s`. A dash when no time has passed.
pub fn rate(n: u64, unit: &str, elapsed: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    let per_second = n as f64 / elapsed.as_secs_f64();
    if per_second.is_finite() {
        format!(
            "{}{unit}/s",
            scaled(per_second, 1000.0, &["", "k ", "M ", "G "])
        )
    } else {
        format!("- {unit}/s")
    }
}

/// A size: `118.2 KiB`.
pub fn bytes(n: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with four digits")]
    scaled(n as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// One decimal place, unless the value is whole by nature or has three digits without.
fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // What would be shown as 1000.0 k is shown as 1.0 M.
    while value >= step - 0.05 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let is_whole = value >= 99.95 && step < 1024.0 || (unit == 0 && value.fract() == 0.0);
    format!("{value:.*} {}", usize::from(!is_whole), units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_in_threes() {
        let check = |count: i64, expected| assert_eq!(grouped(count), expected);
        check(0, "0");
        check(222, "222");
        check(2744, "2,744");
        check(-1_000, "-1,000");
        check(-222, "-222");
        check(1_234_567, "1,234,567");
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn durations_have_two_units() {
        let check = |ms, expected| assert_eq!(duration(Duration::from_millis(ms)), expected);
        check(0, "0 ms");
        check(999, "999 ms");
        check(1_000, "1.0 s");
        check(59_949, "59.9 s");
        check(59_950, "1 m 0 s");
        check(80_000, "1 m 20 s");
        check(3_599_499, "59 m 59 s");
        check(3_599_500, "1 h 0 m");
        check(7_500_000, "2 h 5 m");
        check(90_000_000, "1 d 1 h");
        check(u64::MAX, "213,503,982,334 d 14 h");
        assert_eq!(duration(Duration::from_micros(999_600)), "1.0 s");
        assert!(!duration(Duration::MAX).is_empty());
    }

    #[test]
    fn rates_have_three_digits() {
        let check = |n, ms, expected| {
            assert_eq!(rate(n, "rows", Duration::from_millis(ms)), expected);
        };
        check(0, 1_000, "0 rows/s");
        check(25, 10_000, "2.5 rows/s");
        check(999, 1_000, "999 rows/s");
        check(1_000, 1_000, "1.0 k rows/s");
        check(12_345, 1_000, "12.3 k rows/s");
        check(123_456, 1_000, "123 k rows/s");
        check(999_990, 1_000, "1.0 M rows/s");
        check(7, 0, "- rows/s");
        check(0, 0, "- rows/s");
    }

    #[test]
    fn sizes_are_binary() {
        let check = |n, expected| assert_eq!(bytes(n), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.0 KiB");
        check(125_724, "122.8 KiB");
        check(10 << 30, "10.0 GiB");
        check(u64::MAX, "16777216.0 TiB");
    }
}
