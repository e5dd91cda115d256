//! A private Redis, rows to record, and a reader of what was published.

use std::{
    num::NonZeroUsize,
    thread,
    time::{Duration, Instant},
};

use chrono::DateTime;
use passerby_producer::{Detection, ProducerConfig, Session, Track};
use passerby_servers::{RedisOptions, RedisServer};
use passerby_shared::{
    IdempotencyKey,
    wire::{self, EntryFields, Kind},
};
use redis::{Commands, streams::StreamRangeReply};

pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) fn redis() -> RedisServer {
    RedisServer::start(RedisOptions::default()).unwrap()
}

/// Defaults, but quick to notice that Redis is away or back.
pub(crate) fn config(redis: &RedisServer) -> ProducerConfig {
    let mut config = ProducerConfig::new(redis.url().parse().unwrap());
    config.redis_timeouts.connect = Duration::from_millis(500);
    config.redis_timeouts.response = Duration::from_millis(500);
    config.retry_min = Duration::from_millis(10);
    config.retry_max = Duration::from_millis(100);
    config
}

pub(crate) fn size(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

pub(crate) fn connect(redis: &RedisServer) -> redis::Connection {
    let client = redis::Client::open(redis.url()).unwrap();
    client.get_connection().unwrap()
}

pub(crate) fn detection(camera_id: &str, detection_id: i64) -> Detection {
    Detection {
        timestamp: DateTime::from_timestamp(1_790_000_000, 0).unwrap(),
        session_id: "session".into(),
        camera_id: camera_id.into(),
        channel_id: 0,
        detection_id,
        track_id: Some(detection_id % 8),
        confidence: Some(0.9),
        bbox_x: 1.5,
        bbox_y: 2.5,
        bbox_width: 3.5,
        bbox_height: 4.5,
        gender: None,
        gender_confidence: None,
        frame_number: detection_id / 8,
        degraded: false,
    }
}

pub(crate) fn track(camera_id: &str, track_id: i64) -> Track {
    Track {
        session_id: "session".into(),
        camera_id: camera_id.into(),
        track_id,
        start_time: DateTime::from_timestamp(1_790_000_000, 0).unwrap(),
        end_time: DateTime::from_timestamp(1_790_000_001, 0).unwrap(),
        detection_count: 1,
        avg_confidence: None,
        trajectory: Vec::new(),
        gender: None,
        gender_confidence: None,
        degraded: false,
    }
}

pub(crate) fn session(session_id: &str) -> Session {
    Session {
        session_id: session_id.into(),
        started_at: None,
        ended_at: None,
        source: None,
    }
}

pub(crate) struct Published {
    pub(crate) kind: Kind,
    pub(crate) key: IdempotencyKey,
    pub(crate) payload: Vec<u8>,
}

impl Published {
    /// Camera and detection id of each row.
    pub(crate) fn detections(&self) -> Vec<(String, i64)> {
        let mut rows = Vec::new();
        wire::decode_detections(&self.payload, |_, row| {
            let row = row.unwrap();
            rows.push((row.camera_id.to_owned(), row.detection_id));
        })
        .unwrap();
        rows
    }
}

/// Every entry of a shard, in order.
pub(crate) fn entries(redis: &RedisServer, shard: u16) -> Vec<Published> {
    let key = format!("passerby:stream:{{{shard}}}");
    let reply: StreamRangeReply = connect(redis).xrange_all(key).unwrap();
    let entries = reply.ids.into_iter().map(|entry| {
        let fields: Vec<(String, Vec<u8>)> = entry
            .map
            .into_iter()
            .map(|(name, value)| (name, redis::from_redis_value(value).unwrap()))
            .collect();
        let borrowed = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_slice()));
        let parsed = EntryFields::parse(borrowed).unwrap();
        Published {
            kind: parsed.kind,
            key: parsed.key.unwrap(),
            payload: parsed.payload.to_vec(),
        }
    });
    entries.collect()
}

/// The entries of a shard as the ledger takes them: the first of each idempotency key.
pub(crate) fn distinct_entries(redis: &RedisServer, shard: u16) -> Vec<Published> {
    let mut seen = std::collections::HashSet::new();
    let mut entries = entries(redis, shard);
    entries.retain(|entry| seen.insert(entry.key));
    entries
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SOON, "never: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}
