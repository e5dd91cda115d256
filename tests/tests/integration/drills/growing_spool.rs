use std::{num::NonZeroUsize, time::Duration};

use passerby_producer::{AsyncProducer, ProducerConfig, SpoolConfig};
use passerby_tests::{Env, eventually, fixtures::detections, producer_config};

use super::Drill;

#[tokio::test(flavor = "multi_thread")]
async fn rows_gather_in_a_spool_and_are_sent_when_redis_is_back() {
    let mut drill = Drill::begin("growing_spool", Env::dedicated().await);
    let _worker = drill.worker("gate-1", &[]).await;
    // It has started before Redis goes away.
    drill.record_entries(1).await;
    drill.all_stored().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    drill.terminal.redact(path, "/var/lib/gate/spool");
    let pipeline = AsyncProducer::start(ProducerConfig {
        spool: Some(SpoolConfig::new(dir.path())),
        // One frame.
        max_rows: NonZeroUsize::new(100).unwrap(),
        max_delay: Duration::from_secs(1),
        ..producer_config(&drill.env, drill.env.redis_url())
    })
    .unwrap();

    drill.env.servers.kill_redis().await;
    assert_eq!(pipeline.record_many(detections(10..40)).await.accepted, 30);
    drill.n_accepted += 30;
    eventually("they are on the disk", async || {
        pipeline.stats().rows().spooled == 30
    })
    .await;
    drill.terminal.note("Redis is away, and a pipeline goes on");
    drill.types(&format!("spool inspect {path}")).await.ok();

    drill.env.servers.restart_redis().await;
    pipeline.flush(Duration::from_secs(30)).await.unwrap();
    drill.all_stored().await;
    drill.terminal.note("all was sent");
    drill.types(&format!("spool inspect {path}")).await.ok();
    pipeline.close(Duration::from_secs(30)).await.unwrap();
    drill.over().await;
}
