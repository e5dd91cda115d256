//! What must hold in every state, and what must be seen to happen.

use stateright::Property;

use crate::{
    Delivery,
    postgres::Reason,
    stream::{Consumer, Place},
    worker::{Batch, Step},
    world::{Key, Row, World},
};

/// No row is stored twice.
pub const STORED_ONCE: &str = "each row is stored at most once";
/// No row is dead-lettered twice, or both stored and dead-lettered.
pub const DEAD_LETTERED_ONCE: &str = "each row is dead-lettered at most once, and then not stored";
/// Rows are dead-lettered for their own fault only.
pub const GOOD_ROWS_STAY: &str = "no good row is dead-lettered";
/// XACK follows COMMIT.
pub const ACK_AFTER_COMMIT: &str = "an entry is acknowledged only when it is settled";
/// An accepted row is somewhere.
pub const NOTHING_LOST: &str = "no row is lost";
/// Trimming removes only what is acknowledged.
pub const TRIMMED_WHEN_ACKED: &str = "an entry is trimmed only when it is acknowledged";
/// The ledger forgets nothing that Redis may deliver.
pub const REMEMBERED: &str = "what Redis holds is younger than the horizon";
/// No two transactions wait for each other.
pub const NO_CIRCLE: &str = "no two transactions wait for each other";
/// When no step is due, everything is settled.
pub const SETTLED_WHEN_QUIET: &str = "when all is quiet, each row is settled exactly once";

/// Something that must be seen to happen in a scenario, or the scenario proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Witness {
    /// The ledger kept an entry from being stored again.
    DuplicateDropped,
    /// A transaction waits for a key.
    KeyAwaited,
    /// A worker committed an entry that another had claimed.
    ZombieCommitted,
    /// A transaction committed after its worker was gone.
    OrphanMayCommit,
    /// An entry of a dead worker was claimed.
    ClaimedFromTheDead,
    /// Two entries of one batch have the same key.
    Twins,
    /// An entry was trimmed.
    Trimmed,
    /// A key was pruned.
    Pruned,
    /// An entry was too old, and had been stored.
    TooOldAndStored,
    /// A dead letter was put back, and stored.
    RequeuedAndStored,
    /// A dead letter was put back, and dead-lettered again.
    RequeuedAndRefused,
}

/// All properties, with these witnesses.
pub(crate) fn all(witnesses: &[Witness]) -> Vec<Property<Delivery>> {
    let mut properties = vec![
        Property::always(STORED_ONCE, |_, w: &World| {
            w.postgres.stored.iter().all(|n| *n <= 1)
        }),
        Property::always(DEAD_LETTERED_ONCE, |_, w: &World| {
            rows(w).all(|row| {
                let n_letters = w.postgres.n_open_letters(row);
                n_letters == 0 || n_letters == 1 && w.postgres.stored[usize::from(row)] == 0
            })
        }),
        Property::always(GOOD_ROWS_STAY, |model: &Delivery, w: &World| {
            w.postgres.letters.iter().all(|letter| match letter.reason {
                Reason::Refused => model.is_poison(letter.row),
                Reason::TooOld => true,
                Reason::DeliveredTooOften => false,
            })
        }),
        Property::always(ACK_AFTER_COMMIT, |_, w: &World| {
            let mut acked = w.stream.entries.iter().filter(|e| e.place == Place::Acked);
            acked.all(|entry| w.postgres.knows(entry.row))
        }),
        Property::always(NOTHING_LOST, |_, w: &World| {
            rows(w).all(|row| {
                let in_stream = w
                    .stream
                    .entries
                    .iter()
                    .any(|e| e.row == row && e.is_outstanding() && !e.is_trimmed);
                w.producer.holds(row) || in_stream || w.postgres.knows(row)
            })
        }),
        Property::always(TRIMMED_WHEN_ACKED, |_, w: &World| {
            let mut trimmed = w.stream.entries.iter().filter(|e| e.is_trimmed);
            trimmed.all(|entry| !entry.is_outstanding())
        }),
        Property::always(REMEMBERED, |_, w: &World| {
            let mut held = w.stream.entries.iter().filter(|e| e.is_outstanding());
            held.all(|e| {
                let made_at = e.key.made_at().unwrap_or(u8::MAX);
                e.is_unannounced || made_at >= w.postgres.horizon
            })
        }),
        Property::always(NO_CIRCLE, |model: &Delivery, w: &World| {
            let waits_for = |one: u8, other: u8| {
                let wanted = model.next_key(w, one);
                let open = w
                    .worker(other)
                    .batch
                    .as_ref()
                    .and_then(|b| b.transaction.as_ref());
                matches!((wanted, open), (Some(key), Some(open)) if open.keys.contains(&key))
            };
            let mut pairs = model
                .workers()
                .flat_map(|one| (0..one).map(move |other| (one, other)));
            !pairs.any(|(one, other)| waits_for(one, other) && waits_for(other, one))
        }),
        Property::always(SETTLED_WHEN_QUIET, |model: &Delivery, w: &World| {
            !model.is_quiet(w) || is_settled(w)
        }),
    ];
    properties.extend(witnesses.iter().map(|witness| witness.property()));
    properties
}

fn rows(world: &World) -> impl Iterator<Item = Row> {
    (0..).zip(&world.postgres.stored).map(|(row, _)| row)
}

