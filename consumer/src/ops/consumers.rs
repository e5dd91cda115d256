//! The consumers of a group: who they are, what they hold, whether they live; and taking those out of the group
//! that are gone.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use passerby_shared::{EntryId, StreamKey, books::Stamped};
use redis::{RedisError, Script, Value, aio::MultiplexedConnection, from_redis_value};
use serde::Serialize;

use super::{OpsError, SILENT_AFTER, Target};
use crate::presence::{WorkerPresence, WorkerState};

/// The consumers of a group.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConsumersReport {
    /// The group.
    pub group: String,
    /// The consumers, by name; also workers that show themselves and have read nothing yet.
    pub consumers: Vec<ConsumerStatus>,
}

/// One consumer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConsumerStatus {
    /// Its name.
    pub consumer: String,
    /// The streams whose group has it.
    pub streams: Vec<String>,
    /// Entries it holds.
    pub pending: u64,
    /// The oldest of them.
    pub oldest_entry_id: Option<EntryId>,
    /// How long ago that was added, in milliseconds.
    pub oldest_age_ms: u64,
    /// Milliseconds since it last asked for something; before Redis 7.2, since it last got something. `None`
    /// when no group has it.
    pub idle_ms: Option<u64>,
    /// Milliseconds since it last got something; `None` where the server does not tell.
    pub inactive_ms: Option<u64>,
    /// What it tells of itself, if it is a worker that does.
    pub shown: Option<ShownConsumer>,
    /// Why it is taken to be alive; `None` if it is not.
    pub sign_of_life: Option<String>,
}

/// What a worker tells of itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShownConsumer {
    /// Its machine.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// Its release.
    pub version: String,
    /// When it was started, by its own clock.
    pub started_at: DateTime<Utc>,
    /// What it is at: `reading`, `paused`, `storing-nothing`, `stopping`, `failed`.
    pub state: &'static str,
    /// How long ago that was, in milliseconds.
    pub seen_ms: u64,
}

/// A consumer that was not retired, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", tag = "result")]
pub enum Retired {
    /// It is out of the group.
    Done,
    /// No stream's group has it.
    Unknown,
    /// It holds entries, which would be thrown away with it.
    Holds {
        /// How many.
        n_entries: u64,
    },
    /// It shows signs of life.
    Alive {
        /// Which.
        sign: String,
    },
}

/// `KEYS[1]` the stream; `ARGV[1]` the group, `ARGV[2]` the consumer, `ARGV[3]` the idle time from which on it is
/// taken for gone, in milliseconds. Returns what was done, and the number that it is about.
///
/// `XGROUP DELCONSUMER` throws pending entries away: only the server can look and delete in one.
const RETIRE: &str = r"
if redis.call('EXISTS', KEYS[1]) == 0 then return {'unknown', 0} end
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
  if group['name'] == ARGV[1] then
    for _, one in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
      local fields = {}
      for i = 1, #one, 2 do fields[one[i]] = one[i + 1] end
      if fields['name'] == ARGV[2] then
        if fields['pending'] > 0 then return {'holds', fields['pending']} end
        if fields['idle'] < tonumber(ARGV[3]) then return {'alive', fields['idle']} end
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
        return {'done', 0}
      end
    end
  end
end
return {'unknown', 0}";

/// Lists the consumers. One that was heard of in the last `gone_after` is taken to be alive.
///
/// A group that is not there has no consumers.
///
/// # Errors
///
/// [`OpsError`] when Redis cannot be reached or refuses.
pub async fn consumers(
    target: &mut Target,
    gone_after: Duration,
) -> Result<ConsumersReport, OpsError> {
    let workers_key = target.key_prefix.workers();
    let connection = target.link.get().await?;
    let mut found = BTreeMap::<String, ConsumerStatus>::new();
    let (seconds, micros): (u64, u64) = redis::cmd("TIME")
        .query_async(connection)
        .await
        .map_err(OpsError::command("ask for the time"))?;
    let now_ms = seconds * 1_000 + micros / 1_000;
    for stream in &target.streams {
        let listed: Result<Value, RedisError> = redis::cmd("XINFO")
            .arg("CONSUMERS")
            .arg(stream)
            .arg(&target.group)
            .query_async(connection)
            .await;
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) if is_missing(&error) => continue,
            Err(error) => return Err(OpsError::redis("list consumers", stream)(error)),
        };
        for one in listed_consumers(listed) {
            let oldest = if one.pending > 0 {
                oldest_of(connection, stream, &target.group, &one.name).await?
            } else {
                None
            };
            let consumer = found
                .entry(one.name.clone())
                .or_insert_with(|| ConsumerStatus::unknown(&one.name));
            consumer.streams.push(stream.to_string());
            consumer.pending += one.pending;
            consumer.idle_ms = least(consumer.idle_ms, Some(one.idle_ms));
            consumer.inactive_ms = least(consumer.inactive_ms, one.inactive_ms);
            if let Some(oldest) = oldest {
                let oldest = consumer.oldest_entry_id.map_or(oldest, |id| id.min(oldest));
                consumer.oldest_entry_id = Some(oldest);
                consumer.oldest_age_ms = now_ms.saturating_sub(oldest.ms);
            }
        }
    }
    let shown: BTreeMap<String, String> = redis::cmd("HGETALL")
        .arg(workers_key)
        .query_async(connection)
        .await
        .map_err(OpsError::command("list the workers that show themselves"))?;
    for (name, json) in shown {
        let Some(record) = Stamped::<WorkerPresence>::parse(&json) else {
            continue;
        };
        if record.told.group == target.group {
            found
                .entry(name.clone())
                .or_insert_with(|| ConsumerStatus::unknown(&name))
                .shown = Some(ShownConsumer::new(&record, now_ms));
        }
    }
    let mut consumers: Vec<_> = found.into_values().collect();
    for consumer in &mut consumers {
        consumer.sign_of_life = consumer.sign_of_life(gone_after);
    }
    Ok(ConsumersReport {
        group: target.group.clone(),
        consumers,
    })
}

