use passerby_tests::Env;

use super::Drill;

#[tokio::test]
async fn a_worker_that_reads_another_stream_is_found() {
    let mut drill = Drill::begin("disagreement", Env::start().await);
    let elsewhere = format!("{}-elsewhere", drill.env.key_prefix());
    drill.terminal.redact(&elsewhere, "elsewhere");
    let _astray = drill.worker("gate-1", &["--key-prefix", &elsewhere]).await;
    drill.record_entries(3).await;
    drill.shows(&["no-worker", "no-group"]).await;
    drill.terminal.note("a worker runs, and nothing is stored");
    assert_eq!(drill.types("pending").await.code, Some(1));
    assert_eq!(drill.types("status --check").await.code, Some(3));

    let _worker = drill.worker("gate-2", &[]).await;
    drill.all_stored().await;
    drill.over().await;
}
