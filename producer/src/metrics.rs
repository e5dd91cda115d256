//! The producer's metrics: every name, label and help text.
//!
//! Recorded through the `metrics` facade, once per flush or failed attempt and never per row; without
//! a recorder they cost nothing. A recorder is to be installed before the first producer is started: a
//! producer registers its series then, and keeps to them.
//!
//! Any recorder will do. With `metrics-exporter-prometheus`:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{thread, time::Duration};
//!
//! use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
//!
//! let mut builder = PrometheusBuilder::new();
//! for metric in passerby_producer::metrics::ALL {
//!     if let Some(buckets) = metric.buckets() {
//!         builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.into()), buckets)?;
//!     }
//! }
//! let exporter = builder.install_recorder()?; // before the first producer
//!
//! // Samples of histograms are kept one by one until then.
//! let upkeep = exporter.clone();
//! thread::spawn(move || {
//!     loop {
//!         upkeep.run_upkeep();
//!         thread::park_timeout(Duration::from_secs(1));
//!     }
//! });
//!
//! // What the pipeline answers to GET /metrics:
//! println!("{}", exporter.render());
//! # Ok(()) }
//! ```

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use passerby_shared::{Label, declare_metrics, wire::Kind};

use crate::stats::{RowStats, Stats};

const KIND: Label = Label {
    name: "kind",
    values: &["detections", "tracks", "sessions"],
};
const DROP_REASON: Label = Label {
    name: "reason",
    values: &[
        "oldest",
        "closed",
        "spool-full",
        "spool-damaged",
        "newest",
        "block-timeout",
    ],
};
const DEGRADED_KIND: Label = Label {
    name: "kind",
    values: &["detections", "tracks", "embeddings"],
};
const READ_OUTCOME: Label = Label {
    name: "outcome",
    values: &["hit", "miss", "undecodable", "unavailable"],
};
const WRITE_OUTCOME: Label = Label {
    name: "outcome",
    values: &["written", "dropped"],
};

/// Of a flush: about a millisecond on a good day, as long as Redis is away on a bad one.
const FLUSH_BUCKETS: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 300.0,
];

declare_metrics! {
    /// Rows accepted by `record()`.
    ROWS_ACCEPTED = Counter "producer_rows_accepted_total" [KIND];
    /// Rows that Redis acknowledged.
    ROWS_PUBLISHED = Counter "producer_rows_published_total" [KIND];
    /// Rows of earlier runs that were found in the spool.
    ROWS_RECOVERED = Counter "producer_rows_recovered_total" [KIND];
    /// Rows lost: `oldest`, `closed`, `spool-full` and `spool-damaged` had been accepted, `newest` and
    /// `block-timeout` had not.
    ROWS_DROPPED = Counter "producer_rows_dropped_total" [KIND, DROP_REASON];
    /// Rows refused by `record()` because they cannot be stored.
    ROWS_INVALID = Counter "producer_rows_invalid_total" [KIND];
    /// Entries that Redis acknowledged.
    ENTRIES_PUBLISHED = Counter "producer_entries_published_total" [];
    /// Payload of the entries that Redis acknowledged.
    PUBLISHED_BYTES = Counter "producer_published_bytes_total" [];
    /// Attempts to connect or to publish that failed, each followed by another.
    RETRIES = Counter "producer_retries_total" [];
    /// Connections made after the first one.
    RECONNECTS = Counter "producer_reconnects_total" [];
    /// Rows in memory that waited or were being sent, at the last flush or failed attempt.
    BUFFERED_ROWS = Gauge "producer_buffered_rows" [];
    /// Memory charged for these rows.
    BUFFERED_BYTES = Gauge "producer_buffered_bytes" [];
    /// Rows in the spool's log that waited or were being sent, at the last flush or failed attempt.
    SPOOLED_ROWS = Gauge "producer_spooled_rows" [];
    /// Size of the spool's log, with what was sent and is in segments that are not free yet.
    SPOOL_BYTES = Gauge "producer_spool_bytes" [];
    /// 1 when the spool was abandoned because its disk failed, else 0.
    SPOOL_ABANDONED = Gauge "producer_spool_abandoned" [];
    /// Places in the spool that could not be read, and whose rows are lost.
    SPOOL_DAMAGED = Counter "producer_spool_damaged_total" [];
    /// Entries sent again because Redis was another server than before, or the same one started anew.
    ENTRIES_RESENT = Counter "producer_entries_resent_total" [];
    /// Entries forgotten before the resend window was over, as it held too many bytes.
    RESEND_CUT = Counter "producer_resend_cut_entries_total" [];
    /// How near the producer and the store are to their limits, 0 to 1.
    PRESSURE = Gauge "producer_pressure_ratio" [];
    /// What is left out of rows: 0 nothing, 1 trajectories and embeddings, 2 genders as well.
    DEGRADATION = Gauge "producer_degradation_level" [];
    /// Rows recorded without something they had, and embeddings not cached.
    DEGRADED = Counter "producer_degraded_total" [DEGRADED_KIND];
    /// Time from taking rows out of the buffer until Redis had acknowledged all of them.
    FLUSH_SECONDS = Histogram(FLUSH_BUCKETS) "producer_flush_duration_seconds" [];
    /// Values asked of the track cache.
    CACHE_READS = Counter "producer_cache_reads_total" [READ_OUTCOME];
    /// Values given to the track cache.
    CACHE_WRITES = Counter "producer_cache_writes_total" [WRITE_OUTCOME];
}