fn is_settled(world: &World) -> bool {
    let at_rest = world.producer.next().is_none()
        && world.workers.iter().all(|worker| worker.batch.is_none())
        && world.postgres.orphans.is_empty()
        && world.stream.entries.iter().all(|e| e.place == Place::Acked);
    at_rest
        && rows(world).all(|row| {
            let n_stored = usize::from(world.postgres.stored[usize::from(row)]);
            let is_in_doubt = world
                .postgres
                .letters
                .iter()
                .any(|l| l.row == row && l.reason == Reason::TooOld);
            let n_settled = n_stored + world.postgres.n_open_letters(row);
            n_settled == 1 || n_settled == 0 && is_in_doubt
        })
}

impl Witness {
    fn property(self) -> Property<Delivery> {
        let (name, is_seen): (_, fn(&Delivery, &World) -> bool) = match self {
            Self::DuplicateDropped => ("a duplicate is dropped", duplicate_dropped),
            Self::KeyAwaited => ("a transaction waits for a key", key_awaited),
            Self::ZombieCommitted => ("a zombie commits", zombie_committed),
            Self::OrphanMayCommit => (
                "a transaction outlives its worker's COMMIT",
                orphan_may_commit,
            ),
            Self::ClaimedFromTheDead => ("a claimed entry is stored", claimed_and_stored),
            Self::Twins => ("two entries of a batch have one key", twins),
            Self::Trimmed => ("an entry is trimmed", trimmed),
            Self::Pruned => ("a key is pruned", pruned),
            Self::TooOldAndStored => ("a stored entry is too old", too_old_and_stored),
            Self::RequeuedAndStored => {
                ("a dead letter is put back and stored", requeued_and_stored)
            }
            Self::RequeuedAndRefused => (
                "a dead letter is put back and refused",
                requeued_and_refused,
            ),
        };
        Property::sometimes(name, is_seen)
    }
}

/// The batches that are committed and not acknowledged, with their workers.
fn committed(world: &World) -> impl Iterator<Item = (u8, &Batch)> {
    let batches = (0..).zip(world.workers.iter().map(|worker| worker.batch.as_ref()));
    batches
        .filter_map(|(worker, batch)| Some((worker, batch.filter(|b| b.step == Step::Committed)?)))
}

fn keys<'a>(world: &'a World, batch: &'a Batch) -> impl Iterator<Item = Key> {
    batch.entries.iter().map(|id| world.stream.entry(*id).key)
}

fn duplicate_dropped(_: &Delivery, world: &World) -> bool {
    committed(world).any(|(_, batch)| keys(world, batch).any(|key| !batch.entered.contains(&key)))
}

fn key_awaited(model: &Delivery, world: &World) -> bool {
    model.workers().any(|worker| {
        let key = model.next_key(world, worker);
        key.is_some_and(|key| model.is_held_by_another(world, worker, key))
    })
}

fn zombie_committed(_: &Delivery, world: &World) -> bool {
    committed(world).any(|(worker, batch)| {
        batch.entries.iter().any(|id| {
            let entry = world.stream.entry(*id);
            let claimed =
                matches!(entry.place, Place::Pending(Consumer::Worker(by)) if by != worker);
            claimed && batch.entered.contains(&entry.key)
        })
    })
}

fn orphan_may_commit(_: &Delivery, world: &World) -> bool {
    let mut orphans = world.postgres.orphans.iter();
    orphans.any(|orphan| orphan.is_commit_sent && !orphan.rows.is_empty())
}

fn claimed_and_stored(model: &Delivery, world: &World) -> bool {
    // Without lost connections, only what was delivered again takes the careful path at once.
    let is_certain = model.bounds.faults.lost_connections == 0
        && model.bounds.faults.lost_reads == world.left.lost_reads;
    is_certain
        && world.left.crashes < model.bounds.faults.crashes
        && committed(world).any(|(_, batch)| batch.may_be_known && !batch.entered.is_empty())
}

fn twins(_: &Delivery, world: &World) -> bool {
    committed(world).any(|(_, batch)| {
        let mut keys: Vec<Key> = keys(world, batch).collect();
        keys.sort_unstable();
        keys.windows(2).any(|pair| pair[0] == pair[1])
    })
}

fn trimmed(_: &Delivery, world: &World) -> bool {
    world.stream.entries.iter().any(|entry| entry.is_trimmed)
}

fn pruned(_: &Delivery, world: &World) -> bool {
    let is_forgotten = |row: Row| !world.postgres.ledger.contains(&Key::Sent(row));
    rows(world).any(|row| world.postgres.stored[usize::from(row)] > 0 && is_forgotten(row))
}

fn too_old_and_stored(_: &Delivery, world: &World) -> bool {
    let mut letters = world.postgres.letters.iter();
    letters.any(|l| l.reason == Reason::TooOld && world.postgres.stored[usize::from(l.row)] > 0)
}

fn requeued_and_stored(_: &Delivery, world: &World) -> bool {
    let mut letters = world.postgres.letters.iter();
    letters.any(|l| l.is_superseded && world.postgres.stored[usize::from(l.row)] > 0)
}

fn requeued_and_refused(_: &Delivery, world: &World) -> bool {
    world.postgres.letters.len() > 1 && world.postgres.letters[0].is_superseded
}
