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

use crate::{
    Health, WorkerStats,
    health::Part,
    in_flight::InFlight,
    ledger_keeper,
    metrics::{GroupSeen, Metrics},
    pause,
    store::{Fault, Store, StoreError, TableStats},
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
    pub(crate) health: Arc<Health>,
}

#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("ask Redis how the group stands")]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Postgres(StoreError),
    #[error("no answer within {} s", PATIENCE.as_secs())]
    TimedOut,
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
        let good_for = 2 * (self.every + PATIENCE);
        loop {
            tick.tick().await;
            self.metrics
                .worker_seen(self.in_flight.len(), self.stats.failing_for());
            let (group, (tables, schema)) = tokio::join!(
                look_at_group(&mut self.link, &self.streams, &self.group, &self.key_prefix),
                look_at_tables(&mut self.store),
            );
            self.metrics.group_seen(group.as_ref().ok());
            self.metrics.tables_seen(tables.as_ref().ok());
            self.health
                .saw(Part::of(&group), Part::of(&tables), schema, good_for);
        }
    }
}

async fn look_at_group(
    link: &mut RedisLink,
    streams: &[Arc<StreamKey>],
    group: &str,
    key_prefix: &KeyPrefix,
) -> Result<GroupSeen, LookError> {
    let looking = async { Ok(ask(link.get().await?, streams, group, key_prefix).await?) };
    let looked = timeout(PATIENCE, looking).await;
    let looked = looked.unwrap_or(Err(LookError::TimedOut));
    match &looked {
        Ok(_) => {}
        Err(LookError::Redis(error)) => {
            link.judge(error);
        }
        Err(_) => link.disconnect(),
    }
    looked
}

/// How the tables stand, and whether the schema fits.
async fn look_at_tables(store: &mut Store) -> (Result<TableStats, LookError>, Part) {
    let looking = async {
        let schema = match store.check_schema().await {
            Ok(()) => Part::Ready,
            // The server answers, and it is the schema that does not fit, or may not be looked at.
            Err(error) if is_about_the_schema(&error) => {
                Part::NotReady(ErrorChain(&error).to_string())
            }
            Err(other) => return Err(LookError::Postgres(other)),
        };
        let tables = store.table_stats().await.map_err(LookError::Postgres)?;
        Ok((tables, schema))
    };
    match timeout(PATIENCE, looking).await {
        Ok(Ok((tables, schema))) => (Ok(tables), schema),
        Ok(Err(error)) => (Err(error), unknown_schema()),
        Err(_) => (Err(LookError::TimedOut), unknown_schema()),
    }
}

fn is_about_the_schema(error: &StoreError) -> bool {
    let is_statement = matches!(error, StoreError::Statement { .. });
    matches!(error, StoreError::Schema(_)) || is_statement && error.fault() == Fault::Configuration
}

fn unknown_schema() -> Part {
    Part::NotReady("not known".to_owned())
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
    let paused = pause::look(connection, &key_prefix.paused(), group).await?;
    let memory: redis::InfoDict = redis::cmd("INFO")
        .arg("memory")
        .query_async(connection)
        .await?;
    Ok(GroupSeen {
        backlog: all,
        stream_entries,
        is_paused: paused.is_some(),
        oldest_spooled: oldest_spooled
            .and_then(|oldest| (now - oldest).to_std().ok())
            .unwrap_or_default(),
        used_memory: memory.get("used_memory").unwrap_or(0),
        max_memory: memory.get("maxmemory").unwrap_or(0),
    })
}
