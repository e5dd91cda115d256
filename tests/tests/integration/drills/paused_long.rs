use passerby_tests::Env;

use super::Drill;

#[tokio::test]
async fn a_pause_that_was_forgotten_says_whose_it_is() {
    let mut drill = Drill::begin("paused_long", Env::start().await);
    let _worker = drill.worker("gate-1", &[]).await;
    drill.record_entries(1).await;
    drill.all_stored().await;
    let pause = ["pause", "--reason", "maintenance", "--yes"];
    let passerby = passerby_tests::Passerby::on(&drill.env).with("SUDO_USER", "anna");
    passerby.run(&pause).await.ok();
    drill.record_entries(2).await;
    drill.shows(&["paused"]).await;
    drill
        .terminal
        .note("nobody reads, and nobody remembers why");
    assert_eq!(drill.types("status --check").await.code, Some(3));
    drill.terminal.note("it is over");
    drill.types("resume --yes").await.ok();
    drill.all_stored().await;
    drill.over().await;
}
