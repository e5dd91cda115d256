use passerby_tests::{Env, Fault, eventually};
use rustix::process::Signal;

use super::Drill;

#[tokio::test]
async fn what_a_stuck_worker_holds_is_found_and_stored() {
    let env = Env::start().await;
    let (proxy, _) = env.postgres_proxy().await;
    let through_proxy = format!(
        "postgresql://postgres@127.0.0.1:{}/{}?sslmode=disable",
        proxy.port(),
        env.database()
    );
    let mut drill = Drill::begin("stuck_worker", env);
    let stuck = drill
        .worker("gate-1", &["--database-url", &through_proxy])
        .await;
    drill.record_entries(1).await;
    drill.all_stored().await;

    // It has read five entries, and stops in its tracks before it can store them.
    proxy.set(Fault::HoldBefore(Fault::BEGIN));
    drill.record_entries(5).await;
    eventually("it has them", async || {
        drill.env.pending().await.get("gate-1") == Some(&5)
    })
    .await;
    stuck.signal(Signal::STOP);
    proxy.cut_all().await;

    drill.shows(&["no-worker"]).await;
    drill.terminal.note("nobody hears of it any more");
    assert_eq!(drill.types("status --check").await.code, Some(3));
    drill
        .terminal
        .note("one worker holds five entries, and nothing happens to them");
    let shown = drill.types("pending").await.ok();
    assert!(shown.starts_with("5 pending\n  5 with gate-1 "), "{shown}");
    assert_eq!(drill.env.n_rows().await, 10);

    drill
        .terminal
        .note("what it holds is stored at once, by this command itself");
    drill
        .types("claim --consumer gate-1 --min-idle 0s --yes")
        .await
        .ok();
    drill.all_stored().await;
    drill.types("pending").await.ok();

    // It wakes up with what it held, and finds it in the ledger.
    stuck.signal(Signal::CONT);
    drill.record_entries(1).await;
    drill.all_stored().await;
    drill.shows(&[]).await;
    drill
        .terminal
        .note("it is itself again, and has stored nothing twice");
    drill.types("status --check").await.ok();
    stuck.signal(Signal::TERM);
    assert_eq!(stuck.finished().await.code, Some(0));
    drill.over().await;
}
