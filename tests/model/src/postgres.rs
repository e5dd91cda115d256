//! The tables, and the transactions whose worker is gone (`consumer/src/store/`).
//!
//! Transactions are as READ COMMITTED has them: what one writes, the others see when it has committed;
//! only a key in the ledger is in the way of whoever would enter the same one, who waits for the end.

use crate::{
    Delivery,
    action::Action,
    bounds::Bounds,
    world::{Key, Row, World},
};

/// Why something was dead-lettered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Postgres refused the row.
    Refused,
    /// The ledger may have forgotten the key.
    TooOld,
    /// A bug: nothing is dead-lettered for that.
    DeliveredTooOften,
}

/// An open transaction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Transaction {
    /// The keys it has entered, for which others wait.
    pub keys: Vec<Key>,
    /// Keys that it stores the rows of without holding them: a bug.
    pub unledgered: Vec<Key>,
    /// The rows it stores.
    pub rows: Vec<Row>,
    /// The rows it dead-letters.
    pub letters: Vec<(Row, Reason)>,
    /// COMMIT has been sent, so that it may commit when its worker is gone.
    pub is_commit_sent: bool,
}

/// A row of `dead_letters`; its number is its index.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Letter {
    /// The row.
    pub row: Row,
    /// Why.
    pub reason: Reason,
    /// What became of the row after the letter was put back is committed: this letter is history.
    pub is_superseded: bool,
}

/// The tables.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Postgres {
    /// How many times each row is stored.
    pub stored: Vec<u8>,
    /// The keys of committed entries, sorted.
    pub ledger: Vec<Key>,
    /// Keys made before this may have been forgotten.
    pub horizon: u8,
    /// What was dead-lettered.
    pub letters: Vec<Letter>,
    /// Open transactions whose worker has crashed or given up the connection, sorted.
    pub orphans: Vec<Transaction>,
}

impl Postgres {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        Self {
            stored: vec![0; usize::from(bounds.entries)],
            ledger: Vec::new(),
            horizon: 0,
            letters: Vec::new(),
            orphans: Vec::new(),
        }
    }

    pub(crate) fn enter(&mut self, key: Key) {
        if let Err(at) = self.ledger.binary_search(&key) {
            self.ledger.insert(at, key);
        }
    }

    pub(crate) fn dead_letter(&mut self, row: Row, reason: Reason) {
        self.letters.push(Letter {
            row,
            reason,
            is_superseded: false,
        });
    }

    pub(crate) fn commit(&mut self, transaction: Transaction) {
        for key in transaction.keys.iter().chain(&transaction.unledgered) {
            if let Key::Requeued(letter, _) = key {
                self.letters[usize::from(*letter)].is_superseded = true;
            }
        }
        for key in transaction.keys {
            self.enter(key);
        }
        for row in transaction.rows {
            self.stored[usize::from(row)] += 1;
        }
        for (row, reason) in transaction.letters {
            self.dead_letter(row, reason);
        }
    }

    pub(crate) fn orphan(&mut self, transaction: Transaction) {
        self.orphans.push(transaction);
        self.orphans.sort_unstable();
    }

    /// Letters of a row that were not put back, or not settled since; `too-old` ones do not count, as
    /// they say that nobody knows.
    pub fn n_open_letters(&self, row: Row) -> usize {
        self.letters
            .iter()
            .filter(|l| l.row == row && !l.is_superseded && l.reason != Reason::TooOld)
            .count()
    }

    /// Whether a row is stored, or dead-lettered for whatever reason.
    pub fn knows(&self, row: Row) -> bool {
        self.stored[usize::from(row)] > 0 || self.letters.iter().any(|l| l.row == row)
    }
}

impl Delivery {
    pub(crate) fn postgres_steps(&self, world: &World, actions: &mut Vec<Action>) {
        for (at, orphan) in (0..).zip(&world.postgres.orphans) {
            actions.push(Action::AbortOrphan { at });
            if orphan.is_commit_sent {
                actions.push(Action::CommitOrphan { at });
            }
        }
    }

    pub(crate) fn abort_orphan(&self, world: &mut World, at: u8) {
        world.postgres.orphans.remove(usize::from(at));
    }

    pub(crate) fn commit_orphan(&self, world: &mut World, at: u8) {
        let transaction = world.postgres.orphans.remove(usize::from(at));
        world.postgres.commit(transaction);
    }
}
