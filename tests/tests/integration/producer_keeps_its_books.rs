//! Of every row a producer was given it can say what became of it, and the store agrees.

use std::{num::NonZeroUsize, time::Duration};

use chrono::TimeDelta;
use passerby_producer::{
    AsyncProducer, CacheConfig, Embedding, Health, Overflow, ProducerConfig,
    RecentDetectionsConfig, RecordError, Recorded, RowStats, Session,
};
use passerby_tests::{
    Env, Fault, FaultProxy, eventually,
    fixtures::{MIDNIGHT, SESSION, detection, detections, track},
    producer_config,
};

const SOON: Duration = Duration::from_secs(30);

/// A producer with room for 100 rows, whose Redis is away.
async fn cut_off(env: &Env, overflow: Overflow) -> (FaultProxy, AsyncProducer) {
    let (proxy, redis_url) = env.redis_proxy().await;
    proxy.set(Fault::Refuse);
    let producer = AsyncProducer::start(ProducerConfig {
        buffer_rows: NonZeroUsize::new(100).unwrap(),
        overflow,
        ..producer_config(env, redis_url)
    });
    (proxy, producer.unwrap())
}

/// `accepted = published + dropped oldest + lost at the end + buffered; refused`
#[track_caller]
fn assert_books(producer: &AsyncProducer, expected: RowStats) {
    let books = producer.stats().detections;
    assert!(books.balances(), "{books:?}");
    assert_eq!(books, expected);
}

async fn stored_ids(env: &Env) -> Vec<i64> {
    env.run_worker_drain().await;
    env.value("SELECT array_agg(detection_id ORDER BY detection_id) FROM detections")
        .await
}

#[tokio::test]
async fn drop_newest_keeps_what_was_accepted() {
    let env = Env::start().await;
    let (proxy, producer) = cut_off(&env, Overflow::DropNewest).await;

    let recorded = producer.record_many(detections(0..250)).await;

    assert_eq!((recorded.accepted, recorded.dropped), (100, 150));
    let books = RowStats {
        accepted: 100,
        buffered: 100,
        dropped_newest: 150,
        ..RowStats::default()
    };
    assert_books(&producer, books);
    proxy.heal();
    producer.flush(SOON).await.unwrap();
    let books = RowStats {
        buffered: 0,
        published: 100,
        ..books
    };
    assert_books(&producer, books);
    assert_eq!(stored_ids(&env).await, Vec::from_iter(0..100));
}

#[tokio::test]
async fn drop_oldest_keeps_the_latest() {
    let env = Env::start().await;
    let (proxy, producer) = cut_off(&env, Overflow::DropOldest).await;

    let recorded = producer.record_many(detections(0..250)).await;

    assert_eq!((recorded.accepted, recorded.dropped), (250, 0));
    let books = RowStats {
        accepted: 250,
        buffered: 100,
        dropped_oldest: 150,
        ..RowStats::default()
    };
    assert_books(&producer, books);
    proxy.heal();
    producer.flush(SOON).await.unwrap();
    let books = RowStats {
        buffered: 0,
        published: 100,
        ..books
    };
    assert_books(&producer, books);
    assert_eq!(stored_ids(&env).await, Vec::from_iter(150..250));
}

#[tokio::test]
async fn block_waits_as_long_as_it_says_and_then_counts() {
    let env = Env::start().await;
    let timeout = Duration::from_millis(20);
    let (proxy, producer) = cut_off(&env, Overflow::Block(timeout)).await;
    let recorded = producer.record_many(detections(0..100)).await;
    assert_eq!(recorded.accepted, 100);

    for id in 100..103 {
        assert_eq!(producer.record(detection(id)).await, Ok(Recorded::Dropped));
    }

    let books = RowStats {
        accepted: 100,
        buffered: 100,
        block_timeouts: 3,
        ..RowStats::default()
    };
    assert_books(&producer, books);
    proxy.heal();
    producer.flush(SOON).await.unwrap();
    assert_eq!(stored_ids(&env).await, Vec::from_iter(0..100));
}

