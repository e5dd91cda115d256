//! The workers: a batch goes through one transaction, and is then acknowledged
//! (`consumer/src/committer.rs`, `store/commit.rs`).

use crate::{
    Delivery,
    action::Action,
    bug::Bug,
    postgres::{Reason, Transaction},
    stream::{Consumer, Place},
    world::{Key, Row, RowSet, World},
};

/// A worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Worker {
    /// The batch in work.
    pub batch: Option<Batch>,
    /// Whether a read was cut off, so that entries may be pending that never arrived.
    pub must_read_history: bool,
}

/// How far a batch has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Decoded; no transaction is open.
    Decoded,
    /// So many of its keys have been entered, or found taken.
    EnteringKeys(u8),
    /// Rows and dead letters are written.
    Written,
    /// COMMIT is on its way.
    CommitSent,
    /// Postgres has committed, and its reply is on its way or has arrived.
    Committed,
}

/// Entries that are committed in one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Batch {
    /// Their IDs.
    pub entries: Vec<u8>,
    /// Takes the careful path.
    pub may_be_known: bool,
    /// Rows that Postgres has refused.
    pub refused: RowSet,
    /// How far it is.
    pub step: Step,
    /// The open transaction.
    pub transaction: Option<Transaction>,
    /// Keys that this worker entered in the transaction that committed.
    pub entered: Vec<Key>,
    /// The horizon when it was read; 0 unless a bug looks at it.
    pub horizon_when_read: u8,
    /// Its keys were replaced: a bug.
    pub is_renamed: bool,
}

impl Batch {
    pub(crate) fn new(entries: Vec<u8>, again: bool, horizon_when_read: u8) -> Self {
        Self {
            entries,
            may_be_known: again,
            refused: 0,
            step: Step::Decoded,
            transaction: None,
            entered: Vec::new(),
            horizon_when_read,
            is_renamed: false,
        }
    }
}

impl Delivery {
    pub(crate) fn note_horizon(&self, horizon: u8) -> u8 {
        if self.has(Bug::HorizonReadBeforeKeys) {
            horizon
        } else {
            0
        }
    }

    /// The keys of a batch with their rows, each key once, in the order in which they are entered.
    fn keys(&self, world: &World, worker: u8) -> Vec<(Key, Row)> {
        let Some(batch) = &world.worker(worker).batch else {
            return Vec::new();
        };
        let mut keys: Vec<(Key, Row)> = batch
            .entries
            .iter()
            .map(|id| {
                let entry = world.stream.entry(*id);
                let key = if batch.is_renamed {
                    Key::Anew(entry.row)
                } else {
                    entry.key
                };
                (key, entry.row)
            })
            .collect();
        keys.sort_unstable();
        keys.dedup();
        if self.has(Bug::KeysUnsorted) && worker == 1 {
            keys.reverse();
        }
        keys
    }

    /// The key that a worker enters next, and has to wait for where another transaction holds it.
    pub(crate) fn next_key(&self, world: &World, worker: u8) -> Option<Key> {
        let n_entered = match world.worker(worker).batch.as_ref()?.step {
            Step::Decoded => 0,
            Step::EnteringKeys(n) => n,
            _ => return None,
        };
        let keys = self.keys(world, worker);
        keys.get(usize::from(n_entered)).map(|(key, _)| *key)
    }

    pub(crate) fn worker_steps(&self, world: &World, actions: &mut Vec<Action>) {
        for worker in self.workers() {
            let Some(batch) = &world.worker(worker).batch else {
                continue;
            };
            match batch.step {
                Step::Decoded | Step::EnteringKeys(_) => match self.next_key(world, worker) {
                    Some(key) if self.must_wait(world, worker, key) => {}
                    Some(_) => actions.push(Action::EnterKey { worker }),
                    None => actions.push(Action::WriteRows { worker }),
                },
                Step::Written => actions.push(Action::SendCommit { worker }),
                Step::CommitSent => actions.push(Action::Commit { worker }),
                Step::Committed => actions.push(Action::Ack { worker }),
            }
        }
    }

    pub(crate) fn worker_chances(&self, world: &World, actions: &mut Vec<Action>) {
        for worker in self.workers() {
            let held = world.stream.pending_with(Consumer::Worker(worker)).next();
            let batch = &world.worker(worker).batch;
            if world.left.crashes > 0 && (batch.is_some() || held.is_some()) {
                actions.push(Action::Crash { worker });
            }
            let in_commit = |b: &Batch| b.step != Step::Decoded;
            if world.left.lost_connections > 0 && batch.as_ref().is_some_and(in_commit) {
                actions.push(Action::LoseConnection { worker });
            }
        }
    }

    fn must_wait(&self, world: &World, worker: u8, key: Key) -> bool {
        let is_careful = world
            .worker(worker)
            .batch
            .as_ref()
            .is_some_and(|b| b.may_be_known);
        !(is_careful && self.has(Bug::UncommittedKeyCountsAsTaken))
            && self.is_held_by_another(world, worker, key)
    }

    pub(crate) fn is_held_by_another(&self, world: &World, worker: u8, key: Key) -> bool {
        let others = self.workers().filter(|other| *other != worker);
        let mut open = others
            .filter_map(|other| world.worker(other).batch.as_ref()?.transaction.as_ref())
            .chain(&world.postgres.orphans);
        open.any(|transaction| transaction.keys.contains(&key))
    }

