//! Handles of all series, made once for each worker.

use std::time::Duration;

use chrono::Utc;
use metrics::{Counter, Gauge, Histogram};
use passerby_shared::{Label, Metric, redis_connection::RedisRecovery};

use super::*;
use crate::{
    batch::Batch,
    ops::{RedisStatus, StatusReport},
    store::{CommitReport, Fault, Reason, TableStats, first_timestamp_us},
    timing::Stages,
};

/// The series of one worker, registered with the recorder that was installed when it was started.
pub(crate) struct Metrics {
    entries_new: Counter,
    entries_again: Counter,
    read_failures: PerRecovery,
    entries_claimed: Counter,
    detections: Counter,
    tracks: Counter,
    entries_committed: Counter,
    known_by_ledger: Counter,
    known_by_batch: Counter,
    /// In the order of [`Reason::ALL`].
    dead_letters: Vec<Counter>,
    /// In the order of [`Fault::ALL`].
    commit_failures: Vec<Counter>,
    commit_seconds: Histogram,
    /// In the order of [`STAGE`].
    stages: Vec<Histogram>,
    batch_rows: Histogram,
    capture_to_commit: Histogram,
    record_to_commit: Histogram,
    stream_to_commit: Histogram,
    entries_acked: Counter,
    ack_failures: PerRecovery,
    entries_trimmed: Counter,
    stream_resets: Counter,
    lost_tails: Counter,
    ledger_pruned: Counter,
    last_commit: Gauge,
    redis_connections: Counter,
    group: GroupGauges,
    tables: TableGauges,
    redis_up: Gauge,
    postgres_up: Gauge,
    in_flight: Gauge,
    store_failing: Gauge,
}

/// Counters by what is done about a failed command.
struct PerRecovery {
    reconnect: Counter,
    wait: Counter,
    recreate_group: Counter,
    stop: Counter,
}

impl PerRecovery {
    fn of(metric: Metric) -> Self {
        let counter = |recovery| metric.counter(&[(RECOVERY.name, recovery)]);
        Self {
            reconnect: counter("reconnect"),
            wait: counter("wait"),
            recreate_group: counter("recreate-group"),
            stop: counter("stop"),
        }
    }

    fn count(&self, recovery: RedisRecovery) {
        let counter = match recovery {
            RedisRecovery::Reconnect => &self.reconnect,
            RedisRecovery::Wait => &self.wait,
            RedisRecovery::RecreateGroup => &self.recreate_group,
            RedisRecovery::Stop => &self.stop,
        };
        counter.increment(1);
    }
}

/// What all workers of a group see alike.
struct GroupGauges {
    backlog_entries: Gauge,
    backlog_age: Gauge,
    lag_entries: Gauge,
    pending_entries: Gauge,
    oldest_pending_age: Gauge,
    stream_entries: Gauge,
    oldest_spooled_age: Gauge,
    /// In the order of [`STATE`].
    rows: Vec<Gauge>,
    /// In the order of [`Reason::ALL`].
    waiting_dead_letters: Vec<Gauge>,
    producers: Gauge,
    workers: Gauge,
    paused: Gauge,
    used_memory: Gauge,
    max_memory: Gauge,
}

struct TableGauges {
    partitions: Gauge,
    partitions_ahead: Gauge,
    default_partition_bytes: Gauge,
    ledger_bytes: Gauge,
}

