//! What was accepted, and so must be somewhere.

use std::collections::{BTreeMap, BTreeSet};

use crate::rows::Source;

/// What one session must have left behind.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) source: Source,
    /// Rows that must be there.
    pub(crate) accepted: BTreeSet<i64>,
    /// Rows that may be there: whoever sent them died, or had no answer.
    pub(crate) uncertain: BTreeSet<i64>,
    /// Of the rows accepted, those that can never be stored.
    pub(crate) dead: BTreeSet<i64>,
    /// Accepted rows that the producer says it has dropped since; it does not say which.
    pub(crate) n_dropped: u64,
    /// The newest snapshot of each track that must be there, and the newest that may be, by its row.
    pub(crate) tracks: BTreeMap<i64, (i64, i64)>,
    /// Whether snapshots of tracks were dropped.
    pub(crate) n_dropped_tracks: u64,
    /// The row that the session ended with, where its end must be known.
    pub(crate) ended_after: Option<i64>,
}

impl Account {
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source,
            accepted: BTreeSet::new(),
            uncertain: BTreeSet::new(),
            dead: BTreeSet::new(),
            n_dropped: 0,
            tracks: BTreeMap::new(),
            n_dropped_tracks: 0,
            ended_after: None,
        }
    }

    /// A snapshot of the track as of row `n` was accepted.
    pub(crate) fn track_accepted(&mut self, n: i64) {
        let track_id = self.source.track(n).track_id;
        self.tracks.insert(track_id, (n, n));
    }

    /// Whether there are rows that wait, as dead letters, for what refuses them to be mended.
    pub(crate) fn has_refused_rows(&self) -> bool {
        if self.source.has_refused_tracks() {
            return true;
        }
        let mut all = self.accepted.iter().chain(&self.uncertain);
        all.any(|n| Source::is_refused(*n) && !self.dead.contains(n))
    }
}
