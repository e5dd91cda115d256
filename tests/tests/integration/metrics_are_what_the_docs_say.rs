//! `docs/metrics.md`, what is declared and what live programs export are one and the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    time::Duration,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use passerby_consumer::ops::{self, Target};
use passerby_producer::Producer;
use passerby_shared::{
    Metric, Series,
    redis_connection::{RedisLink, RedisTimeouts},
};
use passerby_tests::{
    Env, Family, Fault, GROUP, Scrape, WorkerBinary, eventually,
    fixtures::{detections, track},
    http_get, producer_config,
};
use rustix::process::Signal;

const DOCS: &str = include_str!("../../../docs/metrics.md");

fn all() -> impl Iterator<Item = &'static Metric> {
    let consumers = passerby_consumer::metrics::ALL.iter();
    consumers.chain(passerby_producer::metrics::ALL)
}

/// A metric's row of the table, without the alert that it serves: that is said there alone.
fn row(metric: &Metric) -> String {
    let unit = match metric.name.trim_end_matches("_total") {
        name if name.ends_with("_seconds") => "seconds",
        name if name.ends_with("_bytes") => "bytes",
        _ => "",
    };
    let labels: Vec<String> = metric
        .labels
        .iter()
        .map(|label| match label.name {
            "version" => "`version`".to_owned(),
            name => format!("`{name}`: {}", label.values.join(", ")),
        })
        .collect();
    let (name, series, help) = (metric.name, metric.series.as_str(), metric.help);
    let labels = labels.join("; ");
    format!("| `{name}` | {series} | {unit} | {labels} | {help} |")
}

#[test]
fn each_metric_stands_in_the_docs_as_it_is_declared() {
    let documented: BTreeSet<&str> = DOCS
        .lines()
        .filter(|line| line.starts_with("| `consumer_") || line.starts_with("| `p"))
        .map(|line| {
            let row = line.strip_suffix('|').unwrap();
            &row[..row.rfind('|').unwrap() + 1]
        })
        .collect();
    let declared: Vec<String> = all().map(row).collect();
    let declared: BTreeSet<&str> = declared.iter().map(String::as_str).collect();
    let missing: Vec<_> = declared.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&declared).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "docs/metrics.md lacks {missing:#?}\nand has {unknown:#?}"
    );
}

/// What is exported has the names, types, help texts, labels and buckets that are declared.
fn check(scrape: &Scrape, declared: &[Metric]) {
    let exported: BTreeSet<&str> = scrape.families.keys().map(String::as_str).collect();
    let names: BTreeSet<&str> = declared.iter().map(|metric| metric.name).collect();
    assert_eq!(exported, names);
    for metric in declared {
        let family = &scrape.families[metric.name];
        assert_eq!(family.series, metric.series.as_str(), "{}", metric.name);
        assert_eq!(family.help, metric.help, "{}", metric.name);
        check_labels(family, metric);
        if let Series::Histogram(buckets) = metric.series {
            let bounds = family.samples.iter().filter_map(|s| s.labels.get("le"));
            let bounds: BTreeSet<&str> = bounds.map(String::as_str).collect();
            assert_eq!(bounds.len(), buckets.len() + 1, "{}", metric.name);
        }
    }
}

fn check_labels(family: &Family, metric: &Metric) {
    assert!(!family.samples.is_empty(), "{} has no series", metric.name);
    for sample in &family.samples {
        let mut labels: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, value) in &sample.labels {
            if name != "le" {
                labels.insert(name, value);
            }
        }
        assert_eq!(
            labels.len(),
            metric.labels.len(),
            "{}: {sample:?}",
            metric.name
        );
        for label in metric.labels {
            assert!(
                label.values.contains(&labels[label.name]),
                "{}: {sample:?}",
                metric.name
            );
        }
    }
}

