//! Names in PromQL, held against what the programs export.

use std::collections::BTreeSet;

use passerby_shared::{Metric, Series};

/// What PromQL itself knows, of what we use.
const LANGUAGE: &[&str] = &[
    "absent",
    "and",
    "by",
    "changes",
    "count",
    "deriv",
    "histogram_quantile",
    "increase",
    "max",
    "max_over_time",
    "min",
    "min_over_time",
    "offset",
    "on",
    "or",
    "predict_linear",
    "rate",
    "sort",
    "sum",
    "unless",
    "vector",
];
/// What Prometheus makes by itself.
const BUILT_IN: &[&str] = &["ALERTS", "up"];
/// Labels that Prometheus adds, and those of alerts.
const LABELS: &[&str] = &[
    "alertname",
    "alertstate",
    "instance",
    "job",
    "le",
    "severity",
];

/// All metrics of both programs.
fn metrics() -> impl Iterator<Item = &'static Metric> {
    let consumer = passerby_consumer::metrics::ALL.iter();
    consumer.chain(passerby_producer::metrics::ALL)
}

/// The metric that a series of this name belongs to.
fn metric_of(name: &str) -> Option<&'static Metric> {
    metrics().find(|metric| match metric.series {
        Series::Histogram(_) => {
            let suffix = name.strip_prefix(metric.name);
            matches!(suffix, Some("_bucket" | "_sum" | "_count"))
        }
        Series::Counter | Series::Gauge => metric.name == name,
    })
}

/// One `label="value"` of a selector.
#[derive(Debug, PartialEq)]
struct Matcher {
    label: String,
    value: String,
}

/// A name outside of quotes, with the matchers that follow it.
#[derive(Debug, PartialEq)]
struct Name {
    text: String,
    matchers: Vec<Matcher>,
}

fn names(expression: &str) -> Vec<Name> {
    let mut names: Vec<Name> = Vec::new();
    let mut matchers = None;
    let mut rest = expression;
    while let Some(c) = rest.chars().next() {
        let length = if c.is_ascii_alphabetic() || c == '_' {
            let word = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
            let (word, after) = rest.split_at(word.unwrap_or(rest.len()));
            match &mut matchers {
                None => names.push(Name {
                    text: word.to_owned(),
                    matchers: Vec::new(),
                }),
                Some(name) => {
                    let name: &mut usize = name;
                    let value = after.split('"').nth(1).expect("a value in quotes");
                    let matcher = Matcher {
                        label: word.to_owned(),
                        value: value.to_owned(),
                    };
                    names[*name].matchers.push(matcher);
                }
            }
            word.len()
        } else if c == '"' {
            rest[1..].find('"').expect("quotes are closed") + 2
        } else if c.is_ascii_digit() || c == '$' {
            // Numbers with their units and exponents, and Grafana's variables.
            let end =
                rest[1..].find(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '_'));
            end.map_or(rest.len(), |end| end + 1)
        } else {
            match c {
                '{' => matchers = Some(names.len() - 1),
                '}' => matchers = None,
                _ => {}
            }
            c.len_utf8()
        };
        rest = &rest[length..];
    }
    names
}

/// Asserts that a query names only metrics that are exported, with labels and values that they have, and
/// returns the metrics' names.
#[track_caller]
pub(super) fn assert_known(expression: &str, recorded: &[String]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for Name { text, matchers } in names(expression) {
        let Some(metric) = metric_of(&text) else {
            let is_known = LANGUAGE.contains(&&*text)
                || BUILT_IN.contains(&&*text)
                || LABELS.contains(&&*text)
                || recorded.contains(&text)
                || metrics().any(|metric| metric.labels.iter().any(|label| label.name == text));
            assert!(is_known, "nothing is called `{text}`, in: {expression}");
            continue;
        };
        for Matcher { label, value } in matchers {
            if LABELS.contains(&&*label) {
                continue;
            }
            let declared = metric.labels.iter().find(|declared| declared.name == label);
            let declared = declared.unwrap_or_else(|| panic!("{text} has no label `{label}`"));
            for value in value.split('|') {
                assert!(
                    declared.values.contains(&value),
                    "{text}: {label}=\"{value}\""
                );
            }
        }
        found.insert(text);
    }
    found
}

#[test]
fn names_are_told_from_what_is_beside_them() {
    let check = |expression: &str, expected: &[&str]| {
        let found = names(expression);
        let found: Vec<&str> = found.iter().map(|name| &*name.text).collect();
        assert_eq!(found, expected, "{expression}");
    };
    check(r#"max(up{job="a b"}[5m:15s]) > 2.5e8"#, &["max", "up"]);
    check("rate(x_total[$__rate_interval])", &["rate", "x_total"]);
    check("a:b or c", &["a:b", "or", "c"]);
    let selector = names(r#"x{reason=~"lost|panic", kind="d"}"#);
    let labels: Vec<&str> = selector[0].matchers.iter().map(|m| &*m.label).collect();
    assert_eq!(labels, ["reason", "kind"]);
    assert_eq!(selector[0].matchers[0].value, "lost|panic");
}

#[test]
#[should_panic(expected = "nothing is called `consumer_cats_total`")]
fn a_metric_that_nobody_exports_is_noticed() {
    assert_known("sum(consumer_cats_total)", &[]);
}

#[test]
#[should_panic(expected = "reason=\"bored\"")]
fn a_label_value_that_no_metric_has_is_noticed() {
    assert_known(r#"consumer_dead_letters_total{reason="bored"}"#, &[]);
}
