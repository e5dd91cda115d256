use passerby_tests::{Env, Fault, eventually};
use rustix::process::Signal;

use super::Drill;

#[tokio::test]
async fn what_a_killed_worker_held_is_stored_by_another() {
    let env = Env::start().await;
    let (proxy, _) = env.postgres_proxy().await;
    let through_proxy = format!(
        "postgresql://postgres@127.0.0.1:{}/{}?sslmode=disable",
        proxy.port(),
        env.database()
    );
    let mut drill = Drill::begin("worker_down", env);
    let killed = drill
        .worker("gate-1", &["--database-url", &through_proxy])
        .await;
    drill.record_entries(1).await;
    drill.all_stored().await;
    proxy.set(Fault::HoldBefore(Fault::BEGIN));
    drill.record_entries(2).await;
    eventually("it has them", async || {
        drill.env.pending().await.get("gate-1") == Some(&2)
    })
    .await;
    let killed_pid = killed.pid();
    killed.signal(Signal::KILL);
    killed.finished().await;
    drill.shows(&["no-worker"]).await;

    // Far longer than the test takes: what it holds stays where it is.
    let waiting = drill.worker("yard-1", &["--min-idle", "10m"]).await;
    drill.shows(&[]).await;
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    drill.terminal.redact(&format!("  {host}  "), "  gate  ");
    for (pid, shown) in [(killed_pid, "4711"), (waiting.pid(), "4712")] {
        drill.terminal.redact(&pid.to_string(), shown);
    }
    drill
        .terminal
        .note("one worker was killed, and another runs");
    drill.types("consumers list").await.ok();
    drill.types("status --check --max-backlog 10m").await.ok();
    let _eager = drill.worker("roof-1", &["--min-idle", "1s"]).await;
    drill.all_stored().await;
    drill.over().await;
}
