use std::{num::NonZeroUsize, time::Duration};

use passerby_consumer::{WorkerConfig, store::Store};
use passerby_shared::wire;
use passerby_tests::{
    Direction, Env, Fault, eventually,
    fixtures::{detections, key},
};

const ONE: NonZeroUsize = NonZeroUsize::MIN;

/// A worker that collects what is published in a moment into one batch.
fn one_batch(config: WorkerConfig) -> WorkerConfig {
    WorkerConfig {
        linger: Duration::from_millis(200),
        ..config
    }
}

#[tokio::test]
async fn an_entry_added_twice_within_a_batch_is_stored_once() {
    let env = Env::start().await;
    env.publish_as(key(1), &detections(0..10)).await;
    env.publish_as(key(1), &detections(0..10)).await;

    let report = env.run_worker_drain().await;

    assert_eq!((report.batches, report.entries), (1, 1));
    env.assert_settled_once(10).await;
}

#[tokio::test]
async fn an_entry_added_twice_is_stored_once_over_two_batches() {
    let env = Env::start().await;
    env.publish_as(key(1), &detections(0..10)).await;
    env.publish_as(key(1), &detections(0..10)).await;

    // A batch is full with one row, and there is one committer: one batch after the other.
    let report = env
        .drain_with(WorkerConfig {
            batch_rows: ONE,
            committers: ONE,
            ..env.worker_config()
        })
        .await;

    assert_eq!(
        (report.batches, report.entries, report.duplicates),
        (2, 1, 1)
    );
    env.assert_settled_once(10).await;
}

#[tokio::test]
async fn entries_added_twice_are_stored_once_by_committers_that_race() {
    let env = Env::start().await;
    for _ in 0..2 {
        for n in 0..40 {
            let first = i64::try_from(n).unwrap() * 5;
            env.publish_as(key(n), &detections(first..first + 5)).await;
        }
    }

    let report = env
        .drain_with(WorkerConfig {
            batch_rows: NonZeroUsize::new(10).unwrap(),
            committers: NonZeroUsize::new(4).unwrap(),
            ..env.worker_config()
        })
        .await;

    assert_eq!((report.entries, report.duplicates), (40, 40));
    env.assert_settled_once(200).await;
}

#[tokio::test]
async fn an_entry_added_twice_is_stored_once_by_two_workers() {
    let env = Env::start().await;
    env.publish_as(key(1), &detections(0..10)).await;
    let first = env.run_worker_drain().await;
    env.publish_as(key(1), &detections(0..10)).await;

    let second = env.run_worker_drain().await;

    assert_eq!((first.entries, first.duplicates), (1, 0));
    assert_eq!((second.entries, second.duplicates), (0, 1));
    env.assert_settled_once(10).await;
}

#[tokio::test]
async fn a_known_entry_among_new_ones_costs_them_nothing() {
    let env = Env::start().await;
    env.publish_as(key(1), &detections(0..10)).await;
    env.run_worker_drain().await;
    env.publish_as(key(2), &detections(10..20)).await;
    env.publish_as(key(1), &detections(0..10)).await;
    env.publish_as(key(3), &detections(20..30)).await;

    let report = env.run_worker_drain().await;

    assert_eq!((report.entries, report.duplicates), (2, 1));
    env.assert_settled_once(30).await;
}

#[tokio::test]
async fn a_strangers_entry_without_a_key_is_stored_once_though_delivered_twice() {
    let env = Env::start().await;
    let mut payload = Vec::new();
    wire::encode_plain_detections(&detections(0..10), &mut payload);
    env.publish_entry(&[("p", &payload)]).await;
    let (proxy, redis_url) = env.redis_proxy().await;
    proxy.set(Fault::CutBefore(Fault::XACK));
    let config = WorkerConfig {
        redis_url,
        ..env.worker_config()
    };
    let worker = env.start_worker(config).await;
    proxy.met().await;
    worker.crash().await;

    let report = env.run_claiming_worker_drain().await;

    assert!(report.entries_redelivered <= 1);
    assert_eq!(env.n_ledger().await, 1);
    env.assert_settled_once(10).await;
}

#[tokio::test]
async fn a_lost_reply_to_commit_stores_each_row_once() {
    let env = Env::start().await;
    let (proxy, database_url) = env.postgres_proxy().await;
    let config = WorkerConfig {
        database_url,
        ..one_batch(env.worker_config())
    };
    let worker = env.start_worker(config).await;
    proxy.set(Fault::LoseReplyTo(Fault::COMMIT));
    let n = env.publish_entries(5, 10).await;
    proxy.met().await;

    eventually("acknowledged", async || env.n_pending().await == 0).await;
    let report = worker.stop().await;

    assert_eq!(report.duplicates, 5, "the ledger knew them: {report:?}");
    env.assert_settled_once(n).await;
}

