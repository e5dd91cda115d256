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
    ErrorChain, IdempotencyKey, StreamKey, Traceparent,
    redis_connection::{ConnectError, RedisLink, RedisRecovery, recovery},
    wire::{
        FIELD_KEY, FIELD_KIND, FIELD_PAYLOAD, FIELD_TRACEPARENT, FIELD_VERSION, Kind, WIRE_VERSION,
    },
};
use redis::{RedisError, RedisResult};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::{
    batcher::{Entry, Held},
    cache::CacheQueue,
    config::ProducerConfig,
    handover::Handover,
    health::{HealthLog, TroubleKind},
    metrics::Reporter,
    resend::{ResendWindow, server_id},
    spool::Registration,
};

/// Entries that are sent again are sent so many at a time.
const RESEND_AT_ONCE: usize = 64;

pub(crate) struct Publisher {
    link: RedisLink,
    streams: Vec<StreamKey>,
    handover: Arc<Handover>,
    cache: CacheQueue,
    backoff: ExponentialBuilder,
    retry_min: Duration,
    retry_max: Duration,
    was_connected: bool,
    window: ResendWindow,
    registration: Option<Registration>,
    health: HealthLog,
    reporter: Reporter,
}

/// The entries of one shard that are still to be published, in order.
type Lane = VecDeque<Entry>;

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Connect(ConnectError),
    #[error("ask Redis who it is")]
    Identify(#[source] RedisError),
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
            Self::Identify(source) | Self::Redis { source, .. } | Self::Refused { source, .. } => {
                recovery(source)
            }
        }
    }
}

impl Publisher {
    pub(crate) fn new(config: &ProducerConfig, handover: Arc<Handover>, cache: CacheQueue) -> Self {
        let registration = Registration::new(config, handover.buffer().next_seq());
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
            window: ResendWindow::new(config),
            registration,
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
        let n_rows = self.handover.buffer().stats().rows().waiting();
        self.health.succeeded(n_rows);
        self.handover.buffer().succeeded();
        self.reporter.flushed(begun.elapsed());
        self.report();
    }

    /// Whether an idle producer has something to look after: see [`Publisher::look_after`].
    pub(crate) fn remembers(&self) -> bool {
        !self.window.is_empty()
    }

    /// Asks whether Redis is still the server that has what was published last, and sends that again if it is
    /// not. For when there is nothing to publish: Redis may have been restarted since.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was sent again may be sent another time.
    pub(crate) async fn look_after(&mut self) {
        if let Err(error) = self.try_look_after().await {
            debug!(error = %ErrorChain(&error), "Redis cannot be asked now");
        }
        self.register_spool().await;
    }

    async fn try_look_after(&mut self) -> Result<(), SendError> {
        if self.link.is_connected() {
            let connection = self.link.get().await.map_err(SendError::Connect)?;
            match server_id(connection).await {
                // Who does not say who it is cannot be found to be another one: entries just grow old.
                Ok(None) => self.window.confirmed(),
                Ok(server) => {
                    if !self.window.connected(server) {
                        self.window.confirmed();
                    }
                }
                // The connection is dead; who is there now, the next one tells.
                Err(_) => self.link.disconnect(),
            }
        }
        self.connect().await?;
        self.resend().await
    }

    /// Notes in Redis up to when everything in the spool has been sent. That it is not noted costs the
    /// workers' ledger some space, so that failing is no error.
    pub(crate) async fn register_spool(&mut self) {
        let Some(registration) = &mut self.registration else {
            return;
        };
        let Some(below) = registration.due() else {
            return;
        };
        let (n_left, next_seq) = {
            let buffer = self.handover.buffer();
            (buffer.n_left(below), buffer.next_seq())
        };
        if n_left == 0 {
            let note = registration.note(next_seq);
            self.run(note).await;
        }
    }

    /// Takes the note away, when nothing is left in the spool.
    pub(crate) async fn unregister_spool(&mut self) {
        let is_empty = self.handover.buffer().stats().rows().waiting() == 0;
        if let Some(registration) = self.registration.take().filter(|_| is_empty)
            && self.link.is_connected()
        {
            self.run(registration.forget()).await;
        }
    }

    /// Runs a command whose failure changes nothing.
    async fn run(&mut self, command: redis::Cmd) {
        if let Ok(connection) = self.link.get().await
            && let Err(error) = command.query_async::<redis::Value>(connection).await
        {
            self.link.judge(&error);
            debug!(error = %ErrorChain(&error), "the spool is not registered");
        }
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
        self.connect().await?;
        self.resend().await?;
        let mut pipe = redis::Pipeline::with_capacity(heads.len());
        for entry in heads {
            let stream = &self.streams[usize::from(entry.shard)];
            let trace = entry.traceparent;
            add(
                &mut pipe,
                stream,
                entry.kind,
                entry.key,
                &entry.payload,
                trace,
            );
        }
        self.query(pipe, heads.len()).await
    }

