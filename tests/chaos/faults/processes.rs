//! Signals to workers and to the pipeline.

use std::time::Duration;

use tokio::time::sleep;

use super::End;
use crate::world::World;

pub(super) async fn kill_worker(world: &World, slot: usize, end: End) {
    world.workers.kill(slot, end.left());
    end.reached().await;
}

/// The worker stays down for a while after it has ended: a deployment.
pub(super) async fn terminate_worker(world: &World, slot: usize, end: End) {
    world.workers.terminate(slot, end.left());
    end.reached().await;
}

pub(super) async fn freeze_worker(world: &World, slot: usize, end: End) {
    world.workers.freeze(slot);
    end.reached().await;
    world.workers.thaw(slot);
}

/// Again and again: each process finds what the one before has left.
pub(super) async fn kill_pipeline(world: &World, end: End) {
    const LIVES: Duration = Duration::from_millis(400);
    while !end.left().is_zero() {
        world.pipeline.kill();
        sleep(LIVES.min(end.left())).await;
    }
}
