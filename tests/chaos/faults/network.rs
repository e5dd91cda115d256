//! Faults of the links between the programs and the servers.

use std::time::Duration;

use passerby_tests::{Direction, Fault as ProxyFault};
use tokio::time::{sleep, timeout};

use super::{Command, End};
use crate::world::{Link, World};

/// Between two cuts, so that something gets through.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn cut(world: &World, link: Link, direction: Direction, n_bytes: usize, end: End) {
    let fault = match direction {
        Direction::ToServer => ProxyFault::CutAfter(n_bytes),
        Direction::ToClient | Direction::Both => ProxyFault::CutReplyAfter(n_bytes),
    };
    again_and_again(world, link, fault, end).await;
}

pub(super) async fn lose_replies(world: &World, command: Command, end: End) {
    let pattern = match command {
        Command::Xadd => ProxyFault::XADD,
        Command::Xack => ProxyFault::XACK,
        Command::Commit => ProxyFault::COMMIT,
    };
    let fault = ProxyFault::LoseReplyTo(pattern);
    again_and_again(world, command.link(), fault, end).await;
}

/// The proxy's one-time faults.
async fn again_and_again(world: &World, link: Link, fault: ProxyFault, end: End) {
    let proxy = world.link(link);
    while !end.left().is_zero() {
        proxy.set(fault.clone());
        // Nothing may come through until the end.
        if timeout(end.left(), proxy.met()).await.is_err() {
            break;
        }
        sleep(PAUSE).await;
    }
    proxy.heal();
}

pub(super) async fn black_hole(world: &World, link: Link, direction: Direction, end: End) {
    hold(world, link, ProxyFault::BlackHole(direction), end).await;
}

pub(super) async fn delay(world: &World, link: Link, ms: u64, end: End) {
    hold(
        world,
        link,
        ProxyFault::Delay(Duration::from_millis(ms)),
        end,
    )
    .await;
}

pub(super) async fn refuse(world: &World, link: Link, end: End) {
    hold(world, link, ProxyFault::Refuse, end).await;
}

async fn hold(world: &World, link: Link, fault: ProxyFault, end: End) {
    world.link(link).set(fault);
    end.reached().await;
    world.link(link).heal();
}
