use passerby_tests::Env;
use tokio_postgres::NoTls;

use super::Drill;

#[tokio::test(flavor = "multi_thread")]
async fn what_has_waited_for_too_long_is_said_and_who_waits_for_whom() {
    let mut drill = Drill::begin("behind", Env::start().await);
    let _worker = drill.worker("gate-1", &[]).await;
    drill.record_entries(1).await;
    drill.all_stored().await;
    let url = drill.env.servers.postgres_url(drill.env.database());
    let (slow, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    let serving = tokio::spawn(connection);
    slow.batch_execute("BEGIN; LOCK TABLE detections IN SHARE MODE")
        .await
        .unwrap();
    drill.record_entries(1).await;
    drill.shows(&["storing-nothing"]).await;
    drill
        .terminal
        .note("the oldest entry has waited for longer than it may");
    let late = drill
        .types("status --check --max-backlog 1s --max-pending 1s")
        .await;
    assert_eq!(late.code, Some(3));

    slow.batch_execute("COMMIT").await.unwrap();
    drill.all_stored().await;
    drill.shows(&[]).await;
    drill.terminal.note("it has caught up");
    drill.types("status --check --max-backlog 1s").await.ok();
    serving.abort();
    drill.over().await;
}
