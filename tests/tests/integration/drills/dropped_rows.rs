use std::{num::NonZeroUsize, time::Duration};

use passerby_producer::{AsyncProducer, Overflow, ProducerConfig};
use passerby_tests::{Env, Passerby, eventually, fixtures::detections, producer_config};

use super::Drill;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_producer_had_no_room_for_is_said_by_reason() {
    let mut drill = Drill::begin("dropped_rows", Env::dedicated().await);
    let _worker = drill.worker("gate-1", &[]).await;
    drill.record_entries(1).await;
    drill.all_stored().await;
    let pipeline = AsyncProducer::start(ProducerConfig {
        max_rows: NonZeroUsize::new(10).unwrap(),
        buffer_rows: NonZeroUsize::new(20).unwrap(),
        overflow: Overflow::DropNewest,
        ..producer_config(&drill.env, drill.env.redis_url())
    })
    .unwrap();

    drill.env.servers.kill_redis().await;
    let recorded = pipeline.record_many(detections(10..60)).await;
    assert_eq!((recorded.accepted, recorded.dropped), (20, 30));
    drill.n_accepted += 20;
    drill.env.servers.restart_redis().await;
    pipeline.flush(Duration::from_secs(30)).await.unwrap();
    // Only a producer that has something to say finds that Redis was started anew, and sends again
    // what it may have forgotten.
    drill.record_entries(1).await;
    drill.all_stored().await;
    eventually("both producers have told their books", async || {
        let balance = drill.status().await["balance"].take();
        balance["dropped"]["newest"] == 30
            && [&balance["accepted"], &balance["stored"]] == [40, 40]
            && balance["buffered"] == 0
    })
    .await;
    drill.nothing_waits().await;
    drill.shows(&[]).await;
    drill
        .terminal
        .note("Redis was away for longer than there was room");
    // The rest of the page is of the moment.
    let mut page = Passerby::on(&drill.env).run(&["status"]).await;
    let (books, _) = page.stdout.split_once("\nbacklog").unwrap();
    page.stdout = format!("{books}…\n");
    drill.terminal.add(&["status"], &page);
    pipeline.close(Duration::from_secs(30)).await.unwrap();
    drill.over().await;
}
