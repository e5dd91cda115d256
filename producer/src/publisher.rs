//! Publishes entries with `XADD`, again and again until Redis has acknowledged each.
//!
//! The entries of different shards go in one pipeline, each with a verdict of its own. Of one shard
//! there is at most one in a pipeline: if an earlier entry were refused and a later one accepted,
//! which a Redis at its memory limit does, the later one would have overtaken it.
//!
//! An attempt whose outcome is unknown is repeated too, with the same idempotency key: the workers'
//! ledger makes of two entries one. Nothing here trims the stream, as `MAXLEN` drops what no worker
//! has read.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use passerby_shared::{
    ErrorChain, StreamKey,
    redis_connection::{ConnectError, RedisLink, RedisRecovery, recovery},
    wire::{FIELD_KEY, FIELD_KIND, FIELD_PAYLOAD, FIELD_VERSION, WIRE_VERSION},
};
use redis::{RedisError, RedisResult};
use tokio::time::{Instant, sleep};

use crate::{
    batcher::Entry,
    cache::CacheQueue,
    config::ProducerConfig,
    handover::Handover,
    health::{HealthLog, TroubleKind},
    metrics::Reporter,
};

pub(crate) struct Publisher {
    link: RedisLink,
    streams: Vec<StreamKey>,
    handover: Arc<Handover>,
    cache: CacheQueue,
    backoff: ExponentialBuilder,
    retry_min: Duration,
    retry_max: Duration,
    was_connected: bool,
    health: HealthLog,
    reporter: Reporter,
}

/// The entries of one shard that are still to be published, in order.
type Lane = VecDeque<Entry>;

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Connect(ConnectError),
    #[error("publish {n_entries} entries")]
    Redis {
        n_entries: usize,
        #[source]
        source: RedisError,
    },
    #[error("publish an entry to `{stream}`")]
    Refused {
        stream: StreamKey,
        #[source]
        source: RedisError,
    },
}

impl SendError {
    fn recovery(&self) -> RedisRecovery {
        match self {
            Self::Connect(error) => recovery(error.redis_error()),
            Self::Redis { source, .. } | Self::Refused { source, .. } => recovery(source),
        }
    }
}

impl Publisher {
    pub(crate) fn new(config: &ProducerConfig, handover: Arc<Handover>, cache: CacheQueue) -> Self {
        Self {
            link: RedisLink::new(config.redis_url.clone(), config.redis_timeouts),
            streams: config.key_prefix.streams(config.shards),
            handover,
            cache,
            // backon adds up to one whole delay at random, so it is given half of each.
            backoff: ExponentialBuilder::new()
                .with_jitter()
                .with_factor(2.0)
                .with_min_delay(config.retry_min / 2)
                .with_max_delay(config.retry_max / 2)
                .without_max_times(),
            retry_min: config.retry_min,
            retry_max: config.retry_max,
            was_connected: false,
            health: HealthLog::default(),
            reporter: Reporter::default(),
        }
    }

    /// Tries once to connect, so that a first entry finds the connection made and a wrong address is
    /// told at once.
    pub(crate) async fn warm_up(&mut self) {
        match self.connect().await {
            Ok(()) => self.handover.buffer().succeeded(),
            Err(error) => self.failed(&error),
        }
    }

    /// Waits until there is a connection, however long that takes.
    ///
    /// Called before rows are taken out of the buffer: as long as Redis is away they stay where the
    /// overflow policy can choose among them.
    pub(crate) async fn connected(&mut self) {
        let mut backoff = self.backoff.build();
        while let Err(error) = self.connect().await {
            self.failed(&error);
            self.pause(&mut backoff, error.recovery()).await;
        }
    }

    /// Publishes entries, however long that takes.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: of a dropped call's entries, any may have been published. Those that Redis
    /// acknowledged are booked.
    pub(crate) async fn publish(&mut self, entries: Vec<Entry>) {
        let begun = Instant::now();
        let mut lanes = lanes(entries);
        let mut backoff = self.backoff.build();
        while !lanes.is_empty() {
            match self.publish_heads(&mut lanes).await {
                Ok(()) => backoff = self.backoff.build(),
                Err(error) => {
                    self.failed(&error);
                    self.pause(&mut backoff, error.recovery()).await;
                }
            }
        }
        let n_rows = self.handover.buffer().stats().rows().buffered;
        self.health.succeeded(n_rows);
        self.handover.buffer().succeeded();
        self.reporter.flushed(begun.elapsed());
        self.report();
    }

