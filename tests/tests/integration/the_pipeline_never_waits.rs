//! A pipeline records whatever becomes of Redis, and what it recorded is stored once when Redis is
//! back.

use std::{num::NonZeroUsize, time::Duration};

use passerby_consumer::{WorkerConfig, WorkerReport};
use passerby_producer::{
    AsyncProducer, Health, Overflow, Producer, ProducerConfig, Recorded, Stats, TroubleKind,
};
use passerby_tests::{
    Env, Fault, OwnRedis, Published, eventually,
    fixtures::{detection, detections},
    producer_config,
};

const SOON: Duration = Duration::from_secs(30);

async fn published(redis: &OwnRedis, env: &Env) -> Published {
    let mut xrange = redis::cmd("XRANGE");
    xrange.arg(env.stream()).arg("-").arg("+");
    Published::read(redis.redis(&xrange).await)
}

/// Stores what is in the stream.
async fn drain(redis: &OwnRedis, env: &Env) -> WorkerReport {
    env.drain_with(WorkerConfig {
        redis_url: redis.url(),
        ..env.worker_config()
    })
    .await
}

fn trouble(producer: &AsyncProducer) -> Option<TroubleKind> {
    match producer.health() {
        Health::Trouble(trouble) => Some(trouble.kind),
        _ => None,
    }
}

async fn in_trouble(producer: &AsyncProducer, kind: TroubleKind) {
    eventually("health() says it", async || trouble(producer) == Some(kind)).await;
}

#[track_caller]
fn assert_balanced(stats: &Stats) {
    for rows in [stats.detections, stats.tracks, stats.sessions] {
        assert!(rows.balances(), "{stats:?}");
    }
}

/// Asserts that 300 recorded detections, once the trouble is over, are stored once.
async fn assert_nothing_lost(producer: &AsyncProducer, redis: &OwnRedis, env: &Env) {
    producer.flush(SOON).await.unwrap();
    assert_eq!(producer.health(), Health::Up);
    let stats = producer.stats();
    assert_balanced(&stats);
    assert_eq!(stats.detections.published, 300);
    let published = published(redis, env).await;
    assert_eq!(published.ids(), Vec::from_iter(0..300));
    drain(redis, env).await;
    env.assert_stored_once(300).await;
}

async fn record_300(producer: &AsyncProducer) {
    let recorded = producer.record_many(detections(0..300)).await;
    assert_eq!(recorded.accepted, 300);
}

#[tokio::test]
async fn redis_that_is_down_at_the_start_gets_everything_when_it_is_up() {
    let env = Env::start().await;
    let redis = OwnRedis::start(&[]).await;
    redis.kill().await;
    let producer = AsyncProducer::start(producer_config(&env, redis.url())).unwrap();
    record_300(&producer).await;
    in_trouble(&producer, TroubleKind::Unreachable).await;
    assert_eq!(producer.stats().detections.buffered, 300);
    assert_balanced(&producer.stats());

    redis.restart().await;

    assert_nothing_lost(&producer, &redis, &env).await;
}

#[tokio::test]
async fn redis_killed_in_the_middle_loses_nothing_that_was_accepted() {
    const N: i64 = 12_000;
    let env = Env::start().await;
    let redis = OwnRedis::start(&[]).await;
    // Room for a part of it, so that rows are recorded before, while and after Redis is away.
    let config = ProducerConfig {
        buffer_rows: NonZeroUsize::new(500).unwrap(),
        overflow: Overflow::Block(SOON),
        ..producer_config(&env, redis.url())
    };
    let producer = Producer::start(config).unwrap();
    let recording = {
        let producer = producer.clone();
        tokio::task::spawn_blocking(move || {
            for id in 0..N {
                assert_eq!(producer.record(detection(id)), Ok(Recorded::Accepted));
                assert_balanced(&producer.stats());
            }
        })
    };
    for n_before in [200, 2_000, 6_000] {
        eventually("some are published", async || {
            producer.stats().detections.published >= n_before
        })
        .await;
        redis.kill().await;
        redis.restart().await;
    }

    recording.await.unwrap();
    let stats = tokio::task::spawn_blocking(move || producer.close(SOON).unwrap());
    let stats = stats.await.unwrap();

    assert_balanced(&stats);
    assert_eq!(stats.detections.published, 12_000);
    assert!(stats.reconnects > 0, "{stats:?}");
    let published = published(&redis, &env).await;
    assert_eq!(published.ids(), Vec::from_iter(0..N));
    let worker = drain(&redis, &env).await;
    let n_resent = published.n_entries - published.by_key.len();
    assert_eq!(worker.entries, published.by_key.len() as u64);
    assert_eq!(
        worker.entries_read, published.n_entries as u64,
        "{n_resent}"
    );
    env.assert_stored_once(N).await;
}