#[tokio::test]
async fn a_live_worker_exports_what_is_declared_and_counts_what_it_did() {
    let env = Env::start().await;
    let n = env.publish_entries(20, 10).await;
    env.publish_tracks(&[track(1, 10)]).await;
    env.publish_entry(&[("p", b"no payload")]).await;
    let worker = WorkerBinary::start_on(&env, &["--listen", "127.0.0.1:0"]).await;

    let mut scrape = Scrape::default();
    eventually("all is stored and measured", async || {
        scrape = worker.scrape().await;
        scrape.get("consumer_entries_acked_total") == 22.0
            && scrape.get("consumer_group_backlog_entries") == 0.0
            && scrape.get("consumer_partitions_ahead") == 7.0
    })
    .await;

    check(&scrape, passerby_consumer::metrics::ALL);
    let counted = |name, labels: &[(&str, &str)]| scrape.value(name, labels);
    assert_eq!(
        counted("consumer_rows_committed_total", &[("kind", "detections")]),
        f64::from(i32::try_from(n).unwrap())
    );
    assert_eq!(
        counted("consumer_rows_committed_total", &[("kind", "tracks")]),
        1.0
    );
    assert_eq!(
        counted("consumer_entries_read_total", &[("delivery", "new")]),
        22.0
    );
    assert_eq!(
        counted("consumer_dead_letters_total", &[("reason", "undecodable")]),
        1.0
    );
    assert_eq!(scrape.get("consumer_dead_letters_total"), 1.0);
    assert_eq!(scrape.get("consumer_capture_to_commit_seconds"), 20.0);
    assert_eq!(scrape.get("consumer_record_to_commit_seconds"), 21.0);
    assert_eq!(scrape.get("consumer_stream_to_commit_seconds"), 22.0);
    assert_eq!(scrape.get("consumer_group_stream_entries"), 22.0);
    assert_eq!(scrape.get("consumer_group_lag_entries"), 0.0);
    assert_eq!(scrape.get("consumer_server_up"), 2.0);
    assert!(scrape.get("process_resident_memory_bytes") > 1e6);
    assert!(scrape.get("consumer_last_commit_timestamp_seconds") > 1.7e9);
}

#[tokio::test]
async fn redelivered_entries_are_counted_as_such_and_tell_no_latency() {
    let env = Env::start().await;
    env.publish_entries(10, 1).await;
    env.run_worker_drain().await;
    // Whoever creates the group anew has everything delivered again.
    let destroyed: u64 = env
        .redis(
            redis::cmd("XGROUP")
                .arg("DESTROY")
                .arg(env.stream())
                .arg(GROUP),
        )
        .await;
    assert_eq!(destroyed, 1);
    let worker = WorkerBinary::start_on(&env, &["--listen", "127.0.0.1:0"]).await;

    let mut scrape = Scrape::default();
    eventually("all is acknowledged again", async || {
        scrape = worker.scrape().await;
        scrape.get("consumer_entries_acked_total") == 10.0
    })
    .await;

    assert_eq!(
        scrape.value(
            "consumer_duplicate_entries_total",
            &[("known_by", "ledger")]
        ),
        10.0
    );
    assert_eq!(scrape.get("consumer_entries_committed_total"), 0.0);
    assert_eq!(scrape.get("consumer_stream_to_commit_seconds"), 0.0);
}

#[tokio::test]
async fn what_a_server_does_not_tell_is_not_a_number() {
    let env = Env::start().await;
    let (proxy, redis_url) = env.redis_proxy().await;
    env.publish_entries(3, 1).await;
    let args = ["--listen", "127.0.0.1:0", "--redis-url", redis_url.expose()];
    let worker = WorkerBinary::start_on(&env, &args).await;
    eventually("the backlog is known", async || {
        worker.scrape().await.get("consumer_group_backlog_entries") == 0.0
    })
    .await;

    proxy.set(Fault::Refuse);
    eventually("it is not known", async || {
        let scrape = worker.scrape().await;
        scrape.get("consumer_group_backlog_entries").is_nan()
            && scrape.value("consumer_server_up", &[("server", "redis")]) == 0.0
            && scrape.value("consumer_server_up", &[("server", "postgres")]) == 1.0
    })
    .await;

    let reconnects = worker
        .scrape()
        .await
        .value("consumer_connections_total", &[("server", "redis")]);
    proxy.heal();
    eventually("it is known again", async || {
        let scrape = worker.scrape().await;
        scrape.get("consumer_group_backlog_entries") == 0.0
            && scrape.value("consumer_connections_total", &[("server", "redis")]) > reconnects
    })
    .await;
}

