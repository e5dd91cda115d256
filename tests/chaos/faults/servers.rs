//! Faults of Redis and of Postgres themselves.

use std::time::Duration;

use passerby_servers::RedisServer;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use super::End;
use crate::world::World;

/// Between two rounds of killed connections.
const PAUSE: Duration = Duration::from_millis(150);

pub(super) async fn kill_redis(world: &World, end: End) {
    world.redis_server(RedisServer::kill).await;
    end.reached().await;
    world.redis_server(RedisServer::restart).await;
}

pub(super) async fn freeze_redis(world: &World, end: End) {
    world.redis_server(RedisServer::pause).await;
    end.reached().await;
    world.redis_server(RedisServer::resume).await;
}

/// Commands that take memory are refused; reading, acknowledging and trimming go on.
pub(super) async fn fill_redis(world: &World, end: End) {
    let mut limit = redis::cmd("CONFIG");
    limit.arg("SET").arg("maxmemory").arg("100kb");
    while world.try_redis::<()>(&limit).await.is_none() && !end.left().is_zero() {
        sleep(PAUSE.min(end.left())).await;
    }
    end.reached().await;
    world.lift_maxmemory().await;
}

pub(super) async fn kill_clients(world: &World, end: End) {
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg("TYPE").arg("normal");
    while !end.left().is_zero() {
        world.try_redis::<u64>(&kill).await;
        sleep(PAUSE.min(end.left())).await;
    }
}

/// The postmaster goes without a word to its children; each notices in its own time.
pub(super) async fn kill_postgres(world: &World, end: End) {
    world
        .postgres_server(|server| {
            let pid = server
                .pid()
                .and_then(|pid| Pid::from_raw(pid.cast_signed()));
            if let Some(pid) = pid {
                // It may have gone by itself.
                kill_process(pid, Signal::KILL).unwrap_or_default();
            }
            server.kill()
        })
        .await;
    end.reached().await;
    revive_postgres(world).await;
}

/// Starts Postgres if it does not run.
pub(super) async fn revive_postgres(world: &World) {
    world.revive_postgres().await;
}

/// Goes through the segments that were made ahead, so that one is wanted for which there is no room.
pub(super) async fn use_up_wal(world: &World, end: End) {
    if world.disks.wal.is_err() {
        return;
    }
    while !end.left().is_zero() {
        world
            .try_sql("SELECT pg_logical_emit_message(true, '', ''); SELECT pg_switch_wal()")
            .await;
        sleep(PAUSE.min(end.left())).await;
    }
}

/// Calls a function on the sessions of the workers.
pub(super) async fn to_backends(world: &World, function: &str, end: End) {
    let sql = format!(
        "SELECT {function}(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()"
    );
    while !end.left().is_zero() {
        world.try_sql(&sql).await;
        sleep(PAUSE.min(end.left())).await;
    }
}

/// As a migration of somebody else's would.
pub(super) async fn lock_tables(world: &World, end: End) {
    let seconds = end.left().as_secs_f64();
    let sql = format!(
        "BEGIN; LOCK TABLE detections, tracks IN ACCESS EXCLUSIVE MODE;
         SELECT pg_sleep({seconds}); ROLLBACK"
    );
    world.try_sql_for(&sql, end.left() + PAUSE).await;
}

/// Sessions that are open are ended: a failover ends them, too.
pub(super) async fn make_read_only(world: &World, end: End) {
    world.read_only(true).await;
    world
        .try_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
    end.reached().await;
    world.read_only(false).await;
}
