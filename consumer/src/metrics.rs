//! The worker's metrics: every name, label and help text.
//!
//! Recorded through the `metrics` facade, once per batch or entry and never per row; without a
//! recorder they cost nothing. A recorder is to be installed before the worker is started: it registers
//! its series then, and keeps to them. [`exporter`](crate::exporter) is one for Prometheus.

mod process;
mod recording;

use passerby_shared::{Label, declare_metrics};

#[cfg(test)]
pub(crate) use self::process::resident_memory;
pub(crate) use self::{process::ProcessGauges, recording::Metrics};

pub(crate) const DELIVERY: Label = Label {
    name: "delivery",
    values: &["new", "again"],
};
pub(crate) const KIND: Label = Label {
    name: "kind",
    values: &["detections", "tracks"],
};
pub(crate) const KNOWN_BY: Label = Label {
    name: "known_by",
    values: &["ledger", "batch"],
};
pub(crate) const REASON: Label = Label {
    name: "reason",
    values: &[
        "undecodable",
        "invalid-row",
        "refused",
        "lost",
        "too-old",
        "panic",
    ],
};
pub(crate) const CLASS: Label = Label {
    name: "class",
    values: &[
        "connection",
        "timeout",
        "contention",
        "resources",
        "schema",
        "data",
        "configuration",
    ],
};
pub(crate) const RECOVERY: Label = Label {
    name: "recovery",
    values: &["reconnect", "wait", "recreate-group", "stop"],
};
pub(crate) const SERVER: Label = Label {
    name: "server",
    values: &["redis", "postgres"],
};
pub(crate) const STAGE: Label = Label {
    name: "stage",
    values: &[
        "decode", "fill", "queue", "retry", "begin", "copy", "others", "commit", "ack",
    ],
};
pub(crate) const TASK: Label = Label {
    name: "task",
    values: &[
        "partitions",
        "retention",
        "ledger",
        "consumers",
        "trim",
        "sessions",
        "books",
    ],
};
/// What became of rows: accepted = dropped + buffered + spooled + unheard + in-stream + settled + unaccounted
/// − surplus.
pub(crate) const STATE: Label = Label {
    name: "state",
    values: &[
        "accepted",
        "dropped",
        "buffered",
        "spooled",
        "unheard",
        "in-stream",
        "settled",
        "unaccounted",
        "surplus",
    ],
};
const VERSION: Label = Label {
    name: "version",
    values: &[env!("CARGO_PKG_VERSION")],
};

/// Of a commit: a few milliseconds on a good day, the time-out on a bad one.
const COMMIT_BUCKETS: &[f64] = &[
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// Of a row's age: some ten milliseconds on a good day, an outage on a bad one.
const AGE_BUCKETS: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
    21_600.0,
];
const ROW_BUCKETS: &[f64] = &[
    1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 2048.0, 4096.0, 8192.0, 16_384.0, 65_536.0,
];

