//! Takes out of what a command prints whatever differs from run to run.

use std::{collections::BTreeMap, sync::LazyLock};

use chrono::{NaiveDate, NaiveTime, TimeDelta};
use regex::{Captures, Regex};

use crate::fixtures::MIDNIGHT;

/// What is replaced, and by what.
///
/// Wherever it can be the replacement is as long as what it replaces, and looks like it, so that tables
/// stay aligned and JSON stays JSON: entry IDs and idempotency keys are numbered in the order in which they
/// appear, the day of the test is 2000-01-01 and other days move with it. Times of day that fixtures do not
/// make, spans of time, rates, process IDs, ports and generated consumers become words. Where a table has one
/// of these, its gaps are shortened, as their width depends on them.
#[derive(Debug, Default)]
pub(crate) struct Redactions {
    literals: Vec<(String, String)>,
    entry_ids: Numbered,
    keys: Numbered,
}

/// Texts in the order in which they appeared.
#[derive(Debug, Default)]
struct Numbered(BTreeMap<String, usize>);

impl Numbered {
    fn number(&mut self, text: &str) -> usize {
        let next = self.0.len() + 1;
        *self.0.entry(text.to_owned()).or_insert(next)
    }
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap()
}

static ENTRY_ID: LazyLock<Regex> = LazyLock::new(|| regex(r"\b1[0-9]{12}-[0-9]+\b"));
static UUID: LazyLock<Regex> =
    LazyLock::new(|| regex(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b"));
static UUID_DIGITS: LazyLock<Regex> = LazyLock::new(|| regex(r"\b[0-9a-f]{32}\b"));
static LONG_HEX: LazyLock<Regex> = LazyLock::new(|| regex(r"\b[0-9a-f]{64,}\b"));
static TIME: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"\b(20[0-9]{2}-[0-9]{2}-[0-9]{2})(?:([ T])([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]+)?)?")
});
static DAY: LazyLock<Regex> = LazyLock::new(|| regex(r"_(p?)(20[0-9]{6})\b"));

/// Patterns of one form each. The first ones are more special than the last.
static WORDS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r#"("\w+_ms": ?)[0-9.]+"#, "${1}[MS]"),
        (r#"("\w*seconds": ?)[0-9.e-]+"#, "${1}[SECONDS]"),
        (r#"("\w+_per_second": ?)[0-9.e-]+"#, "${1}[RATE]"),
        (r"\b1[0-9]{15}\b", "[MICROSECONDS]"),
        (r#"("disk_bytes": ?)[0-9]+"#, "${1}[BYTES]"),
        (r#"("pid": ?)[0-9]+"#, "${1}[PID]"),
        (r"\b(process|pid) [0-9]+\b", "$1 [PID]"),
        (r"Redis uses [0-9.]+ [KMGT]?i?B", "Redis uses [SIZE]"),
        (r"\b(127\.0\.0\.1|localhost):[0-9]+\b", "$1:PORT"),
        (r"\b[0-9.]+ ([kMG] )?(rows|entries|detections)/s", "[RATE] $2/s"),
        (
            r"\b(?:[0-9,]+ d [0-9]+ h|[0-9]+ h [0-9]+ m|[0-9]+ m [0-9]+ s|[0-9]+(?:\.[0-9])? s|[0-9]+ ms)\b",
            "[SPAN]",
        ),
    ]
    .into_iter()
    .map(|(pattern, shown)| (regex(pattern), shown))
    .collect()
});

/// A consumer's generated name: the host's, and 8 hexadecimal digits.
static CONSUMER: LazyLock<Regex> = LazyLock::new(|| {
    let name = passerby_consumer::ConsumerName::generate().to_string();
    let host = name.rsplit_once('-').map_or("", |(host, _)| host);
    regex(&format!(r"\b{}-[0-9a-f]{{8}}\b", regex::escape(host)))
});

impl Redactions {
    /// Shows one text as another.
    pub(crate) fn literal(&mut self, text: &str, shown: &str) {
        self.literals.push((text.to_owned(), shown.to_owned()));
    }

    pub(crate) fn apply(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        for (from, to) in &self.literals {
            text = text.replace(from, to);
        }
        let text = ENTRY_ID.replace_all(&text, |found: &Captures<'_>| {
            format!("{}-0", 1_700_000_000_000 + self.entry_ids.number(&found[0]))
        });
        let text = UUID.replace_all(&text, |found: &Captures<'_>| {
            let digits = found[0].replace('-', "");
            format!("00000000-0000-0000-0000-{:012}", self.keys.number(&digits))
        });
        let text = UUID_DIGITS.replace_all(&text, |found: &Captures<'_>| {
            format!("{:032}", self.keys.number(&found[0]))
        });
        let text = LONG_HEX.replace_all(&text, "[HEX]");
        let text = TIME.replace_all(&text, moved_time);
        let text = DAY.replace_all(
            &text,
            |found: &Captures<'_>| match NaiveDate::parse_from_str(&found[2], "%Y%m%d") {
                Ok(day) => format!("_{}{}", &found[1], moved(day).format("%Y%m%d")),
                Err(_) => found[0].to_owned(),
            },
        );
        let mut text = CONSUMER.replace_all(&text, "[CONSUMER]").into_owned();
        for (pattern, shown) in &*WORDS {
            text = pattern.replace_all(&text, *shown).into_owned();
        }
        narrowed(&text)
    }
}

