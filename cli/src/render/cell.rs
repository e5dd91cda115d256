//! One value of a table, as people, JSON and CSV want it.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};

use super::number;
use crate::visible::visible;

/// One value of a table.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Nothing was measured: a dash, null, or an empty field.
    Absent,
    /// Text; in a table, control characters are escaped.
    Text(String),
    /// Texts: joined in a table and in CSV, an array in JSON.
    List(Vec<String>),
    /// A number that names something, or of which every digit counts.
    Id(i64),
    /// A number of things, with its digits in threes in a table.
    Count(i64),
    /// A measured number, with two decimal places in a table.
    Real(f32),
    /// Yes or no.
    Flag(bool),
    /// A point in time: milliseconds in a table, else RFC 3339 with microseconds.
    Time(DateTime<Utc>),
    /// A span of time: in words in a table, else whole milliseconds.
    Span(Duration),
}

impl Cell {
    /// For people.
    pub(super) fn to_table(&self) -> String {
        match self {
            Self::Absent => "-".to_owned(),
            Self::Text(text) => visible(text).into_owned(),
            Self::List(texts) => visible(&texts.join(", ")).into_owned(),
            Self::Id(id) => id.to_string(),
            Self::Count(count) => number::grouped(*count),
            Self::Real(value) => format!("{value:.2}"),
            Self::Flag(is_set) => if *is_set { "yes" } else { "no" }.to_owned(),
            Self::Time(time) => time.format("%Y-%m-%d %H:%M:%S%.3f").to_string(),
            Self::Span(span) => number::duration(*span),
        }
    }

    pub(super) fn to_csv(&self) -> String {
        match self {
            Self::Absent => String::new(),
            Self::Text(text) => text.clone(),
            Self::List(texts) => texts.join(" "),
            Self::Id(number) | Self::Count(number) => number.to_string(),
            Self::Real(value) => value.to_string(),
            Self::Flag(is_set) => is_set.to_string(),
            Self::Time(time) => rfc3339(*time),
            Self::Span(span) => whole_ms(*span).to_string(),
        }
    }
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The value as JSON has it.
impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Absent => serializer.serialize_none(),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(texts) => texts.serialize(serializer),
            Self::Id(number) | Self::Count(number) => serializer.serialize_i64(*number),
            Self::Real(value) => serializer.serialize_f32(*value),
            Self::Flag(is_set) => serializer.serialize_bool(*is_set),
            Self::Time(time) => serializer.serialize_str(&rfc3339(*time)),
            Self::Span(span) => serializer.serialize_u64(whole_ms(*span)),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<f32> for Cell {
    fn from(value: f32) -> Self {
        Self::Real(value)
    }
}

impl From<bool> for Cell {
    fn from(is_set: bool) -> Self {
        Self::Flag(is_set)
    }
}

impl From<DateTime<Utc>> for Cell {
    fn from(time: DateTime<Utc>) -> Self {
        Self::Time(time)
    }
}

impl From<Duration> for Cell {
    fn from(span: Duration) -> Self {
        Self::Span(span)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Absent, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_one_form_for_people_and_two_for_programs() {
        let check = |cell: Cell, table: &str, json: &str, csv: &str| {
            assert_eq!(cell.to_table(), table);
            assert_eq!(serde_json::to_string(&cell).unwrap(), json);
            assert_eq!(cell.to_csv(), csv);
        };
        let time: DateTime<Utc> = "2026-09-21T12:00:00.04Z".parse().unwrap();
        check(Cell::Absent, "-", "null", "");
        check("a\nb".into(), "a\\nb", "\"a\\nb\"", "a\nb");
        let list = Cell::List(vec!["a".into(), "b".into()]);
        check(list, "a, b", "[\"a\",\"b\"]", "a b");
        check(Cell::Id(12_345), "12345", "12345", "12345");
        check(Cell::Count(12_345), "12,345", "12345", "12345");
        check(0.8905.into(), "0.89", "0.8905", "0.8905");
        check(Some(true).into(), "yes", "true", "true");
        check(None::<&str>.into(), "-", "null", "");
        check(
            time.into(),
            "2026-09-21 12:00:00.040",
            "\"2026-09-21T12:00:00.040000Z\"",
            "2026-09-21T12:00:00.040000Z",
        );
        check(Duration::from_secs(80).into(), "1 m 20 s", "80000", "80000");
    }
}
