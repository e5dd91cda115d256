//! The dashboard, as far as it can be looked at without Grafana: its form, and what it asks for.

use std::collections::BTreeSet;

use passerby_tests::{project, project_file};
use serde_json::Value;

use super::promql::assert_known;

const DASHBOARD: &str = "deploy/grafana/dashboards/passerby.json";

fn dashboard() -> Value {
    serde_json::from_str(&project_file(DASHBOARD)).unwrap()
}

fn panels(dashboard: &Value) -> &Vec<Value> {
    dashboard["panels"].as_array().unwrap()
}

/// Every query of the dashboard, annotations included, with the title of what shows it. Grafana's variables
/// have a value.
pub(super) fn queries() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let of_panels = panels(&dashboard).iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(|target| (panel["title"].clone(), target["expr"].clone()))
    });
    let annotations = dashboard["annotations"]["list"].as_array().unwrap().iter();
    let of_annotations = annotations.map(|one| (one["name"].clone(), one["expr"].clone()));
    of_panels
        .chain(of_annotations)
        .map(|(title, query)| {
            let query = query.as_str().unwrap().replace("$__rate_interval", "1m");
            assert!(!query.contains('$'), "a variable without a value: {query}");
            (title.as_str().unwrap().to_owned(), query)
        })
        .collect()
}

#[test]
fn queries_name_only_metrics_that_exist() {
    let queries = queries();
    assert!(queries.len() > 40);
    for (_, query) in queries {
        assert_known(&query, &[]);
    }
}

#[test]
fn whoever_is_woken_sees_at_the_top_whether_something_is_wrong() {
    let dashboard = dashboard();
    let first: Vec<&str> = panels(&dashboard)
        .iter()
        .filter(|panel| panel["gridPos"]["y"].as_u64() < Some(5))
        .map(|panel| panel["title"].as_str().unwrap())
        .collect();
    assert_eq!(
        first,
        [
            "Is anything wrong?",
            "Alerts",
            "Behind",
            "Oldest pending",
            "Workers",
            "Reading",
            "Redis",
            "Postgres",
            "Redis is full in",
        ]
    );
}

#[test]
fn every_panel_says_what_it_shows_and_in_which_unit() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    for panel in panels(&dashboard) {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}", panel["id"]);
        let title = panel["title"].as_str().unwrap();
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["description"].is_string(), "{title}: what is it?");
        let unit = &panel["fieldConfig"]["defaults"]["unit"];
        assert!(
            unit.is_string() || panel["type"] == "table",
            "{title}: in what unit?"
        );
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}

#[test]
fn panels_lie_beside_one_another() {
    let dashboard = dashboard();
    let mut taken = BTreeSet::new();
    for panel in panels(&dashboard) {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{} covers another", panel["title"]);
            }
        }
    }
}

#[test]
fn the_dashboard_finds_what_is_provisioned() {
    let yaml = |path: &str| -> Value { serde_norway::from_str(&project_file(path)).unwrap() };
    let sources = yaml("deploy/grafana/provisioning/datasources/prometheus.yml");
    let source = &sources["datasources"][0];
    let chosen = dashboard()["templating"]["list"][0]["current"].take();
    assert_eq!(chosen["value"], source["uid"]);
    assert_eq!(chosen["text"], source["name"]);
    assert_eq!(source["url"], "http://prometheus:9090");
    let scraped = yaml("deploy/prometheus/prometheus.yml");
    assert_eq!(
        source["jsonData"]["timeInterval"],
        scraped["global"]["scrape_interval"]
    );

    let providers = yaml("deploy/grafana/provisioning/dashboards/passerby.yml");
    let folder = providers["providers"][0]["options"]["path"]
        .as_str()
        .unwrap();
    let compose = yaml("docker-compose.yml");
    let grafana = &compose["services"]["grafana"];
    let mounts = grafana["volumes"].as_array().unwrap();
    assert!(mounts.iter().any(|mount| {
        mount.as_str() == Some(&format!("./deploy/grafana/dashboards:{folder}:ro"))
    }));
    let home = &grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"];
    let name = project().join(DASHBOARD);
    let name = name.file_name().unwrap().to_str().unwrap();
    assert_eq!(home, &format!("{folder}/{name}"));
}
