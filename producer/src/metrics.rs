//! The producer's metrics: every name, unit and help text.
//!
//! Recorded through the `metrics` facade, once per flush or failed attempt and never per row; without
//! a recorder they cost nothing.

use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use passerby_shared::wire::Kind;

use crate::stats::Stats;

/// Rows accepted, by `kind`.
pub const ROWS_ACCEPTED: &str = "producer_rows_accepted_total";
/// Rows that Redis acknowledged, by `kind`.
pub const ROWS_PUBLISHED: &str = "producer_rows_published_total";
/// Rows lost, by `kind` and `reason`: `oldest` and `closed` had been accepted, `newest` and
/// `block-timeout` had not.
pub const ROWS_DROPPED: &str = "producer_rows_dropped_total";
/// Rows refused because they cannot be stored, by `kind`.
pub const ROWS_INVALID: &str = "producer_rows_invalid_total";
/// Entries that Redis acknowledged.
pub const ENTRIES_PUBLISHED: &str = "producer_entries_published_total";
/// Payload of the entries that Redis acknowledged.
pub const PUBLISHED_BYTES: &str = "producer_published_bytes_total";
/// Attempts to connect or to publish that failed.
pub const RETRIES: &str = "producer_retries_total";
/// Connections made after the first one.
pub const RECONNECTS: &str = "producer_reconnects_total";
/// Rows that waited or were being sent at the last flush or failed attempt.
pub const BUFFERED_ROWS: &str = "producer_buffered_rows";
/// Memory charged for these rows.
pub const BUFFERED_BYTES: &str = "producer_buffered_bytes";
/// Time from taking rows out of the buffer until Redis had acknowledged all of them.
pub const FLUSH_SECONDS: &str = "producer_flush_duration_seconds";
/// Values asked of the track cache, by `outcome`: `hit`, `miss`, `undecodable`, `unavailable`.
pub const CACHE_READS: &str = "producer_cache_reads_total";
/// Values given to the track cache, by `outcome`: `written`, `dropped`.
pub const CACHE_WRITES: &str = "producer_cache_writes_total";

/// Registers units and help texts with the installed recorder.
pub fn describe() {
    describe_counter!(ROWS_ACCEPTED, Unit::Count, "Rows accepted, by kind");
    describe_counter!(
        ROWS_PUBLISHED,
        Unit::Count,
        "Rows that Redis acknowledged, by kind"
    );
    describe_counter!(ROWS_DROPPED, Unit::Count, "Rows lost, by kind and reason");
    describe_counter!(
        ROWS_INVALID,
        Unit::Count,
        "Rows refused because they cannot be stored, by kind"
    );
    describe_counter!(
        ENTRIES_PUBLISHED,
        Unit::Count,
        "Entries that Redis acknowledged"
    );
    describe_counter!(
        PUBLISHED_BYTES,
        Unit::Bytes,
        "Payload of the entries that Redis acknowledged"
    );
    describe_counter!(
        RETRIES,
        Unit::Count,
        "Attempts to connect or to publish that failed"
    );
    describe_counter!(
        RECONNECTS,
        Unit::Count,
        "Connections made after the first one"
    );
    describe_gauge!(
        BUFFERED_ROWS,
        Unit::Count,
        "Rows that wait or are being sent"
    );
    describe_gauge!(
        BUFFERED_BYTES,
        Unit::Bytes,
        "Memory charged for rows that wait or are being sent"
    );
    describe_histogram!(
        FLUSH_SECONDS,
        Unit::Seconds,
        "Time from the buffer to Redis' acknowledgement"
    );
    describe_counter!(
        CACHE_READS,
        Unit::Count,
        "Values asked of the track cache, by outcome"
    );
    describe_counter!(
        CACHE_WRITES,
        Unit::Count,
        "Values given to the track cache, by outcome"
    );
}

/// Tells the recorder what has changed in the books since the last time.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    told: Stats,
}

impl Reporter {
    pub(crate) fn flushed(&self, elapsed: Duration) {
        histogram!(FLUSH_SECONDS).record(elapsed);
    }

    pub(crate) fn report(&mut self, stats: Stats) {
        for (kind, name) in [
            (Kind::Detections, "detections"),
            (Kind::Tracks, "tracks"),
            (Kind::Sessions, "sessions"),
        ] {
            let (now, told) = (stats.kind(kind), self.told.kind(kind));
            counter!(ROWS_ACCEPTED, "kind" => name).increment(now.accepted - told.accepted);
            counter!(ROWS_PUBLISHED, "kind" => name).increment(now.published - told.published);
            counter!(ROWS_INVALID, "kind" => name).increment(now.invalid - told.invalid);
            for (reason, n_rows) in [
                ("oldest", now.dropped_oldest - told.dropped_oldest),
                ("closed", now.dropped_closed - told.dropped_closed),
                ("newest", now.dropped_newest - told.dropped_newest),
                ("block-timeout", now.block_timeouts - told.block_timeouts),
            ] {
                counter!(ROWS_DROPPED, "kind" => name, "reason" => reason).increment(n_rows);
            }
        }
        let told = &self.told;
        counter!(ENTRIES_PUBLISHED).increment(stats.entries_published - told.entries_published);
        counter!(PUBLISHED_BYTES).increment(stats.bytes_published - told.bytes_published);
        counter!(RETRIES).increment(stats.retries - told.retries);
        counter!(RECONNECTS).increment(stats.reconnects - told.reconnects);
        #[expect(
            clippy::cast_precision_loss,
            reason = "memory holds far fewer than 2⁵³ rows"
        )]
        let (n_rows, n_bytes) = (stats.rows().buffered as f64, stats.buffered_bytes as f64);
        gauge!(BUFFERED_ROWS).set(n_rows);
        gauge!(BUFFERED_BYTES).set(n_bytes);
        let (now, told) = (stats.cache, told.cache);
        for (outcome, n_values) in [
            ("hit", now.hits - told.hits),
            ("miss", now.misses - told.misses),
            ("undecodable", now.undecodable - told.undecodable),
            (
                "unavailable",
                now.reads_unavailable - told.reads_unavailable,
            ),
        ] {
            counter!(CACHE_READS, "outcome" => outcome).increment(n_values);
        }
        for (outcome, n_values) in [
            ("written", now.writes - told.writes),
            ("dropped", now.writes_dropped - told.writes_dropped),
        ] {
            counter!(CACHE_WRITES, "outcome" => outcome).increment(n_values);
        }
        self.told = stats;
    }
}
