//! Pauses a group, and resumes it.

use passerby_shared::books::{Stamped, tell};

use super::{OpsError, Target, status};
use crate::{
    pause::{self, Paused},
    presence::WorkerPresence,
};

/// Whether the group is paused, and since when.
///
/// # Errors
///
/// [`OpsError`] when Redis cannot be reached or refuses.
pub async fn paused(target: &mut Target) -> Result<Option<Stamped<Paused>>, OpsError> {
    let (hash, group) = (target.key_prefix.paused(), target.group.clone());
    let connection = target.link.get().await?;
    pause::look(connection, &hash, &group)
        .await
        .map_err(OpsError::command("look whether the group is paused"))
}

/// Has the group's workers stop reading, within a second. What they have read they store. Of a group that is
/// paused already the reason is replaced.
///
/// # Errors
///
/// [`OpsError`] when Redis cannot be reached or refuses.
pub async fn pause(target: &mut Target, paused: &Paused) -> Result<(), OpsError> {
    let command = tell(&target.key_prefix.paused(), &target.group, paused);
    let connection = target.link.get().await?;
    command
        .query_async(connection)
        .await
        .map_err(OpsError::command("pause the group"))
}

/// Has the group's workers read again; `false` when it was not paused.
///
/// # Errors
///
/// [`OpsError`] when Redis cannot be reached or refuses.
pub async fn resume(target: &mut Target) -> Result<bool, OpsError> {
    let (hash, group) = (target.key_prefix.paused(), target.group.clone());
    let connection = target.link.get().await?;
    redis::cmd("HDEL")
        .arg(hash)
        .arg(group)
        .query_async(connection)
        .await
        .map_err(OpsError::command("resume the group"))
}

/// How many workers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningWorkers {
    /// Those heard of lately.
    pub running: u64,
    /// Of these, those that read nothing because the group is paused.
    pub paused: u64,
    /// Redis' clock, in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// Counts the workers of the group that run.
///
/// # Errors
///
/// [`OpsError`] when Redis cannot be reached or refuses.
pub async fn running_workers(target: &mut Target) -> Result<RunningWorkers, OpsError> {
    let redis = status::look::redis(target).await?;
    let reads_nothing = |worker: &&WorkerPresence| worker.is_paused;
    Ok(RunningWorkers {
        running: redis.live_workers().count() as u64,
        paused: redis.live_workers().filter(reads_nothing).count() as u64,
        now_ms: redis.now_ms,
    })
}
