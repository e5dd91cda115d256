//! Which alerts fire in which night, and that none fires besides: judged by promtool, as Prometheus would.
//!
//! Two workers store 240 entries a minute. Ten minutes are good; then something happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use passerby_tests::{Tool, project, project_file};
use serde_json::{Value, json};

use super::promql::assert_known;

pub(super) const INSTALL: &str = "apt-get install prometheus";
const RULES: &str = "deploy/prometheus/alerts.yml";
const WORKERS: [&str; 2] = ["a:9464", "b:9464"];

/// The rules that make alerts, by the alert's name.
pub(super) fn alerts() -> BTreeMap<String, Value> {
    let rules: Value = serde_norway::from_str(&project_file(RULES)).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap().iter();
    rules
        .filter_map(|rule| Some((rule["alert"].as_str()?.to_owned(), rule.clone())))
        .collect()
}

/// What a worker tells on a busy night, for two hours.
const WORKER: &[(&str, &str)] = &[
    ("up", "1x240"),
    ("process_start_time_seconds", "1000x240"),
    ("consumer_entries_acked_total", "0+60x240"),
    (
        r#"consumer_rows_committed_total{kind="detections"}"#,
        "0+1200x240",
    ),
    (r#"consumer_dead_letters_total{reason="refused"}"#, "0x240"),
    (r#"consumer_dead_letters_total{reason="lost"}"#, "0x240"),
    ("consumer_group_backlog_entries", "3x240"),
    ("consumer_group_backlog_age_seconds", "0.2x240"),
    ("consumer_group_lag_entries", "1x240"),
    ("consumer_group_oldest_pending_age_seconds", "0.1x240"),
    ("consumer_group_oldest_spooled_age_seconds", "0x240"),
    ("consumer_group_paused", "0x240"),
    (r#"consumer_server_up{server="redis"}"#, "1x240"),
    (r#"consumer_server_up{server="postgres"}"#, "1x240"),
    ("consumer_store_failing_seconds", "0x240"),
    ("consumer_redis_used_memory_bytes", "2e8x240"),
    ("consumer_redis_max_memory_bytes", "1e9x240"),
    ("consumer_stream_resets_total", "0x240"),
    ("consumer_stream_lost_tails_total", "0x240"),
    (r#"consumer_group_rows{state="unaccounted"}"#, "0x240"),
];

/// What a pipeline's producer tells.
const PRODUCER: &[(&str, &str)] = &[
    (
        r#"producer_rows_accepted_total{kind="detections"}"#,
        "0+2400x240",
    ),
    ("producer_spool_bytes", "16e6x240"),
    (
        r#"producer_rows_dropped_total{kind="detections",reason="newest"}"#,
        "0x240",
    ),
];

/// The workers cannot measure what Redis knows. (They say NaN, which promtool cannot be told.)
const REDIS_IS_SILENT: &[(&str, &str)] = &[
    ("consumer_entries_acked_total", "0+60x20 1200x220"),
    ("consumer_group_backlog_entries", "3x20 _x220"),
    ("consumer_group_backlog_age_seconds", "0.2x20 _x220"),
    ("consumer_group_lag_entries", "1x20 _x220"),
    ("consumer_group_oldest_pending_age_seconds", "0.1x20 _x220"),
    ("consumer_group_oldest_spooled_age_seconds", "0x20 _x220"),
    ("consumer_group_paused", "0x20 _x220"),
    ("consumer_redis_used_memory_bytes", "2e8x20 _x220"),
    ("consumer_redis_max_memory_bytes", "1e9x20 _x220"),
];

/// Nothing is acknowledged any more, and the backlog grows.
const NOTHING_IS_STORED: &[(&str, &str)] = &[
    ("consumer_entries_acked_total", "0+60x20 1200x220"),
    (
        r#"consumer_rows_committed_total{kind="detections"}"#,
        "0+1200x20 24000x220",
    ),
    ("consumer_group_backlog_entries", "3x20 3+120x220"),
    ("consumer_group_backlog_age_seconds", "0.2x20 0+30x220"),
    ("consumer_group_lag_entries", "1x20 1+110x220"),
    (
        "consumer_group_oldest_pending_age_seconds",
        "0.1x20 0+30x220",
    ),
];

/// One night: its name, what is different in it, and which alerts fire after so many minutes.
struct Night {
    name: &'static str,
    series: BTreeMap<(&'static str, &'static str), &'static str>,
    expected: Vec<(u32, &'static [&'static str])>,
}

impl Night {
    fn called(name: &'static str) -> Self {
        let of_workers = WORKER
            .iter()
            .flat_map(|&(series, values)| WORKERS.map(|worker| ((worker, series), values)));
        let of_producer = PRODUCER
            .iter()
            .map(|&(series, values)| (("gate", series), values));
        Self {
            name,
            series: of_workers.chain(of_producer).collect(),
            expected: Vec::new(),
        }
    }

    /// Every worker tells this instead.
    fn with(mut self, changes: &[(&'static str, &'static str)]) -> Self {
        for &(series, values) in changes {
            for worker in WORKERS {
                self = self.change(worker, series, values);
            }
        }
        self
    }

    /// One worker of the two tells this instead.
    fn with_one(self, series: &'static str, values: &'static str) -> Self {
        self.change(WORKERS[0], series, values)
    }

    /// The producer tells this instead.
    fn with_producer(self, series: &'static str, values: &'static str) -> Self {
        self.change("gate", series, values)
    }

    fn change(mut self, who: &'static str, series: &'static str, values: &'static str) -> Self {
        let before = self.series.insert((who, series), values);
        assert!(before.is_some(), "{who} has no {series}");
        self
    }

    /// After so many minutes these alerts fire, and no other.
    fn fires(mut self, minutes: u32, alerts: &'static [&'static str]) -> Self {
        self.expected.push((minutes, alerts));
        self
    }

    fn silent(self, minutes: u32) -> Self {
        self.fires(minutes, &[])
    }

    fn for_promtool(&self, alerts: &BTreeMap<String, Value>) -> Value {
        let series = self.series.iter().map(|((who, series), values)| {
            let (name, labels) = split(series);
            let job = if *who == "gate" {
                "passerby-producer"
            } else {
                "passerby-worker"
            };
            let series = format!(r#"{name}{{job="{job}",instance="{who}"{labels}}}"#);
            json!({ "series": series, "values": values })
        });
        let expected = self.expected.iter().map(|(minutes, fire)| {
            let samples = fire.iter().map(|alert| {
                let (name, labels) = split(alert);
                let severity = &alerts[name]["labels"]["severity"];
                let labels = format!(
                    r#"ALERTS{{alertname="{name}",alertstate="firing",severity={severity}{labels}}}"#
                );
                json!({ "labels": labels, "value": 1 })
            });
            json!({
                "expr": r#"ALERTS{alertstate="firing"}"#,
                "eval_time": format!("{minutes}m"),
                "exp_samples": samples.collect::<Vec<_>>(),
            })
        });
        json!({
            "name": self.name,
            "interval": "30s",
            "input_series": series.collect::<Vec<_>>(),
            "promql_expr_test": expected.collect::<Vec<_>>(),
        })
    }
}

/// A name, and its labels as they follow others.
fn split(series: &str) -> (&str, String) {
    match series.split_once('{') {
        Some((name, labels)) => (name, format!(",{}", labels.trim_end_matches('}'))),
        None => (series, String::new()),
    }
}

fn nights() -> Vec<Night> {
    const ONE_DOWN: &str = r#"PasserbyWorkerDown{instance="a:9464",job="passerby-worker"}"#;
    const OTHER_DOWN: &str = r#"PasserbyWorkerDown{instance="b:9464",job="passerby-worker"}"#;
    const REDIS_DOWN: &str = r#"PasserbyServerDown{server="redis"}"#;
    const POSTGRES_DOWN: &str = r#"PasserbyServerDown{server="postgres"}"#;
    const REFUSED: &str = r#"PasserbyDeadLetters{reason="refused"}"#;
    const LOST: &str = r#"PasserbyDeadLetters{reason="lost"}"#;
    const REFUSED_ROWS: &str = r#"consumer_dead_letters_total{reason="refused"}"#;
    const LOST_ENTRIES: &str = r#"consumer_dead_letters_total{reason="lost"}"#;
    const REDIS_UP: &str = r#"consumer_server_up{server="redis"}"#;
    const POSTGRES_UP: &str = r#"consumer_server_up{server="postgres"}"#;
    const ACCEPTED: &str = r#"producer_rows_accepted_total{kind="detections"}"#;
    const UNACCOUNTED: &str = r#"consumer_group_rows{state="unaccounted"}"#;
    const NO_ROOM: &str = r#"producer_rows_dropped_total{kind="detections",reason="newest"}"#;
    const ROWS: &str = r#"consumer_rows_committed_total{kind="detections"}"#;
    vec![
        Night::called("a busy night")
            .silent(10)
            .silent(60)
            .silent(120),
        Night::called("a night without traffic")
            .with(&[
                ("consumer_entries_acked_total", "500x240"),
                (ROWS, "9000x240"),
                ("consumer_group_backlog_entries", "0x240"),
                ("consumer_group_backlog_age_seconds", "0x240"),
                ("consumer_group_lag_entries", "0x240"),
                ("consumer_group_oldest_pending_age_seconds", "0x240"),
            ])
            .with_producer(ACCEPTED, "9000x240")
            .silent(60)
            .silent(120),
        Night::called("one worker of two is down")
            .with_one("up", "1x20 0x220")
            .silent(12)
            .fires(20, &[ONE_DOWN]),
        Night::called("a worker starts again and again")
            .with_one(
                "process_start_time_seconds",
                "1000x20 1100x8 1200x8 1300x8 1400x8 1500x8 1600x8 1700x8 1800x150",
            )
            .silent(12)
            .fires(35, &[ONE_DOWN]),
        Night::called("a new version is rolled out")
            .with(&[("process_start_time_seconds", "1000x20 2000x4 3000x216")])
            .silent(12)
            .silent(20)
            .silent(30),
        Night::called("all workers are down")
            .with(&[("up", "1x20 0x220")])
            .silent(11)
            .fires(14, &["PasserbyNoWorker"])
            .fires(20, &["PasserbyNoWorker", ONE_DOWN, OTHER_DOWN]),
        Night::called("all workers are gone")
            .with(&[("up", "1x20 stale _x219")])
            .fires(20, &["PasserbyNoWorker"]),
        Night::called("Redis is away")
            .with(REDIS_IS_SILENT)
            .with(&[(REDIS_UP, "1x20 0x220")])
            .silent(11)
            .fires(14, &[REDIS_DOWN])
            .fires(60, &[REDIS_DOWN]),
        Night::called("one worker is cut off from Redis")
            .with_one(REDIS_UP, "1x20 0x220")
            .silent(60),
        Night::called("Postgres is away")
            .with(NOTHING_IS_STORED)
            .with(&[
                (POSTGRES_UP, "1x20 0x220"),
                ("consumer_store_failing_seconds", "0x20 0+30x220"),
            ])
            .silent(11)
            .fires(14, &[POSTGRES_DOWN])
            .fires(60, &[POSTGRES_DOWN]),
        Night::called("Postgres answers and refuses every commit")
            .with(NOTHING_IS_STORED)
            .with(&[("consumer_store_failing_seconds", "0x20 0+30x220")])
            .silent(12)
            .fires(15, &["PasserbyCommitsFail"])
            .fires(60, &["PasserbyCommitsFail"]),
        Night::called("one worker cannot commit and the other can")
            .with_one("consumer_store_failing_seconds", "0x20 0+30x220")
            .silent(60),
        Night::called("workers live, servers answer, and nothing is stored")
            .with(NOTHING_IS_STORED)
            .silent(13)
            .fires(18, &["PasserbyNothingStored"])
            .fires(60, &["PasserbyNothingStored"]),
        Night::called("rows are accepted and never arrive in Redis")
            .with(&[
                ("consumer_entries_acked_total", "0+60x20 1200x220"),
                ("consumer_group_backlog_entries", "3x20 0x220"),
                ("consumer_group_lag_entries", "1x20 0x220"),
            ])
            .fires(18, &["PasserbyNothingStored"]),
        Night::called("more arrives than is stored")
            .with(&[
                ("consumer_group_backlog_entries", "3x20 3+120x220"),
                ("consumer_group_backlog_age_seconds", "0.2x20 0+20x220"),
                ("consumer_group_lag_entries", "1x20 1+120x220"),
            ])
            .silent(17)
            .fires(25, &["PasserbyBehind"]),
        Night::called("a backlog is worked off within minutes")
            .with(&[
                (
                    "consumer_group_backlog_age_seconds",
                    "0.2x20 600-75x7 0x212",
                ),
                ("consumer_group_lag_entries", "1x20 9000-1200x7 0x212"),
            ])
            .silent(12)
            .silent(15)
            .silent(20),
        Night::called("one worker is stuck and others store")
            .with(&[
                (
                    "consumer_group_oldest_pending_age_seconds",
                    "0.1x20 0+30x220",
                ),
                ("consumer_group_backlog_age_seconds", "0.2x20 0+30x220"),
                ("consumer_group_lag_entries", "1x20 0x220"),
            ])
            .silent(15)
            .fires(22, &["PasserbyPendingStuck"]),
        Night::called("a row cannot be stored")
            .with_one(REFUSED_ROWS, "0x20 1x220")
            .silent(10)
            .fires(17, &[REFUSED]),
        Night::called("most rows cannot be stored")
            .with(&[(REFUSED_ROWS, "0x20 0+200x220")])
            .silent(10)
            .fires(20, &["PasserbyManyDeadLetters", REFUSED]),
        Night::called("the stream was deleted")
            .with_one("consumer_stream_resets_total", "0x20 1x220")
            .silent(10)
            .fires(12, &["PasserbyStreamLost"])
            .silent(30),
        Night::called("Redis came back without its latest entries")
            .with_one("consumer_stream_lost_tails_total", "0x20 1x220")
            .fires(12, &["PasserbyStreamLost"]),
        Night::called("pending entries were deleted")
            .with_one(LOST_ENTRIES, "0x20 5x220")
            .fires(12, &["PasserbyStreamLost"])
            .fires(18, &["PasserbyStreamLost", LOST]),
        Night::called("entries were deleted that no worker had read")
            .with(&[(UNACCOUNTED, "0x20 500x220")])
            .silent(10)
            .fires(12, &["PasserbyRowsUnaccounted"])
            .silent(30),
        Night::called("how many rows are lost is only seen while few are on their way")
            .with(&[(
                UNACCOUNTED,
                "0x20 20x6 0x6 20x6 0x6 20x6 0x6 20x6 0x6 20x6 0x166",
            )])
            .silent(10)
            .fires(12, &["PasserbyRowsUnaccounted"])
            .silent(30)
            .silent(35)
            .silent(60),
        Night::called("rows are lost while Redis is away")
            .with(REDIS_IS_SILENT)
            .with(&[
                (REDIS_UP, "1x20 0x80 1x140"),
                (UNACCOUNTED, "0x20 _x80 500x140"),
                (
                    "consumer_entries_acked_total",
                    "0+60x20 1200x80 1200+60x139",
                ),
            ])
            .fires(48, &[REDIS_DOWN])
            .fires(52, &["PasserbyRowsUnaccounted"]),
        Night::called("a producer has no room")
            .with_producer(NO_ROOM, "0x20 0+100x10 1000x210")
            .silent(10)
            .fires(12, &[r#"PasserbyRowsDropped{reason="newest"}"#])
            .silent(30),
        Night::called("Redis will be full within the hour")
            .with(&[("consumer_redis_used_memory_bytes", "2e8+5e6x240")])
            .silent(10)
            .fires(60, &["PasserbyRedisFull"]),
        Night::called("Redis is nearly full")
            .with(&[("consumer_redis_used_memory_bytes", "2e8x20 9.5e8x220")])
            .silent(10)
            .fires(60, &["PasserbyRedisFull"]),
        Night::called("Redis grows without a limit")
            .with(&[
                ("consumer_redis_used_memory_bytes", "2e8+5e6x240"),
                ("consumer_redis_max_memory_bytes", "0x240"),
            ])
            .silent(60)
            .silent(120),
        Night::called("a spool has not been sent for long")
            .with(&[("consumer_group_oldest_spooled_age_seconds", "0x20 0+30x220")])
            .silent(24)
            .fires(32, &["PasserbySpoolGrowing"]),
        Night::called("a spool grows")
            .with_producer("producer_spool_bytes", "16e6x20 16e6+10e6x220")
            .silent(20)
            .fires(32, &["PasserbySpoolGrowing"]),
        Night::called("a large spool is being sent")
            .with_producer("producer_spool_bytes", "900e6-1e6x240")
            .silent(60),
        Night::called("somebody paused reading and forgot it")
            .with(NOTHING_IS_STORED)
            .with(&[("consumer_group_paused", "0x20 1x220")])
            .silent(20)
            .fires(27, &["PasserbyPausedLong"])
            .fires(60, &["PasserbyPausedLong"]),
    ]
}

#[test]
fn each_night_wakes_whom_it_should_and_nobody_else() {
    let Some(promtool) = Tool::find("promtool", INSTALL) else {
        return;
    };
    let alerts = alerts();
    let nights: Vec<Value> = nights()
        .iter()
        .map(|night| night.for_promtool(&alerts))
        .collect();
    let tests = json!({
        "rule_files": [project().join(RULES)],
        "evaluation_interval": "30s",
        "tests": nights,
    });
    let folder = tempfile::tempdir().unwrap();
    // JSON is YAML, too.
    fs::write(folder.path().join("nights.yml"), tests.to_string()).unwrap();
    promtool.run(folder.path(), &["test", "rules", "nights.yml"]);
}

#[test]
fn every_alert_fires_in_some_night() {
    let fired: BTreeSet<String> = nights()
        .iter()
        .flat_map(|night| &night.expected)
        .flat_map(|(_, alerts)| alerts.iter().map(|alert| split(alert).0.to_owned()))
        .collect();
    let declared: BTreeSet<String> = alerts().into_keys().collect();
    assert_eq!(fired, declared);
}

#[test]
fn alerts_name_only_metrics_that_exist() {
    let rules: Value = serde_norway::from_str(&project_file(RULES)).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    let recorded: Vec<String> = rules
        .iter()
        .filter_map(|rule| rule["record"].as_str().map(str::to_owned))
        .collect();
    for rule in rules {
        assert_known(rule["expr"].as_str().unwrap(), &recorded);
    }
}

#[test]
fn the_docs_name_the_alerts_that_each_metric_serves() {
    let mut served = BTreeMap::<String, BTreeSet<String>>::new();
    for (alert, rule) in alerts() {
        let expression = rule["expr"].as_str().unwrap();
        let recorded = ["passerby:store_halted", "passerby:rows_unaccounted"].map(str::to_owned);
        for metric in assert_known(expression, &recorded) {
            served.entry(metric).or_default().insert(alert.clone());
        }
    }
    for row in project_file("docs/metrics.md").lines() {
        let Some((metric, _)) = row.strip_prefix("| `").and_then(|r| r.split_once('`')) else {
            continue;
        };
        let links = served.remove(metric).unwrap_or_default();
        let links = links
            .iter()
            .map(|alert| format!("[{alert}](runbook.md#{})", alert.to_lowercase()));
        let links: Vec<String> = links.collect();
        if !links.is_empty() {
            let cell = row.trim_end_matches('|').rsplit_once('|').unwrap().1;
            assert_eq!(cell.trim(), links.join(", "), "{metric}");
        }
    }
    assert!(served.is_empty(), "docs/metrics.md lacks {served:?}");
}

#[test]
fn promtool_finds_nothing_wrong_with_config_and_rules() {
    let Some(promtool) = Tool::find("promtool", INSTALL) else {
        return;
    };
    let folder = project().join("deploy/prometheus");
    promtool.run(&folder, &["check", "config", "prometheus.yml"]);
    promtool.run(
        &folder,
        &["check", "rules", "--lint=all", "--lint-fatal", "alerts.yml"],
    );
}

#[test]
fn every_alert_says_whom_it_wakes_and_where_to_read_on() {
    let runbook = project_file("docs/runbook.md");
    for (name, rule) in alerts() {
        let severity = rule["labels"]["severity"].as_str();
        assert!(
            matches!(severity, Some("page" | "ticket")),
            "{name}: {severity:?}"
        );
        let annotations = &rule["annotations"];
        for text in ["summary", "description"] {
            assert!(annotations[text].is_string(), "{name} has no {text}");
        }
        let anchor = name.to_lowercase();
        assert_eq!(
            annotations["runbook_url"],
            format!("docs/runbook.md#{anchor}")
        );
        let heading = format!("\n### {name}\n");
        assert!(
            runbook.contains(&heading),
            "no section {name} in the runbook"
        );
    }
    for section in runbook
        .lines()
        .filter_map(|line| line.strip_prefix("### Passerby"))
    {
        let name = format!("Passerby{section}");
        assert!(
            alerts().contains_key(&name),
            "the runbook knows an alert {name}"
        );
    }
}
