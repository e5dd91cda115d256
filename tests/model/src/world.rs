//! The state of everything at one moment.

use crate::{
    bounds::{Bounds, Faults},
    operator::Operator,
    postgres::Postgres,
    producer::Producer,
    stream::Stream,
    upkeep::Upkeep,
    worker::Worker,
};

/// A row, by the number of the entry in which the producer sent it.
pub type Row = u8;

/// A set of rows, a bit for each.
pub type RowSet = u8;

/// An idempotency key. Sorted as Postgres would sort it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Made by the producer for this entry, before it was first sent.
    Sent(Row),
    /// Derived from the number of a dead letter; the second number is 0 unless a bug counts.
    Requeued(u8, u8),
    /// Made anew for an entry that had one: a bug.
    Anew(Row),
}

impl Key {
    /// When it was made, as the key itself tells: the entries' numbers serve as a clock.
    pub fn made_at(self) -> Option<u8> {
        match self {
            Self::Sent(row) => Some(row),
            Self::Requeued(..) | Self::Anew(_) => None,
        }
    }
}

/// Everything that the protocol's parties remember.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// The producer, with what it has not yet seen acknowledged.
    pub producer: Producer,
    /// The Redis Stream with its one consumer group.
    pub stream: Stream,
    /// The workers.
    pub workers: Vec<Worker>,
    /// The tables, and the transactions whose worker is gone.
    pub postgres: Postgres,
    /// What a worker does beside the stream.
    pub upkeep: Upkeep,
    /// The operator.
    pub operator: Operator,
    /// The faults that may still strike.
    pub left: Faults,
}

impl World {
    /// Before anything has happened.
    pub fn new(bounds: &Bounds) -> Self {
        Self {
            producer: Producer::new(bounds.entries),
            stream: Stream::default(),
            workers: vec![Worker::default(); usize::from(bounds.workers)],
            postgres: Postgres::new(bounds),
            upkeep: Upkeep::default(),
            operator: Operator::default(),
            left: bounds.faults,
        }
    }

    /// The worker with this number.
    pub fn worker(&self, worker: u8) -> &Worker {
        &self.workers[usize::from(worker)]
    }

    pub(crate) fn worker_mut(&mut self, worker: u8) -> &mut Worker {
        &mut self.workers[usize::from(worker)]
    }
}
