use passerby_tests::{Env, eventually};

use super::Drill;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_makes_producers_wait_and_loses_nothing() {
    let mut drill = Drill::begin("full_redis", Env::dedicated().await);
    let worker = drill.worker("gate-1", &[]).await;
    drill.record_entries(1).await;
    drill.all_stored().await;
    drill.terminal.note("somebody pauses, and forgets it");
    let pause = drill.types("pause --reason maintenance --yes").await.ok();
    assert!(pause.contains("1 of 1 worker"), "{pause}");

    // Nobody reads, and there is room for a few hundred entries.
    let used: redis::InfoDict = drill.env.redis(redis::cmd("INFO").arg("memory")).await;
    let used: u64 = used.get("used_memory").unwrap();
    let mut limit = redis::cmd("CONFIG");
    limit.arg("SET").arg("maxmemory").arg(used + (1 << 20));
    drill.env.redis::<()>(&limit).await;
    eventually("Redis refuses", async || {
        drill.accept(100).await;
        drill.pipeline.stats().retries > 0
    })
    .await;
    assert!(drill.pipeline.stats().rows().buffered > 0);

    let status = drill.status().await;
    assert_eq!(status["is_healthy"], false, "{status}");

    drill.terminal.note("why nobody reads");
    drill.types("status --check --min-time-to-full 0s").await;

    // Workers drain a full Redis, which needs no memory, and the producer goes on by itself.
    drill.terminal.note("they read again");
    drill.types("resume --yes").await.ok();
    drill.publish().await;
    drill.all_stored().await;
    drill.shows(&[]).await;
    drill.terminal.note("all is stored");
    drill.types("status --check").await.ok();
    drop(worker);
    drill.over().await;
}
