//! The figures that have another side, as pairs of bars: each pair by a scale of its own.

use std::fmt::Write as _;

use passerby_tests::benching::number;
use serde_json::Value;

use crate::table::text;

/// Of which benchmark, which figure, and what is better.
const PAIRS: &[(&str, &str, &str)] = &[
    ("drain", "drain, 1 connection(s)", "more is better"),
    ("drain", "drain, 2 connection(s)", "more is better"),
    ("peers", "process, one connection", "more is better"),
    ("peers", "process, as it comes", "more is better"),
    ("peers", "processor time, one connection", "less is better"),
    (
        "end-to-end",
        "record() to Postgres, all at once",
        "more is better",
    ),
    ("record", "record(), Redis running, p99", "less is better"),
    (
        "record",
        "record(), Redis frozen, kept, p99",
        "less is better",
    ),
    (
        "queries",
        "a detection in Postgres, with indices",
        "less is better",
    ),
    (
        "queries",
        "a detection in Redis, 100 an entry",
        "less is better",
    ),
];

const WIDTH: u32 = 880;
const LEFT: u32 = 330;
const LONGEST: f64 = 300.0;
const PAIR: u32 = 56;
const TOP: u32 = 20;

pub(crate) fn render(reports: &[Value]) -> String {
    let height = TOP + PAIR * u32::try_from(PAIRS.len()).unwrap();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
         <title>Passerby beside raw COPY, a Python program, a channel and a plain table</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for (nth, (bench, what, better)) in (0..).zip(PAIRS) {
        let figure = figure(reports, bench, what);
        let beside = &figure["beside"];
        let (ours, theirs) = (median(&figure["ours"]), median(&beside["samples"]));
        let scale = LONGEST / ours.max(theirs);
        let unit = text(&figure["unit"]);
        let y = TOP + nth * PAIR;
        write!(
            svg,
            "<text x=\"10\" y=\"{}\" font-weight=\"600\">{what}</text>\n\
             <text x=\"10\" y=\"{}\" fill=\"#666666\" font-size=\"11\">{unit}, {better}</text>\n",
            y + 14,
            y + 31,
        )
        .unwrap();
        bar(
            &mut svg,
            y,
            ours * scale,
            "#1565c0",
            &format!("Passerby {}", number(ours)),
        );
        let who = format!("{} {}", text(&beside["who"]), number(theirs));
        bar(&mut svg, y + 19, theirs * scale, "#9e9e9e", &who);
    }
    svg.push_str("</svg>\n");
    svg
}

fn bar(svg: &mut String, y: u32, length: f64, colour: &str, label: &str) {
    writeln!(
        svg,
        "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"16\" fill=\"{colour}\"/>\
         <text x=\"{:.1}\" y=\"{}\" font-size=\"12\">{label}</text>",
        f64::from(LEFT) + length + 6.0,
        y + 13,
    )
    .unwrap();
}

fn figure<'a>(reports: &'a [Value], bench: &str, what: &str) -> &'a Value {
    reports
        .iter()
        .filter(|report| report["bench"] == bench)
        .flat_map(|report| report["figures"].as_array().unwrap())
        .find(|figure| figure["what"] == what && !figure["beside"].is_null())
        .unwrap_or_else(|| panic!("no figure of `{bench}` is called `{what}`"))
}

fn median(samples: &Value) -> f64 {
    samples["median"].as_f64().unwrap()
}
