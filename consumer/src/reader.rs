//! Reads entries: the worker's own history first, then new ones, and those of the dead.
//!
//! The reader has a connection of its own: replies come in order, so that a blocking read on a shared one
//! would hold up every `XACK` behind it.

use std::{
    hash::{BuildHasher, RandomState},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use passerby_shared::{
    EntryId, ErrorChain, StreamKey,
    books::Stamped,
    redis_connection::{ConnectError, ExclusiveConnection, RedisLink, RedisRecovery, recovery},
};
use redis::RedisError;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    ConsumerName, Paused, group,
    health::Turning,
    in_flight::InFlight,
    metrics::Metrics,
    pause, reclaimer,
    reply::{self, Claimed, Delivered, Read, UnexpectedReply},
    stats::WorkerStats,
    suspects,
    tail::Tail,
};

const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// How often a draining reader looks whether others are done, of whom it does not hear.
const DRAIN_POLL: Duration = Duration::from_millis(20);
const MAX_COUNT: usize = 1_000;
/// How often the reader looks whether its group is paused.
const LOOK_FOR_PAUSE: Duration = Duration::from_millis(250);
/// A reader that blocks looks so often all the same.
const LONGEST_BLOCK: Duration = Duration::from_millis(500);

pub(crate) struct Reader {
    pub(crate) link: RedisLink<ExclusiveConnection>,
    pub(crate) streams: Vec<Arc<StreamKey>>,
    pub(crate) group: String,
    pub(crate) consumer: ConsumerName,
    pub(crate) block: Duration,
    /// Slack on top of `block` before a read is given up: Redis 7.2 has been seen to block for longer
    /// than asked (redis/redis#12998).
    pub(crate) server_timeout: Duration,
    pub(crate) min_idle: Duration,
    pub(crate) batch_rows: NonZeroUsize,
    pub(crate) batch_bytes: NonZeroUsize,
    pub(crate) drain: bool,
    /// Where it stands which groups are paused.
    pub(crate) paused: String,
    pub(crate) pause: PauseWatch,
    pub(crate) in_flight: InFlight,
    pub(crate) stats: Arc<WorkerStats>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tail: Tail,
    pub(crate) turning: Turning,
}

/// A read that failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A command failed.
    #[error("read from Redis")]
    Redis(#[from] RedisError),
    /// The server answers in a way nobody knows.
    #[error(transparent)]
    Reply(#[from] UnexpectedReply),
    /// The group is paused, and a worker that drains does not wait for its being resumed.
    #[error("group `{group}` is paused{}", paused_by(paused))]
    Paused {
        /// The group.
        group: String,
        /// Who paused it.
        paused: Paused,
    },
    /// The server did not answer at all.
    #[error("Redis did not answer within {seconds} s")]
    TimedOut {
        /// How long.
        seconds: u64,
    },
}

impl ReadError {
    fn recovery(&self) -> RedisRecovery {
        match self {
            Self::Connect(error) => recovery(error.redis_error()),
            Self::Redis(error) => recovery(error),
            Self::Reply(_) | Self::Paused { .. } => RedisRecovery::Stop,
            Self::TimedOut { .. } => RedisRecovery::Reconnect,
        }
    }
}

/// `: maintenance (anna@gate)`.
fn paused_by(paused: &Paused) -> String {
    match (&paused.reason, paused.by.is_empty()) {
        (Some(reason), false) => format!(": {reason} ({})", paused.by),
        (Some(reason), true) => format!(": {reason}"),
        (None, false) => format!(" by {}", paused.by),
        (None, true) => String::new(),
    }
}

/// Whether the group was paused when the reader last looked.
#[derive(Debug, Default)]
pub(crate) struct PauseWatch {
    is_on: bool,
    /// When to look again.
    next: Option<Instant>,
    said_refused: bool,
}

/// Where the reader is in its round.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Own history, from behind this ID, of the stream with this index.
    History { stream: usize, after: EntryId },
    /// The dead's entries, from this ID, of the stream with this index.
    Claim { stream: usize, cursor: EntryId },
    /// New entries.
    New,
}

impl Phase {
    const HISTORY: Self = Self::History {
        stream: 0,
        after: EntryId::MIN,
    };
    const CLAIM: Self = Self::Claim {
        stream: 0,
        cursor: EntryId::MIN,
    };
}