declare_metrics! {
    /// Entries delivered to this worker: `new`, or `again` when they were, or may have been, delivered
    /// before.
    ENTRIES_READ = Counter "consumer_entries_read_total" [DELIVERY];
    /// Reads that failed, by what was done about it.
    READ_FAILURES = Counter "consumer_read_failures_total" [RECOVERY];
    /// Entries taken over from consumers that showed no sign of life.
    ENTRIES_CLAIMED = Counter "consumer_entries_claimed_total" [];
    /// Detections stored, and rows of `tracks` that changed. Excludes entries that were known.
    ROWS_COMMITTED = Counter "consumer_rows_committed_total" [KIND];
    /// Entries committed. Excludes those that were known.
    ENTRIES_COMMITTED = Counter "consumer_entries_committed_total" [];
    /// Entries for which nothing was written, as they were known: by the `ledger`, which had them
    /// committed, or by the `batch`, which had another copy.
    DUPLICATES = Counter "consumer_duplicate_entries_total" [KNOWN_BY];
    /// Dead letters written: rows, and entries that count as one.
    DEAD_LETTERS = Counter "consumer_dead_letters_total" [REASON];
    /// Attempts to commit that failed. `data` is looked for and dead-lettered, `configuration` stops the
    /// worker, everything else is tried again with the same batch.
    COMMIT_FAILURES = Counter "consumer_commit_failures_total" [CLASS];
    /// Time from BEGIN to COMMIT of one batch, a connection made for it included.
    COMMIT_SECONDS = Histogram(COMMIT_BUCKETS) "consumer_commit_duration_seconds" [];
    /// Where the time of a batch went: decoding it, waiting until it was full or for a turn to decode on,
    /// waiting for a committer, in attempts that failed, for BEGIN and the ledger, in COPY, for tracks,
    /// sessions and dead letters, in COMMIT, and until it was acknowledged.
    STAGE_SECONDS = Histogram(COMMIT_BUCKETS) "consumer_batch_stage_duration_seconds" [STAGE];
    /// Detections in one batch that was committed.
    BATCH_ROWS = Histogram(ROW_BUCKETS) "consumer_batch_rows" [];
    /// Age of an entry's first detection when it was committed, by its timestamp and this machine's
    /// clock. Without batches of which something was known.
    CAPTURE_TO_COMMIT_SECONDS = Histogram(AGE_BUCKETS) "consumer_capture_to_commit_seconds" [];
    /// Age of an entry when it was committed, from when its producer made it, at most `max_delay` after
    /// `record()`: by its idempotency key and this machine's clock. Without entries whose key does not
    /// tell, and batches of which something was known.
    RECORD_TO_COMMIT_SECONDS = Histogram(AGE_BUCKETS) "consumer_record_to_commit_seconds" [];
    /// Age of an entry when it was committed, from when it was added to the stream: by its ID, which has
    /// Redis' clock, and this machine's clock. Without batches of which something was known.
    STREAM_TO_COMMIT_SECONDS = Histogram(AGE_BUCKETS) "consumer_stream_to_commit_seconds" [];
    /// Entries acknowledged.
    ENTRIES_ACKED = Counter "consumer_entries_acked_total" [];
    /// Acknowledgements that failed, by what was done about it.
    ACK_FAILURES = Counter "consumer_ack_failures_total" [RECOVERY];
    /// Connections made, the first ones included.
    CONNECTIONS = Counter "consumer_connections_total" [SERVER];
    /// Entries removed from the stream after every group had acknowledged them.
    ENTRIES_TRIMMED = Counter "consumer_entries_trimmed_total" [];
    /// Times the consumer group was found missing and made again.
    STREAM_RESETS = Counter "consumer_stream_resets_total" [];
    /// Times a stream was found to end before entries that had been read from it.
    LOST_TAILS = Counter "consumer_stream_lost_tails_total" [];
    /// Keys that the ledger was let forget.
    LEDGER_PRUNED = Counter "consumer_ledger_pruned_keys_total" [];
    /// Upkeep that failed and is tried again later.
    UPKEEP_FAILURES = Counter "consumer_upkeep_failures_total" [TASK];
    /// Entries that this worker has read and not yet acknowledged.
    IN_FLIGHT = Gauge "consumer_in_flight_entries" [];
    /// How long no commit of this worker has worked, once one has failed; else 0.
    STORE_FAILING = Gauge "consumer_store_failing_seconds" [];
    /// When this worker committed last, in seconds since the Unix epoch; 0 when it has not yet.
    LAST_COMMIT = Gauge "consumer_last_commit_timestamp_seconds" [];

    /// Entries of the group that are not acknowledged, delivered or not.
    BACKLOG_ENTRIES = Gauge "consumer_group_backlog_entries" [];
    /// How long the oldest entry that is not acknowledged has been in its stream: how far the store is
    /// behind.
    BACKLOG_AGE = Gauge "consumer_group_backlog_age_seconds" [];
    /// Entries not delivered yet; where Redis does not know, an estimate within what it knows.
    LAG_ENTRIES = Gauge "consumer_group_lag_entries" [];
    /// Entries delivered and not acknowledged.
    PENDING_ENTRIES = Gauge "consumer_group_pending_entries" [];
    /// How long the oldest pending entry has been in its stream.
    OLDEST_PENDING_AGE = Gauge "consumer_group_oldest_pending_age_seconds" [];
    /// Entries in the streams, acknowledged ones that are kept for replay included.
    STREAM_ENTRIES = Gauge "consumer_group_stream_entries" [];
    /// 1 while somebody has paused the group, so that its workers read nothing; else 0.
    PAUSED = Gauge "consumer_group_paused" [];
    /// Age of the oldest entry that a producer's spool has told of; 0 without one.
    OLDEST_SPOOLED_AGE = Gauge "consumer_group_oldest_spooled_age_seconds" [];
    /// Rows of all producers that keep books, by what became of them, as `passerby status` shows them:
    /// accepted = dropped + buffered + spooled + unheard + in-stream + settled + unaccounted − surplus.
    GROUP_ROWS = Gauge "consumer_group_rows" [STATE];
    /// Dead letters that were neither put back nor discarded.
    WAITING_DEAD_LETTERS = Gauge "consumer_group_waiting_dead_letters" [REASON];
    /// Producers that were heard of in the last 10 s.
    PRODUCERS = Gauge "consumer_group_producers" [];
    /// Workers that were heard of in the last 10 s.
    WORKERS = Gauge "consumer_group_workers" [];
    /// Memory that Redis uses.
    REDIS_USED_MEMORY = Gauge "consumer_redis_used_memory_bytes" [];
    /// Memory that Redis may use (`maxmemory`); 0 when that is not limited.
    REDIS_MAX_MEMORY = Gauge "consumer_redis_max_memory_bytes" [];
    /// Partitions of `detections`, without the default partition.
    PARTITIONS = Gauge "consumer_partitions" [];
    /// Days after today that have a partition: 7 when all is well.
    PARTITIONS_AHEAD = Gauge "consumer_partitions_ahead" [];
    /// Size of the default partition, the quarantine: 0 when all is well.
    DEFAULT_PARTITION_BYTES = Gauge "consumer_default_partition_bytes" [];
    /// Size of the ledger with its indices.
    LEDGER_BYTES = Gauge "consumer_ledger_bytes" [];
    /// 1 when this worker could work with it a moment ago, else 0.
    SERVER_UP = Gauge "consumer_server_up" [SERVER];

    /// 1, with the version of the program.
    BUILD_INFO = Gauge "consumer_build_info" [VERSION];
    /// Memory that the process has in use (Linux).
    RESIDENT_MEMORY = Gauge "process_resident_memory_bytes" [];
    /// Files that the process has open, connections included (Linux).
    OPEN_FDS = Gauge "process_open_fds" [];
    /// Files that the process may have open (Linux).
    MAX_FDS = Gauge "process_max_fds" [];
    /// When the process was started, in seconds since the Unix epoch.
    START_TIME = Gauge "process_start_time_seconds" [];
    /// Tasks of the program that are alive.
    RUNTIME_TASKS = Gauge "consumer_runtime_tasks" [];
}

/// Registers units and help texts with the installed recorder.
pub fn describe() {
    for metric in ALL {
        metric.describe();
    }
}
