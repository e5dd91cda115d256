//! Notices that Redis has lost the latest part of a stream.
//!
//! An asynchronous failover, a restart without all data, `FLUSHALL` or `DEL` leave a stream that ends
//! before entries that were already read from it. What was read is stored, or on its way; what nobody had
//! read is gone unless its producers send it again, which they do for what they sent in the last seconds.
//! Nothing can be mended here: it is said aloud, and counted.

use std::{collections::HashMap, sync::Arc};

use passerby_shared::{EntryId, StreamKey};
use redis::{RedisError, Script, aio::ConnectionLike};
use tracing::error;

use crate::batch::Origin;

/// The newest entry that this worker has read of each stream.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    newest: HashMap<Arc<StreamKey>, EntryId>,
}

/// `KEYS[1]` the stream; returns its last ID and its length.
const LAST_ID: &str = r"
if redis.call('EXISTS', KEYS[1]) == 0 then return {'0-0', 0} end
local flat = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #flat, 2 do
  if flat[i] == 'last-generated-id' then return {flat[i + 1], redis.call('XLEN', KEYS[1])} end
end
return {'0-0', 0}";

impl Tail {
    /// Remembers what was read.
    pub(crate) fn read(&mut self, origin: &Origin) {
        let newest = self.newest.entry(Arc::clone(&origin.stream));
        let newest = newest.or_insert(origin.id);
        *newest = origin.id.max(*newest);
    }

    /// Asks whether the streams still hold what was read from them, says which do not, and returns how many.
    pub(crate) async fn check(
        &mut self,
        connection: &mut impl ConnectionLike,
    ) -> Result<u64, RedisError> {
        let mut n_lost = 0;
        for (stream, newest) in &mut self.newest {
            let (last, n_entries): (String, u64) = Script::new(LAST_ID)
                .key(stream.as_ref())
                .invoke_async(connection)
                .await?;
            let last = last.parse().unwrap_or(EntryId::MIN);
            if last < *newest {
                error!(
                    %stream,
                    last_entry_id = %last,
                    newest_entry_read = %newest,
                    n_entries,
                    "the stream has lost its latest part, as by a failover or a restart without all \
                     data: what was read of it is stored; what nobody had read is lost unless its \
                     producers send it again"
                );
                n_lost += 1;
                // Said once for each loss.
                *newest = last;
            }
        }
        Ok(n_lost)
    }
}
