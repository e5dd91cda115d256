use std::time::Duration;

use passerby_tests::{Env, Passerby, eventually, stays};

use super::Drill;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_makes_producers_wait_and_loses_nothing() {
    let mut drill = Drill::begin("full_redis", Env::dedicated().await);
    let worker = drill.worker("gate-1", &[]).await;
    drill.record_entries(1).await;
    drill.all_stored().await;
    drill.shows(&[]).await;
    drill.terminal.note("somebody pauses, and forgets it");
    let pause = drill.types("pause --reason maintenance --yes").await.ok();
    assert!(pause.contains("1 of 1 worker"), "{pause}");

    // Nobody reads, and there is room for some hundred entries beside what others keep there.
    let mut others = redis::cmd("SET");
    others.arg("others").arg(vec![0_u8; 3 << 20]);
    drill.env.redis::<()>(&others).await;
    let used: redis::InfoDict = drill.env.redis(redis::cmd("INFO").arg("memory")).await;
    let used: u64 = used.get("used_memory").unwrap();
    let mut limit = redis::cmd("CONFIG");
    limit.arg("SET").arg("maxmemory").arg(used + (1 << 20));
    drill.env.redis::<()>(&limit).await;
    eventually("Redis refuses", async || {
        drill.accept(500).await;
        drill.pipeline.stats().retries > 0
    })
    .await;
    drill.shows(&["paused", "redis-full"]).await;
    assert!(drill.pipeline.stats().rows().buffered > 0);

    // Workers cannot even say any more that they live: that does not make them dead.
    let silent = passerby_consumer::ops::SILENT_AFTER;
    stays("it is said", silent + Duration::from_secs(1), async || {
        let shown = drill.status().await["symptoms"].take();
        let codes = shown.as_array().unwrap().iter();
        let codes: Vec<&str> = codes.map(|s| s["code"].as_str().unwrap()).collect();
        assert_eq!(codes, ["paused", "redis-full"], "{shown}");
        true
    })
    .await;
    drill.terminal.note("why nobody reads");
    assert_eq!(drill.types("status --check").await.code, Some(3));

    // Workers drain a full Redis, which needs no memory, and the producer goes on by itself.
    // How many workers it hears of is left to chance, and not recorded.
    let resume = Passerby::on(&drill.env)
        .run(&["resume", "--yes"])
        .await
        .ok();
    assert!(resume.starts_with("resumed group passerby"), "{resume}");
    drill.publish().await;
    drill.all_stored().await;
    drill.shows(&[]).await;
    drill.terminal.note("all is stored");
    drill.types("status --check").await.ok();
    drop(worker);
    drill.over().await;
}
