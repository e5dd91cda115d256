use passerby_consumer::{Worker, WorkerError};
use passerby_shared::wire;
use passerby_tests::{Env, eventually, fixtures::detections};
use tokio_util::sync::CancellationToken;

/// Publishes detections under an ID of its own.
async fn publish_with_id(env: &Env, id: &str, ids: std::ops::Range<i64>) {
    let mut payload = Vec::new();
    wire::encode_detections(&detections(ids), &mut payload);
    let _id: String = env
        .redis(
            redis::cmd("XADD")
                .arg(env.stream())
                .arg(id)
                .arg("p")
                .arg(payload),
        )
        .await;
}

#[tokio::test]
async fn entries_with_ids_from_the_future_are_stored_once() {
    let env = Env::start().await;
    publish_with_id(&env, "4102444800000-0", 0..10).await; // 2100
    publish_with_id(&env, "18446744073709551615-7", 10..20).await; // the last but one there can be
    let worker = env
        .start_worker(passerby_consumer::WorkerConfig {
            trim_grace: Some(std::time::Duration::ZERO),
            ..env.worker_config()
        })
        .await;
    eventually("stored", async || {
        env.n_rows().await == 20 && env.n_pending().await == 0
    })
    .await;
    worker.stop().await;
    env.store()
        .await
        .prune_ledger(chrono::Utc::now() - chrono::TimeDelta::days(7))
        .await
        .unwrap();

    assert_eq!(env.n_ledger().await, 2);
    env.assert_settled_once(20).await;
}

#[tokio::test]
async fn a_partition_that_was_dropped_is_made_again() {
    let env = Env::start().await;
    let worker = env.start_worker(env.worker_config()).await;
    env.publish(&detections(0..10)).await;
    eventually("stored", async || env.n_rows().await == 10).await;
    let today = passerby_tests::fixtures::MIDNIGHT.format("%Y%m%d");
    env.execute(&format!(
        "DROP TABLE detections_p{today};
         ALTER TABLE detections DETACH PARTITION detections_default"
    ))
    .await;

    env.publish(&detections(0..10)).await;

    eventually("stored again", async || env.n_rows().await == 10).await;
    worker.stop().await;
    env.assert_settled_once(10).await;
}

#[tokio::test]
async fn ledger_rows_that_were_deleted_cost_only_their_memory() {
    let env = Env::start().await;
    env.publish(&detections(0..10)).await;
    env.run_worker_drain().await;
    env.execute("TRUNCATE ledger").await;
    env.publish(&detections(10..20)).await;
    env.run_worker_drain().await;
    env.assert_settled_once(20).await;
}

#[tokio::test]
async fn a_table_that_is_missing_stops_the_worker_with_its_name_and_nothing_lost() {
    let env = Env::start().await;
    env.publish(&detections(0..10)).await;
    let worker = Worker::start(env.worker_config()).await.unwrap();
    env.execute("ALTER TABLE ledger RENAME TO gone").await;

    let error = worker.run(CancellationToken::new()).await.unwrap_err();

    assert!(matches!(error, WorkerError::Store(_)));
    let said = passerby_shared::ErrorChain(&error).to_string();
    assert!(said.contains("\"ledger\" does not exist"), "{said}");
    assert_eq!((env.n_rows().await, env.n_pending().await), (0, 1));
    env.execute("ALTER TABLE gone RENAME TO ledger").await;
    env.run_claiming_worker_drain().await;
    env.assert_settled_once(10).await;
}
