//! Where every row is, who works on it, and how fast: the whole installation on one page.
//!
//! Redis is asked first, with one script, so that all it tells is of one moment; then Postgres, with one
//! snapshot. In between rows go on their way. The order is such that a row may be counted twice and none is
//! missed: what was stored and acknowledged between the two looks is in the second one.
//!
//! Producers tell their books about once a second, and what they tell is of a moment before that. So rows may
//! be stored whose acceptance is not yet known; [`Balance::surplus`] has them.

mod balance;
mod judge;
pub(super) mod look;
mod producers;

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use passerby_shared::{
    ErrorChain,
    books::{Lately, ProducerRecord, Stamped},
};
use serde::Serialize;

use balance::balance;
pub use balance::{Balance, Dropped};
pub use judge::{Severity, Symptom, Thresholds};
pub(crate) use producers::in_turn;

use super::{OpsError, Target};
use crate::{
    Paused,
    books_keeper::{self, Expiry},
    presence::{WorkedLately, WorkerPresence},
    store::{Store, StoreBooks},
};

/// A worker or producer that has not been heard of for so long is not counted on.
pub const SILENT_AFTER: Duration = Duration::from_secs(10);

/// Everything at one moment, or nearly so.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StatusReport {
    /// When it was asked for, by the clock of this machine.
    pub at: DateTime<Utc>,
    /// How long asking took, in milliseconds.
    pub took_ms: u64,
    /// The consumer group it is about.
    pub group: String,
    /// What Redis knows; `None` when it could not be asked.
    pub redis: Option<RedisStatus>,
    /// Why Redis could not be asked, and what to do.
    pub redis_error: Option<String>,
    /// What Postgres knows; `None` when it could not be asked.
    pub store: Option<StoreBooks>,
    /// Why Postgres could not be asked, and what to do.
    pub store_error: Option<String>,
    /// What became of every row; `None` unless both could be asked.
    pub balance: Option<Balance>,
    /// How fast it goes.
    pub flow: Option<Flow>,
}

/// What Redis knows.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RedisStatus {
    /// The server, without password.
    pub url: String,
    /// Its clock, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// Its release, as `redis 7.0.15`.
    pub version: String,
    /// Memory it uses, in bytes.
    pub used_memory: u64,
    /// Its `maxmemory`, in bytes; `None` without limit.
    pub max_memory: Option<u64>,
    /// The streams, one for each shard.
    pub streams: Vec<StreamStatus>,
    /// The consumers of the group and the workers that show themselves, by name.
    pub workers: Vec<WorkerStatus>,
    /// The producers that are not folded yet, by ID.
    pub producers: BTreeMap<String, Stamped<ProducerRecord>>,
    /// Producers that are gone, added up.
    pub producers_gone: ProducerRecord,
    /// Whether the group is paused, and since when.
    pub paused: Option<Stamped<Paused>>,
}

/// One stream.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StreamStatus {
    /// Its key.
    pub stream: String,
    /// Whether it is there.
    pub exists: bool,
    /// Whether the group is there.
    pub has_group: bool,
    /// Entries in it, acknowledged ones included that were not trimmed yet.
    pub length: u64,
    /// Entries ever added; `None` before Redis 7.
    pub entries_added: Option<u64>,
    /// Bytes it takes, by a sample; `None` where the server does not tell.
    pub bytes: Option<u64>,
    /// Entries delivered and not acknowledged.
    pub pending: u64,
    /// Entries not delivered yet.
    pub undelivered: u64,
    /// Whether that is known, and not estimated.
    pub undelivered_is_exact: bool,
    /// The oldest entry that is not acknowledged, delivered or not.
    pub oldest_entry_id: Option<String>,
    /// For how many seconds it has been in the stream.
    pub oldest_seconds: f64,
    /// For how many seconds the oldest pending entry has been in the stream.
    pub oldest_pending_seconds: f64,
}

