//! What a worker does beside the stream: signs of life, trimming, summaries, partitions.
//!
//! Nothing here is needed for an entry to be stored; a failure is logged and tried again.

use std::{sync::Arc, time::Duration};

use passerby_shared::{ErrorChain, StreamKey, redis_connection::RedisLink};
use redis::{RedisError, Script, aio::MultiplexedConnection};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    ConsumerName,
    in_flight::InFlight,
    metrics,
    store::{Store, StoreError},
    trimmer,
};

const TRIM_EVERY: Duration = Duration::from_secs(5);
const SUMMARIZE_EVERY: Duration = Duration::from_secs(2);
const PARTITIONS_EVERY: Duration = Duration::from_secs(600);

pub(crate) struct Upkeep {
    pub(crate) link: RedisLink,
    pub(crate) store: Store,
    pub(crate) streams: Vec<Arc<StreamKey>>,
    pub(crate) group: String,
    pub(crate) consumer: ConsumerName,
    pub(crate) min_idle: Duration,
    pub(crate) trim_grace: Option<Duration>,
    pub(crate) in_flight: InFlight,
}

impl Upkeep {
    /// Runs until the entries in work are settled and `done` fires.
    pub(crate) async fn run(mut self, done: CancellationToken) {
        let mut heartbeat = interval(self.min_idle / 4);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut store = interval(SUMMARIZE_EVERY);
        store.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_trim = Instant::now() + TRIM_EVERY;
        let mut next_partitions = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = done.cancelled() => return,
                _ = heartbeat.tick() => {
                    if self.in_flight.len() > 0 {
                        self.log_redis("heartbeat", Self::heartbeat).await;
                    }
                }
                _ = store.tick() => {
                    if Instant::now() >= next_partitions {
                        next_partitions = Instant::now() + PARTITIONS_EVERY;
                        log_store("make partitions", self.store.ensure_partitions_ahead().await);
                    }
                    log_store("summarize sessions", self.store.summarize_ended_sessions().await);
                    if Instant::now() >= next_trim {
                        next_trim = Instant::now() + TRIM_EVERY;
                        self.log_redis("trim", Self::trim).await;
                    }
                }
            }
        }
    }

    async fn log_redis(
        &mut self,
        doing: &'static str,
        action: impl AsyncFn(&Self, &mut MultiplexedConnection) -> Result<(), RedisError>,
    ) {
        let mut connection = match self.link.get().await {
            Ok(connection) => connection.clone(),
            Err(error) => {
                debug!(error = %ErrorChain(&error), doing, "upkeep failed: trying again later");
                return;
            }
        };
        if let Err(error) = action(self, &mut connection).await {
            debug!(error = %ErrorChain(&error), doing, "upkeep failed: trying again later");
            self.link.judge(&error);
        }
    }

    /// Shows that entries in work are alive, so that nobody claims them.
    async fn heartbeat(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        for stream in &self.streams {
            let _n: u64 = Script::new(HEARTBEAT)
                .key(stream.as_ref())
                .arg(&self.group)
                .arg(self.consumer.as_str())
                .arg(10_000)
                .invoke_async(connection)
                .await?;
        }
        Ok(())
    }

    async fn trim(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let Some(grace) = self.trim_grace else {
            return Ok(());
        };
        for stream in &self.streams {
            let n_entries = trimmer::trim(connection, stream, grace).await?;
            metrics::entries_trimmed(n_entries);
        }
        Ok(())
    }
}

/// Resets the idle time of the consumer's own pending entries, without counting a delivery. The
/// owner is asked first: a bare `XCLAIM` would steal back what somebody else has claimed meanwhile.
const HEARTBEAT: &str = r"
local own = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[3], ARGV[2])
local alive = 0
for first = 1, #own, 1000 do
  local claim = {'XCLAIM', KEYS[1], ARGV[1], ARGV[2], '0'}
  for i = first, math.min(first + 999, #own) do claim[#claim + 1] = own[i][1] end
  claim[#claim + 1] = 'JUSTID'
  alive = alive + #redis.call(unpack(claim))
end
return alive";

fn log_store<T>(doing: &'static str, done: Result<T, StoreError>) {
    if let Err(error) = done {
        warn!(error = %ErrorChain(&error), doing, "upkeep failed: trying again later");
    }
}
