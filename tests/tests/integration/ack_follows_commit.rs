use std::time::Duration;

use passerby_consumer::WorkerConfig;
use passerby_tests::{Env, Fault, eventually, stays};

#[tokio::test]
async fn crash_between_commit_and_ack_stores_each_row_once() {
    let env = Env::start().await;
    let n = env.publish_entries(10, 10).await;
    let (proxy, redis_url) = env.redis_proxy().await;
    proxy.set(Fault::HoldBefore(Fault::XACK));
    let config = WorkerConfig {
        redis_url,
        // Nothing of a crashed worker may go on to keep its entries alive.
        ..env.claiming_config(Duration::from_millis(200))
    };
    let worker = env.start_worker(config).await;
    proxy.met().await;
    eventually("everything is committed", async || env.n_rows().await == n).await;
    assert_eq!(env.n_pending().await, 10);
    worker.crash().await;

    let report = env.run_claiming_worker_drain().await;

    assert_eq!((report.entries, report.duplicates), (0, 10));
    env.assert_settled_once(n).await;
}

#[tokio::test]
async fn crash_before_commit_leaves_entries_pending_and_stores_nothing() {
    let env = Env::start().await;
    let (proxy, database_url) = env.postgres_proxy().await;
    let config = WorkerConfig {
        database_url,
        ..env.worker_config()
    };
    let worker = env.start_worker(config).await;
    proxy.set(Fault::HoldBefore(Fault::COMMIT));
    let n = env.publish_entries(1, 10).await;
    proxy.met().await;
    worker.crash().await;
    // The kernel would close a crashed process' connections; the proxy still holds them.
    proxy.set(Fault::Refuse);
    assert_eq!(env.n_rows().await, 0);
    assert_eq!(env.n_pending().await, 1);

    let report = env.run_claiming_worker_drain().await;

    assert_eq!((report.entries, report.duplicates), (1, 0));
    env.assert_settled_once(n).await;
}

#[tokio::test]
async fn nothing_is_acknowledged_while_its_commit_is_under_way() {
    let env = Env::start().await;
    let (proxy, database_url) = env.postgres_proxy().await;
    let config = WorkerConfig {
        database_url,
        ..env.worker_config()
    };
    let worker = env.start_worker(config).await;
    proxy.set(Fault::HoldBefore(Fault::COMMIT));
    let n = env.publish_entries(1, 10).await;
    proxy.met().await;

    stays("pending", Duration::from_millis(200), async || {
        env.n_pending().await == 1
    })
    .await;
    assert_eq!(env.n_rows().await, 0);

    proxy.heal();
    worker.stop().await;
    env.assert_settled_once(n).await;
}
