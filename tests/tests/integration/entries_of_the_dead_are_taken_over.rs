use std::{num::NonZeroUsize, time::Duration};

use passerby_consumer::{ConsumerName, WorkerConfig};
use passerby_tests::{
    Direction, Env, Fault, WorkerBinary, eventually, fixtures::detections, stays,
};
use rustix::process::Signal;

#[tokio::test]
async fn a_worker_killed_with_sigkill_is_succeeded_by_another() {
    let env = Env::start().await;
    let (proxy, _) = env.postgres_proxy().await;
    let url = format!(
        "postgresql://postgres@127.0.0.1:{}/{}?sslmode=disable",
        proxy.port(),
        env.database()
    );
    proxy.set(Fault::HoldBefore(b"COPY detections"));
    let worker = WorkerBinary::start_on(&env, &["--database-url", &url]).await;
    let n = env.publish_entries(20, 10).await;
    proxy.met().await;
    worker.signal(Signal::KILL);
    assert_eq!(worker.finished().await.code, None);
    proxy.set(Fault::Refuse);
    assert!(env.n_pending().await > 0);

    env.run_claiming_worker_drain().await;

    env.assert_settled_once(n).await;
}

#[tokio::test]
async fn a_running_worker_takes_over_what_a_dead_one_left() {
    let env = Env::start().await;
    let worker = env
        .start_worker(env.claiming_config(Duration::from_millis(100)))
        .await;
    env.publish_entries(1, 10).await;
    eventually("it works", async || env.n_rows().await == 10).await;
    // Read behind its back, by a consumer that does nothing.
    let mut paused = redis::cmd("XREADGROUP");
    paused
        .arg(&[
            "GROUP",
            passerby_tests::GROUP,
            "dead",
            "BLOCK",
            "5000",
            "STREAMS",
        ])
        .arg(env.stream())
        .arg(">");
    let other = async {
        let mut link = passerby_shared::redis_connection::RedisLink::new(
            env.redis_url(),
            passerby_shared::redis_connection::RedisTimeouts::default(),
        );
        // Whoever of the two gets it: everything is stored.
        let _read: redis::Value = paused.query_async(link.get().await.unwrap()).await.unwrap();
    };
    let publish = async {
        for n in 1..20 {
            env.publish(&detections(n * 10..n * 10 + 10)).await;
        }
    };
    tokio::join!(other, publish);

    eventually("everything is settled", async || {
        env.n_rows().await == 200 && env.n_pending().await == 0
    })
    .await;

    worker.stop().await;
    env.assert_settled_once(200).await;
}

#[tokio::test]
async fn a_workers_own_history_comes_first() {
    let env = Env::start().await;
    env.publish_entries(15, 10).await;
    env.read_as("other", 5).await;
    env.read_as("gate", 5).await; // an earlier life of the worker
    let config = WorkerConfig {
        consumer: "gate".parse::<ConsumerName>().unwrap(),
        batch_rows: NonZeroUsize::MIN,
        committers: NonZeroUsize::MIN,
        ..env.worker_config()
    };

    let worker = env.start_worker(config).await;
    eventually("its history and what is new", async || {
        env.n_ledger().await == 10
    })
    .await;
    let report = worker.stop().await;

    assert_eq!(report.entries_redelivered, 5);
    let firsts: Vec<i64> = env
        .value("SELECT array_agg(detection_id / 10 ORDER BY ctid) FROM detections WHERE detection_id % 10 = 0")
        .await;
    assert_eq!(firsts, [5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    assert_eq!(env.n_pending().await, 5, "the other's are left alone");
}

#[tokio::test]
async fn heartbeat_keeps_the_entries_of_a_slow_worker_from_being_claimed() {
    let env = Env::start().await;
    let (proxy, database_url) = env.postgres_proxy().await;
    let min_idle = Duration::from_millis(300);
    let slow = env
        .start_worker(WorkerConfig {
            database_url,
            ..env.claiming_config(min_idle)
        })
        .await;
    proxy.set(Fault::BlackHole(Direction::Both)); // Postgres takes its time, for everything
    let n = env.publish_entries(5, 10).await;
    eventually("the slow worker has them", async || {
        env.n_pending().await == 5
    })
    .await;
    let other = env.start_worker(env.claiming_config(min_idle)).await;

    stays("with the slow worker", 6 * min_idle, async || {
        env.pending().await.get(&slow.consumer) == Some(&5)
    })
    .await;
    assert_eq!(other.stats.report().entries_read, 0);
    let delivered = env.delivery_counts().await;
    assert!(delivered.values().all(|n| *n == 1), "{delivered:?}");

    proxy.heal();
    eventually("stored by the slow worker", async || {
        slow.stats.report().entries == 5
    })
    .await;
    other.stop().await;
    slow.stop().await;
    env.assert_settled_once(n).await;
}

#[tokio::test]
async fn draining_ends_only_when_what_others_have_pending_is_settled() {
    let env = Env::start().await;
    let n = env.publish_entries(5, 10).await;
    env.read_as("other", 1).await;
    let config = WorkerConfig {
        drain: true,
        ..env.worker_config()
    };
    let worker = env.start_worker(config).await;
    eventually("the rest is stored", async || env.n_rows().await == n - 10).await;
    stays("waiting", Duration::from_millis(300), async || {
        worker.is_running()
    })
    .await;

    let other = env
        .start_worker(WorkerConfig {
            consumer: "other".parse().unwrap(),
            ..env.worker_config()
        })
        .await;

    worker.ended().await.unwrap();
    other.stop().await;
    env.assert_settled_once(n).await;
}

#[tokio::test]
async fn draining_takes_over_what_the_dead_have_pending() {
    let env = Env::start().await;
    let n = env.publish_entries(30, 10).await;
    env.read_as("dead", 20).await;

    let report = env.run_claiming_worker_drain().await;

    assert_eq!(report.entries_redelivered, 20);
    env.assert_settled_once(n).await;
}
