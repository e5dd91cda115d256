//! Measures the backlog of the streams, again and again, over a connection of its own.

use passerby_shared::{
    Backlog, ErrorChain, StreamKey, backlog,
    redis_connection::{ConnectError, RedisLink, RedisRecovery},
};
use redis::{InfoDict, RedisError, aio::MultiplexedConnection};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::{
    Degradation, Saturation, SaturationConfig,
    ladder::{Ladder, Load},
};
use crate::config::ProducerConfig;

pub(crate) struct Monitor {
    link: RedisLink,
    streams: Vec<StreamKey>,
    config: SaturationConfig,
    ladder: Ladder,
    found: Saturation,
    said_refused: bool,
}

#[derive(Debug, thiserror::Error)]
enum MeasureError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("measure the backlog")]
    Redis(#[from] RedisError),
}

impl Monitor {
    pub(crate) fn new(
        config: &ProducerConfig,
        saturation: SaturationConfig,
        found: Saturation,
    ) -> Self {
        Self {
            link: RedisLink::new(config.redis_url.clone(), config.redis_timeouts),
            streams: config.key_prefix.streams(config.shards),
            ladder: Ladder::new(saturation.clone()),
            config: saturation,
            found,
            said_refused: false,
        }
    }

    /// Measures until the runtime ends. While Redis cannot be asked, everything stays as it was.
    pub(crate) async fn run(mut self) {
        let mut tick = interval(self.config.check_every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match self.measure().await {
                Ok(load) => self.judge(load),
                Err(error) => {
                    let is_refused = matches!(&error, MeasureError::Redis(error)
                        if self.link.judge(error) == RedisRecovery::Stop);
                    if is_refused && !self.said_refused {
                        self.said_refused = true;
                        warn!(
                            error = %ErrorChain(&error),
                            "the backlog cannot be measured: pressure and degradation go by the \
                             producer's own buffer alone"
                        );
                    } else {
                        debug!(error = %ErrorChain(&error), "the backlog cannot be measured now");
                    }
                }
            }
        }
    }

    async fn measure(&mut self) -> Result<Load, MeasureError> {
        let connection = self.link.get().await?;
        let mut all = Backlog::default();
        for stream in &self.streams {
            all = all.and(backlog::measure(connection, stream, &self.config.group).await?);
        }
        Ok(Load {
            backlog: all.entries(),
            memory: memory_share(connection).await,
        })
    }

    fn judge(&mut self, load: Load) {
        let before = self.found.degradation();
        let level = if self.config.degrade {
            self.ladder.step(load)
        } else {
            Degradation::None
        };
        self.found.set(level, self.ladder.pressure(load));
        if level > before {
            warn!(
                backlog_entries = load.backlog,
                left_out = ?level,
                "the store is saturated: leaving fields out of rows, which are marked degraded"
            );
        } else if level < before {
            info!(
                backlog_entries = load.backlog,
                left_out = ?level,
                "the store is relieved: leaving out less"
            );
        }
    }
}

/// How much of its memory limit Redis uses; 0 where there is none, or where it does not tell.
async fn memory_share(connection: &mut MultiplexedConnection) -> f32 {
    let memory: Result<InfoDict, RedisError> = redis::cmd("INFO")
        .arg("memory")
        .query_async(connection)
        .await;
    let Ok(memory) = memory else { return 0.0 };
    let bytes = |name: &str| memory.get::<f32>(name).unwrap_or(0.0);
    let limit = bytes("maxmemory");
    if limit > 0.0 {
        bytes("used_memory") / limit
    } else {
        0.0
    }
}