/// One worker.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WorkerStatus {
    /// Its name in the group.
    pub consumer: String,
    /// What it tells of itself, if it does.
    pub presence: Option<Stamped<WorkerPresence>>,
    /// Whether it was heard of in the last [`SILENT_AFTER`].
    pub is_alive: bool,
    /// Entries it holds: delivered to it and not acknowledged.
    pub pending: u64,
    /// For how many seconds the oldest of them has been in the stream.
    pub oldest_pending_seconds: Option<f64>,
    /// For how many seconds that entry has had no sign of life.
    pub oldest_pending_idle_seconds: Option<f64>,
    /// For how many seconds the group has not heard of it; `None` when the group does not know it.
    pub idle_seconds: Option<f64>,
}

/// How fast it goes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Flow {
    /// Where the rates come from.
    pub source: FlowSource,
    /// Over how many seconds.
    pub seconds: f64,
    /// Rows accepted by producers a second.
    pub accepted_rows: f64,
    /// Entries that came into the streams a second.
    pub arriving_entries: f64,
    /// Entries that workers settled a second.
    pub settled_entries: f64,
    /// Detections stored a second.
    pub stored_detections: f64,
    /// Dead letters written a second.
    pub dead_letters: f64,
    /// Until the backlog is gone at these rates, in seconds; `None` when it does not shrink.
    pub drained_in_seconds: Option<f64>,
    /// Until Redis is full at these rates, in seconds; `None` without limit, or when it does not fill.
    pub full_in_seconds: Option<f64>,
}

/// Where rates come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FlowSource {
    /// Producers and workers told what they did in their last seconds. Entries of strangers are not among
    /// those that arrive.
    Reported,
    /// Two samples were compared.
    Sampled,
}

impl StatusReport {
    /// Entries that are not acknowledged: pending and undelivered.
    pub fn backlog_entries(&self) -> Option<u64> {
        self.redis.as_ref().map(RedisStatus::backlog_entries)
    }

    /// For how many seconds the oldest entry that is not acknowledged has been in its stream.
    pub fn backlog_seconds(&self) -> Option<f64> {
        self.redis.as_ref().map(RedisStatus::backlog_seconds)
    }

    /// Takes the rates from what changed since an earlier report, where both could ask everybody.
    pub fn compare(&mut self, earlier: &Self) {
        if let (Some(before), Some(now), Some(books), Some(earlier_books)) =
            (&earlier.redis, &self.redis, &self.store, &earlier.store)
            && let Some(flow) = Flow::between((before, earlier_books), (now, books))
        {
            self.flow = Some(flow);
        }
    }
}

impl RedisStatus {
    /// Whether it refuses, now or with the next entry, what needs memory.
    pub fn is_full(&self) -> bool {
        let percent = |part: u64, of: u64| u128::from(part) * 100 / u128::from(of.max(1));
        let limit = self.max_memory;
        limit.is_some_and(|limit| percent(self.used_memory, limit) >= 99)
    }

    /// Entries that are not acknowledged: pending and undelivered.
    pub fn backlog_entries(&self) -> u64 {
        self.pending() + self.undelivered()
    }

    /// Entries delivered and not acknowledged.
    pub fn pending(&self) -> u64 {
        self.streams.iter().map(|stream| stream.pending).sum()
    }

    /// Entries not delivered yet.
    pub fn undelivered(&self) -> u64 {
        self.streams.iter().map(|stream| stream.undelivered).sum()
    }

    /// Whether [`RedisStatus::undelivered`] is known, and not estimated.
    pub fn undelivered_is_exact(&self) -> bool {
        self.streams
            .iter()
            .all(|stream| stream.undelivered_is_exact)
    }

    /// For how many seconds the oldest entry that is not acknowledged has been in its stream.
    pub fn backlog_seconds(&self) -> f64 {
        let seconds = self.streams.iter().map(|stream| stream.oldest_seconds);
        seconds.fold(0.0, f64::max)
    }

    /// For how many seconds the oldest pending entry has been in its stream.
    pub fn oldest_pending_seconds(&self) -> f64 {
        let seconds = self
            .streams
            .iter()
            .map(|stream| stream.oldest_pending_seconds);
        seconds.fold(0.0, f64::max)
    }

