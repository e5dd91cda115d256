//! Shows that the entries in work are alive, so that nobody claims them.
//!
//! Only entries that really are on their way through this worker are kept alive. Another entry may be
//! pending under its name that it never received, delivered into a connection that broke or handed over
//! by an operator: that one grows old, and is claimed by the first worker to look, this one perhaps.
//!
//! A worker that has not been able to store anything for long lets go of its entries: another one may
//! reach Postgres where it does not. Where none does, nobody reads or claims either, and the worker goes on
//! trying with what it has.
//!
//! A task of its own with a connection of its own: whatever is slow, it must not be this.

use std::{sync::Arc, time::Duration};

use passerby_shared::{
    ErrorChain, StreamKey,
    redis_connection::{RedisLink, RedisRecovery},
};
use redis::{RedisError, Script, aio::MultiplexedConnection};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{ConsumerName, WorkerStats, in_flight::InFlight};

/// Entries in one call of the script, which holds up the server for that long.
const PAGE: usize = 500;

/// After so many times `min_idle` without a commit that works, entries in work are left to others.
const GIVE_UP_AFTER: u32 = 4;

pub(crate) struct Heartbeat {
    pub(crate) link: RedisLink,
    pub(crate) streams: Vec<Arc<StreamKey>>,
    pub(crate) group: String,
    pub(crate) consumer: ConsumerName,
    /// Entries without a sign of life for so long are claimed by others.
    pub(crate) min_idle: Duration,
    pub(crate) in_flight: InFlight,
    pub(crate) stats: Arc<WorkerStats>,
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
        let mut gave_up = false;
        let mut tick = interval(self.min_idle / 4);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if self.in_flight.len() == 0 {
                continue;
            }
            // Perhaps it is only this worker that cannot reach Postgres.
            if self.stats.failing_for() > GIVE_UP_AFTER * self.min_idle {
                if !gave_up {
                    warn!("nothing can be stored here: letting others claim the entries in work");
                }
                gave_up = true;
                continue;
            }
            gave_up = false;
            let mut connection = match self.link.get().await {
                Ok(connection) => connection.clone(),
                Err(error) => {
                    debug!(error = %ErrorChain(&error), "heartbeat failed: trying again");
                    continue;
                }
            };
            if let Err(error) = self.beat(&mut connection).await {
                if self.link.judge(&error) == RedisRecovery::Stop {
                    warn!(
                        error = %ErrorChain(&error),
                        "entries in work cannot be kept alive: others will claim them"
                    );
                } else {
                    debug!(error = %ErrorChain(&error), "heartbeat failed: trying again");
                }
            }
        }
    }

    async fn beat(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let script = Script::new(HEARTBEAT);
        for stream in &self.streams {
            for page in self.in_flight.ids_in(stream).chunks(PAGE) {
                let _n: u64 = script
                    .key(stream.as_ref())
                    .arg(&self.group)
                    .arg(self.consumer.as_str())
                    .arg(page)
                    .invoke_async(connection)
                    .await?;
            }
        }
        Ok(())
    }
}

/// Resets the idle time of entries, without counting a delivery. The owner of each is asked first: a
/// bare `XCLAIM` would steal back what somebody else has claimed meanwhile.
const HEARTBEAT: &str = r"
local claim = {'XCLAIM', KEYS[1], ARGV[1], ARGV[2], '0'}
for i = 3, #ARGV do
  if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2]) == 1 then
    claim[#claim + 1] = ARGV[i]
  end
end
if #claim == 5 then return 0 end
claim[#claim + 1] = 'JUSTID'
return #redis.call(unpack(claim))";
