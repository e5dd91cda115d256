use std::time::Duration;

use passerby_consumer::WorkerConfig;
use passerby_tests::{Env, GROUP, eventually, fixtures::detections, stays};

#[tokio::test]
async fn a_consumer_is_retired_when_nothing_is_pending_with_it() {
    let env = Env::start().await;
    env.publish_entries(1, 10).await;
    env.read_as("dead-with-entries", 1).await;
    let _n: u64 = env
        .redis(
            redis::cmd("XGROUP")
                .arg("CREATECONSUMER")
                .arg(env.stream())
                .arg(&[GROUP, "dead-and-empty"]),
        )
        .await;
    let empty = || async {
        let consumers = env.consumers().await;
        !consumers.contains(&"dead-and-empty".to_owned())
    };
    assert!(!empty().await);
    eventually("idle", async || {
        let idle: redis::streams::StreamInfoConsumersReply = env
            .redis(
                redis::cmd("XINFO")
                    .arg("CONSUMERS")
                    .arg(env.stream())
                    .arg(GROUP),
            )
            .await;
        idle.consumers.iter().all(|c| c.idle > 50)
    })
    .await;

    let worker = env
        .start_worker(WorkerConfig {
            consumer_expiry: Duration::from_millis(50),
            ..env.worker_config()
        })
        .await;
    eventually("retired", async || empty().await).await;

    let consumers = env.consumers().await;
    assert!(consumers.contains(&"dead-with-entries".to_owned()));
    assert!(consumers.contains(&worker.consumer));
    worker.stop().await;
    // What it held is still there to be taken over.
    env.run_claiming_worker_drain().await;
    env.assert_settled_once(10).await;
}

#[tokio::test]
async fn a_stream_that_lost_its_tail_is_noticed_and_the_worker_goes_on() {
    let env = Env::start().await;
    let worker = env
        .start_worker(env.claiming_config(Duration::from_millis(150)))
        .await;
    env.publish(&detections(0..10)).await;
    eventually("settled", async || env.n_rows().await == 10).await;
    let noticed = || worker.stats.report().lost_tails;
    stays(
        "nothing to notice",
        Duration::from_millis(300),
        async || noticed() == 0,
    )
    .await;

    let _n: u64 = env.redis(redis::cmd("DEL").arg(env.stream())).await;
    eventually("noticed", async || noticed() == 1).await;

    env.publish(&detections(10..20)).await;
    eventually("it goes on", async || {
        env.n_rows().await == 20 && env.n_pending().await == 0
    })
    .await;
    assert_eq!(noticed(), 1);
    worker.stop().await;
    env.assert_settled_once(20).await;
}

#[tokio::test]
async fn a_redis_that_is_nearly_full_is_relieved_of_what_is_stored() {
    let env = Env::dedicated().await;
    let worker = env
        .start_worker(WorkerConfig {
            trim_grace: Some(Duration::from_secs(3_600)),
            ..env.worker_config()
        })
        .await;
    let n = env.publish_entries(300, 100).await;
    eventually("stored", async || env.n_rows().await == n).await;
    let used: redis::InfoDict = env.redis(redis::cmd("INFO").arg("memory")).await;
    let used: u64 = used.get("used_memory").unwrap();
    let _: () = env
        .redis(
            redis::cmd("CONFIG")
                .arg(&["SET", "maxmemory"])
                .arg(used + used / 20),
        )
        .await;

    eventually("trimmed", async || env.n_entries().await < 150).await;
    worker.stop().await;
    env.assert_settled_once(n).await;
}

#[tokio::test]
async fn a_full_redis_is_drained() {
    let env = Env::dedicated().await;
    let n = env.publish_entries(50, 100).await;
    env.create_group().await;
    let _: () = env
        .redis(redis::cmd("CONFIG").arg(&["SET", "maxmemory", "1"]))
        .await;

    let worker = env
        .start_worker(WorkerConfig {
            trim_grace: Some(Duration::from_secs(3_600)),
            ..env.worker_config()
        })
        .await;

    eventually("drained", async || {
        env.n_rows().await == n && env.n_pending().await == 0
    })
    .await;
    worker.stop().await;
    env.assert_settled_once(n).await;
}

#[tokio::test]
async fn an_entry_delivered_suspiciously_often_is_stored_alone() {
    let env = Env::start().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(env.publish(&detections(n * 10..n * 10 + 10)).await);
    }
    env.read_as("dead", 5).await;
    // As if five workers had died of the third; all of them are claimed at once.
    for (n, id) in ids.iter().enumerate() {
        let n_deliveries = if n == 2 { "6" } else { "1" };
        let _claimed: redis::Value = env
            .redis(
                redis::cmd("XCLAIM")
                    .arg(env.stream())
                    .arg(&[GROUP, "dead", "0"])
                    .arg(id)
                    .arg(&["IDLE", "60000", "RETRYCOUNT", n_deliveries]),
            )
            .await;
    }

    env.run_claiming_worker_drain().await;

    env.assert_settled_once(50).await;
    let alone: Vec<i64> = env
        .value(
            "SELECT array_agg(n ORDER BY n) FROM
             (SELECT count(*) AS n FROM ledger GROUP BY xmin::text) AS transactions",
        )
        .await;
    assert_eq!(alone, [1, 4]);
    let alone: i64 = env
        .value(&format!(
            "SELECT count(*) FROM ledger WHERE xmin::text = (
                 SELECT xmin::text FROM ledger WHERE entry_ms = {} AND entry_seq = {})",
            ids[2].ms, ids[2].seq
        ))
        .await;
    assert_eq!(alone, 1);
}

#[tokio::test]
async fn a_suspect_is_stored_alone_on_a_busy_stream() {
    let env = Env::start().await;
    let suspect = env.publish(&detections(0..10)).await;
    env.read_as("dead", 1).await;
    for n in 1..200 {
        env.publish(&detections(n * 10..n * 10 + 10)).await;
    }
    let _claimed: redis::Value = env
        .redis(
            redis::cmd("XCLAIM")
                .arg(env.stream())
                .arg(&[GROUP, "dead", "0"])
                .arg(suspect)
                .arg(&["IDLE", "60000", "RETRYCOUNT", "6"]),
        )
        .await;

    // Its batches stay open for long, and would take in whatever comes.
    env.drain_with(WorkerConfig {
        linger: Duration::from_millis(300),
        ..env.claiming_config(Duration::from_millis(100))
    })
    .await;

    env.assert_settled_once(2_000).await;
    let with_it: i64 = env
        .value(&format!(
            "SELECT count(*) FROM ledger WHERE xmin::text = (
                 SELECT xmin::text FROM ledger WHERE entry_ms = {} AND entry_seq = {})",
            suspect.ms, suspect.seq
        ))
        .await;
    assert_eq!(with_it, 1);
}
