//! Producers in this process, through the library: one for each policy.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use passerby_producer::{
    AsyncProducer, Overflow, ProducerConfig, Recorded, RedisTimeouts, RedisUrl, Stats,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{books::Account, rows::Source};

/// In this process.
pub(crate) const N_PRODUCERS: usize = 3;
pub(crate) const ROWS_PER_SECOND: i64 = 450;
/// A frame of rows is recorded so often.
const FRAME: Duration = Duration::from_millis(20);
/// One row in so many is followed by a snapshot of its track.
const TRACK_EVERY: i64 = 10;
/// Redis is back when this is waited for.
const FLUSH_PATIENCE: Duration = Duration::from_secs(30);

/// What a producer near its servers would use, and little patience.
pub(crate) fn config(redis_url: RedisUrl) -> ProducerConfig {
    ProducerConfig {
        redis_timeouts: RedisTimeouts {
            connect: Duration::from_millis(500),
            response: Duration::from_millis(500),
        },
        max_rows: NonZeroUsize::new(50).expect("not zero"),
        retry_min: Duration::from_millis(20),
        retry_max: Duration::from_millis(500),
        ..ProducerConfig::new(redis_url)
    }
}

/// The producers; they live as long as the run.
#[derive(Debug)]
pub(crate) struct Producers {
    all: Vec<Arc<Counted>>,
}

/// A producer and what it said it had dropped when last asked.
#[derive(Debug)]
struct Counted {
    producer: AsyncProducer,
    number: usize,
}

/// What a round brought.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    pub(crate) accounts: Vec<Account>,
    /// Rows that were not accepted.
    pub(crate) n_refused: u64,
    /// What is wrong with the producers' books.
    pub(crate) errors: Vec<String>,
}

impl Producers {
    pub(crate) fn start(redis_url: &RedisUrl) -> Self {
        let policies = [
            Overflow::DropNewest,
            Overflow::DropOldest,
            Overflow::Block(Duration::from_millis(100)),
        ];
        let all = policies.iter().enumerate().map(|(number, policy)| {
            let config = ProducerConfig {
                overflow: *policy,
                // Two seconds without Redis, and the policy shows.
                buffer_rows: NonZeroUsize::new(1_000).expect("not zero"),
                ..config(redis_url.clone())
            };
            let producer = AsyncProducer::start(config).unwrap();
            Arc::new(Counted { producer, number })
        });
        Self { all: all.collect() }
    }

    /// Records the rows of these sources, one for each producer, for so long.
    pub(crate) async fn record(&self, sources: Vec<Source>, length: Duration) -> Recording {
        let until = Instant::now() + length;
        let mut tasks = tokio::task::JoinSet::new();
        for (counted, source) in self.all.iter().zip(sources) {
            let counted = Arc::clone(counted);
            tasks.spawn(async move { counted.record(source, length, until).await });
        }
        let mut all = Recording::default();
        for one in tasks.join_all().await {
            all.accounts.extend(one.accounts);
            all.n_refused += one.n_refused;
            all.errors.extend(one.errors);
        }
        all
    }

    /// Waits until Redis has everything, and completes the accounts of the round.
    pub(crate) async fn flush(&self, before: &[Stats], recording: &mut Recording) {
        for (counted, before) in self.all.iter().zip(before) {
            let Counted { producer, number } = &**counted;
            if let Err(error) = producer.flush(FLUSH_PATIENCE).await {
                let trouble = producer.stats().last_error.map(|last| last.error);
                recording
                    .errors
                    .push(format!("producer {number}: {error}: {trouble:?}"));
            }
            let stats = producer.stats();
            let suffix = format!("-p{number}");
            let account = recording
                .accounts
                .iter_mut()
                .find(|account| account.source.session_id.ends_with(&suffix))
                .expect("each producer has an account");
            account.n_dropped = stats.detections.dropped_oldest - before.detections.dropped_oldest;
            account.n_dropped_tracks = stats.tracks.dropped_oldest - before.tracks.dropped_oldest;
            if stats.sessions.dropped_oldest > before.sessions.dropped_oldest {
                account.ended_after = None;
            }
            let counted = stats.detections.accepted - before.detections.accepted;
            if counted != account.accepted.len() as u64 {
                recording.errors.push(format!(
                    "producer {number} counts {counted} accepted detections, and accepted {}",
                    account.accepted.len()
                ));
            }
            if stats.rows().buffered > 0 || !balances(&stats) {
                recording
                    .errors
                    .push(format!("books of producer {number}: {:?}", stats.rows()));
            }
        }
    }

    pub(crate) fn stats(&self) -> Vec<Stats> {
        self.all
            .iter()
            .map(|counted| counted.producer.stats())
            .collect()
    }
}

fn balances(stats: &Stats) -> bool {
    [stats.detections, stats.tracks, stats.sessions]
        .iter()
        .all(passerby_producer::RowStats::balances)
}

impl Counted {
    async fn record(&self, source: Source, length: Duration, until: Instant) -> Recording {
        let mut recording = Recording::default();
        let mut account = Account::new(source.clone());
        // The same rows in every run of the seed, however busy the machine is.
        let n_rows = n_rows(&source, length);
        let mut tick = interval(FRAME);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let begun_at = Instant::now();
        let mut n = 0;
        self.announce(source.session(None)).await;
        while n < n_rows {
            tick.tick().await;
            let due = if Instant::now() >= until {
                n_rows
            } else {
                due(&source, begun_at, n_rows)
            };
            while n < due {
                match self.producer.record(source.detection(n)).await {
                    Ok(Recorded::Accepted) => {
                        account.accepted.insert(n);
                    }
                    Ok(Recorded::Dropped) => recording.n_refused += 1,
                    Err(error) => recording.errors.push(format!("row {n}: {error}")),
                }
                if n % TRACK_EVERY == 0
                    && let Ok(Recorded::Accepted) = self.producer.track(source.track(n)).await
                {
                    account.track_accepted(n);
                }
                n += 1;
            }
            let stats = self.producer.stats();
            if !balances(&stats) {
                recording
                    .errors
                    .push(format!("books of producer {}: {stats:?}", self.number));
            }
        }
        if self.announce(source.session(Some(n_rows))).await {
            account.ended_after = Some(n_rows);
        }
        recording.accounts.push(account);
        recording
    }

    async fn announce(&self, session: passerby_producer::Session) -> bool {
        matches!(self.producer.session(session).await, Ok(Recorded::Accepted))
    }
}

/// Rows of a round.
pub(crate) fn n_rows(source: &Source, length: Duration) -> i64 {
    source.rows_per_second * i64::try_from(length.as_millis()).expect("short") / 1_000
}

/// Rows that should have been recorded by now.
pub(crate) fn due(source: &Source, begun_at: Instant, n_rows: i64) -> i64 {
    let elapsed = i64::try_from(begun_at.elapsed().as_millis()).expect("short");
    (source.rows_per_second * elapsed / 1_000).min(n_rows)
}
