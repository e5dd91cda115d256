//! A paused group reads nothing, finishes what it has, says so, and goes on when it is resumed.

use std::time::Duration;

use passerby_consumer::{
    Paused, Worker, WorkerConfig, WorkerError,
    ops::{self, StatusReport},
    presence::WorkerState,
};
use passerby_tests::{Env, Passerby, eventually, fixtures::detections, stays};
use tokio_util::sync::CancellationToken;

/// Two readings of the pause, and more.
const A_WHILE: Duration = Duration::from_secs(1);

async fn pause(env: &Env) {
    let paused = Paused {
        by: "anna@gate".to_owned(),
        reason: Some("vacuum full".to_owned()),
    };
    ops::pause(&mut env.target(), &paused).await.unwrap();
}

async fn states(env: &Env) -> Vec<WorkerState> {
    let status: StatusReport = env.status().await;
    let redis = status.redis.unwrap();
    redis.live_workers().map(|worker| worker.state).collect()
}

#[tokio::test]
async fn a_paused_worker_reads_nothing_until_it_is_resumed() {
    let env = Env::start().await;
    let worker = env.start_worker(env.worker_config()).await;
    env.publish(&detections(0..10)).await;
    eventually("stored", async || env.n_rows().await == 10).await;

    pause(&env).await;
    eventually("it says so", async || {
        states(&env).await == [WorkerState::Paused]
    })
    .await;
    env.publish(&detections(10..20)).await;

    stays("nothing is read", A_WHILE, async || {
        env.n_rows().await == 10 && env.n_pending().await == 0
    })
    .await;
    assert!(ops::resume(&mut env.target()).await.unwrap());
    eventually("read again", async || env.n_rows().await == 20).await;
    eventually("it says so", async || {
        states(&env).await == [WorkerState::Reading]
    })
    .await;
    worker.stop().await;
    assert_eq!(states(&env).await, []);
}

#[tokio::test]
async fn a_worker_that_is_started_while_its_group_is_paused_reads_nothing() {
    let env = Env::start().await;
    env.publish(&detections(0..10)).await;
    // By hand, as anybody can.
    env.redis::<()>(
        redis::cmd("HSET")
            .arg(env.key_prefix().paused())
            .arg("passerby")
            .arg("1"),
    )
    .await;

    let worker = env.start_worker(env.worker_config()).await;

    eventually("it says so", async || {
        states(&env).await == [WorkerState::Paused]
    })
    .await;
    stays("nothing is read", A_WHILE, async || env.n_rows().await == 0).await;
    worker.stop().await;
}

#[tokio::test]
async fn what_was_read_is_stored_while_the_group_is_paused() {
    let env = Env::start().await;
    let (proxy, database_url) = env.postgres_proxy().await;
    let config = WorkerConfig {
        database_url,
        ..env.worker_config()
    };
    let worker = env.start_worker(config).await;
    proxy.set(passerby_tests::Fault::Refuse);
    env.publish(&detections(0..10)).await;
    eventually("read", async || env.n_pending().await == 1).await;

    pause(&env).await;
    eventually("nothing can be stored", async || {
        states(&env).await == [WorkerState::StoringNothing]
    })
    .await;
    proxy.heal();

    eventually("stored", async || {
        env.n_rows().await == 10 && env.n_pending().await == 0
    })
    .await;
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_drains_does_not_wait_for_the_end_of_a_pause() {
    let env = Env::start().await;
    env.publish(&detections(0..10)).await;
    pause(&env).await;
    let config = WorkerConfig {
        drain: true,
        ..env.worker_config()
    };

    let worker = Worker::start(config).await.unwrap();
    let error = worker.run(CancellationToken::new()).await.unwrap_err();

    assert!(matches!(error, WorkerError::Read(_)), "{error:?}");
    let text = passerby_shared::ErrorChain(&error).to_string();
    assert!(text.contains("vacuum full (anna@gate)"), "{text}");
    assert!(error.advice().unwrap().contains("passerby resume"));
    // Whoever looks finds why it ended.
    let failed = env.status().await.redis.unwrap().workers;
    assert!(failed.iter().any(|worker| {
        worker
            .presence
            .as_ref()
            .is_some_and(|presence| presence.told.state == WorkerState::Failed)
    }));
}

#[tokio::test]
async fn pause_and_resume_by_command() {
    let env = Env::start().await;
    let worker = env.start_worker(env.worker_config()).await;
    eventually("it is seen", async || {
        states(&env).await == [WorkerState::Reading]
    })
    .await;
    let passerby = Passerby::on(&env);

    passerby
        .run(&["pause", "--reason", "vacuum"])
        .await
        .assert_usage_error(&["--yes"]);
    let paused = passerby
        .run(&["pause", "--reason", "vacuum", "--yes", "--json"])
        .await
        .json();
    let again = passerby
        .run(&["resume", "--dry-run", "--json"])
        .await
        .json();
    let resumed = passerby.run(&["resume", "--yes", "--json"]).await.json();

    assert_eq!(paused["workers"], 1);
    assert_eq!(paused["paused_workers"], 1);
    assert_eq!(again["is_changed"], false);
    assert_eq!(resumed["is_changed"], true);
    assert_eq!(resumed["was_paused"]["reason"], "vacuum");
    worker.stop().await;
}

#[tokio::test]
async fn an_empty_note_pauses_and_status_says_so() {
    let env = Env::start().await;
    env.redis::<()>(
        redis::cmd("HSET")
            .arg(env.key_prefix().paused())
            .arg("passerby")
            .arg(""),
    )
    .await;

    let worker = env.start_worker(env.worker_config()).await;

    eventually("it says so", async || {
        states(&env).await == [WorkerState::Paused]
    })
    .await;
    assert!(env.status().await.redis.unwrap().paused.is_some());
    worker.stop().await;
}
