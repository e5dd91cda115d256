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
/// Rows of earlier runs that were found in the spool, by `kind`.
pub const ROWS_RECOVERED: &str = "producer_rows_recovered_total";
/// Rows lost, by `kind` and `reason`: `oldest`, `closed`, `spool-full` and `spool-damaged` had been
/// accepted, `newest` and `block-timeout` had not.
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
/// Rows in the spool's log at the last flush or failed attempt.
pub const SPOOLED_ROWS: &str = "producer_spooled_rows";
/// Bytes of the spool's log, sent ones in segments that are not free yet included.
pub const SPOOL_BYTES: &str = "producer_spool_bytes";
/// Whether the spool was abandoned because its disk failed: 0 or 1.
pub const SPOOL_ABANDONED: &str = "producer_spool_abandoned";
/// Places in the spool that could not be read.
pub const SPOOL_DAMAGED: &str = "producer_spool_damaged_total";
/// Entries sent again because Redis was another server than before, or the same one started anew.
pub const ENTRIES_RESENT: &str = "producer_entries_resent_total";
/// Entries that were forgotten before the resend window was over, as it held too many bytes.
pub const RESEND_CUT: &str = "producer_resend_cut_entries_total";
/// How near the producer and the store are to their limits, 0…1.
pub const PRESSURE: &str = "producer_pressure_ratio";
/// What is left out of rows: 0 nothing, 1 trajectories and embeddings, 2 genders as well.
pub const DEGRADATION: &str = "producer_degradation_level";
/// Rows recorded without something they had, and embeddings not cached, by `kind`.
pub const DEGRADED: &str = "producer_degraded_total";
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
    describe_counter!(
        ROWS_RECOVERED,
        Unit::Count,
        "Rows of earlier runs found in the spool, by kind"
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
    describe_gauge!(
        SPOOLED_ROWS,
        Unit::Count,
        "Rows in the spool that wait or are being sent"
    );
    describe_gauge!(SPOOL_BYTES, Unit::Bytes, "Bytes of the spool's log");
    describe_gauge!(
        SPOOL_ABANDONED,
        Unit::Count,
        "Whether the spool was abandoned because its disk failed"
    );
    describe_counter!(
        SPOOL_DAMAGED,
        Unit::Count,
        "Places in the spool that could not be read"
    );
    describe_counter!(
        ENTRIES_RESENT,
        Unit::Count,
        "Entries sent again because Redis was another server or was started anew"
    );
    describe_counter!(
        RESEND_CUT,
        Unit::Count,
        "Entries forgotten before the resend window was over"
    );
    describe_gauge!(
        PRESSURE,
        Unit::Count,
        "How near the producer and the store are to their limits, 0 to 1"
    );
    describe_gauge!(
        DEGRADATION,
        Unit::Count,
        "What is left out of rows: 0 nothing, 1 trajectories, 2 genders as well"
    );
    describe_counter!(
        DEGRADED,
        Unit::Count,
        "Rows recorded without something they had, and embeddings not cached"
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
            counter!(ROWS_RECOVERED, "kind" => name).increment(now.recovered - told.recovered);
            for (reason, n_rows) in [
                (
                    "spool-full",
                    now.dropped_spool_full - told.dropped_spool_full,
                ),
                (
                    "spool-damaged",
                    now.dropped_spool_damaged - told.dropped_spool_damaged,
                ),
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
        #[expect(
            clippy::cast_precision_loss,
            reason = "a spool holds far fewer than 2⁵³ bytes"
        )]
        let (n_rows, n_bytes) = (stats.rows().spooled as f64, stats.spool.bytes as f64);
        gauge!(SPOOLED_ROWS).set(n_rows);
        gauge!(SPOOL_BYTES).set(n_bytes);
        gauge!(SPOOL_ABANDONED).set(f64::from(u8::from(stats.spool.is_abandoned)));
        counter!(SPOOL_DAMAGED).increment(stats.spool.damaged - told.spool.damaged);
        counter!(ENTRIES_RESENT).increment(stats.entries_resent - told.entries_resent);
        counter!(RESEND_CUT).increment(stats.resend_cut - told.resend_cut);
        let (now, before) = (stats.saturation, told.saturation);
        gauge!(PRESSURE).set(f64::from(now.pressure));
        gauge!(DEGRADATION).set(f64::from(now.left_out as u8));
        for (kind, n) in [
            (
                "detections",
                now.detections_degraded - before.detections_degraded,
            ),
            ("tracks", now.tracks_degraded - before.tracks_degraded),
            (
                "embeddings",
                now.embeddings_left_out - before.embeddings_left_out,
            ),
        ] {
            counter!(DEGRADED, "kind" => kind).increment(n);
        }
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
