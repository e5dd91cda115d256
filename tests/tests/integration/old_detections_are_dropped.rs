use chrono::{TimeDelta, Utc};
use passerby_tests::{Env, fixtures::detections};

async fn partitions(env: &Env) -> Vec<String> {
    env.value(
        "SELECT array_agg(inhrelid::regclass::text ORDER BY 1) FROM pg_inherits
         WHERE inhparent = 'detections'::regclass",
    )
    .await
}

/// Stores ten detections of so many days ago.
async fn store_of(env: &Env, days: i64) {
    let mut rows = detections(days * 10..days * 10 + 10);
    for row in &mut rows {
        row.timestamp -= TimeDelta::days(days);
    }
    env.store().await.insert_detections(&rows).await.unwrap();
}

#[tokio::test]
async fn whole_days_that_are_too_old_are_dropped_and_younger_ones_stay() {
    let env = Env::start().await;
    for days in [0, 2, 5, 9] {
        store_of(&env, days).await;
    }
    // In the quarantine, and attached by hand under a name of its own.
    env.execute(
        "CREATE TABLE by_hand (LIKE detections);
         ALTER TABLE detections ATTACH PARTITION by_hand
             FOR VALUES FROM ('2001-01-01 00:00:00+00') TO ('2001-02-01 00:00:00+00');
         INSERT INTO detections_default SELECT * FROM detections LIMIT 0",
    )
    .await;
    let before = partitions(&env).await.len();

    let mut store = env.store().await;
    let report = store
        .drop_detections_before(Utc::now() - TimeDelta::days(4))
        .await
        .unwrap();

    assert_eq!(report.dropped.len(), 3, "{report:?}");
    assert_eq!(report.kept.len(), 0);
    assert_eq!(partitions(&env).await.len(), before - 3);
    assert_eq!(env.n_rows().await, 20);
    // A straggler of a dropped day is stored, and dropped the next time.
    store_of(&env, 9).await;
    assert_eq!(env.n_rows().await, 30);
}

#[tokio::test]
async fn a_partition_that_somebody_reads_is_kept_until_the_next_time() {
    let env = Env::start().await;
    store_of(&env, 9).await;
    env.execute("BEGIN; LOCK TABLE detections IN ACCESS SHARE MODE")
        .await;
    let before = Utc::now() - TimeDelta::days(4);

    let mut store = env.store().await;
    let report = store.drop_detections_before(before).await.unwrap();
    assert_eq!((report.dropped.len(), report.kept.len()), (0, 1));
    env.execute("COMMIT").await;
    let report = store.drop_detections_before(before).await.unwrap();
    assert_eq!((report.dropped.len(), report.kept.len()), (1, 0));
}

#[tokio::test]
async fn ten_upkeepers_at_once_disturb_nobody() {
    let env = Env::start().await;
    for days in [0, 5, 9] {
        store_of(&env, days).await;
    }
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let mut store = env.store().await;
        all.spawn(async move {
            store.ensure_partitions_ahead().await.unwrap();
            store
                .prune_ledger(Utc::now() - TimeDelta::days(7))
                .await
                .unwrap();
            store
                .drop_detections_before(Utc::now() - TimeDelta::days(4))
                .await
                .unwrap();
        });
    }
    all.join_all().await;
    assert_eq!(env.n_rows().await, 10);
}