#[tokio::test]
async fn block_loses_nothing_when_redis_is_back_in_time() {
    let env = Env::start().await;
    let (proxy, producer) = cut_off(&env, Overflow::Block(SOON)).await;
    let recording = {
        let producer = producer.clone();
        tokio::spawn(async move { producer.record_many(detections(0..1_000)).await })
    };
    eventually("the buffer is full", async || {
        producer.stats().detections.buffered == 100
    })
    .await;
    assert!(!recording.is_finished());

    proxy.heal();

    assert_eq!(recording.await.unwrap().accepted, 1_000);
    producer.flush(SOON).await.unwrap();
    let books = RowStats {
        accepted: 1_000,
        published: 1_000,
        ..RowStats::default()
    };
    assert_books(&producer, books);
    assert_eq!(stored_ids(&env).await, Vec::from_iter(0..1_000));
}

#[tokio::test]
async fn close_while_redis_is_away_says_what_is_lost() {
    let env = Env::start().await;
    let (_proxy, producer) = cut_off(&env, Overflow::DropNewest).await;
    let recorded = producer.record_many(detections(0..120)).await;
    assert_eq!((recorded.accepted, recorded.dropped), (100, 20));

    let lost = producer.close(Duration::from_millis(50)).await.unwrap_err();

    assert_eq!(lost.n_rows, 100);
    assert_eq!(producer.health(), Health::Closed);
    let books = RowStats {
        accepted: 100,
        dropped_newest: 20,
        dropped_closed: 100,
        ..RowStats::default()
    };
    assert_books(&producer, books);
    let late = producer.record(detection(0)).await;
    assert_eq!(late, Err(RecordError::Closed));
    assert_books(&producer, books);
    assert_eq!(producer.close(SOON).await.unwrap_err(), lost);
    assert_eq!(env.n_entries().await, 0);
}

#[tokio::test]
async fn sessions_and_tracks_end_up_in_postgres() {
    let env = Env::start().await;
    let producer = AsyncProducer::start(producer_config(&env, env.redis_url())).unwrap();
    let mut session = Session {
        session_id: SESSION.to_owned(),
        started_at: Some(*MIDNIGHT),
        ended_at: None,
        source: Some("gate-1.mp4".to_owned()),
    };
    let accepted = Ok(Recorded::Accepted);
    assert_eq!(producer.session(session.clone()).await, accepted);
    let recorded = producer.record_many(detections(0..70)).await;
    assert_eq!(recorded.accepted, 70);
    assert_eq!(producer.track(track(2, 5)).await, accepted);
    assert_eq!(producer.track(track(2, 10)).await, accepted);
    let mut invalid = track(3, 1);
    invalid.end_time = invalid.start_time - TimeDelta::seconds(1);
    let refused = producer.track(invalid).await;
    assert!(
        matches!(refused, Err(RecordError::Invalid(_))),
        "{refused:?}"
    );
    session.ended_at = Some(*MIDNIGHT + TimeDelta::seconds(3));
    session.source = None;
    assert_eq!(producer.session(session).await, accepted);

    let stats = producer.close(SOON).await.unwrap();

    assert_eq!(
        (
            stats.tracks.published,
            stats.tracks.invalid,
            stats.sessions.published
        ),
        (2, 1, 2)
    );
    env.run_worker_drain().await;
    env.assert_stored_once(70).await;
    let mut store = env.store().await;
    let tracks = store.query_tracks(&Default::default()).await.unwrap();
    assert_eq!(tracks, [track(2, 10)]);
    store.summarize_session(SESSION).await.unwrap();
    let stored = store.session(SESSION).await.unwrap().unwrap();
    assert_eq!(stored.summary.unwrap().people, 7);
    let said: String = env
        .value("SELECT format('%s %s', source, ended_at - started_at) FROM sessions")
        .await;
    assert_eq!(said, "gate-1.mp4 00:00:03");
}

// The track cache

const HOUR: Duration = Duration::from_secs(3_600);

/// A producer whose reads from the cache wait for as long as a busy machine may need.
fn with_cache(env: &Env) -> AsyncProducer {
    let cache = CacheConfig {
        read_timeout: Duration::from_secs(10),
        recent_detections: Some(RecentDetectionsConfig {
            per_camera: NonZeroUsize::new(3).unwrap(),
            ttl: HOUR,
        }),
        ..CacheConfig::default()
    };
    AsyncProducer::start(ProducerConfig {
        cache,
        ..producer_config(env, env.redis_url())
    })
    .unwrap()
}

