//! The Redis Stream: entries in the order of their IDs, and one consumer group with its pending entries
//! list (`consumer/src/reader.rs`, `reclaimer.rs`, `acker.rs`, `trimmer.rs`, `group.rs`, `ops/claim.rs`).

use crate::{
    Delivery,
    action::Action,
    bug::Bug,
    worker::{Batch, Step, Worker},
    world::{Key, Row, World},
};

/// Under whose name an entry is pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Consumer {
    /// A worker that runs. One that crashed comes back under another name.
    Worker(u8),
    /// A worker that crashed.
    Dead,
}

/// What the consumer group knows of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// Not delivered to anybody.
    New,
    /// In the pending entries list.
    Pending(Consumer),
    /// Acknowledged.
    Acked,
    /// Thrown away with its consumer: neither pending nor acknowledged.
    Forgotten,
}

/// An entry of the stream; its ID is its index.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The idempotency key.
    pub key: Key,
    /// The row that it carries.
    pub row: Row,
    /// What the group knows.
    pub place: Place,
    /// Whether it was removed from the stream.
    pub is_trimmed: bool,
    /// Whether it came from a spool that the pruner had not heard of.
    pub is_unannounced: bool,
}

impl Entry {
    pub(crate) fn new(key: Key, row: Row) -> Self {
        Self {
            key,
            row,
            place: Place::New,
            is_trimmed: false,
            is_unannounced: false,
        }
    }

    /// Whether the group has not settled it.
    pub fn is_outstanding(&self) -> bool {
        matches!(self.place, Place::New | Place::Pending(_))
    }
}

/// The stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Stream {
    /// All entries there ever were: those that were trimmed have a mark.
    pub entries: Vec<Entry>,
}

impl Stream {
    /// The entry with this ID.
    pub fn entry(&self, id: u8) -> &Entry {
        &self.entries[usize::from(id)]
    }

    fn ids(&self, wanted: impl Fn(&Entry) -> bool) -> impl Iterator<Item = u8> {
        (0..)
            .zip(&self.entries)
            .filter(move |(_, entry)| !entry.is_trimmed && wanted(entry))
            .map(|(id, _)| id)
    }

    /// What is pending under a name, as far as the stream still holds it.
    pub(crate) fn pending_with(&self, consumer: Consumer) -> impl Iterator<Item = u8> {
        self.ids(move |entry| entry.place == Place::Pending(consumer))
    }

    fn put(&mut self, ids: &[u8], place: Place) {
        for id in ids {
            self.entries[usize::from(*id)].place = place;
        }
    }
}

impl Worker {
    /// Whether the reader may ask for more: the model's workers read no further ahead.
    fn is_idle(&self) -> bool {
        self.batch.is_none() && !self.must_read_history
    }

    /// Whether the heartbeat keeps an entry alive.
    fn has_in_flight(&self, id: u8) -> bool {
        self.batch.as_ref().is_some_and(|b| b.entries.contains(&id))
    }
}

impl Delivery {
    pub(crate) fn stream_steps(&self, world: &World, actions: &mut Vec<Action>) {
        let has_new = self.unread(world).next().is_some();
        for worker in self.workers() {
            let reader = world.worker(worker);
            if reader.must_read_history && reader.batch.is_none() {
                actions.push(Action::ReadHistory { worker });
            }
            if !reader.is_idle() {
                continue;
            }
            if has_new {
                actions.push(Action::Read { worker });
            }
            for from in self.consumers() {
                if self.claimable(world, from).next().is_some() {
                    actions.push(Action::Claim { worker, from });
                }
            }
        }
    }

    pub(crate) fn stream_chances(&self, world: &World, actions: &mut Vec<Action>) {
        let has_new = self.unread(world).next().is_some();
        for worker in self.workers() {
            let reader = world.worker(worker);
            if reader.is_idle() && has_new && world.left.lost_reads > 0 {
                actions.push(Action::ReadAndLoseReply { worker });
            }
            for slow in self.workers() {
                let held = world.stream.pending_with(Consumer::Worker(slow)).next();
                if reader.is_idle() && slow != worker && held.is_some() && world.left.suspicions > 0
                {
                    actions.push(Action::ClaimFromLiving { worker, slow });
                }
            }
            let held = world.stream.pending_with(Consumer::Worker(worker));
            if self.has(Bug::HeartbeatStealsBack)
                && reader.batch.as_ref().is_some_and(|b| {
                    let mine: Vec<u8> = held.collect();
                    b.entries.iter().any(|id| {
                        let place = world.stream.entry(*id).place;
                        matches!(place, Place::Pending(Consumer::Worker(_))) && !mine.contains(id)
                    })
                })
            {
                actions.push(Action::StealBack { worker });
            }
            if world.left.hand_overs > 0 {
                let others = |entry: &Entry| matches!(entry.place, Place::Pending(c) if c != Consumer::Worker(worker));
                let ids = world.stream.ids(others);
                actions.extend(ids.map(|id| Action::HandOver { id, to: worker }));
            }
        }
        if self.has(Bug::LeaveWhilePending)
            && world.stream.pending_with(Consumer::Dead).next().is_some()
        {
            actions.push(Action::DeleteDeadConsumers);
        }
        if self.bounds.trims && self.trimmable(world).is_some() {
            actions.push(Action::Trim);
        }
    }