/// Takes a consumer out of the group, if it holds nothing and shows no sign of life; looked at and done in one
/// on the server. Its pending entries are for [`claim`](super::claim) and [`hand_over`](super::hand_over)
/// before.
///
/// # Errors
///
/// [`OpsError`] when Redis cannot be reached or refuses.
pub async fn retire(
    target: &mut Target,
    name: &str,
    gone_after: Duration,
) -> Result<Retired, OpsError> {
    let report = consumers(target, gone_after).await?;
    let Some(consumer) = report.consumers.iter().find(|one| one.consumer == name) else {
        return Ok(Retired::Unknown);
    };
    if let Some(sign) = &consumer.sign_of_life {
        return Ok(Retired::Alive { sign: sign.clone() });
    }
    if consumer.pending > 0 {
        return Ok(Retired::Holds {
            n_entries: consumer.pending,
        });
    }
    let workers_key = target.key_prefix.workers();
    let connection = target.link.get().await?;
    for stream in consumer.streams.iter().cloned().map(StreamKey::from_name) {
        let (done, n): (String, u64) = Script::new(RETIRE)
            .key(&stream)
            .arg(&target.group)
            .arg(name)
            .arg(millis(gone_after))
            .invoke_async(connection)
            .await
            .map_err(OpsError::redis("retire a consumer", &stream))?;
        match &*done {
            "holds" => return Ok(Retired::Holds { n_entries: n }),
            "alive" => {
                return Ok(Retired::Alive {
                    sign: asked(Duration::from_millis(n)),
                });
            }
            _ => {}
        }
    }
    let _n: u64 = redis::cmd("HDEL")
        .arg(workers_key)
        .arg(name)
        .query_async(connection)
        .await
        .map_err(OpsError::command("forget what a worker told of itself"))?;
    Ok(Retired::Done)
}

impl ConsumerStatus {
    fn unknown(name: &str) -> Self {
        Self {
            consumer: name.to_owned(),
            streams: Vec::new(),
            pending: 0,
            oldest_entry_id: None,
            oldest_age_ms: 0,
            idle_ms: None,
            inactive_ms: None,
            shown: None,
            sign_of_life: None,
        }
    }

    fn sign_of_life(&self, gone_after: Duration) -> Option<String> {
        if let Some(shown) = &self.shown
            && shown.state != state_name(WorkerState::Failed)
            && u128::from(shown.seen_ms) <= SILENT_AFTER.as_millis()
        {
            return Some(format!(
                "process {} on {} was {} {:.1} s ago",
                shown.pid,
                shown.host,
                shown.state,
                Duration::from_millis(shown.seen_ms).as_secs_f64()
            ));
        }
        let idle = Duration::from_millis(self.idle_ms?);
        (idle < gone_after).then(|| asked(idle))
    }
}

fn asked(idle: Duration) -> String {
    format!("it was heard of {:.1} s ago", idle.as_secs_f64())
}

impl ShownConsumer {
    fn new(record: &Stamped<WorkerPresence>, now_ms: u64) -> Self {
        let told = &record.told;
        Self {
            host: told.host.clone(),
            pid: told.pid,
            version: told.version.clone(),
            started_at: told.started_at,
            state: state_name(told.state),
            seen_ms: now_ms.saturating_sub(record.updated_ms),
        }
    }
}

/// As in JSON.
const fn state_name(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Reading => "reading",
        WorkerState::Paused => "paused",
        WorkerState::StoringNothing => "storing-nothing",
        WorkerState::Stopping => "stopping",
        WorkerState::Failed => "failed",
    }
}

fn least(one: Option<u64>, two: Option<u64>) -> Option<u64> {
    one.into_iter().chain(two).min()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Whether an error says that there is no such stream or group.
fn is_missing(error: &RedisError) -> bool {
    error.code() == Some("NOGROUP") || error.to_string().contains("no such key")
}

struct Listed {
    name: String,
    pending: u64,
    idle_ms: u64,
    inactive_ms: Option<u64>,
}

/// `XINFO CONSUMERS`: names and values; redis-rs leaves `inactive` out.
fn listed_consumers(value: Value) -> Vec<Listed> {
    let Value::Array(consumers) = value else {
        return Vec::new();
    };
    let read = |value: Value| {
        let fields: BTreeMap<String, Value> = from_redis_value(value).ok()?;
        let number = |name: &str| {
            let value = fields.get(name)?.clone();
            // -1 says never.
            from_redis_value::<i64>(value).ok()?.try_into().ok()
        };
        Some(Listed {
            name: from_redis_value(fields.get("name")?.clone()).ok()?,
            pending: number("pending")?,
            idle_ms: number("idle")?,
            inactive_ms: number("inactive"),
        })
    };
    consumers.into_iter().filter_map(read).collect()
}

async fn oldest_of(
    connection: &mut MultiplexedConnection,
    stream: &StreamKey,
    group: &str,
    consumer: &str,
) -> Result<Option<EntryId>, OpsError> {
    let listed: Vec<(String, String, u64, u64)> = redis::cmd("XPENDING")
        .arg(stream)
        .arg(group)
        .arg("-")
        .arg("+")
        .arg(1)
        .arg(consumer)
        .query_async(connection)
        .await
        .map_err(OpsError::redis("list pending entries", stream))?;
    Ok(listed.first().and_then(|(id, ..)| id.parse().ok()))
}
