//! Tells Redis the producer's books, so that operators can see what became of every row.
//!
//! A task of its own with a connection of its own: whatever happens to it, no row waits for it. What cannot be
//! told now is told a second later, whole.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use passerby_shared::{
    ErrorChain, IdempotencyKey, KeyPrefix,
    books::{Lately, ProducerRecord, RowBooks, SpoolRecord, tell_books},
    host_name,
    redis_connection::{RedisLink, RedisRecovery},
};
use tokio::{
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{debug, warn};

use crate::{
    cache::CacheQueue,
    config::ProducerConfig,
    handover::Handover,
    spool::spool_id,
    stats::{RowStats, Stats},
};

/// How often something is told, if there is anything new.
const EVERY: Duration = Duration::from_secs(1);
/// How often a producer without news shows that it is there.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// What [`Lately`] is about, in times [`EVERY`].
const LATELY: usize = 10;
/// Longest wait at the end for Redis to hear the last word.
pub(crate) const LAST_WORD: Duration = Duration::from_millis(500);
/// The same when the time to close is over: what was lost then is to be heard of, if Redis listens.
pub(crate) const LAST_WORD_AT_LEAST: Duration = Duration::from_millis(100);

pub(crate) struct Bookkeeper {
    link: RedisLink,
    key_prefix: KeyPrefix,
    /// Not the spool's: of two producers on it, one after the other, each has its own.
    producer_id: String,
    started_at: DateTime<Utc>,
    /// The spool, and the number of the first row accepted here.
    spool: Option<(String, u64)>,
    handover: Arc<Handover>,
    cache: CacheQueue,
    told: Option<(Stats, Instant)>,
    lately: VecDeque<(Instant, Lately)>,
    said_refused: bool,
}

impl Bookkeeper {
    pub(crate) fn new(config: &ProducerConfig, handover: Arc<Handover>, cache: CacheQueue) -> Self {
        let first_seq = handover.buffer().next_seq();
        Self {
            link: RedisLink::new(config.redis_url.clone(), config.redis_timeouts),
            key_prefix: config.key_prefix.clone(),
            producer_id: IdempotencyKey::generate().to_string(),
            started_at: Utc::now(),
            spool: config
                .spool
                .as_ref()
                .map(|spool| (spool_id(&spool.dir), first_seq)),
            handover,
            cache,
            told: None,
            lately: VecDeque::new(),
            said_refused: false,
        }
    }

    /// Tells Redis until `end` fires, and then what the producer ends with.
    pub(crate) async fn run(mut self, mut end: oneshot::Receiver<()>) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = &mut end => break,
                _ = tick.tick() => {}
            }
            let stats = self.handover.buffer().stats().clone();
            self.note(&stats);
            if self.is_news(&stats) {
                self.tell(stats, false).await;
            }
        }
        let (stats, in_trouble) = {
            let buffer = self.handover.buffer();
            (buffer.stats_at_end(), buffer.is_in_trouble())
        };
        // Who cannot publish is not heard here either, and would only take longer to end.
        if !in_trouble || self.link.is_connected() {
            self.tell(stats, true).await;
        }
    }

    fn is_news(&self, stats: &Stats) -> bool {
        self.told
            .as_ref()
            .is_none_or(|(told, at)| told != stats || at.elapsed() >= SIGN_OF_LIFE)
    }

    /// Remembers how far the producer was.
    fn note(&mut self, stats: &Stats) {
        let rows = stats.rows();
        let so_far = Lately {
            seconds: 0.0,
            accepted: rows.accepted,
            published: rows.published,
            entries: stats.entries_published,
        };
        self.lately.push_back((Instant::now(), so_far));
        if self.lately.len() > LATELY + 1 {
            self.lately.pop_front();
        }
    }

    fn lately(&self) -> Lately {
        let (Some((begin, first)), Some((end, last))) = (self.lately.front(), self.lately.back())
        else {
            return Lately::default();
        };
        Lately {
            seconds: (*end - *begin).as_secs_f64(),
            accepted: last.accepted - first.accepted,
            published: last.published - first.published,
            entries: last.entries - first.entries,
        }
    }

    fn record(&self, stats: &Stats, closed: bool) -> ProducerRecord {
        let pressure = self
            .cache
            .saturation()
            .pressure()
            .max(self.handover.buffer().pressure());
        ProducerRecord {
            host: host_name(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            closed,
            detections: books_of(stats.detections),
            tracks: books_of(stats.tracks),
            sessions: books_of(stats.sessions),
            entries_published: stats.entries_published,
            largest_entry_rows: stats.largest_entry_rows,
            spool: self.spool.as_ref().map(|(id, first_seq)| SpoolRecord {
                id: id.clone(),
                first_seq: *first_seq,
                bytes: stats.spool.bytes,
                is_abandoned: stats.spool.is_abandoned,
            }),
            lately: self.lately(),
            pressure,
            ..ProducerRecord::default()
        }
    }

    async fn tell(&mut self, stats: Stats, closed: bool) {
        let record = self.record(&stats, closed);
        let command = tell_books(&self.key_prefix, &self.producer_id, &record);
        let connection = match self.link.get().await {
            Ok(connection) => connection,
            Err(error) => {
                debug!(error = %ErrorChain(&error), "the books cannot be told now");
                return;
            }
        };
        match command.query_async::<redis::Value>(connection).await {
            Ok(_) => self.told = Some((stats, Instant::now())),
            Err(error) => {
                if self.link.judge(&error) == RedisRecovery::Stop && !self.said_refused {
                    self.said_refused = true;
                    warn!(
                        error = %ErrorChain(&error),
                        "the books cannot be told: `passerby status` will not know this producer"
                    );
                } else {
                    debug!(error = %ErrorChain(&error), "the books cannot be told now");
                }
            }
        }
    }
}

fn books_of(rows: RowStats) -> RowBooks {
    RowBooks {
        accepted: rows.accepted,
        recovered: rows.recovered,
        published: rows.published,
        dropped_oldest: rows.dropped_oldest,
        dropped_closed: rows.dropped_closed,
        dropped_spool_full: rows.dropped_spool_full,
        dropped_spool_damaged: rows.dropped_spool_damaged,
        buffered: rows.buffered,
        spooled: rows.spooled,
        dropped_newest: rows.dropped_newest,
        block_timeouts: rows.block_timeouts,
        invalid: rows.invalid,
    }
}
