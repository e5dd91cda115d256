use futures_util::future::join_all;
use passerby_consumer::Worker;
use passerby_tests::{Env, eventually};
use tokio_postgres::NoTls;

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

#[tokio::test]
async fn a_migration_does_not_wait_long_for_a_lock_and_tries_again_until_it_has_it() {
    let env = Env::with_empty_database().await;
    let url = env.servers.postgres_url(env.database());
    let (operator, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    operator
        .batch_execute("BEGIN; CREATE TABLE detections ()")
        .await
        .unwrap();
    let mut store = env.store().await;
    let migrating = tokio::spawn(async move { store.migrate().await });
    let n_waiting = async || {
        env.value::<i64>(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .await
    };
    eventually("it waits", async || n_waiting().await == 1).await;

    eventually("it has given up", async || n_waiting().await == 0).await;
    assert!(!migrating.is_finished());
    operator.batch_execute("ROLLBACK").await.unwrap();

    migrating.await.unwrap().unwrap();
    env.store().await.check_schema().await.unwrap();
}
