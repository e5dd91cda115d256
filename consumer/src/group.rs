//! The consumer group: made where it is missing, left when nothing is pending.

use std::time::Duration;

use passerby_shared::StreamKey;
use redis::{RedisError, Script, aio::ConnectionLike};

use crate::ConsumerName;

/// Makes the group, and the stream if there is none; `false` when the group was there.
///
/// It begins at 0 and not at `$`, which would silently pass over what was produced before the first
/// worker came.
pub(crate) async fn create(
    connection: &mut impl ConnectionLike,
    stream: &StreamKey,
    group: &str,
) -> Result<bool, RedisError> {
    let created: Result<(), RedisError> = redis::cmd("XGROUP")
        .arg("CREATE")
        .arg(stream)
        .arg(group)
        .arg("0")
        .arg("MKSTREAM")
        .query_async(connection)
        .await;
    match created {
        Ok(()) => Ok(true),
        Err(error) if error.code() == Some("BUSYGROUP") => Ok(false),
        // A full Redis refuses the command before it looks whether the group is there, and it is
        // just then that workers must be able to start and drain it.
        Err(error) if error.code() == Some("OOM") && exists(connection, stream, group).await => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

async fn exists(connection: &mut impl ConnectionLike, stream: &StreamKey, group: &str) -> bool {
    let groups: Result<redis::streams::StreamInfoGroupsReply, RedisError> = redis::cmd("XINFO")
        .arg("GROUPS")
        .arg(stream)
        .query_async(connection)
        .await;
    groups.is_ok_and(|reply| reply.groups.iter().any(|found| found.name == group))
}

/// `XGROUP DELCONSUMER` throws the consumer's pending entries away, so that nobody would ever store
/// them: the script deletes a consumer only if it has none.
const LEAVE: &str = r"
local consumers = redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
for _, consumer in ipairs(consumers) do
  local fields = {}
  for i = 1, #consumer, 2 do fields[consumer[i]] = consumer[i + 1] end
  if fields['name'] == ARGV[2] and fields['pending'] == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
    return 1
  end
end
return 0";

/// Leaves the group if nothing of this consumer's is pending; tells whether it left.
pub(crate) async fn leave(
    connection: &mut impl ConnectionLike,
    stream: &StreamKey,
    group: &str,
    consumer: &ConsumerName,
) -> Result<bool, RedisError> {
    Script::new(LEAVE)
        .key(stream)
        .arg(group)
        .arg(consumer.as_str())
        .invoke_async(connection)
        .await
}

/// Deletes the consumers, other than one, that hold nothing and have not been heard of for long.
///
/// Before 7.2 Redis counts a consumer idle that reads and gets nothing: one deleted in the middle of
/// that is made again when an entry is delivered to it (seen on Redis 6.2, 7.0, 8.2 and Valkey 9.1).
const RETIRE: &str = r"
local n = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local fields = {}
  for i = 1, #consumer, 2 do fields[consumer[i]] = consumer[i + 1] end
  if fields['pending'] == 0 and fields['idle'] > tonumber(ARGV[3]) and fields['name'] ~= ARGV[2] then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], fields['name'])
    n = n + 1
  end
end
return n";

/// Retires the consumers, other than this one, that hold nothing and have been idle for longer than
/// `expiry`; returns how many.
pub(crate) async fn retire_idle(
    connection: &mut impl ConnectionLike,
    stream: &StreamKey,
    group: &str,
    consumer: &ConsumerName,
    expiry: Duration,
) -> Result<u64, RedisError> {
    Script::new(RETIRE)
        .key(stream)
        .arg(group)
        .arg(consumer.as_str())
        .arg(u64::try_from(expiry.as_millis()).unwrap_or(u64::MAX))
        .invoke_async(connection)
        .await
}

/// How many entries of the group are pending, with whomever.
pub(crate) async fn n_pending(
    connection: &mut impl ConnectionLike,
    stream: &StreamKey,
    group: &str,
) -> Result<u64, RedisError> {
    let reply: redis::streams::StreamPendingReply = redis::cmd("XPENDING")
        .arg(stream)
        .arg(group)
        .query_async(connection)
        .await?;
    Ok(reply.count() as u64)
}
