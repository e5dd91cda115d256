//! How much of a stream a consumer group still has before it.
//!
//! `XINFO GROUPS` has a `lag`, and it cannot be trusted: Redis 6.2 has none; deleting an entry makes it
//! NULL until the group has caught up; trimming entries that nobody has read leaves it too high (seen on
//! Redis 7.0 and Valkey 9.1; redis/redis#13338). Nor does it count what was delivered and not
//! acknowledged. So the server is asked for what it knows for sure, and `lag` is used only where that is
//! not enough.

use std::{sync::LazyLock, time::Duration};

use redis::{RedisError, Script, Value, aio::ConnectionLike, from_redis_value};

use crate::{EntryId, StreamKey};

/// Undelivered entries are counted one by one up to so many; each passes through the server's Lua.
pub const MAX_COUNTED: usize = 64;

/// What a group has before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Entries delivered and not acknowledged.
    pub pending: u64,
    /// Entries not delivered yet.
    pub undelivered: u64,
    /// Whether `undelivered` is known. If not, it is what the server believes, at most the stream's
    /// length; or where the server has no idea, an estimate from the entries' times.
    pub is_exact: bool,
    /// The oldest entry that is not acknowledged, delivered or not.
    pub oldest: Option<EntryId>,
    /// The oldest entry that was delivered and is not acknowledged.
    pub oldest_pending: Option<EntryId>,
    /// The server's clock, in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

impl Backlog {
    /// Entries that are not acknowledged.
    pub fn entries(&self) -> u64 {
        self.pending + self.undelivered
    }

    /// How long the oldest entry that is not acknowledged has been in the stream, by the server's clock.
    pub fn age(&self) -> Duration {
        self.since(self.oldest)
    }

    /// How long the oldest pending entry has been in the stream, by the server's clock.
    pub fn pending_age(&self) -> Duration {
        self.since(self.oldest_pending)
    }

    fn since(&self, entry: Option<EntryId>) -> Duration {
        entry.map_or(Duration::ZERO, |entry| {
            Duration::from_millis(self.now_ms.saturating_sub(entry.ms))
        })
    }

    /// Both together: of two shards, say.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            pending: self.pending + other.pending,
            undelivered: self.undelivered + other.undelivered,
            is_exact: self.is_exact && other.is_exact,
            oldest: older(self.oldest, other.oldest),
            oldest_pending: older(self.oldest_pending, other.oldest_pending),
            now_ms: self.now_ms.max(other.now_ms),
        }
    }
}

fn older(one: Option<EntryId>, two: Option<EntryId>) -> Option<EntryId> {
    match (one, two) {
        (Some(one), Some(two)) => Some(one.min(two)),
        (one, two) => one.or(two),
    }
}

/// A function for scripts, `backlog(key, group, max_counted)`, with `fields(flat)` beside it. Returns pending
/// entries, the oldest of them, undelivered entries, whether that is exact, and the first of them. Reads
/// alone, and runs on Redis 6.2 and later.
pub const LUA_BACKLOG: &str = r"
local function fields(flat)
  local map = {}
  for i = 1, #flat, 2 do map[flat[i]] = flat[i + 1] end
  return map
end
local function ms(id) return tonumber(string.match(id, '^(%d+)-')) end
local function backlog(key, wanted, max_counted)
  if redis.call('EXISTS', key) == 0 then return {0, '', 0, 1, ''} end
  local group
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    local one = fields(flat)
    if one['name'] == wanted then group = one end
  end
  local pending, oldest = 0, ''
  local last = '0-0'
  if group then
    last = group['last-delivered-id']
    local summary = redis.call('XPENDING', key, wanted)
    pending = summary[1]
    if pending > 0 then oldest = summary[2] end
  end
  local next = redis.call('XRANGE', key, '(' .. last, '+', 'COUNT', 1)
  if #next == 0 then return {pending, oldest, 0, 1, ''} end
  local first = next[1][1]
  local stream = fields(redis.call('XINFO', 'STREAM', key))
  local length = stream['length']
  local undelivered, exact
  if stream['first-entry'][1] == first then
    undelivered, exact = length, 1
  else
    local lag = group['lag']
    if lag and lag > max_counted then
      undelivered, exact = math.min(lag, length - 1), 0
    else
      undelivered = #redis.call('XRANGE', key, first, '+', 'COUNT', max_counted + 1)
      exact = 1
      if undelivered > max_counted then
        local begin, now, done = ms(stream['first-entry'][1]), ms(stream['last-generated-id']), ms(last)
        local share = 1
        if now > begin then share = (now - done) / (now - begin) end
        undelivered = math.min(length - 1, math.max(undelivered, math.floor(length * share)))
        exact = 0
      end
    end
  end
  return {pending, oldest, undelivered, exact, first}
end";

/// `KEYS[1]` the stream, `ARGV[1]` the group, `ARGV[2]` how many entries may be counted.
const MEASURE: &str = r"
local time = redis.call('TIME')
return {time[1], time[2], backlog(KEYS[1], ARGV[1], tonumber(ARGV[2]))}";

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(&format!("{LUA_BACKLOG}{MEASURE}")));

/// What `backlog` returns.
pub type LuaBacklog = (u64, String, u64, u64, String);

/// Measures a group's backlog in one stream. A stream or a group that is not there is no error: nothing
/// has been delivered to it yet.
///
/// # Errors
///
/// What Redis said.
///
/// # Cancel safety
///
/// Cancel safe: nothing is changed.
pub async fn measure(
    connection: &mut impl ConnectionLike,
    stream: &StreamKey,
    group: &str,
) -> Result<Backlog, RedisError> {
    let reply: Value = SCRIPT
        .key(stream)
        .arg(group)
        .arg(MAX_COUNTED)
        .invoke_async(connection)
        .await?;
    let (seconds, micros, found): (u64, u64, LuaBacklog) = from_redis_value(reply)?;
    Ok(Backlog::from_lua(found, seconds * 1_000 + micros / 1_000))
}

impl Backlog {
    /// Reads what [`LUA_BACKLOG`]'s function returned at a time of the server's clock.
    pub fn from_lua(
        (pending, oldest_pending, undelivered, exact, first_undelivered): LuaBacklog,
        now_ms: u64,
    ) -> Self {
        let pending_id = oldest_pending.parse::<EntryId>().ok();
        let undelivered_id = first_undelivered.parse::<EntryId>().ok();
        Self {
            pending,
            undelivered,
            is_exact: exact == 1,
            oldest: older(pending_id, undelivered_id),
            oldest_pending: pending_id,
            now_ms,
        }
    }
}
