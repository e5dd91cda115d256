//! The checker finds what is wrong with a protocol in which one rule is broken.
//!
//! `cargo test -p passerby-model --test seeded_bugs -- --nocapture new_key_on_resend` shows how it goes
//! wrong, in the fewest steps.
#![expect(
    clippy::print_stdout,
    reason = "`--nocapture` shows the counterexamples"
)]

use std::collections::BTreeSet;

use passerby_model::{
    action::Action,
    bug::Bug::{self, *},
    properties::*,
    scenario::Scenario,
};
use stateright::{Checker, HasDiscoveries, Model};

/// A protocol with this bug breaks this promise, in so many steps and not in fewer.
fn breaks(bug: Bug, scenario: Scenario, promise: &'static str, n_steps: usize) {
    let mut steps = steps_to(bug, scenario, promise, None).expect("a counterexample");
    // The checker stops soon after it has found one, and tells the last it has found.
    while let Some(fewer) = steps_to(bug, scenario, promise, Some(steps.len() - 1)) {
        steps = fewer;
    }
    println!("{bug:?} breaks \"{promise}\":");
    for (n, step) in (1..).zip(&steps) {
        println!("{n:>4}. {step}");
    }
    assert_eq!(steps.len(), n_steps);
}

/// A way to break a promise, in at most so many steps.
fn steps_to(
    bug: Bug,
    scenario: Scenario,
    promise: &'static str,
    at_most: Option<usize>,
) -> Option<Vec<Action>> {
    let mut builder = scenario
        .model_with(bug)
        .checker()
        .finish_when(HasDiscoveries::AnyOf(BTreeSet::from([promise])));
    if let Some(at_most) = at_most {
        // The first state counts, too, and the limit is the depth that is not looked at.
        builder = builder.target_max_depth(at_most + 2);
    }
    let found = builder.spawn_bfs().join().discovery(promise);
    found.map(|path| path.into_actions())
}

/// A protocol with this flaw breaks no promise.
fn is_harmless(bug: Bug, scenario: Scenario) {
    let checker = scenario.model_with(bug).checker().threads(2).spawn_bfs();
    checker.join().assert_properties();
}

#[test]
fn ack_before_commit() {
    breaks(AckBeforeCommit, Scenario::Resends, ACK_AFTER_COMMIT, 5);
}

#[test]
fn ack_when_commit_is_in_doubt() {
    let scenario = Scenario::ThreeWorkers;
    breaks(AckWhenCommitIsInDoubt, scenario, ACK_AFTER_COMMIT, 7);
}

#[test]
fn new_key_when_commit_is_in_doubt() {
    let scenario = Scenario::ThreeWorkers;
    breaks(NewKeyWhenCommitIsInDoubt, scenario, STORED_ONCE, 11);
}

#[test]
fn no_ledger_on_fast_path() {
    breaks(NoLedgerOnFastPath, Scenario::Commits, STORED_ONCE, 11);
}

#[test]
fn ledger_committed_first() {
    breaks(LedgerCommittedFirst, Scenario::Commits, NOTHING_LOST, 9);
}

#[test]
fn uncommitted_key_counts_as_taken() {
    let scenario = Scenario::Commits;
    breaks(UncommittedKeyCountsAsTaken, scenario, NOTHING_LOST, 9);
}

#[test]
fn keys_unsorted() {
    breaks(KeysUnsorted, Scenario::Commits, NO_CIRCLE, 6);
}

#[test]
fn dead_letter_committed_first() {
    let scenario = Scenario::DeadLetters;
    breaks(DeadLetterCommittedFirst, scenario, DEAD_LETTERED_ONCE, 7);
}

#[test]
fn dead_letter_by_delivery_count() {
    breaks(
        DeadLetterByDeliveryCount,
        Scenario::Resends,
        GOOD_ROWS_STAY,
        7,
    );
}

#[test]
fn new_key_on_resend() {
    breaks(NewKeyOnResend, Scenario::Resends, STORED_ONCE, 8);
}

#[test]
fn new_key_on_requeue() {
    breaks(NewKeyOnRequeue, Scenario::DeadLetters, STORED_ONCE, 17);
}

#[test]
fn requeue_of_too_old() {
    breaks(RequeueOfTooOld, Scenario::PrunedLetters, STORED_ONCE, 26);
}

#[test]
fn leave_while_pending() {
    breaks(LeaveWhilePending, Scenario::Resends, NOTHING_LOST, 4);
}

#[test]
fn heartbeat_keeps_what_it_lacks() {
    let scenario = Scenario::Trimming;
    breaks(HeartbeatKeepsWhatItLacks, scenario, SETTLED_WHEN_QUIET, 10);
}

#[test]
fn trim_to_last_delivered() {
    breaks(
        TrimToLastDelivered,
        Scenario::Trimming,
        TRIMMED_WHEN_ACKED,
        4,
    );
}

#[test]
fn trim_by_length() {
    breaks(TrimByLength, Scenario::Trimming, TRIMMED_WHEN_ACKED, 3);
}

#[test]
fn prune_without_looking_at_pending() {
    breaks(
        PruneWithoutLookingAtPending,
        Scenario::Pruning,
        REMEMBERED,
        4,
    );
}

#[test]
fn spools_unannounced() {
    breaks(SpoolsUnannounced, Scenario::Pruning, REMEMBERED, 4);
}

#[test]
fn prune_before_horizon_moves() {
    breaks(PruneBeforeHorizonMoves, Scenario::Pruning, STORED_ONCE, 15);
}

#[test]
fn prune_keys_without_time() {
    breaks(
        PruneKeysWithoutTime,
        Scenario::PrunedLetters,
        STORED_ONCE,
        26,
    );
}

#[test]
fn horizon_read_before_keys() {
    breaks(HorizonReadBeforeKeys, Scenario::Pruning, STORED_ONCE, 16);
}

#[test]
fn no_horizon() {
    breaks(NoHorizon, Scenario::Pruning, STORED_ONCE, 16);
}

/// Whose name an entry is pending under decides who works at it, never whether it is stored.
#[test]
fn heartbeat_steals_back() {
    is_harmless(HeartbeatStealsBack, Scenario::Trimming);
}

/// What did not arrive grows old, and is claimed: reading the history is only faster.
#[test]
fn no_history_after_lost_read() {
    is_harmless(NoHistoryAfterLostRead, Scenario::Trimming);
}
