//! Looks, all through a round, whether the stream was trimmed past what is acknowledged.

use std::{sync::Arc, time::Duration};

use passerby_shared::EntryId;
use tokio::time::sleep;

use crate::world::{GROUP, World, stream};

const EVERY: Duration = Duration::from_millis(100);

/// The first entry there is, the newest removed, the last one delivered, and the oldest pending.
const LOOK: &str = r"
local function fields(list)
  local found = {}
  for i = 1, #list, 2 do found[list[i]] = list[i + 1] end
  return found
end
local info = fields(redis.call('XINFO', 'STREAM', KEYS[1]))
local first = info['first-entry']
local delivered = '0-0'
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = fields(group)
  if group['name'] == ARGV[1] then delivered = group['last-delivered-id'] end
end
local pending = redis.call('XPENDING', KEYS[1], ARGV[1])
return {
  first and first[1] or '0-0',
  info['max-deleted-entry-id'] or '0-0',
  delivered,
  pending[1] > 0 and pending[2] or '0-0',
}";

/// Looks until it is aborted, and returns at the first thing that is wrong.
pub(crate) async fn trimming(world: Arc<World>) -> String {
    let mut look = redis::cmd("EVAL");
    look.arg(LOOK).arg(1).arg(stream()).arg(GROUP);
    loop {
        if let Some(ids) = world.try_redis::<[String; 4]>(&look).await
            && let Some(wrong) = judge(&ids)
        {
            return wrong;
        }
        sleep(EVERY).await;
    }
}

fn judge(ids: &[String; 4]) -> Option<String> {
    let [first, removed, delivered, pending] = ids
        .each_ref()
        .map(|id| id.parse::<EntryId>().unwrap_or(EntryId::MIN));
    if removed > delivered {
        return Some(format!(
            "trimmed up to {removed}, and delivered only up to {delivered}"
        ));
    }
    if pending != EntryId::MIN && pending < first {
        return Some(format!("trimmed up to {first}, and {pending} is pending"));
    }
    None
}
