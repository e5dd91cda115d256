//! Shows that the entries in work are alive, so that nobody claims them.
//!
//! A task of its own with a connection of its own: whatever is slow, it must not be this.

use std::{sync::Arc, time::Duration};

use passerby_shared::{ErrorChain, StreamKey, redis_connection::RedisLink};
use redis::{RedisError, Script, aio::MultiplexedConnection};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{ConsumerName, in_flight::InFlight};

/// Most entries kept alive in one stream: more than a worker ever holds.
const MAX_ENTRIES: usize = 10_000;

pub(crate) struct Heartbeat {
    pub(crate) link: RedisLink,
    pub(crate) streams: Vec<Arc<StreamKey>>,
    pub(crate) group: String,
    pub(crate) consumer: ConsumerName,
    /// Entries without a sign of life for so long are claimed by others.
    pub(crate) min_idle: Duration,
    pub(crate) in_flight: InFlight,
}

impl Heartbeat {
    /// Beats until `done` fires.
    pub(crate) async fn run(mut self, done: CancellationToken) {
        tokio::select! {
            biased;
            () = done.cancelled() => {}
            () = self.run_on() => {}
        }
    }

    async fn run_on(&mut self) {
        let mut tick = interval(self.min_idle / 4);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if self.in_flight.len() == 0 {
                continue;
            }
            let mut connection = match self.link.get().await {
                Ok(connection) => connection.clone(),
                Err(error) => {
                    debug!(error = %ErrorChain(&error), "heartbeat failed: trying again");
                    continue;
                }
            };
            if let Err(error) = self.beat(&mut connection).await {
                debug!(error = %ErrorChain(&error), "heartbeat failed: trying again");
                self.link.judge(&error);
            }
        }
    }

    async fn beat(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        for stream in &self.streams {
            let _n: u64 = Script::new(HEARTBEAT)
                .key(stream.as_ref())
                .arg(&self.group)
                .arg(self.consumer.as_str())
                .arg(MAX_ENTRIES)
                .invoke_async(connection)
                .await?;
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
