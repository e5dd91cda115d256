//! The commands that read from the cache, and what their replies mean.

use std::sync::atomic::Ordering::Relaxed;

use passerby_shared::Embedding;
use redis::{Cmd, Value};
use serde::de::DeserializeOwned;

use super::{queue::CacheQueue, write::expiry_key};

/// `KEYS`: a session's tracks by time, the same by expiry. `ARGV`: how many.
///
/// The server's clock is asked, as the one that its TTLs run by.
const RECENT_TRACKS: &str = "\
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local dead
repeat
  dead = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1000)
  if #dead > 0 then
    redis.call('ZREM', KEYS[1], unpack(dead))
    redis.call('ZREM', KEYS[2], unpack(dead))
  end
until #dead == 0
return redis.call('ZREVRANGE', KEYS[1], 0, ARGV[1] - 1)";

/// A command whose reply is an array of values.
pub(super) struct Query {
    /// `None` when nothing is asked for.
    pub(super) command: Option<Cmd>,
    /// How many values the caller gets whatever happens: one for each key.
    n_values: usize,
}

impl Query {
    pub(super) fn tracks(queue: &CacheQueue, session_id: &str, track_ids: &[i64]) -> Self {
        Self::mget(track_ids, |id| queue.shared.prefix.track(session_id, id))
    }

    pub(super) fn embeddings(queue: &CacheQueue, session_id: &str, track_ids: &[i64]) -> Self {
        Self::mget(track_ids, |id| {
            queue.shared.prefix.embedding(session_id, id)
        })
    }

    fn mget(track_ids: &[i64], key: impl Fn(i64) -> String) -> Self {
        let mut command = redis::cmd("MGET");
        for &track_id in track_ids {
            command.arg(key(track_id));
        }
        Self {
            command: (!track_ids.is_empty()).then_some(command),
            n_values: track_ids.len(),
        }
    }

    pub(super) fn recent_tracks(queue: &CacheQueue, session_id: &str, n: usize) -> Self {
        let prefix = &queue.shared.prefix;
        let mut command = redis::cmd("EVAL");
        command
            .arg(RECENT_TRACKS)
            .arg(2)
            .arg(prefix.recent_tracks(session_id))
            .arg(expiry_key(prefix, session_id))
            .arg(n);
        Self::list(command, n)
    }

    pub(super) fn recent_detections(queue: &CacheQueue, camera_id: &str, n: usize) -> Self {
        let mut command = redis::cmd("LRANGE");
        command
            .arg(queue.shared.prefix.recent_detections(camera_id))
            .arg(0)
            .arg(i64::try_from(n).unwrap_or(i64::MAX) - 1);
        Self::list(command, n)
    }

    fn list(command: Cmd, n: usize) -> Self {
        Self {
            command: (n > 0).then_some(command),
            n_values: 0,
        }
    }

    /// Reads each value of the reply, and counts what was found.
    pub(super) fn values<T>(
        &self,
        queue: &CacheQueue,
        reply: Option<Value>,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Vec<Option<T>> {
        let counters = &queue.shared.counters;
        let Some(Value::Array(items)) = reply else {
            if self.command.is_some() {
                let n = self.n_values.max(1) as u64;
                counters.reads_unavailable.fetch_add(n, Relaxed);
            }
            return (0..self.n_values).map(|_| None).collect();
        };
        let mut values: Vec<Option<T>> = items
            .into_iter()
            .map(|item| {
                let value = match item {
                    Value::BulkString(bytes) => Some(read(&bytes)),
                    _ => None,
                };
                let counter = match &value {
                    Some(Some(_)) => &counters.hits,
                    Some(None) => &counters.undecodable,
                    None => &counters.misses,
                };
                counter.fetch_add(1, Relaxed);
                value.flatten()
            })
            .collect();
        if self.n_values > 0 {
            values.resize_with(self.n_values, || None);
        }
        values
    }
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    rmp_serde::from_slice(bytes).ok()
}

pub(super) fn embedding(bytes: &[u8]) -> Option<Embedding> {
    Embedding::from_bytes(bytes).ok()
}

pub(super) fn parse_id(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

pub(super) fn present<T>(values: Vec<Option<T>>) -> Vec<T> {
    values.into_iter().flatten().collect()
}