/// Tells the recorder what has changed in the books since the last time.
pub(crate) struct Reporter {
    told: Stats,
    kinds: [(Kind, RowCounters); 3],
    entries_published: Counter,
    published_bytes: Counter,
    retries: Counter,
    reconnects: Counter,
    buffered_rows: Gauge,
    buffered_bytes: Gauge,
    spooled_rows: Gauge,
    spool_bytes: Gauge,
    spool_abandoned: Gauge,
    spool_damaged: Counter,
    entries_resent: Counter,
    resend_cut: Counter,
    pressure: Gauge,
    degradation: Gauge,
    /// In the order of [`DEGRADED_KIND`].
    degraded: Vec<Counter>,
    flush_seconds: Histogram,
    /// In the order of [`READ_OUTCOME`].
    cache_reads: Vec<Counter>,
    /// In the order of [`WRITE_OUTCOME`].
    cache_writes: Vec<Counter>,
}

/// The counters of one kind of rows.
struct RowCounters {
    accepted: Counter,
    published: Counter,
    recovered: Counter,
    invalid: Counter,
    /// In the order of [`DROP_REASON`].
    dropped: Vec<Counter>,
}

impl RowCounters {
    fn of(kind: &'static str) -> Self {
        let kind = (KIND.name, kind);
        let dropped =
            |reason: &&'static str| ROWS_DROPPED.counter(&[kind, (DROP_REASON.name, reason)]);
        Self {
            accepted: ROWS_ACCEPTED.counter(&[kind]),
            published: ROWS_PUBLISHED.counter(&[kind]),
            recovered: ROWS_RECOVERED.counter(&[kind]),
            invalid: ROWS_INVALID.counter(&[kind]),
            dropped: DROP_REASON.values.iter().map(dropped).collect(),
        }
    }

    fn count(&self, now: &RowStats, told: &RowStats) {
        self.accepted.increment(now.accepted - told.accepted);
        self.published.increment(now.published - told.published);
        self.recovered.increment(now.recovered - told.recovered);
        self.invalid.increment(now.invalid - told.invalid);
        let dropped = |stats: &RowStats| {
            [
                stats.dropped_oldest,
                stats.dropped_closed,
                stats.dropped_spool_full,
                stats.dropped_spool_damaged,
                stats.dropped_newest,
                stats.block_timeouts,
            ]
        };
        count_all(&self.dropped, dropped(now), dropped(told));
    }
}