#[tokio::test]
async fn what_metrics_say_of_the_group_is_what_status_says() {
    let env = Env::start().await;
    let producer = Producer::start(producer_config(&env, env.redis_url())).unwrap();
    assert_eq!(producer.record_many(detections(0..200)).accepted, 200);
    env.publish_entry(&[("p", b"no payload")]).await;
    let worker = WorkerBinary::start_on(&env, &["--listen", "127.0.0.1:0"]).await;
    let rows = |scrape: &Scrape, state| scrape.value("consumer_group_rows", &[("state", state)]);
    let mut scrape = Scrape::default();
    eventually("all is settled and told", async || {
        scrape = worker.scrape().await;
        rows(&scrape, "settled") == 200.0
            && rows(&scrape, "accepted") == 200.0
            && scrape.get("consumer_group_backlog_entries") == 0.0
    })
    .await;

    let mut target = Target {
        link: RedisLink::new(env.redis_url(), RedisTimeouts::default()),
        key_prefix: env.key_prefix().clone(),
        streams: vec![env.stream()],
        group: GROUP.to_owned(),
    };
    let status = ops::status(&mut target, &mut env.store().await).await;
    let balance = status.balance.unwrap();
    for (state, of_status) in [
        ("accepted", balance.accepted + balance.accepted_before),
        ("dropped", balance.dropped.accepted()),
        ("buffered", balance.buffered),
        ("spooled", balance.spooled),
        ("unheard", balance.unheard),
        ("in-stream", balance.in_stream),
        ("settled", balance.settled),
        ("unaccounted", balance.unaccounted),
        ("surplus", balance.surplus),
    ] {
        let of_status = f64::from(u32::try_from(of_status).unwrap());
        assert_eq!(rows(&scrape, state), of_status, "{state}");
    }
    assert_eq!(scrape.get("consumer_group_producers"), 1.0);
    assert_eq!(scrape.get("consumer_group_workers"), 1.0);
    assert_eq!(scrape.get("consumer_group_paused"), 0.0);
    assert_eq!(scrape.get("consumer_group_waiting_dead_letters"), 1.0);
    let closing = tokio::task::spawn_blocking(move || producer.close(Duration::from_secs(10)));
    closing.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_taken_port_is_said_at_the_start() {
    let env = Env::start().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();

    let worker = WorkerBinary::start_on(&env, &["--listen", &address]).await;
    let finished = worker.finished().await;

    assert_eq!(finished.code, Some(1));
    let error = finished.stderr.lines().last().unwrap();
    assert!(error.contains(&format!("listen on {address}")), "{error}");
    assert!(
        error.contains("give each worker of a host its own --listen"),
        "{error}"
    );
}

#[tokio::test]
async fn a_worker_that_is_told_so_listens_nowhere() {
    let env = Env::start().await;
    let worker = WorkerBinary::start_on(&env, &["--listen", "nowhere"]).await;
    eventually("started", async || {
        worker.stderr().contains("worker started")
    })
    .await;
    worker.signal(Signal::TERM);
    let finished = worker.finished().await;
    assert_eq!(finished.code, Some(0));
    assert!(!finished.stderr.contains("serving"), "{}", finished.stderr);
}

#[tokio::test]
async fn a_worker_listens_on_the_loopback_interface_or_goes_on_without() {
    let env = Env::start().await;
    // Whether the port is free on this machine is nobody's guess: then this test has it.
    let _taken = std::net::TcpListener::bind("127.0.0.1:9464");
    let nobody_says = [("PASSERBY_LISTEN", "")];
    let worker = WorkerBinary::start_on_in(&env, &nobody_says, &[]).await;
    eventually("started", async || {
        worker.stderr().contains("worker started")
    })
    .await;
    let said = worker.stderr();
    assert!(said.contains("not serving /metrics"), "{said}");
    assert!(said.contains("127.0.0.1:9464"), "{said}");
    env.publish(&detections(0..10)).await;
    eventually("it works all the same", async || env.n_rows().await == 10).await;
}

#[tokio::test]
async fn whatever_else_is_asked_for_is_not_found() {
    let env = Env::start().await;
    let worker = WorkerBinary::start_on(&env, &["--listen", "127.0.0.1:0"]).await;
    let (status, _) = http_get(worker.address().await, "/../etc/passwd").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_live_producer_exports_what_is_declared_and_counts_what_it_did() {
    let env = Env::start().await;
    let mut builder = PrometheusBuilder::new();
    for metric in passerby_producer::metrics::ALL {
        if let Some(buckets) = metric.buckets() {
            let name = Matcher::Full(metric.name.to_owned());
            builder = builder.set_buckets_for_metric(name, buckets).unwrap();
        }
    }
    let recorder = builder.build_recorder();
    let config = producer_config(&env, env.redis_url());
    let producer = metrics::with_local_recorder(&recorder, || Producer::start(config).unwrap());

    let recorded = producer.record_many(detections(0..100));
    assert_eq!(recorded.accepted, 100);
    let closed = tokio::task::spawn_blocking(move || producer.close(Duration::from_secs(10)));
    closed.await.unwrap().unwrap();

    let scrape = Scrape::parse(&recorder.handle().render());
    check(&scrape, passerby_producer::metrics::ALL);
    let of_detections = [("kind", "detections")];
    for name in [
        "producer_rows_accepted_total",
        "producer_rows_published_total",
    ] {
        assert_eq!(scrape.value(name, &of_detections), 100.0, "{name}");
        assert_eq!(scrape.get(name), 100.0, "{name}");
    }
    assert!(scrape.get("producer_flush_duration_seconds") >= 1.0);
    assert_eq!(scrape.get("producer_buffered_rows"), 0.0);
}