    /// Publishes the first entry of each lane, and takes those out that Redis acknowledged.
    async fn publish_heads(&mut self, lanes: &mut Vec<Lane>) -> Result<(), SendError> {
        let heads: Vec<&Entry> = lanes.iter().filter_map(VecDeque::front).collect();
        let verdicts = self.send(&heads).await?;
        let mut worst = None;
        for (lane, verdict) in lanes.iter_mut().zip(verdicts) {
            match verdict {
                Ok(_) => lane.pop_front().into_iter().for_each(|e| self.published(e)),
                Err(source) => {
                    let shard = lane.front().map_or(0, |entry| entry.shard);
                    let stream = self.streams[usize::from(shard)].clone();
                    let error = SendError::Refused { stream, source };
                    let severity = |e: &SendError| TroubleKind::from(e.recovery());
                    if worst
                        .as_ref()
                        .is_none_or(|w| severity(w) < severity(&error))
                    {
                        worst = Some(error);
                    }
                }
            }
        }
        lanes.retain(|lane| !lane.is_empty());
        worst.map_or(Ok(()), Err)
    }

    async fn send(
        &mut self,
        heads: &[&Entry],
    ) -> Result<Vec<RedisResult<redis::Value>>, SendError> {
        let mut pipe = redis::Pipeline::with_capacity(heads.len());
        for entry in heads {
            pipe.cmd("XADD")
                .arg(&self.streams[usize::from(entry.shard)])
                .arg("*")
                .arg(FIELD_VERSION)
                .arg(WIRE_VERSION)
                .arg(FIELD_KIND)
                .arg(entry.kind.as_str())
                .arg(FIELD_KEY)
                .arg(entry.key.as_bytes())
                .arg(FIELD_PAYLOAD)
                .arg(entry.payload.as_slice());
        }
        // One refused entry must not hide what became of the others.
        pipe.ignore_errors();
        self.connect().await?;
        let connection = self.link.get().await.map_err(SendError::Connect)?;
        let sent = pipe.query_async::<Vec<RedisResult<redis::Value>>>(connection);
        match sent.await {
            Ok(verdicts) => {
                for error in verdicts.iter().filter_map(|verdict| verdict.as_ref().err()) {
                    self.link.judge(error);
                }
                Ok(verdicts)
            }
            Err(source) => {
                self.link.judge(&source);
                let n_entries = heads.len();
                Err(SendError::Redis { n_entries, source })
            }
        }
    }

    async fn connect(&mut self) -> Result<(), SendError> {
        if self.link.is_connected() {
            return Ok(());
        }
        self.link.get().await.map_err(SendError::Connect)?;
        if self.was_connected {
            self.handover.buffer().reconnected();
        }
        self.was_connected = true;
        Ok(())
    }

    fn published(&mut self, entry: Entry) {
        self.handover.buffer().published(
            entry.kind,
            entry.n_rows,
            entry.n_bytes,
            entry.payload.len(),
        );
        self.handover.announce();
        for recent in entry.recent {
            self.cache.push_recent_detections(recent);
        }
    }

    fn failed(&mut self, error: &SendError) {
        let kind = TroubleKind::from(error.recovery());
        let text = ErrorChain(error).to_string();
        let n_rows = {
            let mut buffer = self.handover.buffer();
            buffer.failed(kind, &text);
            buffer.stats().rows().buffered
        };
        self.health.failed(kind, &text, n_rows);
        self.report();
    }

    /// Waits between two attempts: longest where only an operator can help, shorter when somebody
    /// waits for a flush.
    async fn pause(&self, backoff: &mut ExponentialBackoff, recovery: RedisRecovery) {
        let next = backoff.next().unwrap_or(self.retry_max);
        let delay = if recovery == RedisRecovery::Stop {
            self.retry_max
        } else {
            next
        };
        let least = self.retry_min.min(delay);
        sleep(least).await;
        tokio::select! {
            () = sleep(delay - least) => {}
            () = self.handover.hurry() => {}
        }
    }

    /// Brings the metrics up to date.
    pub(crate) fn report(&mut self) {
        let mut stats = self.handover.buffer().stats().clone();
        stats.cache = self.cache.stats();
        self.reporter.report(stats);
    }
}

/// Sorts entries into one lane a shard, in order.
fn lanes(entries: Vec<Entry>) -> Vec<Lane> {
    let mut lanes: BTreeMap<u16, Lane> = BTreeMap::new();
    for entry in entries {
        lanes.entry(entry.shard).or_default().push_back(entry);
    }
    lanes.into_values().collect()
}
