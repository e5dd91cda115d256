//! The configurations that are checked, each the smallest that brings certain faults together.

use crate::{
    Delivery,
    bounds::{Bounds, Faults},
    bug::Bug,
    properties::Witness,
};

/// A configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Workers that crash, that only seem dead, and that do not know what became of their COMMIT.
    Commits,
    /// The same among three workers, over one entry that was sent twice.
    ThreeWorkers,
    /// Replies of Redis that are lost on both sides, so that entries are sent and delivered again.
    Resends,
    /// Rows that Postgres refuses, put back by hand again and again.
    DeadLetters,
    /// A ledger that forgets, a spool that does not, and a worker that sleeps.
    Pruning,
    /// A ledger that forgets, and dead letters that are put back again after that.
    PrunedLetters,
    /// Trimming, and operators who hand over what is pending.
    Trimming,
}

const NONE: Faults = Faults {
    crashes: 0,
    lost_connections: 0,
    suspicions: 0,
    lost_xadd_replies: 0,
    lost_reads: 0,
    spool_replays: 0,
    requeues: 0,
    hand_overs: 0,
};

const SMALL: Bounds = Bounds {
    entries: 2,
    first_is_poison: false,
    workers: 2,
    batch: 2,
    faults: NONE,
    ages: 0,
    trims: false,
};

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Commits,
        Self::ThreeWorkers,
        Self::Resends,
        Self::DeadLetters,
        Self::Pruning,
        Self::PrunedLetters,
        Self::Trimming,
    ];

    /// How much may happen.
    pub const fn bounds(self) -> Bounds {
        match self {
            Self::Commits => Bounds {
                faults: Faults {
                    crashes: 1,
                    lost_connections: 1,
                    suspicions: 1,
                    ..NONE
                },
                ..SMALL
            },
            Self::ThreeWorkers => Bounds {
                entries: 1,
                workers: 3,
                faults: Faults {
                    crashes: 1,
                    lost_connections: 1,
                    suspicions: 2,
                    lost_xadd_replies: 1,
                    ..NONE
                },
                ..SMALL
            },
            Self::Resends => Bounds {
                faults: Faults {
                    crashes: 1,
                    lost_xadd_replies: 2,
                    lost_reads: 1,
                    ..NONE
                },
                ..SMALL
            },
            Self::DeadLetters => Bounds {
                first_is_poison: true,
                faults: Faults {
                    crashes: 1,
                    suspicions: 1,
                    requeues: 2,
                    ..NONE
                },
                ..SMALL
            },
            Self::Pruning => Bounds {
                batch: 1,
                faults: Faults {
                    suspicions: 1,
                    lost_xadd_replies: 1,
                    spool_replays: 1,
                    ..NONE
                },
                ages: 2,
                ..SMALL
            },
            Self::PrunedLetters => Bounds {
                entries: 1,
                first_is_poison: true,
                batch: 1,
                faults: Faults {
                    spool_replays: 1,
                    requeues: 2,
                    ..NONE
                },
                ages: 1,
                ..SMALL
            },
            Self::Trimming => Bounds {
                faults: Faults {
                    crashes: 1,
                    suspicions: 1,
                    lost_reads: 1,
                    hand_overs: 1,
                    ..NONE
                },
                trims: true,
                ..SMALL
            },
        }
    }

    const fn witnesses(self) -> &'static [Witness] {
        use Witness as W;
        match self {
            Self::Commits => &[
                W::DuplicateDropped,
                W::KeyAwaited,
                W::ZombieCommitted,
                W::OrphanMayCommit,
            ],
            Self::ThreeWorkers => &[
                W::DuplicateDropped,
                W::KeyAwaited,
                W::ZombieCommitted,
                W::Twins,
            ],
            Self::Resends => &[W::DuplicateDropped, W::Twins, W::ClaimedFromTheDead],
            Self::DeadLetters => &[W::RequeuedAndStored, W::RequeuedAndRefused, W::KeyAwaited],
            Self::Pruning => &[W::Pruned, W::TooOldAndStored],
            Self::PrunedLetters => &[W::TooOldAndStored, W::RequeuedAndStored],
            Self::Trimming => &[W::Trimmed, W::ClaimedFromTheDead],
        }
    }

    /// The protocol as it is.
    pub const fn model(self) -> Delivery {
        Delivery {
            bounds: self.bounds(),
            bug: None,
            witnesses: self.witnesses(),
        }
    }

    /// The protocol with one rule broken.
    pub const fn model_with(self, bug: Bug) -> Delivery {
        Delivery {
            bug: Some(bug),
            witnesses: &[],
            ..self.model()
        }
    }
}