impl Reader {
    /// Reads until told to stop, or until nothing is left when draining.
    ///
    /// # Errors
    ///
    /// [`ReadError`] when an operator must act; everything else is waited out.
    pub(crate) async fn run(
        mut self,
        entries: mpsc::Sender<Read>,
        stop: CancellationToken,
    ) -> Result<(), ReadError> {
        // Entries may have been delivered to a process of the same name before us.
        let mut phase = Phase::HISTORY;
        let mut next_claim = Instant::now();
        let mut backoff = Duration::ZERO;
        let mut count = 16;
        // Dropping a read in flight would lose entries that Redis has already delivered to us: they
        // would sit in the pending entries list until someone claims them. So a read always runs to
        // its end, and `block` bounds how long that takes.
        while !stop.is_cancelled() {
            if self.pause.is_on {
                self.turning.waits();
                tokio::select! {
                    () = tokio::time::sleep(LOOK_FOR_PAUSE) => {}
                    () = stop.cancelled() => return Ok(()),
                }
            }
            self.turning.turns();
            if phase == Phase::New && Instant::now() >= next_claim {
                phase = Phase::CLAIM;
            }
            let was_new = phase == Phase::New;
            let begun = Instant::now();
            let stepped = match self.look_for_pause().await {
                Ok(()) if self.pause.is_on => Ok(None),
                Ok(()) => self.step(&mut phase, count).await.map(Some),
                Err(failure) => Err(failure),
            };
            match stepped {
                Ok(None) => {}
                Ok(Some(delivered)) => {
                    if !backoff.is_zero() {
                        backoff = Duration::ZERO;
                        info!("reading from Redis again");
                    }
                    if phase == Phase::New && !was_new {
                        next_claim = Instant::now() + self.min_idle / 3;
                    }
                    let nothing_new = delivered.is_empty();
                    let fresh = self.keep_fresh(delivered);
                    if !fresh.is_empty() {
                        count = self.count_for(&fresh, count);
                        if !self.pass_on(fresh, begun.elapsed(), &entries, &stop).await {
                            return Ok(());
                        }
                    } else if self.drain && nothing_new && was_new {
                        if self.is_drained().await {
                            return Ok(());
                        }
                        self.wait_for_settling().await;
                    }
                }
                Err(failure) => {
                    self.heal(failure, &mut phase).await?;
                    backoff = (backoff * 2).clamp(Duration::from_millis(50), MAX_BACKOFF);
                    self.turning.waits();
                    tokio::select! {
                        () = tokio::time::sleep(backoff) => {}
                        () = stop.cancelled() => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Looks, a few times a second, whether the group is paused.
    async fn look_for_pause(&mut self) -> Result<(), ReadError> {
        if self.pause.next.is_some_and(|next| Instant::now() < next) {
            return Ok(());
        }
        let connection = self.link.get().await?;
        let looking = pause::look(connection, &self.paused, &self.group);
        let paused = match within(self.server_timeout, looking).await? {
            Ok(paused) => paused,
            Err(error) if recovery(&error) == RedisRecovery::Stop => {
                if !self.pause.said_refused {
                    self.pause.said_refused = true;
                    warn!(
                        error = %ErrorChain(&error),
                        "it cannot be seen whether the group is paused: going on as before"
                    );
                }
                self.pause.next = Some(Instant::now() + LOOK_FOR_PAUSE);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.pause.next = Some(Instant::now() + LOOK_FOR_PAUSE);
        match paused {
            Some(Stamped { told: paused, .. }) if !self.pause.is_on => {
                if self.drain {
                    let group = self.group.clone();
                    return Err(ReadError::Paused { group, paused });
                }
                info!(
                    by = paused.by,
                    reason = paused.reason,
                    "paused: reading nothing until the group is resumed"
                );
                self.pause.is_on = true;
                self.stats.paused(true);
            }
            None if self.pause.is_on => {
                info!("resumed: reading again");
                self.pause.is_on = false;
                self.stats.paused(false);
            }
            _ => {}
        }
        Ok(())
    }

    /// Passes entries on to the decoder, those suspected to kill workers one by one with nothing else in
    /// work; `false` when the worker is being torn down.
    async fn pass_on(
        &mut self,
        mut delivered: Vec<Delivered>,
        took: Duration,
        entries: &mpsc::Sender<Read>,
        stop: &CancellationToken,
    ) -> bool {
        let at = Instant::now();
        let read = |entries| Read { entries, at, took };
        let suspects = self.take_suspects(&mut delivered).await;
        self.turning.waits();
        if !delivered.is_empty() && entries.send(read(delivered)).await.is_err() {
            return false;
        }
        let mut left = suspects;
        while !left.is_empty() {
            if !self.settled_but(left.len(), stop).await {
                // They stay pending, and are delivered again.
                let left: Vec<_> = left.into_iter().map(|entry| entry.origin).collect();
                self.in_flight.remove(&left);
                return false;
            }
            let suspect = left.pop().into_iter().collect();
            if entries.send(read(suspect)).await.is_err() {
                return false;
            }
            if left.is_empty() {
                // Nor may what is read next be in work with it.
                return self.settled_but(0, stop).await;
            }
        }
        true
    }

    /// Waits until nothing but so many entries is in work; `false` when told to stop before that.
    async fn settled_but(&self, n_entries: usize, stop: &CancellationToken) -> bool {
        while self.in_flight.len() > n_entries {
            tokio::select! {
                () = self.wait_for_settling() => {}
                () = stop.cancelled() => return false,
            }
        }
        true
    }

    /// Waits until entries in work were settled, with whomever.
    async fn wait_for_settling(&self) {
        tokio::select! {
            () = self.in_flight.removed() => {}
            () = tokio::time::sleep(DRAIN_POLL) => {}
        }
    }

    /// Takes those entries out that were delivered suspiciously often.
    async fn take_suspects(&mut self, delivered: &mut Vec<Delivered>) -> Vec<Delivered> {
        if !delivered.iter().any(|entry| entry.again) {
            return Vec::new();
        }
        let Ok(connection) = self.link.get().await else {
            return Vec::new();
        };
        let asking = suspects::among(connection, &self.group, &self.consumer, delivered);
        let suspects = match within(self.server_timeout, asking).await {
            Ok(Ok(suspects)) => suspects,
            Ok(Err(_)) => return Vec::new(),
            Err(_) => {
                self.link.disconnect();
                return Vec::new();
            }
        };
        let mut suspects: Vec<_> = delivered
            .extract_if(.., |entry| suspects.contains(&entry.origin))
            .inspect(|entry| {
                warn!(
                    stream = %entry.origin.stream,
                    entry_id = %entry.origin.id,
                    "an entry was delivered again and again without being settled: it is stored alone, \
                     in case it is what ends workers"
                );
            })
            .collect();
        // In another order each time: the one that ends workers was delivered with others, which are no less
        // suspected, and those before it must not always be the same.
        let order = RandomState::new();
        suspects.sort_by_cached_key(|entry| order.hash_one(&entry.origin));
        suspects
    }

    /// One command of the current phase, and the step to the next phase.
    async fn step(&mut self, phase: &mut Phase, count: usize) -> Result<Vec<Delivered>, ReadError> {
        if *phase == Phase::HISTORY || *phase == Phase::CLAIM {
            let connection = self.link.get().await?;
            let n_lost = within(self.server_timeout, self.tail.check(connection)).await??;
            self.stats.lost_tails(n_lost);
            self.metrics.lost_tails(n_lost);
        }
        match *phase {
            Phase::New => self.read(None, count).await,
            Phase::History { stream, after } => {
                let delivered = self.read(Some((stream, after)), count).await?;
                *phase = match delivered.last() {
                    Some(last) => Phase::History {
                        stream,
                        after: last.origin.id,
                    },
                    None if stream + 1 < self.streams.len() => Phase::History {
                        stream: stream + 1,
                        after: EntryId::MIN,
                    },
                    None => Phase::CLAIM,
                };
                Ok(delivered)
            }
            Phase::Claim { stream, cursor } => {
                let connection = self.link.get().await?;
                let claiming = reclaimer::claim_page(
                    connection,
                    &self.streams[stream],
                    &self.group,
                    &self.consumer,
                    self.min_idle,
                    cursor,
                    count,
                );
                let Claimed {
                    next,
                    delivered,
                    has_nameless,
                } = within(self.server_timeout, claiming).await??;
                *phase = if has_nameless {
                    Phase::HISTORY
                } else if next != EntryId::MIN {
                    Phase::Claim {
                        stream,
                        cursor: next,
                    }
                } else if stream + 1 < self.streams.len() {
                    Phase::Claim {
                        stream: stream + 1,
                        cursor: EntryId::MIN,
                    }
                } else {
                    Phase::New
                };
                if !delivered.is_empty() {
                    self.metrics.claimed(delivered.len());
                    warn!(
                        stream = %self.streams[stream],
                        n_entries = delivered.len(),
                        "claimed entries of consumers that show no sign of life"
                    );
                }
                Ok(delivered)
            }
        }
    }

    /// `XREADGROUP`: new entries of all streams, or the history of one from behind an ID.
    async fn read(
        &mut self,
        history: Option<(usize, EntryId)>,
        count: usize,
    ) -> Result<Vec<Delivered>, ReadError> {
        let mut command = redis::cmd("XREADGROUP");
        command
            .arg("GROUP")
            .arg(&self.group)
            .arg(self.consumer.as_str())
            .arg("COUNT")
            .arg(count);
        match history {
            None => {
                if !self.drain {
                    // What is blocked does not see that the group was paused.
                    let block = self.block.min(LONGEST_BLOCK);
                    let ms = u64::try_from(block.as_millis()).unwrap_or(u64::MAX);
                    // BLOCK 0 would be for ever.
                    command.arg("BLOCK").arg(ms.max(1));
                }
                command.arg("STREAMS");
                for stream in &self.streams {
                    command.arg(stream.as_ref());
                }
                for _ in &self.streams {
                    command.arg(">");
                }
            }
            Some((stream, after)) => {
                command
                    .arg("STREAMS")
                    .arg(self.streams[stream].as_ref())
                    .arg(after);
            }
        }
        let connection = self.link.get().await?;
        let reading = connection.ask(&command);
        let reply = within(self.block + self.server_timeout, reading).await??;
        Ok(reply::read_reply(reply, &self.streams, history.is_some())?)
    }

    /// Drops what is on its way through the worker already.
    fn keep_fresh(&mut self, mut delivered: Vec<Delivered>) -> Vec<Delivered> {
        delivered.retain(|entry| self.in_flight.insert(&entry.origin));
        for entry in &delivered {
            self.tail.read(&entry.origin);
        }
        let n_again = delivered.iter().filter(|entry| entry.again).count();
        self.stats.read(delivered.len(), n_again);
        self.metrics.read(delivered.len(), n_again);
        delivered
    }

    /// How many entries to ask for next: about one batch of them, going by the largest of the last
    /// ones, and never many more than the last time. `COUNT` counts entries, of each stream, and an
    /// entry has one row or thousands.
    fn count_for(&self, delivered: &[Delivered], last: usize) -> usize {
        let largest = delivered
            .iter()
            .map(Delivered::n_bytes)
            .max()
            .unwrap_or(0)
            .max(1);
        // A row takes about 40 bytes on the wire.
        let by_rows = self.batch_rows.get() * 40 / largest;
        let by_bytes = self.batch_bytes.get() / largest;
        let per_stream = by_rows.min(by_bytes) / self.streams.len();
        per_stream.clamp(1, MAX_COUNT.min(2 * last))
    }

    /// Whether nothing is pending, with whomever.
    async fn is_drained(&mut self) -> bool {
        if self.in_flight.len() > 0 {
            return false;
        }
        let Ok(connection) = self.link.get().await else {
            return false;
        };
        for stream in &self.streams {
            let asking = group::n_pending(connection, stream, &self.group);
            match within(self.server_timeout, asking).await {
                Ok(Ok(0)) => {}
                Ok(_) => return false,
                Err(_) => {
                    self.link.disconnect();
                    return false;
                }
            }
        }
        true
    }

    /// Does what can be done about a failed read.
    async fn heal(&mut self, failure: ReadError, phase: &mut Phase) -> Result<(), ReadError> {
        let recovery = failure.recovery();
        self.metrics.read_failed(recovery);
        self.stats.met(failure.trouble());
        match recovery {
            RedisRecovery::Reconnect => {
                if self.link.is_connected() || *phase == Phase::New {
                    warn!(error = %ErrorChain(&failure), "lost Redis: reconnecting");
                }
                self.link.disconnect();
                // Entries may have been delivered into the dead connection.
                *phase = Phase::HISTORY;
            }
            RedisRecovery::Wait => {
                warn!(error = %ErrorChain(&failure), "Redis cannot serve now: waiting");
            }
            RedisRecovery::RecreateGroup => {
                error!(
                    error = %ErrorChain(&failure),
                    "the consumer group is gone: creating it again from the stream's beginning; \
                     entries that were deleted with it are lost, those that are there will be \
                     delivered again and stored once"
                );
                self.metrics.stream_reset();
                for stream in self.streams.clone() {
                    let Ok(connection) = self.link.get().await else {
                        continue;
                    };
                    let creating = group::create(connection, &stream, &self.group);
                    match within(self.server_timeout, creating).await {
                        Ok(Ok(_)) => {}
                        Ok(Err(error)) => {
                            warn!(%stream, error = %ErrorChain(&error), "create the consumer group");
                        }
                        Err(_) => self.link.disconnect(),
                    }
                }
                *phase = Phase::HISTORY;
            }
            RedisRecovery::Stop => return Err(failure),
        }
        Ok(())
    }
}

async fn within<F: Future>(limit: Duration, future: F) -> Result<F::Output, ReadError> {
    tokio::time::timeout(limit, future)
        .await
        .map_err(|_| ReadError::TimedOut {
            seconds: limit.as_secs(),
        })
}
