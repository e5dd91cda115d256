//! What a worker has done so far.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::{
    presence::{Trouble, WorkedLately},
    store::{CommitReport, StoreError},
};

/// What [`WorkedLately`] is about, in times [`WorkerStats::note_lately`] is called: once a second.
const LATELY: usize = 10;

/// Counters of a running worker, for progress displays and tests.
#[derive(Debug, Default)]
pub struct WorkerStats {
    entries_read: AtomicU64,
    entries_redelivered: AtomicU64,
    batches: AtomicU64,
    entries: AtomicU64,
    duplicates: AtomicU64,
    detections: AtomicU64,
    tracks: AtomicU64,
    dead_letters: AtomicU64,
    lost_tails: AtomicU64,
    /// Since when no commit has worked, once one has failed.
    failing_since: Mutex<Option<Instant>>,
    standing: Mutex<Standing>,
}

/// What an operator wants to know of a worker beside its counters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    pub(crate) is_paused: bool,
    pub(crate) last_commit_at: Option<DateTime<Utc>>,
    pub(crate) last_error: Option<Trouble>,
    /// The counters of the last seconds, once a second.
    seconds: VecDeque<(Instant, WorkerReport)>,
}

impl Standing {
    pub(crate) fn lately(&self) -> WorkedLately {
        let (Some((begin, first)), Some((end, last))) = (self.seconds.front(), self.seconds.back())
        else {
            return WorkedLately::default();
        };
        WorkedLately {
            seconds: (*end - *begin).as_secs_f64(),
            entries: last.entries + last.duplicates - first.entries - first.duplicates,
            detections: last.detections - first.detections,
            dead_letters: last.dead_letters - first.dead_letters,
        }
    }
}

/// What a worker did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct WorkerReport {
    /// Entries read, with those that were delivered before.
    pub entries_read: u64,
    /// Entries read that were, or may have been, delivered before.
    pub entries_redelivered: u64,
    /// Batches committed.
    pub batches: u64,
    /// Entries committed.
    pub entries: u64,
    /// Entries that the ledger knew: nothing was written for them.
    pub duplicates: u64,
    /// Detections stored.
    pub detections: u64,
    /// Rows of `tracks` that changed.
    pub tracks: u64,
    /// Dead letters written.
    pub dead_letters: u64,
    /// Times a stream was found to end before entries that had been read from it.
    pub lost_tails: u64,
}

impl WorkerStats {
    pub(crate) fn read(&self, n_entries: usize, n_again: usize) {
        self.entries_read.fetch_add(n_entries as u64, Relaxed);
        self.entries_redelivered.fetch_add(n_again as u64, Relaxed);
    }

    /// Notes that a commit failed for a reason that may pass.
    pub(crate) fn commit_fails(&self, error: &StoreError) {
        self.lock_failing().get_or_insert_with(Instant::now);
        self.met(error.trouble());
    }

    /// Notes what went wrong.
    pub(crate) fn met(&self, trouble: Trouble) {
        self.lock_standing().last_error = Some(trouble);
    }

    /// Notes whether the group is paused.
    pub(crate) fn paused(&self, is_paused: bool) {
        self.lock_standing().is_paused = is_paused;
    }

    /// Remembers the counters of this second.
    pub(crate) fn note_lately(&self) {
        let report = self.report();
        let seconds = &mut self.lock_standing().seconds;
        seconds.push_back((Instant::now(), report));
        if seconds.len() > LATELY + 1 {
            seconds.pop_front();
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        self.lock_standing().clone()
    }

    fn lock_standing(&self) -> MutexGuard<'_, Standing> {
        // Each change above is whole, whoever panicked meanwhile.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a commit worked.
    pub(crate) fn commit_works(&self) {
        *self.lock_failing() = None;
    }

    /// How long no commit has worked.
    pub(crate) fn failing_for(&self) -> Duration {
        self.lock_failing()
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn lock_failing(&self) -> MutexGuard<'_, Option<Instant>> {
        // A time is whole whoever panicked meanwhile.
        self.failing_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lost_tails(&self, n: u64) {
        self.lost_tails.fetch_add(n, Relaxed);
    }

    pub(crate) fn committed(&self, report: CommitReport) {
        self.lock_standing().last_commit_at = Some(Utc::now());
        self.batches.fetch_add(1, Relaxed);
        self.entries.fetch_add(report.entries as u64, Relaxed);
        self.duplicates.fetch_add(report.duplicates as u64, Relaxed);
        self.detections.fetch_add(report.detections, Relaxed);
        self.tracks.fetch_add(report.tracks, Relaxed);
        self.dead_letters
            .fetch_add(report.dead_letters as u64, Relaxed);
    }

    /// The counters now.
    pub fn report(&self) -> WorkerReport {
        WorkerReport {
            entries_read: self.entries_read.load(Relaxed),
            entries_redelivered: self.entries_redelivered.load(Relaxed),
            batches: self.batches.load(Relaxed),
            entries: self.entries.load(Relaxed),
            duplicates: self.duplicates.load(Relaxed),
            detections: self.detections.load(Relaxed),
            tracks: self.tracks.load(Relaxed),
            dead_letters: self.dead_letters.load(Relaxed),
            lost_tails: self.lost_tails.load(Relaxed),
        }
    }
}
