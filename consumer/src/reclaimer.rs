//! Takes over entries whose consumer died before acknowledging them.
//!
//! Every third of `min_idle` the reader walks the pending entries list with `XAUTOCLAIM` and passes
//! each entry that has been idle for `min_idle` on as if it had just read it.
//!
//! An entry can so be stored twice, by us and by a consumer that was merely slow. The ledger makes the
//! second store a no-op; nothing here tries to tell the two cases apart.

use std::{sync::Arc, time::Duration};

use passerby_shared::{EntryId, StreamKey, redis_connection::ExclusiveConnection};

use crate::{
    ConsumerName,
    reader::ReadError,
    reply::{self, Claimed},
};

/// Claims a page of the list, from `cursor` on.
pub(crate) async fn claim_page(
    connection: &mut ExclusiveConnection,
    stream: &Arc<StreamKey>,
    group: &str,
    consumer: &ConsumerName,
    min_idle: Duration,
    cursor: EntryId,
    count: usize,
) -> Result<Claimed, ReadError> {
    let mut command = redis::cmd("XAUTOCLAIM");
    command
        .arg(stream.as_ref())
        .arg(group)
        .arg(consumer.as_str())
        .arg(u64::try_from(min_idle.as_millis()).unwrap_or(u64::MAX))
        .arg(cursor)
        .arg("COUNT")
        .arg(count);
    Ok(reply::claim_reply(connection.ask(&command).await?, stream)?)
}