#[tokio::test]
async fn a_commit_that_never_arrived_is_repeated() {
    let env = Env::start().await;
    let (proxy, database_url) = env.postgres_proxy().await;
    let config = WorkerConfig {
        database_url,
        ..one_batch(env.worker_config())
    };
    let worker = env.start_worker(config).await;
    proxy.set(Fault::CutBefore(Fault::COMMIT));
    let n = env.publish_entries(5, 10).await;
    proxy.met().await;

    eventually("stored", async || env.n_rows().await == n).await;
    let report = worker.stop().await;

    assert_eq!((report.entries, report.duplicates), (5, 0));
    env.assert_settled_once(n).await;
}

#[tokio::test]
async fn a_connection_to_postgres_cut_anywhere_stores_each_row_once() {
    let env = Env::start().await;
    let (proxy, database_url) = env.postgres_proxy().await;
    let config = WorkerConfig {
        database_url,
        ..one_batch(env.worker_config())
    };
    let worker = env.start_worker(config).await;
    let mut n = 0;
    let mut publish_and_wait = async || {
        env.publish(&detections(n..n + 50)).await;
        n += 50;
        eventually("stored and acknowledged", async || {
            env.n_rows().await >= n && env.n_pending().await == 0
        })
        .await;
    };
    publish_and_wait().await; // connects and prepares
    proxy.set(Fault::None);
    publish_and_wait().await;
    let n_bytes = proxy.n_bytes();

    for cut in 0..12 {
        proxy.set(Fault::CutAfter(n_bytes * cut / 12));
        publish_and_wait().await;
    }

    worker.stop().await;
    env.assert_settled_once(14 * 50).await;
}

#[tokio::test]
async fn a_zombie_cut_off_before_its_transaction_stores_nothing_when_it_resumes() {
    let env = Env::start().await;
    let (redis, redis_url) = env.redis_proxy().await;
    let (postgres, database_url) = env.postgres_proxy().await;
    let config = WorkerConfig {
        redis_url,
        database_url,
        ..env.claiming_config(Duration::from_millis(100))
    };
    let zombie = env.start_worker(config).await;
    postgres.set(Fault::BlackHole(Direction::Both));
    let n = env.publish_entries(5, 10).await;
    eventually("the zombie has them", async || env.n_pending().await == 5).await;
    // Neither heartbeat nor COPY gets through any more.
    redis.set(Fault::BlackHole(Direction::Both));

    let other = env.run_claiming_worker_drain().await;
    assert_eq!((other.entries, other.duplicates), (5, 0));
    env.assert_settled_once(n).await;
    postgres.heal();
    redis.heal();

    eventually("the zombie finds them in the ledger", async || {
        zombie.stats.report().duplicates == 5
    })
    .await;
    let report = zombie.stop().await;
    assert_eq!(report.entries, 0);
    env.assert_settled_once(n).await;
}

#[tokio::test]
async fn a_zombie_cut_off_before_its_commit_stores_nothing_when_it_resumes() {
    let env = Env::start().await;
    let (redis, redis_url) = env.redis_proxy().await;
    let (postgres, database_url) = env.postgres_proxy().await;
    let config = WorkerConfig {
        redis_url,
        database_url,
        server_timeout: Duration::from_secs(1),
        ..one_batch(env.claiming_config(Duration::from_millis(100)))
    };
    let zombie = env.start_worker(config).await;
    postgres.set(Fault::HoldBefore(Fault::COMMIT));
    let n = env.publish_entries(5, 10).await;
    postgres.met().await; // ledger and rows are written, and nobody sees them
    redis.set(Fault::BlackHole(Direction::Both));
    // What `idle_in_transaction_session_timeout` does after 15 s.
    eventually("the zombie's transaction is ended", async || {
        env.value::<i64>(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE datname = current_database() AND state = 'idle in transaction'",
        )
        .await
            > 0
    })
    .await;

    let other = env.run_claiming_worker_drain().await;
    assert_eq!((other.entries, other.duplicates), (5, 0));
    postgres.heal();
    redis.heal();

    eventually("the zombie finds them in the ledger", async || {
        zombie.stats.report().duplicates == 5
    })
    .await;
    let report = zombie.stop().await;
    assert_eq!(report.entries, 0);
    env.assert_settled_once(n).await;
}