    /// Runs a pipeline of `XADD`s.
    async fn query(
        &mut self,
        mut pipe: redis::Pipeline,
        n_entries: usize,
    ) -> Result<Vec<RedisResult<redis::Value>>, SendError> {
        // One refused entry must not hide what became of the others.
        pipe.ignore_errors();
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
                Err(SendError::Redis { n_entries, source })
            }
        }
    }

    async fn connect(&mut self) -> Result<(), SendError> {
        if self.link.is_connected() {
            return Ok(());
        }
        let connection = self.link.get().await.map_err(SendError::Connect)?;
        if self.window.is_on() {
            match server_id(connection).await {
                Ok(server) => {
                    if self.window.connected(server) {
                        let n_entries = self.window.due(usize::MAX).len();
                        warn!(
                            n_entries,
                            "Redis is not the server it was, or was started anew: what it got last is \
                             sent again, as it may have lost it"
                        );
                    }
                }
                Err(source) => {
                    // Without an answer the connection is of no use: it is to be made anew.
                    self.link.disconnect();
                    return Err(SendError::Identify(source));
                }
            }
        }
        if self.was_connected {
            self.handover.buffer().reconnected();
        }
        self.was_connected = true;
        Ok(())
    }

    /// Sends again what the server before may have been alone to have.
    async fn resend(&mut self) -> Result<(), SendError> {
        loop {
            let due = self.window.due(RESEND_AT_ONCE);
            let n_entries = due.len();
            if n_entries == 0 {
                return Ok(());
            }
            let mut pipe = redis::Pipeline::with_capacity(n_entries);
            let mut streams = Vec::with_capacity(n_entries);
            for sent in due {
                let stream = &self.streams[usize::from(sent.shard)];
                add(&mut pipe, stream, sent.kind, sent.key, &sent.payload, None);
                streams.push(stream.clone());
            }
            let verdicts = self.query(pipe, n_entries).await?;
            for (stream, verdict) in streams.into_iter().zip(verdicts) {
                verdict.map_err(|source| SendError::Refused { stream, source })?;
                self.window.resent(1);
                self.handover.buffer().resent();
            }
        }
    }

    fn published(&mut self, mut entry: Entry) {
        {
            let mut buffer = self.handover.buffer();
            match entry.held {
                Held::Spool => buffer.published_from_spool(&entry),
                Held::Memory => {
                    let n_payload_bytes = entry.payload.len();
                    buffer.published(entry.kind, entry.n_rows, entry.n_bytes, n_payload_bytes);
                }
            }
        }
        self.handover.announce();
        for recent in std::mem::take(&mut entry.recent) {
            self.cache.push_recent_detections(recent);
        }
        let n_cut = self.window.published(entry);
        if n_cut > 0 {
            self.handover.buffer().resend_cut(n_cut);
        }
    }

    fn failed(&mut self, error: &SendError) {
        let kind = TroubleKind::from(error.recovery());
        let text = ErrorChain(error).to_string();
        let n_rows = {
            let mut buffer = self.handover.buffer();
            buffer.failed(kind, &text);
            buffer.stats().rows().waiting()
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
        stats.saturation = self.cache.saturation().stats();
        self.reporter.report(stats);
    }
}

/// Adds an entry to a pipeline.
fn add(
    pipe: &mut redis::Pipeline,
    stream: &StreamKey,
    kind: Kind,
    key: IdempotencyKey,
    payload: &[u8],
    traceparent: Option<Traceparent>,
) {
    // With room for the payload, and for what little there is beside it.
    let mut xadd = redis::Cmd::with_capacity(13, payload.len() + 128);
    xadd.arg("XADD")
        .arg(stream)
        .arg("*")
        .arg(FIELD_VERSION)
        .arg(WIRE_VERSION)
        .arg(FIELD_KIND)
        .arg(kind.as_str())
        .arg(FIELD_KEY)
        .arg(key.as_bytes())
        .arg(FIELD_PAYLOAD)
        .arg(payload);
    if let Some(traceparent) = traceparent {
        xadd.arg(FIELD_TRACEPARENT).arg(traceparent.to_string());
    }
    pipe.add_command(xadd);
}

/// Sorts entries into one lane a shard, in order.
fn lanes(entries: Vec<Entry>) -> Vec<Lane> {
    let mut lanes: BTreeMap<u16, Lane> = BTreeMap::new();
    for entry in entries {
        lanes.entry(entry.shard).or_default().push_back(entry);
    }
    lanes.into_values().collect()
}
