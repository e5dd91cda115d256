//! The worker's metrics: every name, unit and help text.
//!
//! Recorded through the `metrics` facade, once per batch and never per row; without a recorder they
//! cost nothing.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};
use passerby_shared::redis_connection::RedisRecovery;

use crate::store::{CommitReport, Recovery};

/// Detections committed to Postgres. Excludes entries the ledger already knew.
pub const ROWS_COMMITTED: &str = "consumer_rows_committed_total";
/// Entries committed to Postgres. Excludes those the ledger already knew.
pub const ENTRIES_COMMITTED: &str = "consumer_entries_committed_total";
/// Entries the ledger already knew: delivered again, and nothing written.
pub const DUPLICATES: &str = "consumer_duplicate_entries_total";
/// Rows and entries written to the dead letters.
pub const DEAD_LETTERS: &str = "consumer_dead_letters_total";
/// Time from `BEGIN` to `COMMIT` of one batch.
pub const COMMIT_SECONDS: &str = "consumer_commit_duration_seconds";
/// Detections in one batch.
pub const BATCH_ROWS: &str = "consumer_batch_rows";
/// Commits that failed, by what was done about it.
pub const COMMIT_FAILURES: &str = "consumer_commit_failures_total";
/// Reads that failed, by what was done about it.
pub const READ_FAILURES: &str = "consumer_read_failures_total";
/// Entries acknowledged.
pub const ENTRIES_ACKED: &str = "consumer_entries_acked_total";
/// Entries taken over from consumers that showed no sign of life.
pub const ENTRIES_CLAIMED: &str = "consumer_entries_claimed_total";
/// Entries removed from the stream after every group had acknowledged them.
pub const ENTRIES_TRIMMED: &str = "consumer_entries_trimmed_total";
/// Times the consumer group was found missing and made again.
pub const STREAM_RESETS: &str = "consumer_stream_resets_total";

/// Times a stream was found to end before entries that had been read from it.
pub const LOST_TAILS: &str = "consumer_stream_lost_tails_total";

/// Registers units and help texts with the installed recorder.
pub fn describe() {
    describe_counter!(
        ROWS_COMMITTED,
        Unit::Count,
        "Detections committed to Postgres"
    );
    describe_counter!(
        ENTRIES_COMMITTED,
        Unit::Count,
        "Entries committed to Postgres"
    );
    describe_counter!(
        DUPLICATES,
        Unit::Count,
        "Entries that the ledger already knew"
    );
    describe_counter!(
        DEAD_LETTERS,
        Unit::Count,
        "Rows and entries written to the dead letters"
    );
    describe_histogram!(
        COMMIT_SECONDS,
        Unit::Seconds,
        "Time from BEGIN to COMMIT of one batch"
    );
    describe_histogram!(BATCH_ROWS, Unit::Count, "Detections in one batch");
    describe_counter!(
        COMMIT_FAILURES,
        Unit::Count,
        "Commits that failed, by recovery"
    );
    describe_counter!(READ_FAILURES, Unit::Count, "Reads that failed, by recovery");
    describe_counter!(ENTRIES_ACKED, Unit::Count, "Entries acknowledged");
    describe_counter!(
        ENTRIES_CLAIMED,
        Unit::Count,
        "Entries taken over from dead consumers"
    );
    describe_counter!(
        ENTRIES_TRIMMED,
        Unit::Count,
        "Entries removed from the stream"
    );
    describe_counter!(
        STREAM_RESETS,
        Unit::Count,
        "Times the consumer group was made again"
    );
    describe_counter!(
        LOST_TAILS,
        Unit::Count,
        "Times a stream was found to end before what had been read from it"
    );
}

pub(crate) fn stream_lost_tail() {
    counter!(LOST_TAILS).increment(1);
}

pub(crate) fn batch_committed(report: CommitReport, elapsed: Duration) {
    counter!(ROWS_COMMITTED).increment(report.detections);
    counter!(ENTRIES_COMMITTED).increment(report.entries as u64);
    counter!(DUPLICATES).increment(report.duplicates as u64);
    counter!(DEAD_LETTERS).increment(report.dead_letters as u64);
    histogram!(COMMIT_SECONDS).record(elapsed);
    #[expect(
        clippy::cast_precision_loss,
        reason = "a batch has far fewer than 2⁵³ rows"
    )]
    histogram!(BATCH_ROWS).record(report.detections as f64);
}

pub(crate) fn commit_failed(recovery: Recovery) {
    let recovery = match recovery {
        Recovery::Retry => "retry",
        Recovery::DeadLetter => "dead-letter",
        Recovery::Stop => "stop",
    };
    counter!(COMMIT_FAILURES, "recovery" => recovery).increment(1);
}

pub(crate) fn read_failed(recovery: RedisRecovery) {
    let recovery = match recovery {
        RedisRecovery::Reconnect => "reconnect",
        RedisRecovery::Wait => "wait",
        RedisRecovery::RecreateGroup => "recreate-group",
        RedisRecovery::Stop => "stop",
    };
    counter!(READ_FAILURES, "recovery" => recovery).increment(1);
}

pub(crate) fn entries_acked(n: usize) {
    counter!(ENTRIES_ACKED).increment(n as u64);
}

pub(crate) fn entries_claimed(n: usize) {
    counter!(ENTRIES_CLAIMED).increment(n as u64);
}

pub(crate) fn entries_trimmed(n: u64) {
    counter!(ENTRIES_TRIMMED).increment(n);
}

pub(crate) fn stream_reset() {
    counter!(STREAM_RESETS).increment(1);
}
