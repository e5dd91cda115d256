use futures_util::future::join_all;
use passerby_consumer::Worker;
use passerby_tests::Env;

#[tokio::test]
async fn ten_workers_that_start_at_once_migrate_once() {
    let env = Env::with_empty_database().await;

    let started = join_all((0..10).map(|_| Worker::start(env.worker_config()))).await;

    for worker in started {
        worker.unwrap();
    }
    let versions: Vec<i32> = env
        .value("SELECT array_agg(version ORDER BY version) FROM passerby_schema_history")
        .await;
    let wanted: Vec<i32> = (1..=i32::try_from(versions.len()).unwrap()).collect();
    assert_eq!(versions, wanted);
    let n_partitions: i64 = env
        .value("SELECT count(*) FROM pg_inherits WHERE inhparent = 'detections'::regclass")
        .await;
    assert_eq!(n_partitions, 9, "today, seven days ahead, and the default");
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let env = Env::with_empty_database().await;
    let mut store = env.store().await;

    let planned = store.pending_migrations().await.unwrap();

    let n_tables: i64 = env
        .value("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        .await;
    assert_eq!(n_tables, 0);
    let done = store.migrate().await.unwrap();
    assert_eq!(done, planned);
    assert_eq!(store.migrate().await.unwrap().applied, [""; 0]);
}
