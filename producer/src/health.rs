//! Whether rows get through, and who is told when they do not.

use std::time::Duration;

use chrono::{DateTime, Utc};
use passerby_shared::redis_connection::RedisRecovery;
use serde::Serialize;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

/// Two troubles closer together than this are one in the log.
const QUIET: Duration = Duration::from_secs(10);

/// Whether rows get through to Redis, as of the last attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Health {
    /// No attempt has ended yet.
    Starting,
    /// The last attempt succeeded.
    Up,
    /// The last attempt failed; rows are kept and tried again.
    Trouble(Trouble),
    /// The producer has been closed.
    Closed,
}

/// Why rows do not get through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// What kind of trouble it is.
    pub kind: TroubleKind,
    /// When it began (UTC).
    pub since: DateTime<Utc>,
    /// The last error and its causes, without passwords.
    pub error: String,
}

/// What kind of trouble it is, and so who can end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TroubleKind {
    /// Redis cannot be reached, or is starting or failing over.
    Unreachable,
    /// Redis answers and cannot take entries now: out of memory, failing disk.
    Busy,
    /// An operator must act: wrong password, missing permission, a key of another type.
    Refused,
    /// The spool is full, or its disk failed and rows are kept in memory only; Redis is well.
    Spool,
}

impl From<RedisRecovery> for TroubleKind {
    fn from(recovery: RedisRecovery) -> Self {
        match recovery {
            RedisRecovery::Reconnect | RedisRecovery::RecreateGroup => Self::Unreachable,
            RedisRecovery::Wait => Self::Busy,
            RedisRecovery::Stop => Self::Refused,
        }
    }
}

/// Says in the log when trouble begins, changes and ends: once each, however many attempts fail.
#[derive(Debug, Default)]
pub(crate) struct HealthLog {
    current: Option<Episode>,
    last_said_at: Option<Instant>,
}

#[derive(Debug)]
struct Episode {
    since: Instant,
    n_attempts: u64,
    /// What the log knows of it.
    said: Option<TroubleKind>,
}

impl HealthLog {
    /// An attempt failed.
    pub(crate) fn failed(&mut self, kind: TroubleKind, error: &str, n_rows: u64) {
        let now = Instant::now();
        let episode = self.current.get_or_insert(Episode {
            since: now,
            n_attempts: 0,
            said: None,
        });
        episode.n_attempts += 1;
        // A server at its limit fails and succeeds many times a second.
        let quiet = episode.said.is_none() && self.last_said_at.is_some_and(|at| now - at < QUIET);
        if quiet || episode.said == Some(kind) {
            debug!(error, n_rows, "publishing failed again");
            return;
        }
        match kind {
            TroubleKind::Unreachable => {
                warn!(
                    error,
                    n_rows, "Redis lost: rows are kept and sent when it is back"
                );
            }
            TroubleKind::Busy => {
                warn!(error, n_rows, "Redis takes no entries now: rows are kept");
            }
            // The spool speaks for itself.
            TroubleKind::Spool => {}
            TroubleKind::Refused => error!(
                error,
                n_rows,
                "Redis refuses entries until someone acts: rows are kept while there is room"
            ),
        }
        episode.said = Some(kind);
        self.last_said_at = Some(now);
    }

    /// An attempt succeeded.
    pub(crate) fn succeeded(&mut self, n_rows: u64) {
        let Some(episode) = self.current.take() else {
            return;
        };
        let n_attempts = episode.n_attempts;
        let elapsed_ms = u64::try_from(episode.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        if episode.said.is_some() {
            info!(
                n_rows,
                n_attempts, elapsed_ms, "Redis is back: publishing what waited"
            );
        } else {
            debug!(n_rows, n_attempts, elapsed_ms, "publishing again");
        }
    }
}
