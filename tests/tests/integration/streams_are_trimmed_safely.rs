use std::time::Duration;

use passerby_consumer::WorkerConfig;
use passerby_shared::EntryId;
use passerby_tests::{Env, Golden, eventually, fixtures::detections};

async fn first_entry(env: &Env) -> EntryId {
    let reply: redis::streams::StreamRangeReply = env
        .redis(
            redis::cmd("XRANGE")
                .arg(env.stream())
                .arg(&["-", "+", "COUNT", "1"]),
        )
        .await;
    reply.ids[0].id.parse().unwrap()
}

#[tokio::test]
async fn trimming_never_passes_an_unacknowledged_entry_of_any_group() {
    let env = Env::start().await;
    let mut ids = Vec::new();
    for n in 0..1_000 {
        ids.push(env.publish(&detections(n..n + 1)).await);
    }
    // A second group, that has read half and not acknowledged one entry in the middle of that.
    let group = |command: &str| {
        let mut command = redis::cmd(command);
        command.arg(env.stream()).arg("archive");
        command
    };
    let _: () = env
        .redis(
            redis::cmd("XGROUP")
                .arg("CREATE")
                .arg(env.stream())
                .arg(&["archive", "0"]),
        )
        .await;
    let _read: redis::Value = env
        .redis(
            redis::cmd("XREADGROUP")
                .arg(&["GROUP", "archive", "tape", "COUNT", "500", "STREAMS"])
                .arg(env.stream())
                .arg(">"),
        )
        .await;
    let acked: Vec<EntryId> = ids[..500]
        .iter()
        .copied()
        .filter(|id| *id != ids[300])
        .collect();
    let _: usize = env.redis(group("XACK").arg(&acked)).await;

    let worker = env
        .start_worker(WorkerConfig {
            trim_grace: Some(Duration::ZERO),
            ..env.worker_config()
        })
        .await;
    eventually("trimmed", async || first_entry(&env).await > ids[0]).await;
    assert!(first_entry(&env).await <= ids[300]);

    let _: usize = env.redis(group("XACK").arg(ids[300])).await;
    eventually("trimmed further", async || {
        first_entry(&env).await > ids[300]
    })
    .await;

    // The rest was never delivered to the second group.
    assert!(first_entry(&env).await <= ids[499]);
    worker.stop().await;
    env.assert_settled_once(1_000).await;
}

#[tokio::test]
async fn entries_stay_for_the_time_of_grace() {
    let env = Env::start().await;
    let n = env.publish_entries(500, 1).await;
    let worker = env
        .start_worker(WorkerConfig {
            trim_grace: Some(Duration::from_secs(3_600)),
            ..env.worker_config()
        })
        .await;
    eventually("stored", async || env.n_rows().await == n).await;
    // A trim comes every five seconds or so; the next but one is certainly after the first.
    let asked_at = tokio::time::Instant::now();
    eventually("two trims later", async || {
        asked_at.elapsed() > Duration::from_secs(7)
    })
    .await;
    worker.stop().await;

    assert_eq!(env.n_entries().await, 500);
}

#[tokio::test]
async fn trimming_by_hand_says_what_holds_the_rest_back() {
    let env = Env::start().await;
    let mut golden = Golden::of("trim", &env);
    golden.run(&["trim"]).await;
    env.publish_entries(5, 10).await;
    golden.note("nobody has ever read it");
    golden.run(&["trim", "--grace", "0s", "--yes"]).await;
    env.run_worker_drain().await;
    env.publish_entries(3, 10).await;
    env.read_as("gate-host", 2).await;
    golden.note("five are stored, a worker holds two, one waits");
    golden.run(&["trim"]).await;
    golden.run(&["trim", "--grace", "0s", "--dry-run"]).await;
    golden.run(&["trim", "--grace", "0s"]).await;
    assert_eq!(env.n_entries().await, 8);
    golden.run(&["trim", "--grace", "0s", "--yes"]).await;
    assert_eq!(env.n_entries().await, 3);
    assert_eq!(env.n_pending().await, 2);
    env.run_claiming_worker_drain().await;
    golden.note("all of it is stored");
    golden
        .run(&["trim", "--grace", "0s", "--yes", "--json"])
        .await;
    // The entry read last marks how far the group has come.
    assert_eq!(env.n_entries().await, 1);
}
