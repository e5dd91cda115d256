//! Removes entries from a stream that every group has acknowledged, after a time of grace.
//!
//! `XADD … MAXLEN` would remove entries that nobody has read. The script looks at all groups at
//! once, and never removes what one of them has not been delivered or not acknowledged.

use std::{sync::LazyLock, time::Duration};

use passerby_shared::{EntryId, StreamKey};
use redis::{RedisError, Script, aio::MultiplexedConnection};

/// Most calls of the script at a time, so that trimming a huge stream lets others have their turn.
const MAX_CALLS: usize = 200;
/// A call that removes fewer has reached the bound, or is not worth repeating at once.
const MIN_PROGRESS: u64 = 1_000;

/// Which of two IDs comes first, and a reply of names and values as a table. IDs are compared as decimal texts,
/// since Lua's numbers are exact only up to 2⁵³.
pub(crate) const LUA_ORDER: &str = r"
local function fields(flat)
  local map = {}
  for i = 1, #flat, 2 do map[flat[i]] = flat[i + 1] end
  return map
end
local function less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end
local function before(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-(%d+)$')
  local b_ms, b_seq = string.match(b, '^(%d+)-(%d+)$')
  if a_ms ~= b_ms then return less(a_ms, b_ms) end
  return less(a_seq, b_seq)
end
";

/// `KEYS[1]` the stream; `ARGV[1]` the ID from which on nothing is removed; `ARGV[2]` `~` to remove whole
/// nodes of the stream only, which is cheap, or `=`. Runs on Redis 6.2 and later.
const TRIM: &str = r"
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local groups = redis.call('XINFO', 'GROUPS', KEYS[1])
if #groups == 0 then return 0 end
local bound = ARGV[1]
for _, flat in ipairs(groups) do
  local group = fields(flat)
  if before(group['last-delivered-id'], bound) then bound = group['last-delivered-id'] end
  local pending = redis.call('XPENDING', KEYS[1], group['name'])
  if pending[1] > 0 and before(pending[2], bound) then bound = pending[2] end
end
return redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2], bound)";

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(&format!("{LUA_ORDER}{TRIM}")));

/// Of `maxmemory`, in percent, from where on nothing that is stored is kept for replay: a full Redis
/// refuses what producers send.
const MEMORY_LIMIT_PERCENT: u64 = 80;

/// Whether Redis is about to be full.
pub(crate) async fn is_nearly_full(
    connection: &mut MultiplexedConnection,
) -> Result<bool, RedisError> {
    let memory: redis::InfoDict = redis::cmd("INFO")
        .arg("memory")
        .query_async(connection)
        .await?;
    let bytes = |name: &str| memory.get::<u64>(name).unwrap_or(0);
    let limit = bytes("maxmemory");
    Ok(limit > 0 && bytes("used_memory") >= limit / 100 * MEMORY_LIMIT_PERCENT)
}

/// Trims a stream and returns how many entries were removed.
pub(crate) async fn trim(
    connection: &mut MultiplexedConnection,
    stream: &StreamKey,
    grace: Duration,
) -> Result<u64, RedisError> {
    let floor = floor(connection, grace).await?;
    trim_nodes(connection, stream, floor).await
}

/// As [`trim`], and also what the last node has of it.
pub(crate) async fn trim_exactly(
    connection: &mut MultiplexedConnection,
    stream: &StreamKey,
    grace: Duration,
) -> Result<u64, RedisError> {
    let floor = floor(connection, grace).await?;
    let mut n_trimmed = 0;
    loop {
        let n = trim_nodes(connection, stream, floor).await?;
        n_trimmed += n;
        if n < MIN_PROGRESS {
            break;
        }
    }
    let n: u64 = SCRIPT
        .key(stream)
        .arg(floor)
        .arg("=")
        .invoke_async(connection)
        .await?;
    Ok(n_trimmed + n)
}

/// Before which ID entries are older than `grace`. The server's clock made the IDs, so the server's clock
/// measures it.
pub(crate) async fn floor(
    connection: &mut MultiplexedConnection,
    grace: Duration,
) -> Result<EntryId, RedisError> {
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(connection).await?;
    let now_ms = seconds * 1_000 + micros / 1_000;
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    Ok(EntryId {
        ms: now_ms.saturating_sub(grace_ms),
        seq: 0,
    })
}

async fn trim_nodes(
    connection: &mut MultiplexedConnection,
    stream: &StreamKey,
    floor: EntryId,
) -> Result<u64, RedisError> {
    let mut n_trimmed = 0;
    // One call removes no more than 100 of the stream's nodes, 10,000 entries by default.
    for _ in 0..MAX_CALLS {
        let n: u64 = SCRIPT
            .key(stream)
            .arg(floor)
            .arg("~")
            .invoke_async(connection)
            .await?;
        n_trimmed += n;
        if n < MIN_PROGRESS {
            break;
        }
    }
    Ok(n_trimmed)
}
