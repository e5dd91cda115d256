//! A group that is paused: its workers read nothing until it is resumed.
//!
//! That a group is paused stands in Redis, in the hash [`KeyPrefix::paused`](passerby_shared::KeyPrefix), and
//! so outlives workers, and Redis as far as Redis keeps anything.

use passerby_shared::books::Stamped;
use redis::{RedisError, aio::ConnectionLike};
use serde::{Deserialize, Serialize};

/// Who paused a group, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Paused {
    /// Who: `user@host`.
    pub by: String,
    /// Why, in their words.
    pub reason: Option<String>,
}

/// Whether a group is paused; since when is when that was written.
pub(crate) async fn look(
    connection: &mut impl ConnectionLike,
    hash: &str,
    group: &str,
) -> Result<Option<Stamped<Paused>>, RedisError> {
    let noted: Option<Vec<u8>> = redis::cmd("HGET")
        .arg(hash)
        .arg(group)
        .query_async(connection)
        .await?;
    Ok(noted.map(|noted| read(&noted)))
}

/// Reads the note. One that somebody wrote by hand pauses as well as any.
pub(crate) fn read(noted: &[u8]) -> Stamped<Paused> {
    std::str::from_utf8(noted)
        .ok()
        .and_then(Stamped::parse)
        .unwrap_or_else(|| Stamped {
            updated_ms: 0,
            told: Paused::default(),
        })
}