/// The day, as if the tests ran on the first of 2000.
fn moved(day: NaiveDate) -> NaiveDate {
    let today = MIDNIGHT.date_naive();
    let first = NaiveDate::from_ymd_opt(2000, 1, 1).unwrap();
    let offset = day - today;
    if offset.abs() <= TimeDelta::days(400) {
        first + offset
    } else {
        day
    }
}

fn moved_time(found: &Captures<'_>) -> String {
    let Ok(day) = found[1].parse::<NaiveDate>() else {
        return found[0].to_owned();
    };
    let day_shown = moved(day);
    let Some(clock) = found.get(3) else {
        return day_shown.to_string();
    };
    let fraction = found.get(4).map_or("", |f| f.as_str());
    let time: NaiveTime = format!("{}{fraction}", clock.as_str()).parse().unwrap();
    let since = time - NaiveTime::MIN;
    let separator = &found[2];
    // Fixtures are 40 ms from each other, from midnight on; all else is a clock's.
    let is_fixture = since < TimeDelta::minutes(1)
        && since.num_microseconds().is_some_and(|us| us % 40_000 == 0);
    if is_fixture {
        return format!("{day_shown}{separator}{}{fraction}", clock.as_str());
    }
    match separator {
        "T" => format!("{day_shown}Thh:mm:ss"),
        _ if fraction.is_empty() => format!("{day_shown} hh:mm:ss"),
        _ => format!("{day_shown} hh:mm:ss.{}", "s".repeat(fraction.len() - 1)),
    }
}

/// Shortens the gaps of tables whose columns are as wide as something that was replaced.
fn narrowed(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let is_rule = |line: &str| !line.is_empty() && line.chars().all(|c| c == '─');
    let Some(rule) = lines.iter().position(|line| is_rule(line)) else {
        return text.to_owned();
    };
    let first = rule.saturating_sub(1);
    if !lines[first..].iter().any(|line| line.contains('[')) {
        return text.to_owned();
    }
    static GAP: LazyLock<Regex> = LazyLock::new(|| regex(r"(\S) {2,}"));
    let mut narrow = String::new();
    for (i, line) in lines.iter().enumerate() {
        match i {
            _ if i < first => narrow.push_str(line),
            _ if is_rule(line) => narrow.push_str("──"),
            _ => narrow.push_str(GAP.replace_all(line, "$1  ").trim_start()),
        }
        narrow.push('\n');
    }
    narrow
}
