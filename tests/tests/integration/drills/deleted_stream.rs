use passerby_tests::{Env, eventually};

use super::Drill;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_somebody_deleted_is_made_again_and_said_aloud() {
    let mut drill = Drill::begin("deleted_stream", Env::start().await);
    let worker = drill.worker("gate-1", &[]).await;
    drill.record_entries(3).await;
    drill.all_stored().await;

    let mut delete = redis::cmd("DEL");
    drill.env.redis::<()>(delete.arg(drill.env.stream())).await;
    eventually("the worker says so", async || {
        worker
            .stderr()
            .contains("the consumer group is gone: creating it again")
    })
    .await;
    drill.record_entries(2).await;
    drill.all_stored().await;
    drill
        .terminal
        .note("the group is there again, and nothing waits");
    drill.types("pending").await.ok();
    drill.over().await;
}
