//! Asks Redis, with one script: all it tells is of one moment. Nothing in it grows with the length of a
//! stream or the number of pending entries.

use std::{collections::BTreeMap, sync::LazyLock};

use passerby_shared::{
    Backlog, EntryId, StreamKey,
    backlog::{LUA_BACKLOG, LuaBacklog, MAX_COUNTED},
    books::{FOLDED, ProducerRecord, Stamped},
};
use redis::{InfoDict, Script};

use super::{
    super::{OpsError, Target},
    RedisStatus, SILENT_AFTER, StreamStatus, WorkerStatus,
};
use crate::{pause, presence::WorkerPresence};

/// `KEYS` the streams, then the hashes of producers, workers and paused groups; `ARGV[1]` the group, `ARGV[2]`
/// how many entries may be counted.
const LOOK: &str = r"
local function allowed(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply['err'] then return false end
  return reply
end
local group = ARGV[1]
local time = redis.call('TIME')
local streams = {}
for i = 1, #KEYS - 3 do
  local key = KEYS[i]
  local found = {backlog(key, group, tonumber(ARGV[2])), 0, 0, 0, -1, -1, '', {}}
  if redis.call('EXISTS', key) == 1 then
    local stream = fields(redis.call('XINFO', 'STREAM', key))
    found[2], found[4] = 1, stream['length']
    found[5] = stream['entries-added'] or -1
    found[6] = allowed('MEMORY', 'USAGE', key) or -1
    for _, flat in ipairs(redis.call('XINFO', 'GROUPS', key)) do
      if fields(flat)['name'] == group then found[3] = 1 end
    end
    if found[3] == 1 then
      found[7] = redis.call('XPENDING', key, group)[2] or ''
      for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', key, group)) do
        local consumer = fields(flat)
        local oldest, idle = '', 0
        if consumer['pending'] > 0 then
          local first = redis.call('XPENDING', key, group, '-', '+', 1, consumer['name'])[1]
          if first then oldest, idle = first[1], first[3] end
        end
        table.insert(found[8], {consumer['name'], consumer['pending'], consumer['idle'], oldest, idle})
      end
    end
  end
  table.insert(streams, found)
end
return {
  time[1], time[2], streams,
  redis.call('HGETALL', KEYS[#KEYS - 2]),
  redis.call('HGETALL', KEYS[#KEYS - 1]),
  redis.call('HGET', KEYS[#KEYS], group),
  allowed('INFO', 'memory') or '',
  allowed('INFO', 'server') or '',
}";

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(&format!("{LUA_BACKLOG}{LOOK}")));

/// Name, pending entries, idle time, oldest pending entry, and its idle time.
type Consumer = (String, u64, u64, String, u64);
/// Backlog, whether it is there, whether the group is, length, entries ever added, bytes, the oldest pending
/// entry, consumers.
type Stream = (LuaBacklog, u8, u8, u64, i64, i64, String, Vec<Consumer>);
/// The time, the streams, and the hashes.
type Reply = (
    u64,
    u64,
    Vec<Stream>,
    BTreeMap<String, String>,
    BTreeMap<String, String>,
    Option<Vec<u8>>,
    String,
    String,
);

pub(in crate::ops) async fn redis(target: &mut Target) -> Result<RedisStatus, OpsError> {
    let url = target.link.url().to_string();
    let first = target
        .streams
        .first()
        .cloned()
        .unwrap_or_else(|| StreamKey::from_name(""));
    let mut invocation = SCRIPT.prepare_invoke();
    for stream in &target.streams {
        invocation.key(stream);
    }
    invocation
        .key(target.key_prefix.producers())
        .key(target.key_prefix.workers())
        .key(target.key_prefix.paused())
        .arg(&target.group)
        .arg(MAX_COUNTED);
    let connection = target.link.get().await?;
    let asked: Result<Reply, _> = invocation.invoke_async(connection).await;
    let reply = match asked {
        Ok(reply) => reply,
        Err(error) => {
            target.link.judge(&error);
            return Err(OpsError::redis("look at the streams", &first)(error));
        }
    };
    let (seconds, micros, streams, producers, workers, paused, memory, server) = reply;
    let now_ms = seconds * 1_000 + micros / 1_000;
    let memory: InfoDict = InfoDict::new(&memory);
    let bytes = |name: &str| memory.get::<u64>(name).unwrap_or(0);
    let (producers, producers_gone) = read_producers(&producers);
    Ok(RedisStatus {
        url,
        now_ms,
        version: version(&server),
        used_memory: bytes("used_memory"),
        max_memory: Some(bytes("maxmemory")).filter(|limit| *limit > 0),
        workers: read_workers(target, &workers, &streams, now_ms),
        streams: target
            .streams
            .iter()
            .zip(streams)
            .map(|(key, found)| read_stream(key, found, now_ms))
            .collect(),
        producers,
        producers_gone,
        paused: paused.map(|noted| pause::read(&noted)),
    })
}

/// `valkey 9.1.2`, `redis 7.0.15`; empty where the server does not tell.
fn version(info: &str) -> String {
    let info = InfoDict::new(info);
    let of = |name: &str| info.get::<String>(name);
    match (of("valkey_version"), of("redis_version")) {
        (Some(version), _) => format!("valkey {version}"),
        (None, Some(version)) => format!("redis {version}"),
        (None, None) => String::new(),
    }
}

fn read_producers(
    hash: &BTreeMap<String, String>,
) -> (BTreeMap<String, Stamped<ProducerRecord>>, ProducerRecord) {
    let mut gone = ProducerRecord {
        producers: 0,
        ..ProducerRecord::default()
    };
    let mut there = BTreeMap::new();
    for (id, json) in hash {
        let Some(record) = Stamped::<ProducerRecord>::parse(json) else {
            continue;
        };
        if id == FOLDED {
            gone = record.told;
        } else {
            there.insert(id.clone(), record);
        }
    }
    for record in there.values() {
        if let Some(folded) = &record.told.folded {
            gone.without(folded);
        }
    }
    (there, gone)
}

fn read_stream(key: &StreamKey, found: Stream, now_ms: u64) -> StreamStatus {
    let (backlog, exists, has_group, length, added, bytes, oldest_pending, _) = found;
    let backlog = Backlog::from_lua(backlog, now_ms);
    StreamStatus {
        stream: key.to_string(),
        exists: exists == 1,
        has_group: has_group == 1,
        length,
        entries_added: u64::try_from(added).ok(),
        bytes: u64::try_from(bytes).ok(),
        pending: backlog.pending,
        undelivered: backlog.undelivered,
        undelivered_is_exact: backlog.is_exact,
        oldest_entry_id: backlog.oldest.map(|id| id.to_string()),
        oldest_seconds: backlog.age().as_secs_f64(),
        oldest_pending_seconds: seconds_since(&oldest_pending, now_ms).unwrap_or(0.0),
    }
}

fn seconds_since(entry_id: &str, now_ms: u64) -> Option<f64> {
    let id: EntryId = entry_id.parse().ok()?;
    Some(seconds(now_ms.saturating_sub(id.ms)))
}

fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

/// The group's consumers, and who shows itself to be one.
fn read_workers(
    target: &Target,
    shown: &BTreeMap<String, String>,
    streams: &[Stream],
    now_ms: u64,
) -> Vec<WorkerStatus> {
    let mut workers = BTreeMap::<String, WorkerStatus>::new();
    let unknown = |consumer: &str| WorkerStatus {
        consumer: consumer.to_owned(),
        presence: None,
        is_alive: false,
        pending: 0,
        oldest_pending_seconds: None,
        oldest_pending_idle_seconds: None,
        idle_seconds: None,
    };
    for (consumer, json) in shown {
        let Some(presence) = Stamped::<WorkerPresence>::parse(json) else {
            continue;
        };
        if presence.told.group != target.group {
            continue;
        }
        let silent_ms = now_ms.saturating_sub(presence.updated_ms);
        let mut worker = unknown(consumer);
        worker.is_alive =
            u128::from(silent_ms) <= SILENT_AFTER.as_millis() && !presence.told.has_ended();
        worker.presence = Some(presence);
        workers.insert(consumer.clone(), worker);
    }
    for (.., consumers) in streams {
        for (name, pending, idle_ms, oldest, oldest_idle_ms) in consumers {
            let worker = workers.entry(name.clone()).or_insert_with(|| unknown(name));
            worker.pending += pending;
            let idle = seconds(*idle_ms);
            worker.idle_seconds = Some(worker.idle_seconds.map_or(idle, |least| least.min(idle)));
            if let Some(age) = seconds_since(oldest, now_ms)
                && worker.oldest_pending_seconds.is_none_or(|most| age > most)
            {
                worker.oldest_pending_seconds = Some(age);
                worker.oldest_pending_idle_seconds = Some(seconds(*oldest_idle_ms));
            }
        }
    }
    workers.into_values().collect()
}
