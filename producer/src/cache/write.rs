//! The commands that write to the cache. Each leaves its keys with a TTL, or writes nothing.

use std::time::Duration;

use passerby_shared::{Embedding, KeyPrefix};
use redis::Cmd;
use serde::Serialize;

use super::RecentDetectionsConfig;
use crate::batcher::RecentDetections;

/// Longest TTL that is given to Redis, which refuses one that it cannot add to the time.
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// `KEYS`: the track, the session's tracks by time, the same by expiry.
/// `ARGV`: payload, TTL in ms, track id.
///
/// The sorted sets live as long as the longest of their members, and lose those that have expired.
const CACHE_TRACK: &str = "\
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[2], time[1] * 1000000 + time[2], ARGV[3])
redis.call('ZADD', KEYS[3], now + ARGV[2], ARGV[3])
local dead = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 100)
if #dead > 0 then
  redis.call('ZREM', KEYS[2], unpack(dead))
  redis.call('ZREM', KEYS[3], unpack(dead))
end
for i = 2, 3 do
  if redis.call('PTTL', KEYS[i]) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[i], ARGV[2])
  end
end
return 'OK'";

/// `KEYS`: the camera's list. `ARGV`: how many to keep, TTL in ms, detections from old to new.
const PUSH_RECENT_DETECTIONS: &str = "\
for i = 3, #ARGV do redis.call('LPUSH', KEYS[1], ARGV[i]) end
redis.call('LTRIM', KEYS[1], 0, ARGV[1] - 1)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 'OK'";

/// A value that cannot be cached.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The payload has no form in MessagePack, such as a sequence of unknown length.
    #[error("encode the payload of track {track_id}")]
    Encode {
        /// The track.
        track_id: i64,
        /// What is wrong with it.
        #[source]
        source: rmp_serde::encode::Error,
    },
    /// The TTL is below a millisecond: the value would be gone before it is there.
    #[error("ttl of track {track_id}: {ttl:?} is below 1 ms")]
    Ttl {
        /// The track.
        track_id: i64,
        /// The TTL.
        ttl: Duration,
    },
}

pub(super) fn cache_track<T: Serialize + ?Sized>(
    prefix: &KeyPrefix,
    session_id: &str,
    track_id: i64,
    payload: &T,
    ttl: Duration,
) -> Result<Cmd, CacheError> {
    let ttl = ttl_ms(track_id, ttl)?;
    let payload = rmp_serde::to_vec_named(payload)
        .map_err(|source| CacheError::Encode { track_id, source })?;
    let mut command = redis::cmd("EVAL");
    command
        .arg(CACHE_TRACK)
        .arg(3)
        .arg(prefix.track(session_id, track_id))
        .arg(prefix.recent_tracks(session_id))
        .arg(expiry_key(prefix, session_id))
        .arg(payload)
        .arg(ttl)
        .arg(track_id);
    Ok(command)
}

pub(super) fn cache_embedding(
    prefix: &KeyPrefix,
    session_id: &str,
    track_id: i64,
    embedding: &Embedding,
    ttl: Duration,
) -> Result<Cmd, CacheError> {
    let ttl = ttl_ms(track_id, ttl)?;
    let mut command = redis::cmd("SET");
    command
        .arg(prefix.embedding(session_id, track_id))
        .arg(embedding.to_bytes())
        .arg("PX")
        .arg(ttl);
    Ok(command)
}

pub(super) fn push_recent_detections(
    prefix: &KeyPrefix,
    config: RecentDetectionsConfig,
    recent: RecentDetections,
) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command
        .arg(PUSH_RECENT_DETECTIONS)
        .arg(1)
        .arg(prefix.recent_detections(&recent.camera_id))
        .arg(config.per_camera.get())
        .arg(in_ms(config.ttl))
        .arg(recent.detections);
    command
}

/// Where a session's tracks stand by the time they expire.
pub(super) fn expiry_key(prefix: &KeyPrefix, session_id: &str) -> String {
    format!("{}:expiry", prefix.recent_tracks(session_id))
}

fn ttl_ms(track_id: i64, ttl: Duration) -> Result<u64, CacheError> {
    match in_ms(ttl) {
        0 => Err(CacheError::Ttl { track_id, ttl }),
        ms => Ok(ms),
    }
}

fn in_ms(ttl: Duration) -> u64 {
    u64::try_from(ttl.min(MAX_TTL).as_millis()).expect("ten years of milliseconds fit")
}