    /// The next key goes into the ledger, or is found there.
    pub(crate) fn enter_key(&self, world: &mut World, worker: u8) {
        let Some(key) = self.next_key(world, worker) else {
            return;
        };
        let is_taken =
            world.postgres.ledger.contains(&key) || self.is_held_by_another(world, worker, key);
        let Some(batch) = world.workers[usize::from(worker)].batch.as_mut() else {
            return;
        };
        let is_fast = !batch.may_be_known;
        if is_fast && self.has(Bug::NoLedgerOnFastPath) {
            batch
                .transaction
                .get_or_insert_default()
                .unledgered
                .push(key);
        } else if !is_taken {
            let transaction = batch.transaction.get_or_insert_default();
            if self.has(Bug::LedgerCommittedFirst) {
                transaction.unledgered.push(key);
                world.postgres.enter(key);
            } else {
                transaction.keys.push(key);
            }
        } else if is_fast {
            // ROLLBACK, and the careful path from the start.
            batch.transaction = None;
            batch.may_be_known = true;
            batch.step = Step::Decoded;
            return;
        } else {
            batch.transaction.get_or_insert_default();
        }
        batch.step = match batch.step {
            Step::EnteringKeys(n) => Step::EnteringKeys(n + 1),
            _ => Step::EnteringKeys(1),
        };
    }

    /// The horizon is looked at, and the rows of the keys that were entered are written.
    pub(crate) fn write_rows(&self, world: &mut World, worker: u8) {
        let keys = self.keys(world, worker);
        let horizon = world.postgres.horizon;
        let is_mended = world.operator.has_mended;
        let Some(batch) = world.workers[usize::from(worker)].batch.as_mut() else {
            return;
        };
        let Some(transaction) = &mut batch.transaction else {
            return;
        };
        let horizon = if self.has(Bug::NoHorizon) {
            0
        } else if self.has(Bug::HorizonReadBeforeKeys) {
            batch.horizon_when_read
        } else {
            horizon
        };
        for (key, row) in keys {
            if !transaction.keys.contains(&key) && !transaction.unledgered.contains(&key) {
                continue;
            }
            let bit = 1 << row;
            if key.made_at().is_some_and(|made_at| made_at < horizon) {
                if !batch.may_be_known {
                    batch.transaction = None;
                    batch.may_be_known = true;
                    batch.step = Step::Decoded;
                    return;
                }
                transaction.letters.push((row, Reason::TooOld));
            } else if batch.may_be_known && self.has(Bug::DeadLetterByDeliveryCount) {
                transaction.letters.push((row, Reason::DeliveredTooOften));
            } else if batch.refused & bit != 0 {
                if !self.has(Bug::DeadLetterCommittedFirst) {
                    transaction.letters.push((row, Reason::Refused));
                }
            } else if self.is_poison(row) && !is_mended {
                // Postgres refuses the row and aborts. The batch is tried again without it.
                batch.refused |= bit;
                batch.transaction = None;
                batch.step = Step::Decoded;
                if self.has(Bug::DeadLetterCommittedFirst) {
                    world.postgres.dead_letter(row, Reason::Refused);
                }
                return;
            } else {
                transaction.rows.push(row);
            }
        }
        batch.step = Step::Written;
    }

    pub(crate) fn send_commit(&self, world: &mut World, worker: u8) {
        let Some(batch) = world.workers[usize::from(worker)].batch.as_mut() else {
            return;
        };
        batch.step = Step::CommitSent;
        if let Some(transaction) = &mut batch.transaction {
            transaction.is_commit_sent = true;
        }
        if self.has(Bug::AckBeforeCommit) {
            self.ack_entries(world, worker);
        }
    }

    /// Postgres commits.
    pub(crate) fn commit(&self, world: &mut World, worker: u8) {
        let Some(batch) = world.workers[usize::from(worker)].batch.as_mut() else {
            return;
        };
        batch.step = Step::Committed;
        if let Some(transaction) = batch.transaction.take() {
            batch.entered.clone_from(&transaction.keys);
            world.postgres.commit(transaction);
        }
    }

    /// The connection is gone. COMMIT may have arrived before; the worker tries the same batch again.
    pub(crate) fn lose_connection(&self, world: &mut World, worker: u8) {
        world.left.lost_connections -= 1;
        let Some(batch) = world.workers[usize::from(worker)].batch.as_mut() else {
            return;
        };
        if let Some(transaction) = batch.transaction.take() {
            world.postgres.orphan(transaction);
        }
        let was_commit_sent = batch.step >= Step::CommitSent;
        if was_commit_sent && self.has(Bug::AckWhenCommitIsInDoubt) {
            batch.step = Step::Committed;
            return;
        }
        if was_commit_sent && self.has(Bug::NewKeyWhenCommitIsInDoubt) {
            batch.is_renamed = true;
        }
        batch.may_be_known = true;
        batch.entered.clear();
        batch.step = Step::Decoded;
    }

    /// The worker dies with all it knows, and one of another name begins. Postgres notices later.
    pub(crate) fn crash(&self, world: &mut World, worker: u8) {
        world.left.crashes -= 1;
        let dead = std::mem::take(world.worker_mut(worker));
        if let Some(transaction) = dead.batch.and_then(|batch| batch.transaction) {
            world.postgres.orphan(transaction);
        }
        for entry in &mut world.stream.entries {
            if entry.place == Place::Pending(Consumer::Worker(worker)) {
                entry.place = Place::Pending(Consumer::Dead);
            }
        }
    }
}
