//! Works on the cache's queue, over a connection of its own.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use passerby_shared::{
    ErrorChain,
    redis_connection::{ConnectError, RedisLink, RedisRecovery, RedisTimeouts},
};
use redis::{RedisError, RedisResult, Value};
use tokio::{sync::mpsc, time::Instant};
use tracing::{debug, warn};

use super::queue::{Operation, Shared};
use crate::config::ProducerConfig;

/// Most operations in one pipeline.
const MAX_OPERATIONS: usize = 128;
/// A server that has not answered after this is taken for lost. Longer than a read waits: a slow line
/// must not cost the connection.
const PATIENCE: Duration = Duration::from_secs(1);

const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_jitter()
    .with_factor(2.0)
    .with_min_delay(Duration::from_millis(50))
    .with_max_delay(Duration::from_secs(2))
    .without_max_times();

/// Sends what is queued, as one pipeline after another. Ends with the queue, or with the runtime.
pub(crate) struct CacheTask {
    link: RedisLink,
    receiver: mpsc::Receiver<Operation>,
    shared: Arc<Shared>,
    backoff: ExponentialBackoff,
    /// Until then nothing is tried, and reads are answered with nothing.
    down_until: Option<Instant>,
    /// The log knows that commands are refused.
    said_refused: bool,
}

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Connect(ConnectError),
    #[error("reach the track cache")]
    Redis(#[source] RedisError),
}

impl CacheTask {
    pub(super) fn new(
        config: &ProducerConfig,
        shared: Arc<Shared>,
        receiver: mpsc::Receiver<Operation>,
    ) -> Self {
        let timeouts = RedisTimeouts {
            connect: config.redis_timeouts.connect.min(PATIENCE),
            response: PATIENCE,
        };
        Self {
            link: RedisLink::new(config.redis_url.clone(), timeouts),
            receiver,
            shared,
            backoff: BACKOFF.build(),
            down_until: None,
            said_refused: false,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut operations = Vec::new();
        while self
            .receiver
            .recv_many(&mut operations, MAX_OPERATIONS)
            .await
            > 0
        {
            self.work(std::mem::take(&mut operations)).await;
        }
    }

    async fn work(&mut self, mut operations: Vec<Operation>) {
        let now = Instant::now();
        operations.retain(|op| op.read.as_ref().is_none_or(|read| read.deadline > now));
        if self.down_until.is_some_and(|until| now < until) {
            self.dropped(&operations);
            return;
        }
        if operations.is_empty() {
            return;
        }
        match self.send(&mut operations).await {
            Ok(replies) => {
                self.recovered();
                for (operation, reply) in operations.into_iter().zip(replies) {
                    self.answer(operation, reply);
                }
            }
            Err(error) => {
                self.dropped(&operations);
                self.lost(&error);
            }
        }
    }

    async fn send(
        &mut self,
        operations: &mut [Operation],
    ) -> Result<Vec<RedisResult<Value>>, SendError> {
        let mut pipe = redis::Pipeline::with_capacity(operations.len());
        for operation in operations {
            // Nothing is sent twice: what a cache misses it may miss.
            pipe.add_command(std::mem::take(&mut operation.command));
        }
        pipe.ignore_errors();
        let connection = self.link.get().await.map_err(SendError::Connect)?;
        pipe.query_async(connection).await.map_err(SendError::Redis)
    }

    fn answer(&mut self, mut operation: Operation, reply: RedisResult<Value>) {
        let counters = &self.shared.counters;
        match (reply, operation.read.take()) {
            (Ok(value), Some(read)) => (read.reply)(value),
            (Ok(_), None) => {
                counters.writes.fetch_add(1, Relaxed);
            }
            (Err(error), read) => {
                if read.is_none() {
                    counters.writes_dropped.fetch_add(1, Relaxed);
                }
                if self.link.judge(&error) == RedisRecovery::Stop {
                    self.refused(&error);
                } else {
                    debug!(error = %ErrorChain(&error), "the track cache answered with an error");
                }
            }
        }
    }

    fn dropped(&self, operations: &[Operation]) {
        let n_writes = operations.iter().filter(|op| op.read.is_none()).count();
        self.shared
            .counters
            .writes_dropped
            .fetch_add(n_writes as u64, Relaxed);
    }

    fn lost(&mut self, error: &SendError) {
        self.link.disconnect();
        let delay = self.backoff.next().unwrap_or(PATIENCE);
        self.down_until = Some(Instant::now() + delay);
        // The publisher says it louder, of the same server.
        debug!(error = %ErrorChain(error), "track cache lost: reads give nothing");
    }

    fn refused(&mut self, error: &RedisError) {
        if !self.said_refused {
            self.said_refused = true;
            warn!(error = %ErrorChain(error), "the track cache is refused: reads may give nothing");
        }
    }

    fn recovered(&mut self) {
        if self.down_until.take().is_some() {
            self.backoff = BACKOFF.build();
            debug!("track cache is back");
        }
    }
}
