use passerby_tests::{Env, eventually, project_file};
use tokio_postgres::NoTls;

use super::Drill;

/// Who holds up the workers, as the runbook has it.
const BLOCKERS: &str = "SELECT pid, usename, state, date_trunc('second', now() - xact_start) AS open_for, left(query, 60) AS query
FROM pg_stat_activity
WHERE pid IN (SELECT unnest(pg_blocking_pids(pid)) FROM pg_stat_activity WHERE application_name = 'passerby')";

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_is_held_up_loses_nothing() {
    let mut drill = Drill::begin("slow_postgres", Env::start().await);
    let _worker = drill.worker("gate-1", &[]).await;
    drill.record_entries(1).await;
    drill.all_stored().await;

    // Somebody's transaction has the table, and is forgotten in another window.
    let url = drill.env.servers.postgres_url(drill.env.database());
    let (forgotten, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    let ended = tokio::spawn(connection);
    forgotten
        .batch_execute("BEGIN; LOCK TABLE detections IN SHARE MODE")
        .await
        .unwrap();
    assert!(project_file("docs/runbook.md").contains(BLOCKERS));
    drill.record_entries(3).await;
    eventually("the worker waits", async || {
        let blocked = format!("SELECT count(*) FROM ({BLOCKERS}) AS blockers");
        drill.env.value::<i64>(&blocked).await == 1
    })
    .await;

    drill.shows(&["storing-nothing"]).await;
    drill.terminal.note("the worker says that it tries in vain");
    assert_eq!(drill.types("status --check").await.code, Some(3));
    drill
        .terminal
        .note("the worker has entries, and cannot store them");
    let shown = drill.types("pending").await.ok();
    assert!(shown.contains(" with gate-1 "), "{shown}");
    assert_eq!(drill.env.n_rows().await, 10);

    let end = format!("SELECT count(pg_terminate_backend(pid)) FROM ({BLOCKERS}) AS blockers");
    assert_eq!(drill.env.value::<i64>(&end).await, 1);
    ended.await.unwrap().unwrap_err();
    drill.all_stored().await;
    drill.shows(&[]).await;
    drill.terminal.note("all is stored");
    drill.types("status --check").await.ok();
    drill.over().await;
}
