//! Tells which entries were delivered suspiciously often.
//!
//! An outage raises delivery counts, and so does an entry that ends every worker that touches it. Neither
//! is a reason to dead-letter anything. But an entry of the second kind must not take its neighbours with
//! it for ever, so whatever was delivered too often is stored alone, when nothing else is in work.

use std::{collections::HashSet, sync::Arc};

use passerby_shared::{EntryId, StreamKey};
use redis::{RedisError, aio::ConnectionLike};

use crate::{ConsumerName, batch::Origin, reply::Delivered};

/// An entry delivered more often than this is suspected.
const MAX_DELIVERIES: u64 = 5;

/// ID, consumer, idle time and delivery count, as Redis lists them.
type Pending = (String, String, u64, u64);

/// The entries among these that were delivered too often.
pub(crate) async fn among(
    connection: &mut impl ConnectionLike,
    group: &str,
    consumer: &ConsumerName,
    delivered: &[Delivered],
) -> Result<HashSet<Origin>, RedisError> {
    let mut suspects = HashSet::new();
    let streams: HashSet<&Arc<StreamKey>> = delivered
        .iter()
        .filter(|entry| entry.again)
        .map(|entry| &entry.origin.stream)
        .collect();
    for stream in streams {
        let ids = || {
            let own = delivered.iter().filter(|e| e.origin.stream == *stream);
            own.map(|entry| entry.origin.id)
        };
        let (Some(first), Some(last)) = (ids().min(), ids().max()) else {
            continue;
        };
        // One page of the worker's own list: what was just delivered, in one range.
        let pending: Vec<Pending> = redis::cmd("XPENDING")
            .arg(stream.as_ref())
            .arg(group)
            .arg(first)
            .arg(last)
            .arg(2 * delivered.len())
            .arg(consumer.as_str())
            .query_async(connection)
            .await?;
        let suspected = pending
            .into_iter()
            .filter(|(_, _, _, delivery_count)| *delivery_count > MAX_DELIVERIES)
            .filter_map(|(id, ..)| id.parse::<EntryId>().ok());
        suspects.extend(suspected.map(|id| Origin {
            stream: Arc::clone(stream),
            id,
        }));
    }
    Ok(suspects)
}