impl Default for Reporter {
    /// Registers all series with the installed recorder, which shows them as 0 from then on.
    fn default() -> Self {
        for metric in ALL {
            metric.describe();
        }
        let each = |metric: passerby_shared::Metric, label: Label| {
            let one = |value: &&'static str| metric.counter(&[(label.name, value)]);
            label.values.iter().map(one).collect()
        };
        Self {
            told: Stats::default(),
            kinds: [
                (Kind::Detections, RowCounters::of("detections")),
                (Kind::Tracks, RowCounters::of("tracks")),
                (Kind::Sessions, RowCounters::of("sessions")),
            ],
            entries_published: ENTRIES_PUBLISHED.counter(&[]),
            published_bytes: PUBLISHED_BYTES.counter(&[]),
            retries: RETRIES.counter(&[]),
            reconnects: RECONNECTS.counter(&[]),
            buffered_rows: BUFFERED_ROWS.gauge(&[]),
            buffered_bytes: BUFFERED_BYTES.gauge(&[]),
            spooled_rows: SPOOLED_ROWS.gauge(&[]),
            spool_bytes: SPOOL_BYTES.gauge(&[]),
            spool_abandoned: SPOOL_ABANDONED.gauge(&[]),
            spool_damaged: SPOOL_DAMAGED.counter(&[]),
            entries_resent: ENTRIES_RESENT.counter(&[]),
            resend_cut: RESEND_CUT.counter(&[]),
            pressure: PRESSURE.gauge(&[]),
            degradation: DEGRADATION.gauge(&[]),
            degraded: each(DEGRADED, DEGRADED_KIND),
            flush_seconds: FLUSH_SECONDS.histogram(&[]),
            cache_reads: each(CACHE_READS, READ_OUTCOME),
            cache_writes: each(CACHE_WRITES, WRITE_OUTCOME),
        }
    }
}

impl Reporter {
    pub(crate) fn flushed(&self, elapsed: Duration) {
        self.flush_seconds.record(elapsed);
    }

    pub(crate) fn report(&mut self, stats: Stats) {
        let told = &self.told;
        for (kind, counters) in &self.kinds {
            counters.count(stats.kind(*kind), told.kind(*kind));
        }
        self.entries_published
            .increment(stats.entries_published - told.entries_published);
        self.published_bytes
            .increment(stats.bytes_published - told.bytes_published);
        self.retries.increment(stats.retries - told.retries);
        self.reconnects
            .increment(stats.reconnects - told.reconnects);
        #[expect(
            clippy::cast_precision_loss,
            reason = "memory and a spool hold far fewer than 2⁵³ rows or bytes"
        )]
        for (gauge, now) in [
            (&self.buffered_rows, stats.rows().buffered as f64),
            (&self.buffered_bytes, stats.buffered_bytes as f64),
            (&self.spooled_rows, stats.rows().spooled as f64),
            (&self.spool_bytes, stats.spool.bytes as f64),
        ] {
            gauge.set(now);
        }
        self.spool_abandoned
            .set(f64::from(u8::from(stats.spool.is_abandoned)));
        self.spool_damaged
            .increment(stats.spool.damaged - told.spool.damaged);
        self.entries_resent
            .increment(stats.entries_resent - told.entries_resent);
        self.resend_cut
            .increment(stats.resend_cut - told.resend_cut);
        self.pressure.set(f64::from(stats.saturation.pressure));
        self.degradation
            .set(f64::from(stats.saturation.left_out as u8));
        let degraded = |stats: &Stats| {
            [
                stats.saturation.detections_degraded,
                stats.saturation.tracks_degraded,
                stats.saturation.embeddings_left_out,
            ]
        };
        count_all(&self.degraded, degraded(&stats), degraded(told));
        let reads = |stats: &Stats| {
            [
                stats.cache.hits,
                stats.cache.misses,
                stats.cache.undecodable,
                stats.cache.reads_unavailable,
            ]
        };
        count_all(&self.cache_reads, reads(&stats), reads(told));
        let writes = |stats: &Stats| [stats.cache.writes, stats.cache.writes_dropped];
        count_all(&self.cache_writes, writes(&stats), writes(told));
        self.told = stats;
    }
}

/// Adds what has come since the last time to each of the counters.
fn count_all<const N: usize>(counters: &[Counter], now: [u64; N], told: [u64; N]) {
    for (counter, (now, told)) in counters.iter().zip(now.into_iter().zip(told)) {
        counter.increment(now - told);
    }
}
