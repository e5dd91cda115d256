//! Pauses a group, and resumes it.

use passerby_shared::{
    books::{Stamped, tell},
    host_name,
};

use super::{OpsError, Target};
use crate::pause::{self, Paused};

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
pub async fn pause(target: &mut Target, reason: Option<String>) -> Result<(), OpsError> {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let paused = Paused {
        by: format!(
            "{}@{}",
            user.unwrap_or_else(|_| "somebody".to_owned()),
            host_name()
        ),
        reason,
    };
    let command = tell(&target.key_prefix.paused(), &target.group, &paused);
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