#[tokio::test]
async fn a_frozen_redis_holds_up_no_caller_and_memory_is_bounded() {
    const N: i64 = 5_000;
    let env = Env::start().await;
    let redis = OwnRedis::start(&[]).await;
    let config = ProducerConfig {
        buffer_rows: NonZeroUsize::new(200).unwrap(),
        ..producer_config(&env, redis.url())
    };
    let producer = Producer::start(config).unwrap();
    eventually("connected", async || producer.health() == Health::Up).await;
    redis.freeze().await;

    let recording = {
        let producer = producer.clone();
        tokio::task::spawn_blocking(move || {
            let mut n_accepted = 0;
            for id in 0..N {
                n_accepted += u64::from(producer.record(detection(id)) == Ok(Recorded::Accepted));
                let stats = producer.stats();
                assert_balanced(&stats);
                assert!(stats.detections.buffered <= 200, "{stats:?}");
                assert!(stats.buffered_bytes <= 200 * 512, "{stats:?}");
            }
            n_accepted
        })
    };
    // Redis is frozen until all calls have returned: had one waited for it, they never would.
    let n_accepted = tokio::time::timeout(SOON, recording)
        .await
        .unwrap()
        .unwrap();

    assert_eq!(n_accepted, 200);
    let stats = producer.stats().detections;
    assert_eq!(stats.accepted + stats.dropped_newest, 5_000);
    redis.thaw().await;
    let flushing = producer.clone();
    let flushed = tokio::task::spawn_blocking(move || flushing.flush(SOON));
    flushed.await.unwrap().unwrap();
    assert_eq!(producer.stats().detections.published, 200);
    drain(&redis, &env).await;
    env.assert_stored_once(200).await;
}

#[tokio::test]
async fn a_lost_reply_is_answered_by_the_same_entry_again_and_stored_once() {
    let env = Env::start().await;
    let redis = OwnRedis::start(&[]).await;
    let (proxy, url) = redis.proxy().await;
    let producer = AsyncProducer::start(producer_config(&env, url)).unwrap();
    eventually("connected", async || producer.health() == Health::Up).await;
    proxy.set(Fault::LoseReplyTo(b"$4\r\nXADD\r\n"));

    let recorded = producer.record_many(detections(0..20)).await;
    assert_eq!(recorded.accepted, 20);
    producer.flush(SOON).await.unwrap();

    assert!(proxy.was_met());
    let stats = producer.stats();
    assert_balanced(&stats);
    assert_eq!((stats.detections.published, stats.retries), (20, 1));
    let published = published(&redis, &env).await;
    assert_eq!(published.n_entries, published.by_key.len() + 1);
    let worker = drain(&redis, &env).await;
    assert_eq!(worker.detections, 20);
    env.assert_stored_once(20).await;
}

#[tokio::test]
async fn a_full_redis_gets_everything_when_it_has_room() {
    let env = Env::start().await;
    let redis = OwnRedis::start(&[]).await;
    redis.configure("maxmemory", "1").await;
    let producer = AsyncProducer::start(producer_config(&env, redis.url())).unwrap();
    record_300(&producer).await;
    in_trouble(&producer, TroubleKind::Busy).await;
    assert_balanced(&producer.stats());
    assert_eq!(published(&redis, &env).await.n_entries, 0);

    redis.configure("maxmemory", "0").await;

    assert_nothing_lost(&producer, &redis, &env).await;
}

#[tokio::test]
async fn a_wrong_password_is_said_and_loses_nothing_when_it_is_mended() {
    let env = Env::start().await;
    let redis = OwnRedis::start(&[]).await;
    let mut user = redis::cmd("ACL");
    user.arg("SETUSER").arg("gate").arg("on").arg("~*");
    let _: () = redis.redis(user.arg("+@all").arg(">right")).await;
    let url = redis.url().expose().replace("127", "gate:s3cr3t@127");
    let config = producer_config(&env, url.parse().unwrap());
    let producer = AsyncProducer::start(config).unwrap();
    record_300(&producer).await;
    in_trouble(&producer, TroubleKind::Refused).await;
    let said = format!("{:?} {:?}", producer.health(), producer.stats());
    assert!(said.contains("Password authentication failed"), "{said}");
    assert!(!said.contains("s3cr3t"), "{said}");

    let mut mend = redis::cmd("ACL");
    let _: () = redis
        .redis(mend.arg("SETUSER").arg("gate").arg(">s3cr3t"))
        .await;

    assert_nothing_lost(&producer, &redis, &env).await;
}

#[tokio::test]
async fn a_key_of_another_type_is_said_and_loses_nothing_when_it_is_gone() {
    let env = Env::start().await;
    let redis = OwnRedis::start(&[]).await;
    let _: () = redis
        .redis(redis::cmd("SET").arg(env.stream()).arg("mine"))
        .await;
    let producer = AsyncProducer::start(producer_config(&env, redis.url())).unwrap();
    record_300(&producer).await;
    in_trouble(&producer, TroubleKind::Refused).await;
    let said = format!("{:?}", producer.health());
    assert!(said.contains("WRONGTYPE"), "{said}");
    assert!(said.contains(env.stream().as_str()), "{said}");

    let _: () = redis.redis(redis::cmd("DEL").arg(env.stream())).await;

    assert_nothing_lost(&producer, &redis, &env).await;
}