#[tokio::test]
async fn two_workers_on_overlapping_claims_store_each_row_once() {
    let env = Env::start().await;
    let (redis, redis_url) = env.redis_proxy().await;
    let (postgres, database_url) = env.postgres_proxy().await;
    let config = WorkerConfig {
        redis_url,
        database_url,
        ..one_batch(env.claiming_config(Duration::from_millis(100)))
    };
    let first = env.start_worker(config).await;
    postgres.set(Fault::HoldBefore(Fault::COMMIT));
    let n = env.publish_entries(5, 10).await;
    postgres.met().await;
    redis.set(Fault::BlackHole(Direction::Both)); // so that its entries look abandoned
    let second = env
        .start_worker(one_batch(env.claiming_config(Duration::from_millis(100))))
        .await;
    eventually("the second waits for the first's keys", async || {
        env.value::<bool>(
            "SELECT EXISTS (SELECT FROM pg_stat_activity
                            WHERE datname = current_database() AND wait_event_type = 'Lock')",
        )
        .await
    })
    .await;
    assert_eq!(env.n_rows().await, 0);

    postgres.heal();
    eventually("stored by the first", async || env.n_rows().await == n).await;
    redis.heal();

    let (first, second) = (first.stop().await, second.stop().await);
    assert_eq!((first.entries, second.entries), (5, 0));
    assert_eq!(second.duplicates, 5);
    env.assert_settled_once(n).await;
}

#[tokio::test]
async fn two_workers_share_a_stream_and_each_row_is_stored_once() {
    let env = Env::start().await;
    let config = || WorkerConfig {
        batch_rows: NonZeroUsize::new(50).unwrap(),
        ..env.worker_config()
    };
    let (a, b) = tokio::join!(env.start_worker(config()), env.start_worker(config()));
    // Who came first would otherwise have read everything.
    eventually("both read", async || env.consumers().await.len() == 2).await;

    let n = env.publish_entries(400, 5).await;
    eventually("all is stored", async || env.n_rows().await == n).await;

    let (a, b) = (a.stop().await, b.stop().await);
    assert!(a.entries > 0 && b.entries > 0, "{a:?} {b:?}");
    assert_eq!(a.entries + b.entries, 400);
    assert_eq!(a.duplicates + b.duplicates, 0);
    env.assert_settled_once(n).await;
}

#[tokio::test]
async fn workers_that_claim_from_one_dead_consumer_store_each_row_once() {
    let env = Env::start().await;
    let n = env.publish_entries(200, 5).await;
    env.read_as("dead", 200).await;
    assert_eq!(env.n_pending().await, 200);
    let drain = || env.run_claiming_worker_drain();

    let (a, b, c) = tokio::join!(drain(), drain(), drain());

    assert_eq!(a.entries + b.entries + c.entries, 200);
    env.assert_settled_once(n).await;
}

#[tokio::test]
async fn what_went_into_the_store_directly_is_known_to_workers_too() {
    let env = Env::start().await;
    let rows = detections(0..10);
    let mut store: Store = env.store().await;
    store
        .insert_entries_once(&[(key(1), rows.as_slice())])
        .await
        .unwrap();
    env.publish_as(key(1), &rows).await;

    let report = env.run_worker_drain().await;

    assert_eq!((report.entries, report.duplicates), (0, 1));
    env.assert_settled_once(10).await;
}

/// A transaction that enters keys before it makes the row of a session must not meet one that does so the
/// other way round.
#[tokio::test]
async fn two_workers_with_an_entry_of_a_new_session_do_not_wait_for_each_other() {
    let env = Env::start().await;
    let (proxy, database_url) = env.postgres_proxy().await;
    let mut first = Store::connect(&database_url).await.unwrap();
    let mut second = env.store().await;
    let known = detections(0..10);
    let mut new = detections(10..20);
    for row in &mut new {
        row.session_id = "evening".to_owned();
    }
    first
        .insert_entries_once(&[(key(0), &known)])
        .await
        .unwrap();
    proxy.set(Fault::HoldBefore(b"INSERT INTO sessions"));

    let (entry, both) = ([(key(1), &new[..])], [(key(0), &known[..]), (key(1), &new)]);
    let in_between = async {
        proxy.met().await;
        eventually("the other waits for the key", async || {
            env.value::<i64>(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            .await
                == 1
        })
        .await;
        proxy.heal();
    };
    let (first, second, ()) = tokio::join!(
        first.insert_entries_once(&entry),
        async {
            proxy.met().await;
            second.insert_entries_once(&both).await
        },
        in_between,
    );

    assert_eq!((first.unwrap().entries, second.unwrap().duplicates), (1, 2));
    env.assert_stored_once(20).await;
}
