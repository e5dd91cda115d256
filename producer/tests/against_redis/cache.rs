use std::time::{Duration, Instant};

use passerby_producer::{
    AsyncProducer, Embedding, Health, Producer, RecentDetectionsConfig, Recorded, TrackCache,
};
use redis::Commands;
use serde::{Deserialize, Serialize};

use crate::support::*;

const TTL: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Payload {
    label: String,
    seen: u32,
}

fn payload(seen: u32) -> Payload {
    Payload {
        label: "person".into(),
        seen,
    }
}

fn cache_track(cache: &TrackCache, track_id: i64, ttl: Duration) {
    cache.cache_track("s", track_id, &payload(1), ttl).unwrap();
}

#[test]
fn what_was_cached_is_read_back() {
    let redis = redis();
    let producer = Producer::start(config(&redis)).unwrap();
    let cache = producer.cache();
    let embedding = Embedding::new(vec![0.25, -1.0]).unwrap();
    for (track_id, seen) in [(1, 1), (2, 2), (1, 3)] {
        cache
            .cache_track("s", track_id, &payload(seen), TTL)
            .unwrap();
    }
    cache.cache_embedding("s", 2, &embedding, TTL).unwrap();

    eventually("cached", || cache.get_embedding("s", 2).is_some());
    assert_eq!(cache.get_track("s", 1), Some(payload(3)));
    assert_eq!(cache.get_track::<Payload>("other session", 1), None);
    assert_eq!(cache.get_track::<Vec<u64>>("s", 1), None);
    assert_eq!(
        cache.get_tracks("s", &[2, 9, 1]),
        [Some(payload(2)), None, Some(payload(3))]
    );
    assert_eq!(cache.get_embeddings("s", &[1, 2]), [None, Some(embedding)]);
    assert_eq!(cache.recent_tracks("s", 10), [1, 2]);
    assert_eq!(cache.recent_tracks("s", 1), [1]);
    assert_eq!(cache.recent_tracks("s", 0), [0; 0]);
    let stats = producer.stats().cache;
    assert_eq!((stats.writes, stats.undecodable), (4, 1));
}

#[test]
fn recent_tracks_are_the_live_ones_newest_first_whatever_their_ttl() {
    let redis = redis();
    let producer = Producer::start(config(&redis)).unwrap();
    let cache = producer.cache();
    cache_track(&cache, 1, TTL);
    cache_track(&cache, 2, Duration::from_secs(30));
    cache_track(&cache, 3, Duration::from_millis(300));
    cache_track(&cache, 4, Duration::from_secs(3600));
    eventually("cached", || cache.recent_tracks("s", 10) == [4, 3, 2, 1]);
    eventually("expired", || cache.recent_tracks("s", 10) == [4, 2, 1]);
    let ttl: i64 = connect(&redis).ttl("passerby:tracks:{s}").unwrap();
    assert!(ttl > 3500, "as long as the longest: {ttl}");
}

#[test]
fn a_camera_s_last_detections_are_kept_when_configured() {
    let redis = redis();
    let mut config = config(&redis);
    config.max_rows = size(7);
    config.cache.recent_detections = Some(RecentDetectionsConfig {
        per_camera: size(10),
        ttl: TTL,
    });
    let producer = Producer::start(config).unwrap();
    let recorded = producer.record_many((0..50).map(|id| detection("c", id)));
    assert_eq!(recorded.accepted, 50);
    producer.flush(SOON).unwrap();
    let cache = producer.cache();
    let ids = |n| {
        let recent = cache.recent_detections("c", n);
        recent.iter().map(|d| d.detection_id).collect::<Vec<_>>()
    };
    eventually("cached", || ids(100) == (40..50).rev().collect::<Vec<_>>());
    assert_eq!(ids(2), [49, 48]);
    assert_eq!(cache.recent_detections("c", 1), [detection("c", 49)]);
    assert!(cache.recent_detections("other", 5).is_empty());
}

