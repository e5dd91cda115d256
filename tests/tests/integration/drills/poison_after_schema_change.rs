use passerby_shared::Detection;
use passerby_tests::{Env, eventually};

use super::Drill;

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_new_constraint_refuses_are_put_back_after_the_fix() {
    let mut drill = Drill::begin("schema_change", Env::start().await);
    let _worker = drill.worker("gate-1", &[]).await;
    drill.record_entries(3).await;
    drill.all_stored().await;

    // Somebody changes the schema, and has not thought of the camera at channel 3.
    let constraint = "ALTER TABLE detections ADD CONSTRAINT known_channels
         CHECK (channel_id IN (1, 2)) NOT VALID";
    drill.env.execute(constraint).await;
    drill.record_entries(1).await;
    let elsewhere = |row| Detection {
        channel_id: 3,
        ..row
    };
    drill.accept_as(2, elsewhere).await;
    drill.publish().await;
    eventually(
        "two rows are refused, and their neighbours are not",
        async || drill.env.dead_letters().await.len() == 2 && drill.env.n_rows().await == 40,
    )
    .await;

    drill.terminal.note("which rows, and why");
    let listed = drill.types("dead-letters list").await.ok();
    assert!(listed.contains("known_channels"), "{listed}");
    drill.terminal.note("one of them, whole");
    let shown = drill.types("dead-letters show 1").await.ok();
    assert!(shown.contains("channel_id"), "{shown}");

    // The fix: whoever wrote the constraint takes it back.
    drill
        .env
        .execute("ALTER TABLE detections DROP CONSTRAINT known_channels")
        .await;
    drill.terminal.note("after the fix");
    drill
        .types("dead-letters requeue --reason refused --dry-run")
        .await
        .ok();
    drill
        .types("dead-letters requeue --reason refused --yes")
        .await
        .ok();
    drill.all_stored().await;
    drill.terminal.note("a second time does no harm");
    drill
        .types("dead-letters requeue --reason refused --yes")
        .await
        .ok();
    drill.over().await;
}
