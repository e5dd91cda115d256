use std::time::Duration;

use passerby_consumer::{WorkerConfig, WorkerError};
use passerby_tests::{
    Direction, Env, Fault, FaultProxy, WorkerBinary, eventually, fixtures::detections,
};
use rustix::process::Signal;

/// A `passerby-worker` whose COMMIT is held by the proxy.
async fn in_the_middle_of_a_batch(env: &Env) -> (WorkerBinary, FaultProxy) {
    let (proxy, _) = env.postgres_proxy().await;
    let url = format!(
        "postgresql://postgres@127.0.0.1:{}/{}?sslmode=disable",
        proxy.port(),
        env.database()
    );
    let worker = WorkerBinary::start_on(env, &["--database-url", &url]).await;
    eventually("started", async || {
        worker.stderr().contains("worker started")
    })
    .await;
    proxy.set(Fault::HoldBefore(Fault::COMMIT));
    env.publish_entries(20, 10).await;
    proxy.met().await;
    (worker, proxy)
}

#[tokio::test]
async fn sigterm_in_the_middle_of_a_batch_finishes_it_and_leaves() {
    let env = Env::start().await;
    let (worker, proxy) = in_the_middle_of_a_batch(&env).await;

    worker.signal(Signal::TERM);
    eventually("it stops", async || worker.stderr().contains("stopping")).await;
    // Published when nobody reads any more.
    env.publish(&detections(200..210)).await;
    assert_eq!(env.n_rows().await, 0);
    proxy.heal();
    let finished = worker.finished().await;

    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(env.n_pending().await, 0);
    assert_eq!(env.n_rows().await, 10 * env.n_ledger().await);
    assert!(env.n_rows().await > 0);
    assert_eq!(env.consumers().await, [""; 0]);
    env.run_worker_drain().await;
    env.assert_settled_once(210).await;
}

#[tokio::test]
async fn sigterm_at_any_moment_leaves_nothing_half_done() {
    let env = Env::start().await;
    let n = env.publish_entries(600, 10).await;
    // Stopped when the first, the hundredth, the two hundredth … row is there.
    for wanted in [1, 1_000, 3_000] {
        let worker = WorkerBinary::start_on(&env, &["--batch-rows", "50"]).await;
        eventually("it works", async || {
            worker.stderr().contains("worker started") && env.n_rows().await >= wanted
        })
        .await;
        worker.signal(Signal::INT);
        let finished = worker.finished().await;

        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        assert_eq!(env.n_pending().await, 0);
        assert_eq!(env.n_rows().await, 10 * env.n_ledger().await);
        assert_eq!(env.consumers().await, [""; 0]);
    }

    env.run_worker_drain().await;
    env.assert_settled_once(n).await;
}

#[tokio::test]
async fn a_second_signal_stops_at_once_and_entries_stay_pending() {
    let env = Env::start().await;
    let (worker, proxy) = in_the_middle_of_a_batch(&env).await;

    worker.signal(Signal::TERM);
    eventually("it stops", async || worker.stderr().contains("stopping")).await;
    worker.signal(Signal::TERM);
    let finished = worker.finished().await;

    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert_eq!(env.n_rows().await, 0);
    assert!(env.n_pending().await > 0);
    proxy.set(Fault::Refuse);
    env.run_claiming_worker_drain().await;
    env.assert_settled_once(200).await;
}

#[tokio::test]
async fn draining_binary_ends_with_code_0() {
    let env = Env::start().await;
    let n = env.publish_entries(20, 10).await;

    let finished = WorkerBinary::start_on(&env, &["--drain"])
        .await
        .finished()
        .await;

    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(env.consumers().await, [""; 0]);
    env.assert_settled_once(n).await;
}

#[tokio::test]
async fn a_worker_that_cannot_finish_in_time_says_so_and_its_entries_stay_pending() {
    let env = Env::start().await;
    let (proxy, database_url) = env.postgres_proxy().await;
    let worker = env
        .start_worker(WorkerConfig {
            database_url,
            grace_period: Duration::from_millis(200),
            ..env.worker_config()
        })
        .await;
    proxy.set(Fault::BlackHole(Direction::Both));
    let n = env.publish_entries(5, 10).await;
    eventually("it has them", async || env.n_pending().await == 5).await;

    worker.tell_to_stop();
    let error = worker.ended().await.unwrap_err();

    assert!(
        matches!(error, WorkerError::Unfinished { n_entries: 5, .. }),
        "{error}"
    );
    assert_eq!(env.n_pending().await, 5);
    proxy.set(Fault::Refuse);
    env.run_claiming_worker_drain().await;
    env.assert_settled_once(n).await;
}

#[tokio::test]
async fn a_stopping_worker_that_has_pending_entries_stays_in_the_group() {
    let env = Env::start().await;
    env.publish_entries(2, 10).await;
    let worker = env
        .start_worker(WorkerConfig {
            consumer: "gate".parse().unwrap(),
            ..env.worker_config()
        })
        .await;
    eventually("stored", async || env.n_rows().await == 20).await;
    // Delivered to its name behind its back.
    let id = env.publish(&detections(20..30)).await;
    eventually("stored", async || env.n_rows().await == 30).await;
    let mut claim = redis::cmd("XCLAIM");
    claim
        .arg(env.stream())
        .arg(&[passerby_tests::GROUP, "gate", "0"])
        .arg(id)
        .arg("FORCE");
    let _claimed: redis::Value = env.redis(&claim).await;

    worker.stop().await;

    assert_eq!(env.consumers().await, ["gate"]);
    assert_eq!(env.n_pending().await, 1);
    env.run_claiming_worker_drain().await;
    env.assert_settled_once(30).await;
}
