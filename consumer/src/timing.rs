//! Where the time of a batch went, from the delivery of its first entry to its acknowledgement.

use std::time::Duration;

use passerby_shared::{EntryId, Traceparent};
use tokio::time::Instant;
use tracing::warn;

use crate::store::CommitTimes;

/// Measures one thing after another.
#[derive(Debug)]
pub(crate) struct Lap(Instant);

impl Lap {
    pub(crate) fn begin() -> Self {
        Self(Instant::now())
    }

    /// The time since the last one.
    pub(crate) fn next(&mut self) -> Duration {
        let now = Instant::now();
        now - std::mem::replace(&mut self.0, now)
    }
}

/// The times of a batch so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// When its first entry was delivered.
    delivered_at: Instant,
    /// How long the read took that delivered it, the wait for something to read included.
    read: Duration,
    decode: Duration,
    /// When it was complete.
    built_at: Instant,
    /// When a committer took it.
    taken_at: Instant,
    /// When it was committed.
    committed_at: Instant,
    /// In attempts to commit that failed, and between them.
    retry: Duration,
    commit: CommitTimes,
    n_rows: u64,
    /// The first of the traces that its entries belong to.
    trace: Option<Traceparent>,
}

impl Timing {
    /// Of a batch whose first entry was delivered then, by a read that took so long.
    pub(crate) fn of(delivered_at: Instant, read: Duration) -> Self {
        Self {
            delivered_at,
            read,
            decode: Duration::ZERO,
            built_at: delivered_at,
            taken_at: delivered_at,
            committed_at: delivered_at,
            retry: Duration::ZERO,
            commit: CommitTimes::default(),
            n_rows: 0,
            trace: None,
        }
    }

    pub(crate) fn decoded(&mut self, decode: Duration) {
        self.decode += decode;
    }

    pub(crate) fn built(&mut self) {
        self.built_at = Instant::now();
    }

    pub(crate) fn taken(&mut self) {
        self.taken_at = Instant::now();
    }

    /// Its last attempt took so long, and was a success.
    pub(crate) fn committed(
        &mut self,
        attempt: Duration,
        commit: CommitTimes,
        n_rows: u64,
        trace: Option<Traceparent>,
    ) {
        self.trace = trace;
        self.committed_at = Instant::now();
        self.retry = (self.committed_at - self.taken_at).saturating_sub(attempt);
        self.commit = commit;
        self.n_rows = n_rows;
    }

    /// Everything, now that it is acknowledged.
    pub(crate) fn acked(&self) -> Stages {
        let fill = (self.built_at - self.delivered_at).saturating_sub(self.decode);
        Stages {
            read: self.read,
            n_rows: self.n_rows,
            trace: self.trace,
            elapsed: self.delivered_at.elapsed().saturating_sub(fill),
            decode: self.decode,
            fill,
            queue: self.taken_at - self.built_at,
            retry: self.retry,
            begin: self.commit.begin,
            copy: self.commit.copy,
            others: self.commit.others,
            commit: self.commit.commit,
            ack: self.committed_at.elapsed(),
        }
    }
}

/// What a batch's time was spent on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stages {
    pub(crate) read: Duration,
    pub(crate) n_rows: u64,
    pub(crate) trace: Option<Traceparent>,
    /// From the delivery to the acknowledgement, without the wait for more entries.
    pub(crate) elapsed: Duration,
    pub(crate) decode: Duration,
    /// The wait for more entries, or for room to pass on.
    pub(crate) fill: Duration,
    /// The wait for a committer.
    pub(crate) queue: Duration,
    pub(crate) retry: Duration,
    /// A connection, BEGIN, and the ledger's keys.
    pub(crate) begin: Duration,
    pub(crate) copy: Duration,
    /// Tracks, sessions and dead letters.
    pub(crate) others: Duration,
    pub(crate) commit: Duration,
    pub(crate) ack: Duration,
}

impl Stages {
    /// Says what a slow batch was slow at.
    pub(crate) fn log(&self, first: Option<EntryId>, last: Option<EntryId>, n_entries: usize) {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        warn!(
            first_entry_id = first.map(tracing::field::display),
            last_entry_id = last.map(tracing::field::display),
            n_entries,
            n_rows = self.n_rows,
            elapsed_ms = ms(self.elapsed),
            read_ms = ms(self.read),
            decode_ms = ms(self.decode),
            fill_ms = ms(self.fill),
            queue_ms = ms(self.queue),
            retry_ms = ms(self.retry),
            begin_ms = ms(self.begin),
            copy_ms = ms(self.copy),
            others_ms = ms(self.others),
            commit_ms = ms(self.commit),
            ack_ms = ms(self.ack),
            traceparent = self.trace.map(tracing::field::display),
            "slow batch"
        );
    }
}
