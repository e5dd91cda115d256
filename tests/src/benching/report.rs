use std::{env, fs};

use serde_json::{Value, json};

use super::Samples;
use crate::{benching::BenchServers, shell::quoted};

/// What a figure is held against.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// Ours over the other side's must be so much.
    RatioAtLeast(f64),
    /// Ours over the other side's may be so much.
    RatioAtMost(f64),
    /// Ours must be so much.
    AtLeast(f64),
    /// Ours may be so much.
    AtMost(f64),
    /// It says something, and is held against nothing.
    None,
}

/// One thing measured, where there is one with what stands beside it.
#[derive(Debug)]
pub struct Figure {
    /// The name, as a line of a table begins.
    pub what: String,
    /// In what it is measured.
    pub unit: &'static str,
    /// Passerby's.
    pub ours: Samples,
    /// The other side's, and who that is.
    pub beside: Option<(String, Samples)>,
    /// What must be reached.
    pub target: Target,
}

impl Figure {
    /// Ours over the other side's: the median of the runs, each of which both sides have shared. Where they have
    /// not, the ratio of their medians.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        let (_, beside) = self.beside.as_ref()?;
        let of_medians = || self.ours.median() / beside.median();
        let of_runs = self.ours.over(beside);
        Some(of_runs.map_or_else(of_medians, |ratios| ratios.median()))
    }

    /// Whether the target is reached, where there is one.
    #[must_use]
    pub fn is_reached(&self) -> Option<bool> {
        let ratio = self.ratio().unwrap_or(f64::NAN);
        match self.target {
            Target::RatioAtLeast(least) => Some(ratio >= least),
            Target::RatioAtMost(most) => Some(ratio <= most),
            Target::AtLeast(least) => Some(self.ours.median() >= least),
            Target::AtMost(most) => Some(self.ours.median() <= most),
            Target::None => None,
        }
    }

    fn json(&self) -> Value {
        let (kind, value) = match self.target {
            Target::RatioAtLeast(value) => ("ratio at least", Some(value)),
            Target::RatioAtMost(value) => ("ratio at most", Some(value)),
            Target::AtLeast(value) => ("at least", Some(value)),
            Target::AtMost(value) => ("at most", Some(value)),
            Target::None => ("none", None),
        };
        json!({
            "what": self.what,
            "unit": self.unit,
            "ours": self.ours.json(),
            "beside": self.beside.as_ref().map(|(who, samples)| json!({"who": who, "samples": samples.json()})),
            "ratio": self.ratio(),
            "target": {"kind": kind, "value": value},
            "reached": self.is_reached(),
        })
    }

    /// As a line of a Markdown table.
    fn line(&self) -> String {
        let show = |samples: &Samples| {
            let text = number(samples.median());
            if samples.min().total_cmp(&samples.max()).is_eq() {
                return text;
            }
            format!(
                "{text} ({} … {})",
                number(samples.min()),
                number(samples.max())
            )
        };
        let beside = self
            .beside
            .as_ref()
            .map_or(String::new(), |(who, samples)| {
                format!("{who}: {}", show(samples))
            });
        let ratio = self
            .ratio()
            .map_or(String::new(), |ratio| format!("{ratio:.2}"));
        let target = match self.target {
            Target::RatioAtLeast(value) => format!("ratio ≥ {value}"),
            Target::RatioAtMost(value) => format!("ratio ≤ {value}"),
            Target::AtLeast(value) => format!("≥ {}", number(value)),
            Target::AtMost(value) => format!("≤ {}", number(value)),
            Target::None => String::new(),
        };
        let reached = match self.is_reached() {
            Some(true) => ", reached",
            Some(false) => ", missed",
            None => "",
        };
        format!(
            "| {} | {} {} | {beside} | {ratio} | {target}{reached} |",
            self.what,
            show(&self.ours),
            self.unit
        )
    }
}

/// All figures of one benchmark, and what they were measured on.
#[derive(Debug)]
pub struct Report {
    /// The name, as in `cargo bench-NAME`.
    pub name: &'static str,
    /// How it was set up: rows, batches, repetitions.
    pub setup: String,
    servers: Vec<String>,
    figures: Vec<Figure>,
}

impl Report {
    /// A report without figures.
    #[must_use]
    pub fn new(name: &'static str, setup: String, servers: Option<&BenchServers>) -> Self {
        let servers = servers.map_or_else(Vec::new, |servers| {
            vec![
                servers.redis.version_line().to_owned(),
                servers.postgres.version_line().to_owned(),
            ]
        });
        Self {
            name,
            setup,
            servers,
            figures: Vec::new(),
        }
    }

    /// Names a server that is not one of [`BenchServers`].
    #[must_use]
    pub fn on(mut self, version_line: &str) -> Self {
        self.servers.push(version_line.to_owned());
        self
    }

    /// Adds a figure.
    pub fn push(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// For machines, or the table that `docs/benchmarks.md` holds.
    #[must_use]
    pub fn render(&self, as_json: bool) -> String {
        if as_json {
            let all = json!({
                "bench": self.name,
                "command": command(self.name),
                "setup": self.setup,
                "servers": self.servers,
                "machine": machine(),
                "figures": self.figures.iter().map(Figure::json).collect::<Vec<_>>(),
            });
            return format!("{all:#}");
        }
        let mut lines = vec![
            format!("{}, {}", self.servers.join(", "), machine()),
            self.setup.clone(),
            String::new(),
            "| what | Passerby | beside | ratio | target |".to_owned(),
            "|---|---|---|---|---|".to_owned(),
        ];
        lines.extend(self.figures.iter().map(Figure::line));
        lines.join("\n")
    }
}

/// What was typed.
fn command(bench: &str) -> String {
    let servers = env::var("PASSERBY_SERVERS").ok();
    typed(bench, servers.as_deref(), env::args().skip(1))
}

/// The same as a shell reads it, without what only says how the figures are printed.
fn typed(bench: &str, servers: Option<&str>, args: impl Iterator<Item = String>) -> String {
    let servers = servers.map_or(String::new(), |which| {
        format!("PASSERBY_SERVERS={} ", quoted(which))
    });
    let args: Vec<_> = args
        .filter(|arg| arg != "--json" && arg != "--bench")
        .map(|arg| quoted(&arg))
        .collect();
    let dashes = if args.is_empty() { "" } else { " -- " };
    format!("{servers}cargo bench-{bench}{dashes}{}", args.join(" "))
}

/// With as many digits as say something.
#[must_use]
pub fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        let text = format!("{value:.3}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth) % 3 == 0 && digit != '-' {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What all of it ran on.
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = read("/proc/meminfo")
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .map_or(0, |kib: u64| kib >> 20);
    format!("{model}, {cores} cores, {memory} GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(servers: Option<&str>, args: &[&str], expected: &str) {
        let args = args.iter().map(|&arg| arg.to_owned());
        assert_eq!(typed("indices", servers, args), expected);
    }

    #[test]
    fn a_command_can_be_typed_again() {
        check(None, &["--bench", "--json"], "cargo bench-indices");
        check(
            Some("fetched"),
            &["--rows", "1000", "--json"],
            "PASSERBY_SERVERS=fetched cargo bench-indices -- --rows 1000",
        );
        check(
            None,
            &["--only", "brin timestamp, (track)", "--only", "Passerby's"],
            r"cargo bench-indices -- --only 'brin timestamp, (track)' --only 'Passerby'\''s'",
        );
    }
}
