//! Folds what producers and workers left behind in Redis when they went.
//!
//! What is folded is added up here and exchanged there by a script that first looks whether all of it still
//! stands as it was read: numbers stay whole, and of several workers that fold at once one succeeds.

use std::{collections::BTreeMap, time::Duration};

use passerby_shared::{
    KeyPrefix,
    books::{FOLDED, FOLDED_EXPIRY, ProducerRecord, Stamped},
};
use redis::{RedisError, Script, aio::MultiplexedConnection};

use crate::{ops::in_turn, presence::WorkerPresence};

/// A spool whose producer has not been heard of for so long will not be heard of any more.
const SPOOL_EXPIRY: Duration = Duration::from_secs(30 * 86_400);
/// Records folded at a time.
const MAX_FOLDED: usize = 1_000;

/// When something that was left behind is folded or removed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expiry {
    /// A closed producer was last heard of so long ago.
    pub(crate) closed: Duration,
    /// A producer or worker that ended without a word was.
    pub(crate) silent: Duration,
}

/// `KEYS[1]` the hash; `ARGV[1]` a field and `ARGV[2]` its value, or an empty one when there is none, and
/// `ARGV[3]` its new value, empty to leave it alone; `ARGV[4]` how long is remembered what was removed; then, for
/// each other key, a field to be removed, its value, and what is remembered of it under that key, nothing where
/// that is empty. Changes all, or nothing.
const EXCHANGE: &str = r"
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
for i = 5, #ARGV, 3 do
  if redis.call('HGET', KEYS[1], ARGV[i]) ~= ARGV[i + 1] then return 0 end
end
for i = 5, #ARGV, 3 do
  redis.call('HDEL', KEYS[1], ARGV[i])
  if ARGV[i + 2] ~= '' then redis.call('SET', KEYS[2 + (i - 5) / 3], ARGV[i + 2], 'PX', ARGV[4]) end
end
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
return 1";

/// Folds the records of producers that are gone into one; returns how many.
pub(crate) async fn fold_producers(
    connection: &mut MultiplexedConnection,
    prefix: &KeyPrefix,
    expiry: Expiry,
) -> Result<usize, RedisError> {
    let hash = prefix.producers();
    let (now_ms, found) = read(connection, &hash).await?;
    let mut records: BTreeMap<String, Stamped<ProducerRecord>> = found
        .iter()
        .filter_map(|(id, json)| Some((id.clone(), Stamped::parse(json)?)))
        .collect();
    let folded = records.remove(FOLDED);
    let mut sum = folded.unwrap_or_else(|| Stamped {
        updated_ms: now_ms,
        told: ProducerRecord {
            producers: 0,
            ..ProducerRecord::default()
        },
    });
    sum.updated_ms = now_ms;
    let mut gone = Vec::new();
    for (id, record, next) in in_turn(&records) {
        let silent_for = Duration::from_millis(now_ms.saturating_sub(record.updated_ms));
        if gone.len() < MAX_FOLDED && is_gone(&record.told, silent_for, next.is_some(), expiry) {
            let next = next.map(|next| &next.told);
            // Taken for gone before, it came back.
            if let Some(folded) = &record.told.folded {
                sum.told.without(folded);
            }
            sum.told.take_over(&record.told, next);
            // After its last word nobody comes back.
            let remembered = if record.told.closed {
                String::new()
            } else {
                serde_json::to_string(&record.told.to_fold(next))
                    .expect("records are plain JSON objects")
            };
            gone.push((id, remembered));
        }
    }
    if gone.is_empty() {
        return Ok(0);
    }
    let before = found.get(FOLDED).map_or("", String::as_str);
    let after = serde_json::to_string(&sum).expect("records are plain JSON objects");
    let script = Script::new(EXCHANGE);
    let mut exchange = script.key(&hash);
    exchange
        .arg(FOLDED)
        .arg(before)
        .arg(after)
        .arg(FOLDED_EXPIRY.as_secs() * 1_000);
    for (id, remembered) in &gone {
        exchange
            .key(prefix.producer_folded(id))
            .arg(*id)
            .arg(&found[*id])
            .arg(remembered);
    }
    let is_done: bool = exchange.invoke_async(connection).await?;
    Ok(if is_done { gone.len() } else { 0 })
}

fn is_gone(
    told: &ProducerRecord,
    silent_for: Duration,
    has_successor: bool,
    expiry: Expiry,
) -> bool {
    let waits = told.rows().waiting() > 0;
    match &told.spool {
        // Its successor has what it left, and the number of what it accepted.
        Some(_) if has_successor => silent_for >= expiry.closed,
        // A successor may still come, and tell the rest.
        Some(_) if waits || !told.closed => silent_for >= SPOOL_EXPIRY,
        _ if told.closed => silent_for >= expiry.closed,
        _ => silent_for >= expiry.silent,
    }
}

/// Removes workers that ended without a word; returns how many.
pub(crate) async fn retire_workers(
    connection: &mut MultiplexedConnection,
    prefix: &KeyPrefix,
    expiry: Expiry,
) -> Result<usize, RedisError> {
    let hash = prefix.workers();
    let (now_ms, found) = read(connection, &hash).await?;
    let mut n_retired = 0;
    for (consumer, json) in &found {
        let updated_ms = Stamped::<WorkerPresence>::parse(json).map_or(0, |p| p.updated_ms);
        if Duration::from_millis(now_ms.saturating_sub(updated_ms)) < expiry.silent {
            continue;
        }
        let retired: bool = Script::new(EXCHANGE)
            .key(&hash)
            .arg(consumer)
            .arg(json)
            .arg("")
            .arg(0)
            .arg(consumer)
            .arg(json)
            .arg("")
            .invoke_async(connection)
            .await?;
        n_retired += usize::from(retired);
    }
    Ok(n_retired)
}

/// The server's time, and a hash.
async fn read(
    connection: &mut MultiplexedConnection,
    hash: &str,
) -> Result<(u64, BTreeMap<String, String>), RedisError> {
    let ((seconds, micros), found): ((u64, u64), _) = redis::pipe()
        .cmd("TIME")
        .cmd("HGETALL")
        .arg(hash)
        .query_async(connection)
        .await?;
    Ok((seconds * 1_000 + micros / 1_000, found))
}
