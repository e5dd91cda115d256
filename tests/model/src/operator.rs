//! The operator, who mends what was wrong and puts dead letters back (`consumer/src/ops/requeue.rs`).

use crate::{
    Delivery,
    action::Action,
    bug::Bug,
    postgres::Reason,
    stream::Entry,
    world::{Key, World},
};

/// The operator.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Operator {
    /// What Postgres refused is not refused any more.
    pub has_mended: bool,
}

impl Delivery {
    pub(crate) fn operator_chances(&self, world: &World, actions: &mut Vec<Action>) {
        if self.bounds.first_is_poison && !world.operator.has_mended {
            actions.push(Action::Mend);
        }
        if world.left.requeues == 0 {
            return;
        }
        for (letter, found) in (0..).zip(&world.postgres.letters) {
            // A letter may be put back again, by its number, whatever became of the first time: the
            // command is repeated when it was cut off, before its mark was set or after.
            if found.reason != Reason::TooOld || self.has(Bug::RequeueOfTooOld) {
                actions.push(Action::Requeue { letter });
            }
        }
    }

    pub(crate) fn mend(&self, world: &mut World) {
        world.operator.has_mended = true;
    }

    /// XADD of what the letter holds, under a key that is derived from the letter's number.
    pub(crate) fn requeue(&self, world: &mut World, letter: u8) {
        let nth = if self.has(Bug::NewKeyOnRequeue) {
            world.left.requeues
        } else {
            0
        };
        world.left.requeues -= 1;
        let row = world.postgres.letters[usize::from(letter)].row;
        let key = Key::Requeued(letter, nth);
        world.stream.entries.push(Entry::new(key, row));
    }
}
