//! Pruning of the ledger (`consumer/src/ledger_keeper.rs`, `store/pruning.rs`).
//!
//! Time is what the keys tell: one after the other grows older than the retention.

use crate::{
    Delivery,
    action::Action,
    bug::Bug,
    world::{Key, World},
};

/// What the keeper of the ledger remembers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Upkeep {
    /// Keys made before this are older than the retention.
    pub clock: u8,
    /// A horizon that was found good, and is used when it has proved itself.
    pub found: Option<Found>,
}

/// A horizon that was found good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Found {
    /// The horizon.
    pub below: u8,
    /// Entries there were in the stream: it is used when none of them is outstanding.
    pub n_entries: u8,
}

impl Delivery {
    pub(crate) fn upkeep_chances(&self, world: &World, actions: &mut Vec<Action>) {
        if world.upkeep.clock < self.bounds.ages {
            actions.push(Action::Age);
        }
        match world.upkeep.found {
            None if self.good_horizon(world) > world.postgres.horizon => {
                actions.push(Action::FindHorizon);
            }
            Some(found) if self.is_proved(world, found) => {
                let removed = || self.forgettable(world, found.below).next().is_none();
                if !self.has(Bug::PruneBeforeHorizonMoves) || removed() {
                    actions.push(Action::MoveHorizon);
                }
            }
            _ => {}
        }
        let below = match world.upkeep.found {
            Some(found)
                if self.has(Bug::PruneBeforeHorizonMoves) && self.is_proved(world, found) =>
            {
                found.below
            }
            _ => world.postgres.horizon,
        };
        actions.extend(
            self.forgettable(world, below)
                .map(|key| Action::Prune { key }),
        );
    }

    /// Older than the retention, and not in a spool that is known.
    fn good_horizon(&self, world: &World) -> u8 {
        let announced = if self.has(Bug::SpoolsUnannounced) {
            u8::MAX
        } else {
            world.producer.oldest_announced().unwrap_or(u8::MAX)
        };
        world.upkeep.clock.min(announced)
    }

    fn is_proved(&self, world: &World, found: Found) -> bool {
        let before = world
            .stream
            .entries
            .iter()
            .take(usize::from(found.n_entries));
        self.has(Bug::PruneWithoutLookingAtPending)
            || before.into_iter().all(|entry| !entry.is_outstanding())
    }

    fn forgettable(&self, world: &World, below: u8) -> impl Iterator<Item = Key> {
        let without_time = below > 0 && self.has(Bug::PruneKeysWithoutTime);
        let is_old = move |key: &Key| key.made_at().map_or(without_time, |at| at < below);
        world.postgres.ledger.iter().copied().filter(is_old)
    }

    pub(crate) fn age(&self, world: &mut World) {
        world.upkeep.clock += 1;
    }

    pub(crate) fn find_horizon(&self, world: &mut World) {
        world.upkeep.found = Some(Found {
            below: self.good_horizon(world),
            n_entries: u8::try_from(world.stream.entries.len()).unwrap_or(u8::MAX),
        });
    }

    pub(crate) fn move_horizon(&self, world: &mut World) {
        if let Some(found) = world.upkeep.found.take() {
            world.postgres.horizon = world.postgres.horizon.max(found.below);
        }
    }

    pub(crate) fn prune(&self, world: &mut World, key: Key) {
        world.postgres.ledger.retain(|known| *known != key);
    }
}