#[test]
fn every_key_but_the_stream_and_the_books_has_a_ttl() {
    let redis = redis();
    let mut config = config(&redis);
    config.cache.recent_detections = Some(RecentDetectionsConfig::default());
    let producer = Producer::start(config).unwrap();
    assert_eq!(producer.record(detection("c", 1)), Ok(Recorded::Accepted));
    cache_track(&producer.cache(), 1, TTL);
    let embedding = Embedding::new(vec![1.0]).unwrap();
    producer
        .cache()
        .cache_embedding("s", 1, &embedding, Duration::MAX)
        .unwrap();
    producer.close(SOON).unwrap();

    let mut admin = connect(&redis);
    let keys: Vec<String> = admin.keys("*").unwrap();
    assert_eq!(keys.len(), 7, "{keys:?}");
    for key in keys
        .iter()
        .filter(|key| !key.starts_with("passerby:stream:") && *key != "passerby:producers")
    {
        let ttl: i64 = admin.pttl(key).unwrap();
        assert!(ttl > 0, "{key}: {ttl}");
    }
    let below: Result<(), _> = producer.cache().cache_track("s", 1, &1, Duration::ZERO);
    assert_eq!(
        below.unwrap_err().to_string(),
        "ttl of track 1: 0ns is below 1 ms"
    );
}

#[test]
fn a_cache_that_is_down_costs_nothing_but_the_cached_value() {
    let mut redis = redis();
    let producer = Producer::start(config(&redis)).unwrap();
    let cache = producer.cache();
    cache_track(&cache, 1, TTL);
    eventually("cached", || cache.get_track("s", 1) == Some(payload(1)));

    redis.pause().unwrap();
    let mut longest = Duration::ZERO;
    for _ in 0..100 {
        let begun = Instant::now();
        assert_eq!(cache.get_track::<Payload>("s", 1), None);
        cache_track(&cache, 2, TTL);
        longest = longest.max(begun.elapsed());
    }
    assert!(longest < Duration::from_millis(150), "{longest:?}");
    eventually("dropped", || producer.stats().cache.writes_dropped > 0);
    // Once it is known to be down, nobody waits for it.
    let begun = Instant::now();
    for _ in 0..1000 {
        assert_eq!(cache.get_tracks::<Payload>("s", &[1, 2]), [None, None]);
    }
    eprintln!("1000 reads of a cache that is down: {:?}", begun.elapsed());

    redis.resume().unwrap();
    eventually("back", || cache.get_track("s", 1) == Some(payload(1)));
    let stats = producer.stats().cache;
    assert!(stats.reads_unavailable >= 100, "{stats:?}");
}

#[test]
fn a_cache_that_is_refused_does_not_delay_publishing() {
    let redis = redis();
    let mut admin = connect(&redis);
    let _: () = redis::cmd("ACL")
        .arg(&[
            "SETUSER",
            "publisher",
            "on",
            ">secret",
            "~*",
            "+xadd",
            "+ping",
        ])
        .query(&mut admin)
        .unwrap();
    let mut config = config(&redis);
    config.redis_url = redis
        .url()
        .replace("redis://", "redis://publisher:secret@")
        .parse()
        .unwrap();
    let producer = Producer::start(config).unwrap();
    cache_track(&producer.cache(), 1, TTL);
    assert_eq!(producer.cache().get_track::<Payload>("s", 1), None);
    assert_eq!(producer.record(detection("c", 1)), Ok(Recorded::Accepted));
    producer.flush(SOON).unwrap();
    assert_eq!(producer.health(), Health::Up);
    eventually("dropped", || producer.stats().cache.writes_dropped == 1);
}

#[tokio::test]
async fn the_async_cache_reads_what_it_wrote() {
    let redis = redis();
    let producer = AsyncProducer::start(config(&redis)).unwrap();
    let cache = producer.cache();
    // The first read may end before the connection is made.
    let begun = Instant::now();
    while cache.get_track("s", 1).await != Some(payload(1)) {
        assert!(begun.elapsed() < SOON);
        cache.cache_track("s", 1, &payload(1), TTL).unwrap();
    }
    assert_eq!(cache.recent_tracks("s", 5).await, [1]);
    assert_eq!(cache.get_tracks::<Payload>("s", &[]).await, []);
    assert_eq!(cache.get_embedding("s", 1).await, None);
    assert!(cache.recent_detections("c", 5).await.is_empty());
    assert!(matches!(producer.close(SOON).await, Ok(stats) if stats.cache.hits >= 2));
}
