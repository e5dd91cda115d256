//! Stops a worker that would dead-letter most of what it reads.
//!
//! One bad entry among good ones is the entry's fault. When most entries are bad the fault lies
//! elsewhere: a producer of a newer version, a constraint that somebody added, the wrong stream. To
//! dead-letter them all would empty the stream into a table that somebody then has to empty again.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::batch::{Batch, BatchEntry};

/// Entries that are looked back upon.
const WINDOW: usize = 200;
/// Fewer bad entries than this stop nobody: a stream may begin with a few.
const FLOOR: usize = 50;

/// Shared by the committers of one worker.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetterGuard {
    limit_percent: usize,
    window: Arc<Mutex<Window>>,
}

#[derive(Debug, Default)]
struct Window {
    is_bad: VecDeque<bool>,
    n_bad: usize,
}

/// Most of what was read lately cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{n_bad} of the last {n_entries} entries cannot be stored, the last one because of: {example}"
)]
pub struct MostlyBad {
    /// Entries that cannot be stored, or of which most rows cannot.
    pub n_bad: usize,
    /// Entries looked at.
    pub n_entries: usize,
    /// What is wrong with one of them.
    pub example: String,
}

impl DeadLetterGuard {
    pub(crate) fn new(limit_percent: u8) -> Self {
        Self {
            limit_percent: usize::from(limit_percent),
            window: Arc::default(),
        }
    }

    /// Looks at a batch before it is committed.
    ///
    /// # Errors
    ///
    /// [`MostlyBad`] when the share of bad entries is above the limit; the batch is not to be committed
    /// then.
    pub(crate) fn admit(&self, batch: &Batch) -> Result<(), MostlyBad> {
        let mut window = self.lock();
        for entry in batch.entries() {
            window.push(is_bad(batch, entry));
        }
        self.judge(&window, batch)
    }

    /// Looks again at a part of a batch that was admitted, now that Postgres has refused some of it.
    ///
    /// # Errors
    ///
    /// As [`DeadLetterGuard::admit`].
    pub(crate) fn admit_mended(&self, batch: &Batch) -> Result<(), MostlyBad> {
        let mut window = self.lock();
        let n_bad = batch.entries().iter().filter(|e| is_bad(batch, e)).count();
        window.turn_bad(n_bad);
        self.judge(&window, batch)
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        // A count that is off by one after a panic is still a count.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, window: &Window, batch: &Batch) -> Result<(), MostlyBad> {
        let (n_bad, n_entries) = (window.n_bad, window.is_bad.len());
        let bad = batch.entries().iter().rfind(|entry| is_bad(batch, entry));
        match bad {
            Some(entry) if n_bad >= FLOOR && self.exceeds(n_bad, n_entries) => Err(MostlyBad {
                n_bad,
                n_entries,
                example: batch.dead_letters[entry.dead_letters.start].message.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether the share is above the limit.
    pub(crate) fn exceeds(&self, n_bad: usize, n: usize) -> bool {
        n_bad * 100 > n * self.limit_percent
    }
}

impl Window {
    /// Of the good ones the last so many turn out to be bad.
    fn turn_bad(&mut self, n: usize) {
        for is_bad in self.is_bad.iter_mut().rev().filter(|b| !**b).take(n) {
            *is_bad = true;
            self.n_bad += 1;
        }
    }

    fn push(&mut self, is_bad: bool) {
        self.is_bad.push_back(is_bad);
        self.n_bad += usize::from(is_bad);
        if self.is_bad.len() > WINDOW && self.is_bad.pop_front() == Some(true) {
            self.n_bad -= 1;
        }
    }
}

/// The entry as a whole, or most of its rows, cannot be stored. What an operator put back, what Redis lost, or what is too old to
/// be told from what is stored, says nothing about the entries to come.
fn is_bad(batch: &Batch, entry: &BatchEntry) -> bool {
    if entry.is_requeued {
        return false;
    }
    let letters = &batch.dead_letters[entry.dead_letters.clone()];
    let letters = || {
        letters
            .iter()
            .filter(|letter| letter.reason.is_of_the_data())
    };
    letters().any(|letter| letter.row_idx.is_none()) || letters().count() * 2 > entry.n_rows
}

#[cfg(test)]
mod tests {
    use passerby_shared::IdempotencyKey;

    use super::*;
    use crate::{
        batch::{BatchBuilder, Origin},
        decoder::decode,
        reply::Delivered,
    };

    fn batch(payloads: &[&[u8]]) -> Batch {
        let mut builder = BatchBuilder::default();
        for payload in payloads {
            let origin = Origin {
                stream: Arc::new(passerby_shared::StreamKey::from_name("s")),
                id: passerby_shared::EntryId::MIN,
            };
            let key = IdempotencyKey::generate();
            let fields = vec![
                ("i".into(), key.as_bytes().to_vec().into()),
                ("p".into(), payload.to_vec().into()),
            ];
            decode(
                &mut builder,
                Delivered {
                    origin,
                    fields: Some(fields),
                    again: false,
                },
            );
        }
        builder.build()
    }

    /// An empty array: an entry without rows, which is fine.
    const GOOD: &[u8] = b"\x90";
    const BAD: &[u8] = b"\xc1";

    fn check(limit_percent: u8, batches: &[(usize, usize)], expected: Option<(usize, usize)>) {
        let guard = DeadLetterGuard::new(limit_percent);
        let mut stopped = None;
        for &(n_good, n_bad) in batches {
            let payloads = [vec![GOOD; n_good], vec![BAD; n_bad]].concat();
            if let Err(mostly) = guard.admit(&batch(&payloads)) {
                stopped = Some((mostly.n_bad, mostly.n_entries));
                break;
            }
        }
        assert_eq!(stopped, expected, "{limit_percent} % of {batches:?}");
    }

    #[test]
    fn what_postgres_refuses_counts_as_well() {
        let guard = DeadLetterGuard::new(50);
        guard.admit(&batch(&[GOOD; 90])).unwrap();
        let refused = batch(&[BAD; 40]);
        guard.admit_mended(&refused).unwrap();
        let mostly = guard.admit_mended(&refused).unwrap_err();
        assert_eq!((mostly.n_bad, mostly.n_entries), (80, 90));
    }

    #[test]
    fn a_worker_stops_when_most_of_what_it_reads_is_bad() {
        check(50, &[(0, 49)], None);
        check(50, &[(0, 60)], Some((60, 60)));
        check(50, &[(0, 30), (0, 30)], Some((60, 60)));
        check(50, &[(60, 60)], None);
        check(50, &[(60, 61)], Some((61, 121)));
        // What is long past does not count.
        check(50, &[(1_000, 0), (0, 100)], None);
        check(50, &[(1_000, 0), (0, 101)], Some((101, 200)));
        check(50, &[(0, 40), (1_000, 0), (0, 40)], None);
        check(100, &[(0, 1_000)], None);
        check(10, &[(200, 0), (150, 50)], Some((50, 200)));
    }
}
