//! Shows in Redis that a worker is there, and what it is at.
//!
//! A task of its own with a connection of its own. That a worker cannot be seen changes nothing for its
//! entries: failures are for the log's debug level.

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use passerby_shared::{
    ErrorChain,
    books::tell,
    host_name,
    redis_connection::{RedisLink, RedisRecovery},
};
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{ConsumerName, WorkerError, WorkerReport, WorkerStats, in_flight::InFlight};

const EVERY: Duration = Duration::from_secs(1);

/// What a worker is at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum WorkerState {
    /// It reads and stores.
    #[default]
    Reading,
    /// Its group is paused: it finishes what it has.
    Paused,
    /// What it has read cannot be stored now; it goes on trying.
    StoringNothing,
    /// Told to stop, it finishes what it has.
    Stopping,
    /// It ended because an operator must act.
    Failed,
}

/// What a worker tells of itself: its value in the hash
/// [`KeyPrefix::workers`](passerby_shared::KeyPrefix).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct WorkerPresence {
    /// Its consumer group.
    pub group: String,
    /// Its machine.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// Its release of Passerby.
    pub version: String,
    /// When it was started, by its own clock.
    pub started_at: DateTime<Utc>,
    /// What it is at.
    pub state: WorkerState,
    /// It reads nothing, because its group is paused.
    pub is_paused: bool,
    /// For how many seconds nothing could be stored; 0 when all is well.
    pub storing_nothing_for: f64,
    /// Entries it has read and not yet acknowledged.
    pub in_work: u64,
    /// How many streams it reads.
    pub shards: u16,
    /// How many batches it commits at a time.
    pub committers: u64,
    /// What it did since it was started.
    pub done: WorkerReport,
    /// What it did in its last seconds.
    pub lately: WorkedLately,
    /// When it last committed, by its own clock.
    pub last_commit_at: Option<DateTime<Utc>>,
    /// What went wrong last, however long ago.
    pub last_error: Option<Trouble>,
}

impl WorkerPresence {
    /// Whether this was its last word.
    pub fn has_ended(&self) -> bool {
        self.state == WorkerState::Failed
    }
}

/// What a worker did in its last seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct WorkedLately {
    /// In how many.
    pub seconds: f64,
    /// Entries settled.
    pub entries: u64,
    /// Detections stored.
    pub detections: u64,
    /// Dead letters written.
    pub dead_letters: u64,
}

/// What went wrong, without any value of a row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Trouble {
    /// When, by the worker's clock.
    pub at: DateTime<Utc>,
    /// Its class: an SQLSTATE, Redis' error code, or `connection`.
    pub class: String,
    /// What was being done, and what came of it.
    pub message: String,
}

/// Shows a worker.
pub(crate) struct Presence {
    pub(crate) link: RedisLink,
    pub(crate) hash: String,
    pub(crate) consumer: ConsumerName,
    pub(crate) group: String,
    pub(crate) shards: NonZeroU16,
    pub(crate) committers: usize,
    pub(crate) in_flight: InFlight,
    pub(crate) stats: Arc<WorkerStats>,
    /// Fires when the worker is told to stop.
    pub(crate) stop: CancellationToken,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) said_refused: bool,
}

impl Presence {
    /// Shows the worker until `done` fires, and returns itself for the last word.
    pub(crate) async fn run(mut self, done: CancellationToken) -> Self {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = done.cancelled() => return self,
                _ = tick.tick() => {}
            }
            self.stats.note_lately();
            let presence = self.presence();
            tokio::select! {
                biased;
                () = done.cancelled() => return self,
                () = self.show(&presence) => {}
            }
        }
    }

    /// Says why the worker ended.
    pub(crate) async fn show_failure(&mut self, error: &WorkerError) {
        let presence = WorkerPresence {
            state: WorkerState::Failed,
            last_error: Some(error.trouble()),
            ..self.presence()
        };
        self.show(&presence).await;
    }

    /// Takes the worker away.
    pub(crate) async fn hide(&mut self) {
        let Ok(connection) = self.link.get().await else {
            return;
        };
        let hidden = redis::cmd("HDEL")
            .arg(&self.hash)
            .arg(self.consumer.as_str())
            .query_async::<redis::Value>(connection)
            .await;
        if let Err(error) = hidden {
            debug!(error = %ErrorChain(&error), "the worker's presence stays behind");
        }
    }

    fn presence(&self) -> WorkerPresence {
        let standing = self.stats.standing();
        let failing_for = self.stats.failing_for();
        let state = if self.stop.is_cancelled() {
            WorkerState::Stopping
        } else if !failing_for.is_zero() {
            WorkerState::StoringNothing
        } else if standing.is_paused {
            WorkerState::Paused
        } else {
            WorkerState::Reading
        };
        WorkerPresence {
            group: self.group.clone(),
            host: host_name(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            state,
            is_paused: standing.is_paused,
            storing_nothing_for: failing_for.as_secs_f64(),
            in_work: self.in_flight.len() as u64,
            shards: self.shards.get(),
            committers: self.committers as u64,
            done: self.stats.report(),
            lately: standing.lately(),
            last_commit_at: standing.last_commit_at,
            last_error: standing.last_error,
        }
    }

    async fn show(&mut self, presence: &WorkerPresence) {
        let command = tell(&self.hash, self.consumer.as_str(), presence);
        let connection = match self.link.get().await {
            Ok(connection) => connection,
            Err(error) => {
                debug!(error = %ErrorChain(&error), "the worker cannot be shown now");
                return;
            }
        };
        if let Err(error) = command.query_async::<redis::Value>(connection).await {
            if self.link.judge(&error) == RedisRecovery::Stop && !self.said_refused {
                self.said_refused = true;
                warn!(
                    error = %ErrorChain(&error),
                    "the worker cannot be shown: `passerby status` will not know it"
                );
            } else {
                debug!(error = %ErrorChain(&error), "the worker cannot be shown now");
            }
        }
    }
}
