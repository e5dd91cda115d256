//! A real Prometheus scrapes a real worker and a real producer with the committed configuration, and answers
//! all that the dashboard and the alerts ask.

use std::collections::{BTreeMap, BTreeSet};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use passerby_producer::AsyncProducer;
use passerby_tests::{
    Env, GROUP, Page, Prometheus, Tool, WorkerBinary, eventually, fixtures::detections,
    producer_config,
};

use super::{
    alerts::{INSTALL, alerts},
    dashboard,
    promql::assert_known,
};

/// A pipeline that exports its producer's metrics.
async fn pipeline(env: &Env) -> (AsyncProducer, Page) {
    let mut builder = PrometheusBuilder::new();
    for metric in passerby_producer::metrics::ALL {
        if let Some(buckets) = metric.buckets() {
            let name = Matcher::Full(metric.name.to_owned());
            builder = builder.set_buckets_for_metric(name, buckets).unwrap();
        }
    }
    let recorder = builder.build_recorder();
    let config = producer_config(env, env.redis_url());
    let start = || AsyncProducer::start(config).unwrap();
    let producer = metrics::with_local_recorder(&recorder, start);
    let exporter = recorder.handle();
    let page = Page::serve(move || exporter.render()).await;
    (producer, page)
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_answers_all_that_the_dashboard_and_the_alerts_ask() {
    let Some(tool) = Tool::find("prometheus", INSTALL) else {
        return;
    };
    let env = Env::start().await;
    let worker = WorkerBinary::start_on(&env, &["--listen", "127.0.0.1:0"]).await;
    let (producer, page) = pipeline(&env).await;
    let targets = BTreeMap::from([
        ("passerby-worker", vec![worker.address().await]),
        ("passerby-producer", vec![page.address()]),
    ]);
    let prometheus = Prometheus::start(&tool, &targets).await;
    eventually("both are scraped", async || {
        prometheus.value("sum(up)").await == Some(2.0)
    })
    .await;

    // Two samples apart, so that there are rates; each time with rows in between.
    let rows = "sum(consumer_rows_committed_total)";
    for first in [0, 100] {
        let recorded = producer.record_many(detections(first..first + 100)).await;
        assert_eq!(recorded.accepted, 100);
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let n = (first + 100) as f64;
        eventually("Prometheus has seen them stored", async || {
            prometheus.value(rows).await == Some(n)
        })
        .await;
    }
    let stored_rate = "sum(rate(consumer_rows_committed_total[1m])) > 0";
    eventually("rows a second", async || {
        prometheus.value(stored_rate).await.is_some()
    })
    .await;

    let known: BTreeSet<String> = prometheus.names().await.into_iter().collect();
    let queries = dashboard::queries();
    for (title, query) in &queries {
        // It panics where Prometheus refuses the query or warns of it.
        prometheus.query(query).await;
        for name in assert_known(query, &[]) {
            assert!(known.contains(&name), "{title}: nobody exports {name}");
        }
    }
    for title in [
        "Behind",
        "Workers",
        "Redis",
        "Postgres",
        "Rows a second",
        "Memory",
    ] {
        let mut of_panel = queries.iter().filter(|(of, _)| of == title).peekable();
        assert!(of_panel.peek().is_some(), "no panel {title}");
        for (_, query) in of_panel {
            assert!(
                !prometheus.query(query).await.is_empty(),
                "{title}: {query}"
            );
        }
    }

    let n_rules = prometheus.rules().await.len();
    assert_eq!(n_rules, alerts().len() + 2);
    eventually("every rule was evaluated", async || {
        let rules = prometheus.rules().await;
        rules.iter().all(|rule| rule["health"] != "unknown")
    })
    .await;
    for rule in prometheus.rules().await {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    let firing = r#"ALERTS{alertstate="firing"}"#;
    assert_eq!(
        prometheus.query(firing).await,
        Vec::<serde_json::Value>::new()
    );

    // A pause is seen, whoever said so.
    let mut pause = redis::cmd("HSET");
    pause.arg(env.key_prefix().paused()).arg(GROUP).arg("{}");
    env.redis::<()>(&pause).await;
    eventually("Prometheus knows of the pause", async || {
        prometheus.value("max(consumer_group_paused)").await == Some(1.0)
    })
    .await;
}
