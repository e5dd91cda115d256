use passerby_tests::Env;
use rustix::process::Signal;

use super::Drill;

#[tokio::test]
async fn rows_wait_while_no_worker_runs_and_are_stored_when_one_does() {
    let mut drill = Drill::begin("no_worker", Env::start().await);
    let worker = drill.worker("gate-1", &[]).await;
    drill.record_entries(1).await;
    drill.all_stored().await;
    worker.signal(Signal::TERM);
    assert_eq!(worker.finished().await.code, Some(0));

    drill.record_entries(3).await;
    drill.shows(&["no-worker"]).await;
    drill.terminal.note("nobody reads");
    assert_eq!(drill.types("status --check").await.code, Some(3));
    drill.types("consumers list").await.ok();

    let _worker = drill.worker("gate-1", &[]).await;
    drill.all_stored().await;
    drill.shows(&[]).await;
    drill.terminal.note("a worker has read it all");
    drill.types("status --check").await.ok();
    drill.over().await;
}