    fn consumers(&self) -> impl Iterator<Item = Consumer> {
        self.workers().map(Consumer::Worker).chain([Consumer::Dead])
    }

    fn unread<'a>(&self, world: &'a World) -> impl Iterator<Item = u8> + use<'a> {
        world.stream.ids(|entry| entry.place == Place::New)
    }

    /// Entries that grow old: their consumer is dead, or it does not know that they are its.
    fn claimable(&self, world: &World, from: Consumer) -> impl Iterator<Item = u8> {
        let keeps_all = self.has(Bug::HeartbeatKeepsWhatItLacks);
        world
            .stream
            .pending_with(from)
            .filter(move |id| match from {
                Consumer::Dead => true,
                Consumer::Worker(owner) => !keeps_all && !world.worker(owner).has_in_flight(*id),
            })
    }

    fn take(&self, world: &mut World, worker: u8, ids: Vec<u8>, again: bool) {
        world
            .stream
            .put(&ids, Place::Pending(Consumer::Worker(worker)));
        let horizon = world.postgres.horizon;
        world.worker_mut(worker).batch = Some(Batch::new(ids, again, self.note_horizon(horizon)));
    }

    pub(crate) fn read(&self, world: &mut World, worker: u8, reply_arrives: bool) {
        let ids: Vec<u8> = self.unread(world).take(self.batch()).collect();
        if reply_arrives {
            return self.take(world, worker, ids, false);
        }
        world.left.lost_reads -= 1;
        world
            .stream
            .put(&ids, Place::Pending(Consumer::Worker(worker)));
        if !self.has(Bug::NoHistoryAfterLostRead) {
            world.worker_mut(worker).must_read_history = true;
        }
    }

    pub(crate) fn read_history(&self, world: &mut World, worker: u8) {
        let own: Vec<u8> = world
            .stream
            .pending_with(Consumer::Worker(worker))
            .collect();
        let n_taken = own.len().min(self.batch());
        world.worker_mut(worker).must_read_history = own.len() > n_taken;
        if n_taken > 0 {
            self.take(world, worker, own[..n_taken].to_vec(), true);
        }
    }

    pub(crate) fn claim(&self, world: &mut World, worker: u8, from: Consumer) {
        let ids: Vec<u8> = self.claimable(world, from).take(self.batch()).collect();
        self.take(world, worker, ids, true);
    }

    pub(crate) fn claim_from_living(&self, world: &mut World, worker: u8, slow: u8) {
        world.left.suspicions -= 1;
        let held = world.stream.pending_with(Consumer::Worker(slow));
        let ids: Vec<u8> = held.take(self.batch()).collect();
        self.take(world, worker, ids, true);
    }

    pub(crate) fn steal_back(&self, world: &mut World, worker: u8) {
        let Some(batch) = world.worker(worker).batch.clone() else {
            return;
        };
        for id in batch.entries {
            if matches!(
                world.stream.entry(id).place,
                Place::Pending(Consumer::Worker(_))
            ) {
                world
                    .stream
                    .put(&[id], Place::Pending(Consumer::Worker(worker)));
            }
        }
    }

    pub(crate) fn hand_over(&self, world: &mut World, id: u8, to: u8) {
        world.left.hand_overs -= 1;
        world
            .stream
            .put(&[id], Place::Pending(Consumer::Worker(to)));
    }

    pub(crate) fn delete_dead_consumers(&self, world: &mut World) {
        let ids: Vec<u8> = world.stream.pending_with(Consumer::Dead).collect();
        world.stream.put(&ids, Place::Forgotten);
    }

    /// XACK. Entries that another consumer holds by now are acknowledged all the same.
    pub(crate) fn ack(&self, world: &mut World, worker: u8) {
        self.ack_entries(world, worker);
        world.worker_mut(worker).batch = None;
    }

    pub(crate) fn ack_entries(&self, world: &mut World, worker: u8) {
        let Some(batch) = &world.workers[usize::from(worker)].batch else {
            return;
        };
        debug_assert!(batch.step >= Step::CommitSent);
        for id in &batch.entries {
            let place = &mut world.stream.entries[usize::from(*id)].place;
            if matches!(place, Place::Pending(_)) {
                *place = Place::Acked;
            }
        }
    }

    /// The first entry, if it may go: the bound is the oldest pending entry or the last delivered one,
    /// whichever comes first. What is below goes one by one, as grace and `~` may stop anywhere.
    fn trimmable(&self, world: &World) -> Option<u8> {
        let first = world.stream.ids(|_| true).next()?;
        let last_delivered = world
            .stream
            .entries
            .iter()
            .rposition(|e| e.place != Place::New);
        let last_delivered = u8::try_from(last_delivered?).ok()?;
        let oldest_pending = world
            .stream
            .ids(|e| matches!(e.place, Place::Pending(_)))
            .next();
        let bound = if self.has(Bug::TrimByLength) {
            u8::try_from(world.stream.entries.len()).ok()?
        } else if self.has(Bug::TrimToLastDelivered) {
            last_delivered
        } else {
            oldest_pending.map_or(last_delivered, |id| id.min(last_delivered))
        };
        (first < bound).then_some(first)
    }

    pub(crate) fn trim(&self, world: &mut World) {
        if let Some(id) = self.trimmable(world) {
            world.stream.entries[usize::from(id)].is_trimmed = true;
        }
    }
}
