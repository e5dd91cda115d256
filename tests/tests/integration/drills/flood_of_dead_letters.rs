use passerby_shared::Detection;
use passerby_tests::{Env, eventually};

use super::Drill;

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_dead_letters_is_put_back_after_the_fix() {
    let mut drill = Drill::begin("dead_letter_flood", Env::start().await);
    let constraint = "ALTER TABLE detections ADD CONSTRAINT known_channels
         CHECK (channel_id IN (1, 2)) NOT VALID";
    drill.env.execute(constraint).await;
    // Letters of two committers would be numbered as it happens.
    let _worker = drill.worker("gate-1", &["--committers", "1"]).await;
    for _ in 0..20 {
        drill.accept(50).await;
        let elsewhere = |row| Detection {
            channel_id: 3,
            ..row
        };
        drill.accept_as(50, elsewhere).await;
        drill.publish().await;
    }
    eventually("half of the rows are refused", async || {
        drill
            .env
            .value::<i64>("SELECT count(*) FROM dead_letters")
            .await
            == 1_000
    })
    .await;
    assert_eq!(drill.env.n_rows().await, 1_000);

    drill.terminal.note("how many, and of what kind");
    drill.types("dead-letters list --limit 3").await.ok();
    drill
        .types("dead-letters requeue --reason refused --dry-run")
        .await
        .ok();
    drill
        .env
        .execute("ALTER TABLE detections DROP CONSTRAINT known_channels")
        .await;
    drill.terminal.note("after the fix");
    drill
        .types("dead-letters requeue --reason refused --yes")
        .await
        .ok();
    drill.all_stored().await;
    drill.over().await;
}
