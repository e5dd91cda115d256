use std::time::Duration;

use passerby_consumer::{WorkerConfig, store::Store};
use passerby_shared::ErrorChain;
use passerby_tests::{
    Env, Fault, eventually,
    fixtures::{detections, key},
};

/// Publishes entries of ten rows, from detection `first` on.
async fn publish(env: &Env, first: i64, n_entries: i64) {
    for n in 0..n_entries {
        let first = first + 10 * n;
        env.publish(&detections(first..first + 10)).await;
    }
}

async fn everything_is_settled(env: &Env, n: i64) {
    eventually("everything is settled", async || {
        env.n_rows().await >= n && env.n_pending().await == 0
    })
    .await;
}

#[tokio::test]
async fn an_interrupted_postgres_loses_nothing_and_doubles_nothing() {
    let env = Env::dedicated().await;
    let worker = env.start_worker(env.worker_config()).await;
    publish(&env, 0, 50).await;
    eventually("the worker is at work", async || env.n_rows().await > 0).await;
    publish(&env, 500, 50).await;
    env.servers.kill_postgres().await;
    publish(&env, 1_000, 50).await;
    env.servers.restart_postgres().await;
    publish(&env, 1_500, 50).await;

    everything_is_settled(&env, 2_000).await;

    worker.stop().await;
    env.assert_settled_once(2_000).await;
}

#[tokio::test]
async fn an_interrupted_redis_loses_nothing_and_doubles_nothing() {
    let env = Env::dedicated().await;
    let (proxy, database_url) = env.postgres_proxy().await;
    let worker = env
        .start_worker(WorkerConfig {
            database_url,
            ..env.worker_config()
        })
        .await;
    publish(&env, 0, 50).await;
    eventually("the worker is at work", async || env.n_rows().await > 0).await;
    proxy.set(Fault::HoldBefore(Fault::COMMIT));
    publish(&env, 500, 50).await;
    proxy.met().await; // entries are read, and cannot be acknowledged before Redis is gone
    env.servers.kill_redis().await;
    proxy.heal();
    env.servers.restart_redis().await;
    publish(&env, 1_000, 50).await;

    everything_is_settled(&env, 1_500).await;

    worker.stop().await;
    env.assert_settled_once(1_500).await;
}

#[tokio::test]
async fn a_connection_to_redis_cut_anywhere_loses_nothing_and_doubles_nothing() {
    let env = Env::start().await;
    let (proxy, redis_url) = env.redis_proxy().await;
    let worker = env
        .start_worker(WorkerConfig {
            redis_url,
            ..env.worker_config()
        })
        .await;
    for cut in 0..12 {
        proxy.set(Fault::CutAfter(cut * 25));
        publish(&env, i64::try_from(cut).unwrap() * 50, 5).await;
        everything_is_settled(&env, (i64::try_from(cut).unwrap() + 1) * 50).await;
    }

    worker.stop().await;
    env.assert_settled_once(600).await;
}

#[tokio::test]
async fn entries_delivered_into_a_dead_connection_are_read_again() {
    let env = Env::start().await;
    let (proxy, redis_url) = env.redis_proxy().await;
    let worker = env
        .start_worker(WorkerConfig {
            redis_url,
            block: Duration::from_secs(5),
            ..env.worker_config()
        })
        .await;
    eventually("the worker waits for entries", async || {
        env.redis::<String>(redis::cmd("CLIENT").arg("LIST"))
            .await
            .lines()
            .any(|client| client.contains("cmd=xreadgroup") && client.contains("flags=b"))
    })
    .await;
    proxy.set(Fault::BlackHole(passerby_tests::Direction::ToClient));
    publish(&env, 0, 1).await;
    eventually("delivered", async || env.n_pending().await == 1).await;
    assert_eq!(worker.stats.report().entries_read, 0);

    proxy.cut_all().await;

    everything_is_settled(&env, 10).await;
    worker.crash().await; // would block for some more seconds
    env.assert_settled_once(10).await;
}

