//! A model of the delivery protocol: what a producer sends reaches Postgres exactly once, whatever dies.
//!
//! [`Delivery`] says which steps are possible in each state; `stateright` takes them in every order there
//! is and looks at [`properties`] in every state it reaches. A [`Bug`] breaks one rule, to show that the
//! checker would notice. What is modelled and what is not: `docs/model.md`.
//!
//! Files are named after the parties. Each says which steps are due (`…_steps`), which may happen beside
//! (`…_chances`: faults, operators, upkeep), and what a step does.

pub mod action;
pub mod bounds;
pub mod bug;
pub mod operator;
pub mod postgres;
pub mod producer;
pub mod properties;
pub mod scenario;
pub mod stream;
pub mod upkeep;
pub mod worker;
pub mod world;

use stateright::{Model, Property};

use crate::{action::Action, bounds::Bounds, bug::Bug, properties::Witness, world::World};

/// The protocol, within bounds, with one rule broken perhaps.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// How much may happen.
    pub bounds: Bounds,
    /// The broken rule.
    pub bug: Option<Bug>,
    /// What must be seen to happen, so that it is known to have been tried.
    pub witnesses: &'static [Witness],
}

impl Delivery {
    /// Whether a rule is broken.
    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    pub(crate) fn workers(&self) -> impl Iterator<Item = u8> + use<> {
        0..self.bounds.workers
    }

    pub(crate) fn batch(&self) -> usize {
        usize::from(self.bounds.batch)
    }

    pub(crate) fn is_poison(&self, row: u8) -> bool {
        self.bounds.first_is_poison && row == 0
    }

    /// The steps that are due: where there are none, everything is quiet.
    fn steps(&self, world: &World, actions: &mut Vec<Action>) {
        self.producer_steps(world, actions);
        self.stream_steps(world, actions);
        self.worker_steps(world, actions);
        self.postgres_steps(world, actions);
    }

    /// What may happen beside, or never.
    fn chances(&self, world: &World, actions: &mut Vec<Action>) {
        self.producer_chances(world, actions);
        self.stream_chances(world, actions);
        self.worker_chances(world, actions);
        self.upkeep_chances(world, actions);
        self.operator_chances(world, actions);
    }

    /// Whether no step is due.
    pub fn is_quiet(&self, world: &World) -> bool {
        let mut due = Vec::new();
        self.steps(world, &mut due);
        due.is_empty()
    }
}

impl Model for Delivery {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.bounds)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.steps(world, actions);
        self.chances(world, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        let to = &mut next;
        match action {
            Action::Publish => self.publish(to, true),
            Action::PublishAndLoseReply => self.publish(to, false),
            Action::Respool { row } => self.respool(to, row),
            Action::Read { worker } => self.read(to, worker, true),
            Action::ReadAndLoseReply { worker } => self.read(to, worker, false),
            Action::ReadHistory { worker } => self.read_history(to, worker),
            Action::Claim { worker, from } => self.claim(to, worker, from),
            Action::ClaimFromLiving { worker, slow } => self.claim_from_living(to, worker, slow),
            Action::StealBack { worker } => self.steal_back(to, worker),
            Action::HandOver { id, to: worker } => self.hand_over(to, id, worker),
            Action::DeleteDeadConsumers => self.delete_dead_consumers(to),
            Action::EnterKey { worker } => self.enter_key(to, worker),
            Action::WriteRows { worker } => self.write_rows(to, worker),
            Action::SendCommit { worker } => self.send_commit(to, worker),
            Action::Commit { worker } => self.commit(to, worker),
            Action::LoseConnection { worker } => self.lose_connection(to, worker),
            Action::Crash { worker } => self.crash(to, worker),
            Action::AbortOrphan { at } => self.abort_orphan(to, at),
            Action::CommitOrphan { at } => self.commit_orphan(to, at),
            Action::Ack { worker } => self.ack(to, worker),
            Action::Trim => self.trim(to),
            Action::Age => self.age(to),
            Action::FindHorizon => self.find_horizon(to),
            Action::MoveHorizon => self.move_horizon(to),
            Action::Prune { key } => self.prune(to, key),
            Action::Mend => self.mend(to),
            Action::Requeue { letter } => self.requeue(to, letter),
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self.witnesses)
    }
}