impl Metrics {
    /// Registers all series. What has not been measured yet is not 0 but NaN.
    pub(crate) fn register() -> Self {
        describe();
        let unmeasured = |metric: Metric| {
            let gauge = metric.gauge(&[]);
            gauge.set(f64::NAN);
            gauge
        };
        let unmeasured_each = |metric: Metric, label: Label| -> Vec<Gauge> {
            let each = |value: &&'static str| {
                let gauge = metric.gauge(&[(label.name, value)]);
                gauge.set(f64::NAN);
                gauge
            };
            label.values.iter().map(each).collect()
        };
        let labelled = |metric: Metric, label: Label, value| metric.counter(&[(label.name, value)]);
        BUILD_INFO
            .gauge(&[(VERSION.name, env!("CARGO_PKG_VERSION"))])
            .set(1.0);
        for task in TASK.values {
            labelled(UPKEEP_FAILURES, TASK, task).increment(0);
        }
        labelled(CONNECTIONS, SERVER, "postgres").increment(0);
        Self {
            entries_new: labelled(ENTRIES_READ, DELIVERY, "new"),
            entries_again: labelled(ENTRIES_READ, DELIVERY, "again"),
            read_failures: PerRecovery::of(READ_FAILURES),
            entries_claimed: ENTRIES_CLAIMED.counter(&[]),
            detections: labelled(ROWS_COMMITTED, KIND, "detections"),
            tracks: labelled(ROWS_COMMITTED, KIND, "tracks"),
            entries_committed: ENTRIES_COMMITTED.counter(&[]),
            known_by_ledger: labelled(DUPLICATES, KNOWN_BY, "ledger"),
            known_by_batch: labelled(DUPLICATES, KNOWN_BY, "batch"),
            dead_letters: Reason::ALL
                .map(|reason| labelled(DEAD_LETTERS, REASON, reason.as_str()))
                .into(),
            commit_failures: Fault::ALL
                .map(|fault| labelled(COMMIT_FAILURES, CLASS, fault.as_str()))
                .into(),
            commit_seconds: COMMIT_SECONDS.histogram(&[]),
            stages: STAGE
                .values
                .iter()
                .map(|stage| STAGE_SECONDS.histogram(&[(STAGE.name, stage)]))
                .collect(),
            batch_rows: BATCH_ROWS.histogram(&[]),
            capture_to_commit: CAPTURE_TO_COMMIT_SECONDS.histogram(&[]),
            record_to_commit: RECORD_TO_COMMIT_SECONDS.histogram(&[]),
            stream_to_commit: STREAM_TO_COMMIT_SECONDS.histogram(&[]),
            entries_acked: ENTRIES_ACKED.counter(&[]),
            ack_failures: PerRecovery::of(ACK_FAILURES),
            entries_trimmed: ENTRIES_TRIMMED.counter(&[]),
            stream_resets: STREAM_RESETS.counter(&[]),
            lost_tails: LOST_TAILS.counter(&[]),
            ledger_pruned: LEDGER_PRUNED.counter(&[]),
            last_commit: LAST_COMMIT.gauge(&[]),
            redis_connections: labelled(CONNECTIONS, SERVER, "redis"),
            group: GroupGauges {
                backlog_entries: unmeasured(BACKLOG_ENTRIES),
                backlog_age: unmeasured(BACKLOG_AGE),
                lag_entries: unmeasured(LAG_ENTRIES),
                pending_entries: unmeasured(PENDING_ENTRIES),
                oldest_pending_age: unmeasured(OLDEST_PENDING_AGE),
                stream_entries: unmeasured(STREAM_ENTRIES),
                oldest_spooled_age: unmeasured(OLDEST_SPOOLED_AGE),
                rows: unmeasured_each(GROUP_ROWS, STATE),
                waiting_dead_letters: unmeasured_each(WAITING_DEAD_LETTERS, REASON),
                producers: unmeasured(PRODUCERS),
                workers: unmeasured(WORKERS),
                paused: unmeasured(PAUSED),
                used_memory: unmeasured(REDIS_USED_MEMORY),
                max_memory: unmeasured(REDIS_MAX_MEMORY),
            },
            tables: TableGauges {
                partitions: unmeasured(PARTITIONS),
                partitions_ahead: unmeasured(PARTITIONS_AHEAD),
                default_partition_bytes: unmeasured(DEFAULT_PARTITION_BYTES),
                ledger_bytes: unmeasured(LEDGER_BYTES),
            },
            redis_up: SERVER_UP.gauge(&[(SERVER.name, "redis")]),
            postgres_up: SERVER_UP.gauge(&[(SERVER.name, "postgres")]),
            in_flight: IN_FLIGHT.gauge(&[]),
            store_failing: STORE_FAILING.gauge(&[]),
        }
    }

    /// Counts connections to Redis.
    pub(crate) fn redis_connections(&self) -> Counter {
        self.redis_connections.clone()
    }

    pub(crate) fn read(&self, n_entries: usize, n_again: usize) {
        self.entries_new.increment((n_entries - n_again) as u64);
        self.entries_again.increment(n_again as u64);
    }

    pub(crate) fn read_failed(&self, recovery: RedisRecovery) {
        self.read_failures.count(recovery);
    }

    pub(crate) fn claimed(&self, n_entries: usize) {
        self.entries_claimed.increment(n_entries as u64);
    }

    pub(crate) fn batch_committed(&self, batch: &Batch, report: &CommitReport, elapsed: Duration) {
        self.detections.increment(report.detections);
        self.tracks.increment(report.tracks);
        self.entries_committed.increment(report.entries as u64);
        self.known_by_ledger.increment(report.duplicates as u64);
        self.known_by_batch.increment(batch.twins.len() as u64);
        for (counter, n) in self.dead_letters.iter().zip(report.reasons.counts()) {
            counter.increment(n as u64);
        }
        self.commit_seconds.record(elapsed);
        self.batch_rows.record(count(report.detections));
        let now = Utc::now();
        self.last_commit.set(count(now.timestamp().cast_unsigned()));
        // Of entries that were known nobody says which they are; theirs would be the age of the
        // redelivery, and not of the row.
        if report.duplicates == 0 {
            self.record_ages(batch, now.timestamp_micros());
        }
    }

    fn record_ages(&self, batch: &Batch, now_us: i64) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "an age is exact to the microsecond for centuries"
        )]
        let record = |histogram: &Histogram, since_us: i64| {
            // Another machine's clock may be ahead of this one's.
            histogram.record(now_us.saturating_sub(since_us).max(0) as f64 / 1e6);
        };
        for entry in batch.entries() {
            if let Some(us) = first_timestamp_us(&batch.tuples[entry.tuples.clone()]) {
                record(&self.capture_to_commit, us);
            }
            if let Some(ms) = entry.key.made_at_ms() {
                record(
                    &self.record_to_commit,
                    ms.cast_signed().saturating_mul(1_000),
                );
            }
            if let Some(origin) = &entry.origin {
                let ms = origin.id.ms.cast_signed();
                record(&self.stream_to_commit, ms.saturating_mul(1_000));
            }
        }
    }

    pub(crate) fn batch_acked(&self, stages: &Stages) {
        let times = [
            stages.decode,
            stages.fill,
            stages.queue,
            stages.retry,
            stages.begin,
            stages.copy,
            stages.others,
            stages.commit,
            stages.ack,
        ];
        for (histogram, time) in self.stages.iter().zip(times) {
            histogram.record(time);
        }
    }

    pub(crate) fn commit_failed(&self, fault: Fault) {
        self.commit_failures[fault as usize].increment(1);
    }

    pub(crate) fn acked(&self, n_entries: usize) {
        self.entries_acked.increment(n_entries as u64);
    }

    pub(crate) fn ack_failed(&self, recovery: RedisRecovery) {
        self.ack_failures.count(recovery);
    }

    pub(crate) fn trimmed(&self, n_entries: u64) {
        self.entries_trimmed.increment(n_entries);
    }

    pub(crate) fn stream_reset(&self) {
        self.stream_resets.increment(1);
    }

    pub(crate) fn lost_tails(&self, n: u64) {
        self.lost_tails.increment(n);
    }

    pub(crate) fn ledger_pruned(&self, n_keys: u64) {
        self.ledger_pruned.increment(n_keys);
    }

    /// Counts upkeep that failed.
    pub(crate) fn upkeep_failed(&self, task: &'static str) {
        debug_assert!(TASK.values.contains(&task), "{task} is not documented");
        UPKEEP_FAILURES.counter(&[(TASK.name, task)]).increment(1);
    }

    /// Notes how this worker stands.
    pub(crate) fn worker_seen(&self, n_in_flight: usize, failing_for: Duration) {
        self.in_flight.set(count(n_in_flight as u64));
        self.store_failing.set(failing_for.as_secs_f64());
    }

    /// Notes how the group stands. What a server did not tell is NaN: nobody knows.
    pub(crate) fn group_seen(&self, report: &StatusReport, oldest_spooled: Option<Duration>) {
        let gauges = &self.group;
        let redis = report.redis.as_ref();
        let of_redis = |of: fn(&RedisStatus) -> f64| redis.map_or(f64::NAN, of);
        self.redis_up.set(f64::from(u8::from(redis.is_some())));
        for (gauge, value) in [
            (
                &gauges.backlog_entries,
                of_redis(|r| count(r.backlog_entries())),
            ),
            (&gauges.backlog_age, of_redis(RedisStatus::backlog_seconds)),
            (&gauges.lag_entries, of_redis(|r| count(r.undelivered()))),
            (&gauges.pending_entries, of_redis(|r| count(r.pending()))),
            (
                &gauges.oldest_pending_age,
                of_redis(RedisStatus::oldest_pending_seconds),
            ),
            (
                &gauges.stream_entries,
                of_redis(|r| count(r.streams.iter().map(|s| s.length).sum())),
            ),
            (&gauges.used_memory, of_redis(|r| count(r.used_memory))),
            (
                &gauges.max_memory,
                of_redis(|r| count(r.max_memory.unwrap_or(0))),
            ),
            (
                &gauges.producers,
                of_redis(|r| count(r.live_producers().count() as u64)),
            ),
            (
                &gauges.workers,
                of_redis(|r| count(r.live_workers().count() as u64)),
            ),
            (
                &gauges.paused,
                of_redis(|r| f64::from(u8::from(r.paused.is_some()))),
            ),
        ] {
            gauge.set(value);
        }
        let spooled = oldest_spooled.map_or(f64::NAN, |age| age.as_secs_f64());
        gauges.oldest_spooled_age.set(spooled);
        let rows = report.balance.map(|b| {
            [
                b.accepted + b.accepted_before,
                b.dropped.accepted(),
                b.buffered,
                b.spooled,
                b.unheard,
                b.in_stream,
                b.settled,
                b.unaccounted,
                b.surplus,
            ]
        });
        for (at, gauge) in gauges.rows.iter().enumerate() {
            gauge.set(rows.map_or(f64::NAN, |rows| count(rows[at])));
        }
        for (gauge, reason) in gauges.waiting_dead_letters.iter().zip(REASON.values) {
            let waiting = report.store.as_ref().map_or(f64::NAN, |books| {
                let letters = books.dead_letters.iter();
                let of_reason = letters.filter(|letters| letters.reason == *reason);
                count(of_reason.map(|letters| letters.waiting).sum())
            });
            gauge.set(waiting);
        }
    }

    /// As [`Metrics::group_seen`], of Postgres and its tables.
    pub(crate) fn tables_seen(&self, seen: Option<&TableStats>) {
        let gauges = &self.tables;
        let is_up = f64::from(u8::from(seen.is_some()));
        self.postgres_up.set(is_up);
        let number = |of: fn(&TableStats) -> u64| seen.map_or(f64::NAN, |seen| count(of(seen)));
        gauges.partitions.set(number(|s| s.partitions));
        gauges.partitions_ahead.set(number(|s| s.partitions_ahead));
        gauges
            .default_partition_bytes
            .set(number(|s| s.default_partition_bytes));
        gauges.ledger_bytes.set(number(|s| s.ledger_bytes));
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts and bytes are far below 2⁵³"
)]
fn count(n: u64) -> f64 {
    n as f64
}
