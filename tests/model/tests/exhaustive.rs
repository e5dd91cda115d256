//! The protocol as it should be holds in every state it can reach.
#![expect(
    clippy::print_stdout,
    reason = "`--nocapture` shows how much was checked"
)]

use std::{collections::HashMap, time::Instant};

use passerby_model::{Delivery, scenario::Scenario, world::World};
use stateright::{Checker, Model};

/// Visits every state there is, with no limit to their number or depth.
fn check(scenario: Scenario) {
    let began = Instant::now();
    let checker = scenario.model().checker().threads(2).spawn_bfs().join();
    println!(
        "{scenario:?}: {} states, {:.1?}",
        checker.unique_state_count(),
        began.elapsed()
    );
    assert!(checker.is_done(), "some states were not looked at");
    checker.assert_properties();
}

#[test]
fn commits_store_each_row_once() {
    check(Scenario::Commits);
}

#[test]
fn three_workers_store_each_row_once() {
    check(Scenario::ThreeWorkers);
}

#[test]
fn resends_store_each_row_once() {
    check(Scenario::Resends);
}

#[test]
fn dead_letters_are_written_once_and_put_back_once() {
    check(Scenario::DeadLetters);
}

#[test]
fn pruning_never_makes_a_row_be_stored_again() {
    check(Scenario::Pruning);
}

#[test]
fn dead_letters_are_put_back_once_however_late() {
    check(Scenario::PrunedLetters);
}

#[test]
fn trimming_removes_only_what_is_settled() {
    check(Scenario::Trimming);
}

/// With this, what holds when all is quiet is what it comes to in the end: a path without a circle ends.
#[test]
fn nothing_goes_round_for_ever() {
    for scenario in [
        Scenario::Commits,
        Scenario::Resends,
        Scenario::PrunedLetters,
        Scenario::Trimming,
    ] {
        assert!(!has_circle(&scenario.model()), "{scenario:?}");
    }
}

fn has_circle(model: &Delivery) -> bool {
    let next = |world: &World| {
        let mut actions = Vec::new();
        model.actions(world, &mut actions);
        let nexts = actions.into_iter();
        nexts
            .filter_map(|action| model.next_state(world, action))
            .collect::<Vec<_>>()
    };
    // Whether the path that is being walked leads through a state, or did.
    let mut is_on_path = HashMap::<World, bool>::new();
    let mut path = Vec::new();
    for init in model.init_states() {
        path.push((next(&init), init.clone()));
        is_on_path.insert(init, true);
    }
    while let Some((nexts, world)) = path.last_mut() {
        let Some(to) = nexts.pop() else {
            is_on_path.insert(world.clone(), false);
            path.pop();
            continue;
        };
        match is_on_path.get(&to) {
            Some(true) => return true,
            Some(false) => {}
            None => {
                is_on_path.insert(to.clone(), true);
                path.push((next(&to), to));
            }
        }
    }
    false
}
