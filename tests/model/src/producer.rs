//! The producer: an entry keeps its key until Redis has acknowledged it (`producer/src/publisher.rs`).

use crate::{
    Delivery,
    action::Action,
    bug::Bug,
    stream::Entry,
    world::{Key, Row, World},
};

/// What the producer knows of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sending {
    /// Not sent yet.
    Waiting,
    /// Sent, and the reply was lost: it has to be sent again.
    InDoubt,
    /// Acknowledged by Redis.
    Published,
    /// Acknowledged once, and sent again by a spool that does not know and that the pruner does not know.
    Respooled,
}

/// The entries of the producer, in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Producer {
    /// One for each entry.
    pub entries: Vec<Sending>,
}

impl Producer {
    pub(crate) fn new(entries: u8) -> Self {
        Self {
            entries: vec![Sending::Waiting; usize::from(entries)],
        }
    }

    /// The entry that is published next: one at a time and in order.
    pub fn next(&self) -> Option<Row> {
        let at = self.entries.iter().position(|s| *s != Sending::Published)?;
        u8::try_from(at).ok()
    }

    /// Whether the producer still holds a row.
    pub fn holds(&self, row: Row) -> bool {
        self.entries[usize::from(row)] != Sending::Published
    }

    /// The oldest key that the pruner is told of.
    pub(crate) fn oldest_announced(&self) -> Option<u8> {
        let held = |s: &Sending| matches!(s, Sending::Waiting | Sending::InDoubt);
        u8::try_from(self.entries.iter().position(held)?).ok()
    }
}

impl Delivery {
    pub(crate) fn producer_steps(&self, world: &World, actions: &mut Vec<Action>) {
        if world.producer.next().is_some() {
            actions.push(Action::Publish);
        }
    }

    pub(crate) fn producer_chances(&self, world: &World, actions: &mut Vec<Action>) {
        if world.producer.next().is_some() && world.left.lost_xadd_replies > 0 {
            actions.push(Action::PublishAndLoseReply);
        }
        if world.left.spool_replays > 0 {
            for (row, sending) in (0..).zip(&world.producer.entries) {
                if *sending == Sending::Published {
                    actions.push(Action::Respool { row });
                }
            }
        }
    }

    /// XADD.
    pub(crate) fn publish(&self, world: &mut World, reply_arrives: bool) {
        let Some(row) = world.producer.next() else {
            return;
        };
        let sending = &mut world.producer.entries[usize::from(row)];
        let is_resend = *sending != Sending::Waiting;
        let key = if is_resend && self.has(Bug::NewKeyOnResend) {
            Key::Anew(row)
        } else {
            Key::Sent(row)
        };
        let is_unannounced = *sending == Sending::Respooled;
        if reply_arrives {
            *sending = Sending::Published;
        } else {
            world.left.lost_xadd_replies -= 1;
            if !is_unannounced {
                *sending = Sending::InDoubt;
            }
        }
        world.stream.entries.push(Entry {
            is_unannounced,
            ..Entry::new(key, row)
        });
    }

    pub(crate) fn respool(&self, world: &mut World, row: Row) {
        world.left.spool_replays -= 1;
        world.producer.entries[usize::from(row)] = Sending::Respooled;
    }
}
