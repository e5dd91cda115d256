//! Trims streams by hand, as safely as workers do, and says what holds the rest back.

use std::time::Duration;

use passerby_shared::{EntryId, StreamKey};
use redis::{Script, aio::MultiplexedConnection};
use serde::Serialize;

use super::{OpsError, Target};
use crate::trimmer;

/// Entries that are counted one by one; each passes through the server's Lua.
const MAX_COUNTED: usize = 500;

/// What a stream may lose, and what it has lost.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TrimReport {
    /// The stream.
    pub stream: String,
    /// Entries in it before.
    pub length: u64,
    /// Entries that every group has acknowledged and whose grace is over.
    pub trimmable: u64,
    /// Whether that is known; else it is an estimate from the entries' times.
    pub trimmable_is_exact: bool,
    /// Entries removed.
    pub trimmed: u64,
    /// The oldest entry that has to stay.
    pub bound: Option<EntryId>,
    /// How long ago that, or the newest of what may go, was added, in milliseconds.
    pub bound_age_ms: u64,
    /// Why it has to stay.
    pub held_by: HeldBy,
}

/// What keeps entries in a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", tag = "why")]
pub enum HeldBy {
    /// There is no such stream.
    NoStream,
    /// No group reads it: nobody has acknowledged anything.
    NoGroup,
    /// They are younger than the grace.
    Grace,
    /// A group has read no further.
    Undelivered {
        /// The group.
        group: String,
    },
    /// A consumer holds the oldest of them.
    Pending {
        /// The group.
        group: String,
        /// The consumer.
        consumer: String,
        /// For how long it has shown no sign of life, in milliseconds.
        idle_ms: u64,
        /// Times Redis delivered the entry.
        delivery_count: u64,
    },
}

/// `KEYS[1]` the stream; `ARGV[1]` the ID from which on nothing is removed, `ARGV[2]` how many may be counted.
/// Returns the length, the first ID, the last ID, the bound, who holds it, and how many are before it.
const LOOK: &str = r"
if redis.call('EXISTS', KEYS[1]) == 0 then return {0, '', '', '', {'no-stream'}, 0} end
local stream = fields(redis.call('XINFO', 'STREAM', KEYS[1]))
local first, last = '', stream['last-generated-id']
if stream['length'] > 0 then first = stream['first-entry'][1] end
local groups = redis.call('XINFO', 'GROUPS', KEYS[1])
if #groups == 0 then return {stream['length'], first, last, '', {'no-group'}, 0} end
local bound, why = ARGV[1], {'grace'}
for _, flat in ipairs(groups) do
  local group = fields(flat)
  if before(group['last-delivered-id'], bound) then
    bound, why = group['last-delivered-id'], {'undelivered', group['name']}
  end
  local pending = redis.call('XPENDING', KEYS[1], group['name'])
  if pending[1] > 0 and before(pending[2], bound) then
    bound = pending[2]
    local one = redis.call('XPENDING', KEYS[1], group['name'], '-', '+', 1)[1]
    why = {'pending', group['name'], one[2], tostring(one[3]), tostring(one[4])}
  end
end
local n = #redis.call('XRANGE', KEYS[1], '-', '(' .. bound, 'COUNT', tonumber(ARGV[2]) + 1)
return {stream['length'], first, last, bound, why, n}";

/// Tells what [`trim`] would remove, and removes nothing.
///
/// # Errors
///
/// [`OpsError`] when Redis cannot be reached or refuses.
pub async fn trim_dry_run(
    target: &mut Target,
    grace: Duration,
) -> Result<Vec<TrimReport>, OpsError> {
    let mut reports = Vec::new();
    let connection = target.link.get().await?;
    for stream in &target.streams {
        reports.push(look(connection, stream, grace).await?);
    }
    Ok(reports)
}

/// Removes what every group has acknowledged and was added before `grace`.
///
/// # Errors
///
/// [`OpsError`] when Redis cannot be reached or refuses; what was removed until then is gone, and may be.
pub async fn trim(target: &mut Target, grace: Duration) -> Result<Vec<TrimReport>, OpsError> {
    let mut reports = Vec::new();
    let connection = target.link.get().await?;
    for stream in &target.streams {
        let mut report = look(connection, stream, grace).await?;
        report.trimmed = trimmer::trim_exactly(connection, stream, grace)
            .await
            .map_err(OpsError::redis("trim", stream))?;
        reports.push(report);
    }
    Ok(reports)
}

async fn look(
    connection: &mut MultiplexedConnection,
    stream: &StreamKey,
    grace: Duration,
) -> Result<TrimReport, OpsError> {
    type Reply = (u64, String, String, String, Vec<String>, u64);
    let floor = trimmer::floor(connection, grace)
        .await
        .map_err(OpsError::redis("ask for the time", stream))?;
    let (length, first, last, bound, why, n_counted): Reply =
        Script::new(&format!("{}{LOOK}", trimmer::LUA_ORDER))
            .key(stream)
            .arg(floor)
            .arg(MAX_COUNTED)
            .invoke_async(connection)
            .await
            .map_err(OpsError::redis("look at the groups", stream))?;
    let bound: Option<EntryId> = bound.parse().ok();
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    let now_ms = floor.ms.saturating_add(grace_ms);
    let is_exact = n_counted <= MAX_COUNTED as u64;
    let trimmable = match (first.parse::<EntryId>(), last.parse::<EntryId>(), bound) {
        (Ok(first), Ok(last), Some(bound)) if !is_exact => {
            let share = (bound.ms.saturating_sub(first.ms)) as f64
                / (last.ms.saturating_sub(first.ms)).max(1) as f64;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "an estimate between 0 and the length"
            )]
            let estimate = (length as f64 * share.clamp(0.0, 1.0)) as u64;
            estimate.max(n_counted)
        }
        _ => n_counted,
    };
    Ok(TrimReport {
        stream: stream.to_string(),
        length,
        trimmable,
        trimmable_is_exact: is_exact,
        trimmed: 0,
        bound,
        bound_age_ms: bound.map_or(0, |bound| now_ms.saturating_sub(bound.ms)),
        held_by: held_by(why),
    })
}

fn held_by(why: Vec<String>) -> HeldBy {
    let mut words = why.into_iter();
    let kind = words.next().unwrap_or_default();
    let mut next = || words.next().unwrap_or_default();
    match &*kind {
        "no-stream" => HeldBy::NoStream,
        "no-group" => HeldBy::NoGroup,
        "undelivered" => HeldBy::Undelivered { group: next() },
        "pending" => HeldBy::Pending {
            group: next(),
            consumer: next(),
            idle_ms: next().parse().unwrap_or(0),
            delivery_count: next().parse().unwrap_or(0),
        },
        _ => HeldBy::Grace,
    }
}
