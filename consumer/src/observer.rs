//! Looks at both servers every few seconds: how much the group has before it, how the tables stand, and
//! whether the servers answer at all.
//!
//! It has connections of its own: what it is asked for must not wait for a batch, nor a batch for it. What
//! cannot be measured is not known, and shown as such: the last figure before a server went away would look
//! like a good one.

use std::{sync::Arc, time::Duration};

use chrono::DateTime;
use passerby_shared::{
    Backlog, ErrorChain, KeyPrefix, StreamKey, backlog,
    redis_connection::{ConnectError, RedisLink},
};
use redis::{RedisError, aio::MultiplexedConnection};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    WorkerStats,
    in_flight::InFlight,
    ledger_keeper,
    metrics::{GroupSeen, Metrics},
    store::Store,
};

/// A server that has not answered within this time counts as away.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Observer {
    pub(crate) link: RedisLink,
    pub(crate) store: Store,
    pub(crate) streams: Vec<Arc<StreamKey>>,
    pub(crate) group: String,
    pub(crate) key_prefix: KeyPrefix,
    pub(crate) every: Duration,
    pub(crate) in_flight: InFlight,
    pub(crate) stats: Arc<WorkerStats>,
    pub(crate) metrics: Arc<Metrics>,
}

#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("ask Redis how the group stands")]
    Redis(#[from] RedisError),
}

impl Observer {
    /// Runs until `done` fires, and then gives up whatever it is at.
    pub(crate) async fn run(mut self, done: CancellationToken) {
        tokio::select! {
            biased;
            () = done.cancelled() => {}
            () = self.run_on() => {}
        }
    }

    async fn run_on(&mut self) {
        let mut tick = interval(self.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.metrics
                .worker_seen(self.in_flight.len(), self.stats.failing_for());
            let (group, tables) = tokio::join!(
                look_at_group(&mut self.link, &self.streams, &self.group, &self.key_prefix),
                timeout(PATIENCE, self.store.table_stats()),
            );
            self.metrics.group_seen(group.as_ref());
            self.metrics
                .tables_seen(tables.ok().and_then(Result::ok).as_ref());
        }
    }
}

/// What Redis tells; `None` when it does not answer.
async fn look_at_group(
    link: &mut RedisLink,
    streams: &[Arc<StreamKey>],
    group: &str,
    key_prefix: &KeyPrefix,
) -> Option<GroupSeen> {
    let looking = async {
        let seen = ask(link.get().await?, streams, group, key_prefix).await?;
        Ok::<_, LookError>(seen)
    };
    match timeout(PATIENCE, looking).await {
        Ok(Ok(seen)) => Some(seen),
        Ok(Err(error)) => {
            if let LookError::Redis(error) = &error {
                link.judge(error);
            }
            debug!(error = %ErrorChain(&error), "looking at the group failed: trying again");
            None
        }
        Err(_) => {
            link.disconnect();
            None
        }
    }
}

async fn ask(
    connection: &mut MultiplexedConnection,
    streams: &[Arc<StreamKey>],
    group: &str,
    key_prefix: &KeyPrefix,
) -> Result<GroupSeen, RedisError> {
    let mut all = Backlog::default();
    let mut stream_entries = 0;
    for stream in streams {
        all = all.and(backlog::measure(connection, stream, group).await?);
        let length: u64 = redis::cmd("XLEN")
            .arg(stream.as_ref())
            .query_async(connection)
            .await?;
        stream_entries += length;
    }
    let now = DateTime::from_timestamp_millis(all.now_ms.cast_signed()).unwrap_or_default();
    let oldest_spooled = ledger_keeper::oldest_spooled(connection, key_prefix, now).await?;
    let memory: redis::InfoDict = redis::cmd("INFO")
        .arg("memory")
        .query_async(connection)
        .await?;
    Ok(GroupSeen {
        backlog: all,
        stream_entries,
        oldest_spooled: oldest_spooled
            .and_then(|oldest| (now - oldest).to_std().ok())
            .unwrap_or_default(),
        used_memory: memory.get("used_memory").unwrap_or(0),
        max_memory: memory.get("maxmemory").unwrap_or(0),
    })
}
