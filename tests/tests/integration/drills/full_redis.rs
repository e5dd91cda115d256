use passerby_tests::{Env, Passerby, eventually};
use rustix::process::Signal;

use super::Drill;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_makes_producers_wait_and_loses_nothing() {
    let mut drill = Drill::begin("full_redis", Env::dedicated().await);
    let worker = drill.worker("gate-1", &[]).await;
    drill.record_entries(1).await;
    drill.all_stored().await;
    worker.signal(Signal::TERM);
    assert_eq!(worker.finished().await.code, Some(0));

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

    let seen = Passerby::on(&drill.env)
        .run(&["pending", "--json"])
        .await
        .json();
    let undelivered = seen["undelivered"].as_u64().unwrap();
    drill.terminal.redact(&undelivered.to_string(), "4200");
    drill.terminal.note("nobody has read for long");
    drill.types("pending").await.ok();

    // A worker drains a full Redis, which needs no memory, and the producer goes on by itself.
    let _worker = drill.worker("gate-1", &[]).await;
    drill.publish().await;
    drill.all_stored().await;
    drill.terminal.note("somebody reads again");
    drill.types("pending").await.ok();
    drill.over().await;
}
