use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use passerby_producer::{ProducerConfig, RedisTimeouts, RedisUrl};
use passerby_shared::wire::{self, EntryFields};
use redis::streams::StreamRangeReply;

use crate::Env;

/// A producer into a test's stream that is quick to notice that Redis is away or back, and sends
/// entries of at most 20 rows.
pub fn producer_config(test: &Env, redis_url: RedisUrl) -> ProducerConfig {
    ProducerConfig {
        key_prefix: test.key_prefix().clone(),
        redis_timeouts: RedisTimeouts {
            connect: Duration::from_millis(500),
            response: Duration::from_millis(500),
        },
        max_rows: NonZeroUsize::new(20).unwrap(),
        max_delay: Duration::from_millis(5),
        retry_min: Duration::from_millis(5),
        retry_max: Duration::from_millis(50),
        ..ProducerConfig::new(redis_url)
    }
}

/// The detections in a stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Published {
    /// Entries, resent ones included.
    pub n_entries: usize,
    /// Detection ids by idempotency key, in the order of the stream.
    pub by_key: BTreeMap<Vec<u8>, Vec<i64>>,
}

impl Published {
    /// Reads what `XRANGE` returns; panics when two entries of one key differ.
    pub fn read(entries: StreamRangeReply) -> Self {
        let mut by_key = BTreeMap::new();
        let n_entries = entries.ids.len();
        for entry in entries.ids {
            let fields: Vec<(Vec<u8>, Vec<u8>)> = entry
                .map
                .into_iter()
                .map(|(name, value)| (name.into_bytes(), redis::from_redis_value(value).unwrap()))
                .collect();
            let pairs = fields.iter().map(|(name, value)| (&name[..], &value[..]));
            let parsed = EntryFields::parse(pairs).unwrap();
            let mut ids = Vec::new();
            wire::decode_detections(parsed.payload, |_, row| {
                ids.push(row.unwrap().detection_id);
            })
            .unwrap();
            let key = parsed.key.expect("a producer's entry has a key");
            let before = by_key.insert(key.as_bytes().to_vec(), ids.clone());
            assert!(before.is_none_or(|before| before == ids));
        }
        Self { n_entries, by_key }
    }

    /// Every detection id, sorted, as often as there are keys that hold it.
    pub fn ids(&self) -> Vec<i64> {
        let mut ids: Vec<i64> = self.by_key.values().flatten().copied().collect();
        ids.sort_unstable();
        ids
    }
}
