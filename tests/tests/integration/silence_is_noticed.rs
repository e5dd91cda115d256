use std::{collections::BTreeSet, time::Duration};

use passerby_consumer::{
    WorkerConfig,
    batch::BatchBuilder,
    store::{Store, StoreError, StoreTimeouts},
};
use passerby_shared::IdempotencyKey;
use passerby_tests::{Direction, Env, Fault, WorkerBinary, eventually, fixtures::detections};
use rustix::process::Signal;

const SERVER_TIMEOUT: Duration = Duration::from_millis(400);

#[tokio::test]
async fn a_postgres_that_falls_silent_in_a_commit_is_given_up_and_the_batch_stored_once() {
    let env = Env::start().await;
    let (proxy, database_url) = env.postgres_proxy().await;
    proxy.set(Fault::HoldBefore(Fault::COMMIT));
    let worker = env
        .start_worker(WorkerConfig {
            database_url,
            server_timeout: SERVER_TIMEOUT,
            ..env.worker_config()
        })
        .await;
    env.publish(&detections(0..10)).await;

    let mut backends = BTreeSet::new();
    eventually("a second connection", async || {
        let pids: Vec<i32> = env
            .value(
                "SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity
                 WHERE datname = current_database() AND state = 'idle in transaction'",
            )
            .await;
        backends.extend(pids);
        backends.len() > 1
    })
    .await;
    proxy.heal();

    eventually("all stored", async || env.n_pending().await == 0).await;
    worker.stop().await;
    env.assert_settled_once(10).await;
}

#[tokio::test]
async fn a_commit_that_is_never_answered_fails_by_our_own_deadline() {
    let env = Env::start().await;
    let (proxy, database_url) = env.postgres_proxy().await;
    let timeouts = StoreTimeouts {
        silence: SERVER_TIMEOUT,
        ..StoreTimeouts::default()
    };
    let mut store = Store::new(database_url, timeouts);
    let mut batch = BatchBuilder::default();
    batch.push_entry(IdempotencyKey::generate(), &detections(0..10));
    let batch = batch.build();

    proxy.set(Fault::HoldBefore(Fault::COMMIT));
    let (failed, ()) = tokio::join!(store.commit(&batch), async {
        proxy.met().await;
        // Nor is it told that the server gave up on it.
        proxy.set(Fault::BlackHole(Direction::Both));
    });
    let error = failed.unwrap_err().error;
    // The statement's, and not the whole operation's, which is a minute.
    let limit = SERVER_TIMEOUT.as_secs();
    assert!(
        matches!(&error, StoreError::TimedOut { doing, seconds } if doing == "commit" && *seconds == limit),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_redis_that_falls_silent_is_given_up_and_nothing_lost() {
    let env = Env::dedicated().await;
    let (proxy, redis_url) = env.redis_proxy().await;
    let worker = env
        .start_worker(WorkerConfig {
            redis_url,
            server_timeout: SERVER_TIMEOUT,
            ..env.worker_config()
        })
        .await;
    env.publish(&detections(0..10)).await;
    eventually("it works", async || env.n_pending().await == 0).await;
    let n_clients = async || {
        let clients: String = env.redis(redis::cmd("CLIENT").arg("LIST")).await;
        clients.lines().count()
    };
    let before = n_clients().await;

    // The proxy keeps the old connections open, as a network does that swallows packets.
    proxy.set(Fault::BlackHole(Direction::Both));
    env.publish(&detections(10..20)).await;
    eventually("new connections", async || n_clients().await > before + 1).await;
    proxy.heal();

    eventually("all stored", async || {
        env.n_rows().await == 20 && env.n_pending().await == 0
    })
    .await;
    worker.stop().await;
    env.assert_settled_once(20).await;
}

#[tokio::test]
async fn a_worker_frozen_in_the_middle_of_a_copy_holds_up_nobody() {
    let env = Env::start().await;
    let (proxy, _) = env.postgres_proxy().await;
    let database_url = format!(
        "postgresql://postgres@127.0.0.1:{}/{}?sslmode=disable",
        proxy.port(),
        env.database()
    );
    proxy.set(Fault::HoldBefore(b"stall-here"));
    let frozen = WorkerBinary::start_on(&env, &["--database-url", &database_url]).await;
    let mut rows = detections(0..10);
    for row in &mut rows {
        row.camera_id = "stall-here".into();
    }
    env.publish(&rows).await;
    proxy.met().await;
    frozen.signal(Signal::STOP);

    // It takes the entry over, and waits for the ledger key that the frozen one holds.
    let other = env
        .start_worker(WorkerConfig {
            server_timeout: SERVER_TIMEOUT,
            ..env.claiming_config(Duration::from_millis(100))
        })
        .await;
    eventually("stored by the other", async || env.n_rows().await == 10).await;

    proxy.heal();
    frozen.signal(Signal::CONT);
    frozen.signal(Signal::TERM);
    assert_eq!(frozen.finished().await.code, Some(0));
    other.stop().await;
    env.assert_settled_once(10).await;
}

#[tokio::test]
async fn a_batch_that_takes_too_long_is_halved() {
    let env = Env::start().await;
    // Each row takes its time, so that all of them together take longer than they may.
    env.execute(
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END $$;
         CREATE TRIGGER dawdle BEFORE INSERT ON detections
         FOR EACH ROW EXECUTE FUNCTION dawdle()",
    )
    .await;
    let n = env.publish_entries(16, 4).await;

    let report = env
        .drain_with(WorkerConfig {
            server_timeout: Duration::from_secs(1),
            linger: Duration::from_secs(1),
            ..env.worker_config()
        })
        .await;

    assert!(report.batches >= 2, "{report:?}");
    env.assert_settled_once(n).await;
}