    /// Whether something that was written then is silent now.
    pub fn is_silent(&self, updated_ms: u64) -> bool {
        let silent_ms = self.now_ms.saturating_sub(updated_ms);
        u128::from(silent_ms) > SILENT_AFTER.as_millis()
    }

    /// The producers that were heard of lately and not closed.
    pub fn live_producers(&self) -> impl Iterator<Item = &ProducerRecord> {
        self.producers
            .values()
            .filter(|record| !record.told.closed && !self.is_silent(record.updated_ms))
            .map(|record| &record.told)
    }

    /// The workers that were heard of lately.
    pub fn live_workers(&self) -> impl Iterator<Item = &WorkerPresence> {
        self.workers
            .iter()
            .filter(|worker| worker.is_alive)
            .filter_map(|worker| worker.presence.as_ref())
            .map(|presence| &presence.told)
    }
}

/// Asks both servers, each in its turn and whatever the other says.
///
/// A server that cannot be asked is no error: the report says which half of it is missing, and why.
///
/// # Cancel safety
///
/// Cancel safe: nothing is changed.
pub async fn status(target: &mut Target, store: &mut Store) -> StatusReport {
    let begun = tokio::time::Instant::now();
    let at = Utc::now();
    let redis = look::redis(target).await;
    let store = store
        .books(&target.key_prefix)
        .await
        .map_err(OpsError::from);
    let explain = |error: &OpsError| {
        let advice = error
            .advice()
            .map(|advice| format!("; {advice}"))
            .unwrap_or_default();
        format!("{}{advice}", ErrorChain(error))
    };
    let (redis, redis_error) = match redis {
        Ok(redis) => (Some(redis), None),
        Err(error) => (None, Some(explain(&error))),
    };
    let (store, store_error) = match store {
        Ok(store) => (Some(store), None),
        Err(error) => (None, Some(explain(&error))),
    };
    let balance = match (&redis, &store) {
        (Some(redis), Some(store)) => Some(balance(redis, store)),
        _ => None,
    };
    StatusReport {
        at,
        took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        group: target.group.clone(),
        flow: redis.as_ref().map(Flow::reported),
        redis,
        redis_error,
        store,
        store_error,
        balance,
    }
}

/// Does at once what workers do every half minute: adds up what connections, producers and workers left behind
/// that have been gone for `left_alone`.
///
/// # Errors
///
/// [`OpsError`] when a server cannot be reached or refuses. No number changes in any case.
pub async fn fold_books(
    target: &mut Target,
    store: &mut Store,
    left_alone: Duration,
) -> Result<(), OpsError> {
    let expiry = Expiry {
        closed: left_alone,
        silent: left_alone,
    };
    let key_prefix = target.key_prefix.clone();
    let connection = target.link.get().await?;
    let failed = || OpsError::command("fold what producers and workers left");
    books_keeper::fold_producers(connection, &key_prefix, expiry)
        .await
        .map_err(failed())?;
    books_keeper::retire_workers(connection, &key_prefix, expiry)
        .await
        .map_err(failed())?;
    Ok(store.fold_books(left_alone).await?)
}

impl Flow {
    /// From what producers and workers tell of their last seconds.
    fn reported(redis: &RedisStatus) -> Self {
        let per_second = |n: u64, seconds: f64| {
            if seconds > 0.0 {
                n as f64 / seconds
            } else {
                0.0
            }
        };
        let produced: Vec<Lately> = redis.live_producers().map(|p| p.lately).collect();
        let worked: Vec<WorkedLately> = redis.live_workers().map(|w| w.lately).collect();
        let produced_rate = |of: fn(&Lately) -> u64| -> f64 {
            let rates = produced.iter().map(|l| per_second(of(l), l.seconds));
            // A sum of nothing would be −0.
            rates.fold(0.0, std::ops::Add::add)
        };
        let worked_rate = |of: fn(&WorkedLately) -> u64| -> f64 {
            let rates = worked.iter().map(|l| per_second(of(l), l.seconds));
            rates.fold(0.0, std::ops::Add::add)
        };
        let seconds = produced.iter().map(|l| l.seconds);
        let seconds = seconds.chain(worked.iter().map(|l| l.seconds));
        Self {
            source: FlowSource::Reported,
            seconds: seconds.fold(0.0, f64::max),
            accepted_rows: produced_rate(|l| l.accepted),
            arriving_entries: produced_rate(|l| l.entries),
            settled_entries: worked_rate(|l| l.entries),
            stored_detections: worked_rate(|l| l.detections),
            dead_letters: worked_rate(|l| l.dead_letters),
            drained_in_seconds: None,
            full_in_seconds: None,
        }
        .with_outlook(redis, None)
    }

