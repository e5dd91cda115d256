//! Every figure that is held against a target, with the command that measured it.

use passerby_tests::benching::number;
use serde_json::Value;

pub(crate) fn render(reports: &[Value]) -> String {
    let mut lines = vec![
        "| what | Passerby | beside | ratio | target | |".to_owned(),
        "|---|---|---|---|---|---|".to_owned(),
    ];
    for report in reports {
        lines.push(format!(
            "| **`{}`** on {} | | | | | |",
            text(&report["command"]),
            text(&report["machine"])
        ));
        let figures = report["figures"].as_array().into_iter().flatten();
        lines.extend(
            figures
                .filter(|figure| figure["reached"].is_boolean())
                .map(line),
        );
    }
    lines.push(String::new());
    lines.join("\n")
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn line(figure: &Value) -> String {
    let beside = &figure["beside"];
    let beside = if beside.is_null() {
        String::new()
    } else {
        format!("{}: {}", text(&beside["who"]), samples(&beside["samples"]))
    };
    let target = figure["target"]["value"]
        .as_f64()
        .map_or(String::new(), number);
    let target = match text(&figure["target"]["kind"]) {
        "ratio at least" => format!("ratio ≥ {target}"),
        "ratio at most" => format!("ratio ≤ {target}"),
        "at least" => format!("≥ {target}"),
        _ => format!("≤ {target}"),
    };
    format!(
        "| {} | {} {} | {beside} | {} | {target} | {} |",
        text(&figure["what"]),
        samples(&figure["ours"]),
        text(&figure["unit"]),
        figure["ratio"]
            .as_f64()
            .map_or(String::new(), |ratio| format!("{ratio:.2}")),
        if figure["reached"] == true {
            "reached"
        } else {
            "**missed**"
        },
    )
}

fn samples(samples: &Value) -> String {
    let [median, min, max] =
        ["median", "min", "max"].map(|which| samples[which].as_f64().map_or(String::new(), number));
    if min == max {
        return median;
    }
    format!("{median} ({min} … {max})")
}
