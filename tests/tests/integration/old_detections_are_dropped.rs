use chrono::{TimeDelta, Utc};
use passerby_tests::{Env, Passerby, fixtures::detections};

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

/// The names of partitions that were detached to be dropped.
async fn detached(env: &Env) -> Option<Vec<String>> {
    env.value("SELECT array_agg(relname::text) FROM pg_class WHERE relname ~ '^detections_dropping_[0-9]+$'")
        .await
}

/// No table can be dropped, until the event trigger is.
async fn hold_drops(env: &Env) {
    env.execute(
        "CREATE FUNCTION hold() RETURNS event_trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF current_query() LIKE '%DROP TABLE%' THEN RAISE 'not now' USING ERRCODE = '40P01'; END IF;
         END $$;
         CREATE EVENT TRIGGER hold ON ddl_command_start WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION hold()",
    )
    .await;
}

#[tokio::test]
async fn a_day_is_out_of_everybodys_way_while_it_is_counted_and_is_dropped_later() {
    let env = Env::start().await;
    for days in [0, 5, 9] {
        store_of(&env, days).await;
    }
    // As after a deadlock, or the death of whoever was to drop them.
    hold_drops(&env).await;
    let before = Utc::now() - TimeDelta::days(4);
    let mut store = env.store().await;

    let report = store.drop_detections_before(before).await.unwrap();

    assert_eq!((report.dropped.len(), report.kept.len()), (0, 2));
    assert_eq!(detached(&env).await.map_or(0, |tables| tables.len()), 2);
    assert_eq!(env.n_rows().await, 10);
    // They are in the books until they are dropped.
    assert_eq!(
        store
            .books(env.key_prefix())
            .await
            .unwrap()
            .detections_dropped,
        0
    );
    // A late row of such a day has a partition of its own.
    store_of(&env, 9).await;
    assert_eq!(env.n_rows().await, 20);
    env.execute("DROP EVENT TRIGGER hold").await;
    // One that somebody wants to keep.
    let kept = detached(&env).await.unwrap().remove(0);
    env.execute(&format!("COMMENT ON TABLE {kept} IS NULL"))
        .await;

    let report = store.drop_detached_partitions().await.unwrap();

    assert_eq!((report.dropped.len(), report.kept.len()), (1, 0));
    assert_eq!(detached(&env).await.unwrap(), [kept]);
    assert_eq!(
        store
            .books(env.key_prefix())
            .await
            .unwrap()
            .detections_dropped,
        10
    );
}

#[tokio::test]
async fn what_a_drop_left_is_named_and_dropped_by_the_next_one() {
    let env = Env::start().await;
    store_of(&env, 9).await;
    hold_drops(&env).await;
    let before = Utc::now() - TimeDelta::days(4);
    env.store()
        .await
        .drop_detections_before(before)
        .await
        .unwrap();
    env.execute("DROP EVENT TRIGGER hold").await;
    let left = detached(&env).await.unwrap().remove(0);
    let passerby = Passerby::on(&env);
    let drop = ["partitions", "drop", "--older-than", "4d"];

    let said = passerby
        .run(&[&drop[..], &["--dry-run"]].concat())
        .await
        .ok();
    assert!(said.contains(&left), "{said}");
    passerby
        .run(&drop)
        .await
        .assert_usage_error(&[&left, "for good"]);
    assert_eq!(detached(&env).await.unwrap(), [left]);

    passerby.run(&[&drop[..], &["--yes"]].concat()).await.ok();
    assert_eq!(detached(&env).await, None);
}