    /// From two samples; `None` when something was started anew between them.
    fn between(
        (before, books_before): (&RedisStatus, &StoreBooks),
        (now, books): (&RedisStatus, &StoreBooks),
    ) -> Option<Self> {
        let redis_seconds = now.now_ms.checked_sub(before.now_ms)? as f64 / 1e3;
        let store_seconds = (books.now - books_before.now).as_seconds_f64();
        if redis_seconds <= 0.0 || store_seconds <= 0.0 {
            return None;
        }
        let accepted = |redis: &RedisStatus| -> u64 {
            let gone = redis.producers_gone.rows().accepted;
            let there = redis.producers.values().map(|p| p.told.rows().accepted);
            gone + there.sum::<u64>()
        };
        let settled = |books: &StoreBooks| books.entries + books.duplicates;
        let per_second = |before: u64, now: u64, seconds: f64| {
            now.checked_sub(before).map(|n| n as f64 / seconds)
        };
        let settled = per_second(settled(books_before), settled(books), store_seconds)?;
        let added = |redis: &RedisStatus| -> Option<u64> {
            redis.streams.iter().map(|s| s.entries_added).sum()
        };
        // Before Redis 7 what came is what was settled and what the backlog grew by.
        let arriving = match (added(before), added(now)) {
            (Some(one), Some(two)) => per_second(one, two, redis_seconds)?,
            _ => {
                let grown = now.backlog_entries() as f64 - before.backlog_entries() as f64;
                (settled + grown / redis_seconds).max(0.0)
            }
        };
        let letters = |books: &StoreBooks| books.dead_letters.iter().map(|d| d.written).sum();
        let memory_growth = (now.used_memory as f64 - before.used_memory as f64) / redis_seconds;
        let flow = Self {
            source: FlowSource::Sampled,
            seconds: redis_seconds,
            accepted_rows: per_second(accepted(before), accepted(now), redis_seconds)?,
            arriving_entries: arriving,
            settled_entries: settled,
            stored_detections: per_second(
                books_before.detections,
                books.detections,
                store_seconds,
            )?,
            dead_letters: per_second(letters(books_before), letters(books), store_seconds)
                .unwrap_or(0.0),
            drained_in_seconds: None,
            full_in_seconds: None,
        };
        Some(flow.with_outlook(now, Some(memory_growth)))
    }

    /// What will be, should it go on like this. Growth of memory is bytes a second, where it was measured.
    fn with_outlook(mut self, redis: &RedisStatus, memory_growth: Option<f64>) -> Self {
        let net = self.settled_entries - self.arriving_entries;
        let backlog = redis.backlog_entries();
        self.drained_in_seconds = if backlog == 0 {
            Some(0.0)
        } else {
            (net > 0.0).then(|| backlog as f64 / net)
        };
        let growth = memory_growth.or_else(|| {
            let (entries, bytes) = redis.streams.iter().fold((0, 0), |(n, sum), stream| {
                (n + stream.length, sum + stream.bytes.unwrap_or(0))
            });
            (entries > 0).then(|| -net * bytes as f64 / entries as f64)
        });
        self.full_in_seconds = redis.max_memory.and_then(|limit| {
            let room = limit.saturating_sub(redis.used_memory);
            let growth = growth.filter(|growth| *growth > 0.0)?;
            Some(room as f64 / growth)
        });
        self
    }
}
