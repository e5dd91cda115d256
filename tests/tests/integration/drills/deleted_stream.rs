use passerby_tests::{Env, eventually};

use super::Drill;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_somebody_deleted_is_made_again_and_what_is_lost_is_said() {
    let mut drill = Drill::begin("deleted_stream", Env::start().await);
    let worker = drill.worker("gate-1", &[]).await;
    drill.record_entries(3).await;
    drill.all_stored().await;
    drill.shows(&[]).await;

    // While nobody reads, two entries come, and somebody deletes the stream with them.
    drill.terminal.note("work on Redis is announced");
    drill.types("pause --reason maintenance --yes").await.ok();
    drill.record_entries(2).await;
    let n_lost = 20;
    let mut delete = redis::cmd("DEL");
    drill.env.redis::<()>(delete.arg(drill.env.stream())).await;
    drill.terminal.note("and over");
    drill.types("resume --yes").await.ok();
    eventually("the worker says so", async || {
        worker
            .stderr()
            .contains("the consumer group is gone: creating it again")
    })
    .await;

    // The producer tells its books once a second, between the two entries as well.
    eventually("all that is lost is known to be", async || {
        drill.status().await["balance"]["unaccounted"] == n_lost
    })
    .await;
    drill.shows(&["unaccounted"]).await;
    drill.terminal.note("what is lost");
    assert_eq!(drill.types("status --check").await.code, Some(3));
    drill
        .terminal
        .note("what is known to be lost wakes nobody again");
    drill.types("status --check --known-lost 20").await.ok();

    // What comes from now on is stored as before.
    let stored_before = drill.env.n_rows().await;
    drill.record_entries(2).await;
    eventually("new rows are stored", async || {
        drill.env.n_rows().await == stored_before + 20
    })
    .await;
    // Of what was lost there is a recording, as it were: it is read in again, under keys of its own.
    let lost = passerby_tests::fixtures::detections(30..30 + n_lost);
    drill.env.publish(&lost).await;
    drill.all_stored().await;
    drill.over().await;
}