#[tokio::test]
async fn entries_deleted_before_they_were_stored_are_dead_lettered_as_lost() {
    let env = Env::start().await;
    let mut ids = Vec::new();
    for n in 0..6 {
        ids.push(env.publish(&detections(n * 10..n * 10 + 10)).await);
    }
    env.read_as("dead", 3).await;
    env.read_as("gate", 3).await;
    for id in [ids[1], ids[4]] {
        let n: usize = env
            .redis(redis::cmd("XDEL").arg(env.stream()).arg(id))
            .await;
        assert_eq!(n, 1);
    }

    // One comes by a claim, the other with the worker's own history.
    let report = env
        .drain_with(WorkerConfig {
            consumer: "gate".parse().unwrap(),
            ..env.claiming_config(Duration::from_millis(100))
        })
        .await;

    assert_eq!((report.detections, report.dead_letters), (40, 2));
    let lost: Vec<String> = env
        .dead_letters()
        .await
        .into_iter()
        .map(|letter| format!("{} {}", letter.reason, letter.entry_id))
        .collect();
    let mut expected = [format!("lost {}", ids[1]), format!("lost {}", ids[4])];
    if lost[0] != expected[0] {
        expected.reverse();
    }
    assert_eq!(lost, expected);
    assert_eq!(env.n_pending().await, 0);
}

#[tokio::test]
async fn a_destroyed_group_is_made_again_and_everything_is_stored_once() {
    let env = Env::start().await;
    let worker = env.start_worker(env.worker_config()).await;
    publish(&env, 0, 5).await;
    everything_is_settled(&env, 50).await;

    let mut destroy = redis::cmd("XGROUP");
    destroy
        .arg("DESTROY")
        .arg(env.stream())
        .arg(passerby_tests::GROUP);
    let n_destroyed: usize = env.redis(&destroy).await;
    assert_eq!(n_destroyed, 1);
    publish(&env, 50, 5).await;

    everything_is_settled(&env, 100).await;
    let report = worker.stop().await;
    assert_eq!(report.entries, 10);
    env.assert_settled_once(100).await;
}

#[tokio::test]
async fn a_deleted_stream_is_followed_by_a_new_one() {
    let env = Env::start().await;
    let worker = env.start_worker(env.worker_config()).await;
    publish(&env, 0, 5).await;
    everything_is_settled(&env, 50).await;

    let n_deleted: usize = env.redis(redis::cmd("DEL").arg(env.stream())).await;
    assert_eq!(n_deleted, 1);
    publish(&env, 50, 5).await;

    everything_is_settled(&env, 100).await;
    worker.stop().await;
    env.assert_settled_once(100).await;
}

#[tokio::test]
async fn what_was_published_before_the_first_worker_is_stored() {
    let env = Env::start().await;
    let n = env.publish_entries(30, 10).await;

    let report = env.run_worker_drain().await;

    assert_eq!((report.entries, report.detections), (30, 300));
    env.assert_settled_once(n).await;
}

/// Keys leave for the ledger in the packet of BEGIN: outside of a transaction they would be committed
/// without their rows, which would count as stored from then on.
#[tokio::test]
async fn keys_are_not_entered_when_the_transaction_was_not_begun() {
    let env = Env::start().await;
    let (proxy, database_url) = env.postgres_proxy().await;
    let mut store = Store::connect(&database_url).await.unwrap();
    let rows = detections(0..10);
    store.insert_entries_once(&[(key(0), &rows)]).await.unwrap();
    proxy.set(Fault::Garble(Fault::BEGIN));

    let rows = detections(10..20);
    let entry = [(key(1), &rows[..])];
    let error = store.insert_entries_once(&entry).await.unwrap_err();

    assert!(proxy.was_met());
    let error = ErrorChain(&error).to_string();
    assert!(error.contains("syntax error"), "{error}");
    store.insert_entries_once(&entry).await.unwrap();
    env.assert_stored_once(20).await;
}