#[tokio::test]
async fn the_track_cache_gives_back_what_it_was_given() {
    let env = Env::start().await;
    let producer = with_cache(&env);
    let cache = producer.cache();
    for track_id in [7, 8, 9, 7] {
        let payload = (track_id, "red coat".to_owned());
        cache.cache_track("s", track_id, &payload, HOUR).unwrap();
    }
    let seen = Embedding::new(vec![0.5, -1.25, 3.0]).unwrap();
    cache.cache_embedding("s", 8, &seen, HOUR).unwrap();

    let coat = |track_id: i64| Some((track_id, "red coat".to_owned()));
    assert_eq!(cache.get_track("s", 7).await, coat(7));
    assert_eq!(cache.get_track::<(i64, String)>("other", 7).await, None);
    let many: Vec<Option<(i64, String)>> = cache.get_tracks("s", &[9, 1, 7]).await;
    assert_eq!(many, [coat(9), None, coat(7)]);
    assert_eq!(cache.recent_tracks("s", 10).await, [7, 9, 8]);
    assert_eq!(cache.recent_tracks("s", 2).await, [7, 9]);
    assert_eq!(cache.get_embedding("s", 8).await, Some(seen.clone()));
    let many = cache.get_embeddings("s", &[7, 8]).await;
    assert_eq!(many, [None, Some(seen)]);

    let ttl: i64 = env
        .redis(redis::cmd("PTTL").arg(env.key_prefix().track("s", 7)))
        .await;
    assert!((1..=3_600_000).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn a_cached_track_is_gone_after_its_ttl() {
    let env = Env::start().await;
    let producer = with_cache(&env);
    let cache = producer.cache();
    let short = Duration::from_millis(100);
    cache.cache_track("s", 1, "long", HOUR).unwrap();
    cache.cache_track("s", 2, "short", short).unwrap();
    eventually("it is gone", async || {
        cache.get_track::<String>("s", 2).await.is_none()
    })
    .await;
    assert_eq!(cache.recent_tracks("s", 10).await, [1]);
    assert_eq!(cache.get_track("s", 1).await, Some("long".to_owned()));
}

#[tokio::test]
async fn a_cameras_last_detections_are_the_published_ones_newest_first() {
    let env = Env::start().await;
    let producer = with_cache(&env);
    let recorded = producer.record_many(detections(0..50)).await;
    assert_eq!(recorded.accepted, 50);
    producer.flush(SOON).await.unwrap();

    let newest = [detection(49), detection(48), detection(47)];
    eventually("they are cached", async || {
        producer.cache().recent_detections("gate-1", 10).await == newest
    })
    .await;
    let last = producer.cache().recent_detections("gate-1", 1).await;
    assert_eq!(last, [detection(49)]);
}

#[tokio::test]
async fn a_cache_that_is_down_gives_nothing() {
    let env = Env::start().await;
    let (_proxy, producer) = cut_off(&env, Overflow::DropNewest).await;
    let cache = producer.cache();
    cache.cache_track("s", 1, "payload", HOUR).unwrap();

    assert_eq!(cache.get_track::<String>("s", 1).await, None);
    let many: Vec<Option<String>> = cache.get_tracks("s", &[1, 2]).await;
    assert_eq!(many, [None, None]);
    assert!(cache.recent_tracks("s", 9).await.is_empty());
    assert!(cache.get_embedding("s", 1).await.is_none());

    let stats = producer.stats().cache;
    assert_eq!((stats.hits, stats.reads_unavailable), (0, 5), "{stats:?}");
    eventually("the write is counted as dropped", async || {
        producer.stats().cache.writes_dropped == 1
    })
    .await;
}

#[tokio::test]
async fn a_cache_that_hangs_does_not_delay_publishing() {
    let env = Env::start().await;
    let (proxy, redis_url) = env.redis_proxy().await;
    let producer = AsyncProducer::start(producer_config(&env, redis_url)).unwrap();
    proxy.set(Fault::HoldBefore(b"MGET")); // on the cache's own connection
    let asked = producer.cache().get_track::<String>("s", 1).await;
    assert_eq!(asked, None);
    proxy.met().await;

    let recorded = producer.record_many(detections(0..100)).await;
    assert_eq!(recorded.accepted, 100);
    producer.flush(SOON).await.unwrap();

    assert_eq!(stored_ids(&env).await, Vec::from_iter(0..100));
}
