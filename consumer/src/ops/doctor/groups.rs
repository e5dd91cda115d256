//! The consumer groups: that of the workers is there and alive, and no other holds the stream.

use std::{collections::HashMap, time::Duration};

use passerby_shared::{EntryId, StreamKey};
use redis::{FromRedisValue, Value, from_redis_value};

use super::{
    check::{Outcome, Unknown, Verdict},
    patient::{Patient, Redis},
};

/// What `XINFO GROUPS` and `XINFO CONSUMERS` say of each.
type Fields = HashMap<String, Value>;

fn field<T: FromRedisValue>(fields: &Fields, name: &str) -> Result<T, Unknown> {
    let value = fields
        .get(name)
        .ok_or_else(|| Unknown::new(format!("XINFO says nothing of {name}")))?;
    from_redis_value(value.clone())
        .map_err(|error| Unknown::new(format!("XINFO says {name} in another way: {error}")))
}

/// The groups of each stream that is there.
async fn groups(
    patient: &Patient<'_>,
    redis: &Redis,
) -> Result<Vec<(StreamKey, Vec<Fields>)>, Unknown> {
    let mut found = Vec::new();
    for stream in patient.config.key_prefix.streams(patient.config.shards) {
        let mut command = redis::cmd("XINFO");
        command.arg("GROUPS").arg(&stream);
        match redis.query(&command).await {
            Ok(groups) => found.push((stream, groups)),
            Err(error) if error.detail().is_some_and(|d| d.contains("no such key")) => {}
            Err(error) => return Err(Unknown::redis("XINFO GROUPS", &error)),
        }
    }
    Ok(found)
}

pub(super) async fn present(patient: &Patient<'_>) -> Outcome {
    let redis = patient.redis()?;
    let group = &patient.config.group;
    let found = groups(patient, redis).await?;
    for (stream, groups) in &found {
        let mut names = Vec::new();
        for fields in groups {
            names.push(field::<String>(fields, "name")?);
        }
        if names.contains(group) {
            continue;
        }
        let length: u64 = redis
            .query(redis::cmd("XLEN").arg(stream))
            .await
            .map_err(|error| Unknown::redis("XLEN", &error))?;
        let others = match names.as_slice() {
            [] => String::new(),
            names => format!("; there are {}", names.join(", ")),
        };
        return Ok(Verdict::warning(
            format!("`{stream}` has {length} entries and no group `{group}`{others}"),
            "start a worker, which makes the group and begins with the oldest entry; or correct --group",
        ));
    }
    Ok(Verdict::ok(match found.len() {
        0 => "no stream is there yet".to_owned(),
        1 => format!("the stream has the group `{group}`"),
        n => format!("all {n} streams have the group `{group}`"),
    }))
}

/// So much later than the grace may a group be before it is said to hold the stream.
const SLACK: Duration = Duration::from_secs(60);

pub(super) async fn others(patient: &Patient<'_>) -> Outcome {
    let redis = patient.redis()?;
    let now_ms = u64::try_from((patient.config.clock)().timestamp_millis()).unwrap_or(0);
    let grace = patient.config.trim_grace + SLACK;
    let before_ms = now_ms.saturating_sub(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
    let mut worst: Option<(EntryId, String, StreamKey)> = None;
    let mut n_others = 0;
    for (stream, groups) in groups(patient, redis).await? {
        for fields in groups {
            let name: String = field(&fields, "name")?;
            if name == patient.config.group {
                continue;
            }
            n_others += 1;
            let pending: u64 = field(&fields, "pending")?;
            let delivered: String = field(&fields, "last-delivered-id")?;
            let holds = match pending {
                0 => first_after(redis, &stream, &delivered).await?,
                _ => oldest_pending(redis, &stream, &name).await?,
            };
            if let Some(holds) = holds.filter(|id| id.ms < before_ms)
                && worst.as_ref().is_none_or(|(id, ..)| holds < *id)
            {
                worst = Some((holds, name, stream.clone()));
            }
        }
    }
    let Some((id, name, stream)) = worst else {
        return Ok(Verdict::ok(match n_others {
            0 => "no other group".to_owned(),
            n => format!("{n} other groups, none of which holds anything for long"),
        }));
    };
    let age = Duration::from_millis(now_ms.saturating_sub(id.ms));
    Ok(Verdict::warning(
        format!(
            "group `{name}` of `{stream}` has not acknowledged {id}, which is {} h old",
            age.as_secs() / 3_600
        ),
        format!(
            "have its consumers go on, or, if it has none: redis-cli XGROUP DESTROY '{stream}' '{name}'"
        ),
    ))
}

async fn first_after(
    redis: &Redis,
    stream: &StreamKey,
    id: &str,
) -> Result<Option<EntryId>, Unknown> {
    let mut command = redis::cmd("XRANGE");
    command
        .arg(stream)
        .arg(format!("({id}"))
        .arg("+")
        .arg("COUNT")
        .arg(1);
    let entries: Vec<(String, Value)> = redis
        .query(&command)
        .await
        .map_err(|error| Unknown::redis("XRANGE", &error))?;
    Ok(entries.first().and_then(|(id, _)| id.parse().ok()))
}

async fn oldest_pending(
    redis: &Redis,
    stream: &StreamKey,
    group: &str,
) -> Result<Option<EntryId>, Unknown> {
    let mut command = redis::cmd("XPENDING");
    command.arg(stream).arg(group);
    let (_, oldest, _, _): (u64, Option<String>, Value, Value) = redis
        .query(&command)
        .await
        .map_err(|error| Unknown::redis("XPENDING", &error))?;
    Ok(oldest.and_then(|id| id.parse().ok()))
}

pub(super) async fn consumers(patient: &Patient<'_>) -> Outcome {
    let redis = patient.redis()?;
    // Others take over after `min_idle`, and look every third of it.
    let limit = patient.config.min_idle * 3;
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let mut n_consumers = 0;
    let mut dead: Vec<(String, u64, u64)> = Vec::new();
    for stream in patient.config.key_prefix.streams(patient.config.shards) {
        let mut command = redis::cmd("XINFO");
        command
            .arg("CONSUMERS")
            .arg(&stream)
            .arg(&patient.config.group);
        let found: Vec<Fields> = match redis.query(&command).await {
            Ok(found) => found,
            Err(error) if error.code() == Some("NOGROUP") => continue,
            Err(error) if error.detail().is_some_and(|d| d.contains("no such key")) => continue,
            Err(error) => return Err(Unknown::redis("XINFO CONSUMERS", &error)),
        };
        n_consumers += found.len();
        for fields in &found {
            let (pending, idle): (u64, u64) = (field(fields, "pending")?, field(fields, "idle")?);
            if pending > 0 && idle > limit_ms {
                dead.push((field(fields, "name")?, pending, idle));
            }
        }
    }
    let Some((name, _, idle)) = dead.iter().max_by_key(|(_, _, idle)| *idle) else {
        return Ok(Verdict::ok(format!(
            "no dead consumer holds entries, of {n_consumers} in the group"
        )));
    };
    let n_entries: u64 = dead.iter().map(|(_, pending, _)| pending).sum();
    let entries = match n_entries {
        1 => "1 entry is".to_owned(),
        n => format!("{n} entries are"),
    };
    let consumers = match dead.len() {
        1 => format!("`{name}`, which has shown"),
        n => format!("{n} consumers, as `{name}`, which have shown"),
    };
    Ok(Verdict::problem(
        format!(
            "{entries} with {consumers} no sign of life for {} s",
            idle / 1_000
        ),
        "start a worker, which takes them over; or at once: passerby claim",
    ))
}
