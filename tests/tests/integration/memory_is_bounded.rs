use std::{num::NonZeroUsize, time::Duration};

use passerby_consumer::WorkerConfig;
use passerby_tests::{Direction, Env, Fault, eventually, stays};

#[tokio::test]
async fn a_worker_whose_postgres_is_silent_stops_reading() {
    let env = Env::start().await;
    let n = env.publish_entries(1_000, 10).await;
    let (proxy, database_url) = env.postgres_proxy().await;
    let config = WorkerConfig {
        database_url,
        batch_rows: NonZeroUsize::new(100).unwrap(), // ten entries
        ..env.worker_config()
    };
    proxy.set(Fault::HoldBefore(b"COPY detections"));
    let worker = env.start_worker(config).await;
    proxy.met().await;
    proxy.set(Fault::BlackHole(Direction::Both));

    // A batch with each of two committers, one waiting, one with the decoder; a read waiting, one
    // with the reader and one being decoded. A read is a batch or so, the first one 16 entries.
    eventually("the worker is full", async || env.n_pending().await >= 40).await;
    stays("full", Duration::from_millis(500), async || {
        env.n_pending().await <= 100
    })
    .await;

    proxy.heal();
    eventually("everything is settled", async || {
        env.n_rows().await == n && env.n_pending().await == 0
    })
    .await;
    worker.stop().await;
    env.assert_settled_once(n).await;
}

#[tokio::test]
async fn a_worker_in_front_of_large_entries_stops_at_a_number_of_bytes() {
    let env = Env::start().await;
    let n = env.publish_entries(100, 500).await; // 20 kB an entry
    let (proxy, database_url) = env.postgres_proxy().await;
    let config = WorkerConfig {
        database_url,
        batch_bytes: NonZeroUsize::new(50_000).unwrap(), // less than an entry encoded for COPY
        ..env.worker_config()
    };
    let worker = env.start_worker(config).await;
    proxy.set(Fault::BlackHole(Direction::Both));

    eventually("the worker is full", async || env.n_pending().await >= 16).await;
    stays("full", Duration::from_millis(500), async || {
        env.n_pending().await <= 50
    })
    .await;

    proxy.heal();
    eventually("stored", async || env.n_rows().await == n).await;
    worker.stop().await;
    env.assert_settled_once(n).await;
    let most: i64 = env
        .value(
            "SELECT max(n) FROM
             (SELECT count(*) AS n FROM ledger GROUP BY xmin::text) AS transactions",
        )
        .await;
    assert_eq!(most, 1, "entries in one batch");
}
