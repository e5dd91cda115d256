//! Looks at both servers every few seconds: how much the group has before it, how the tables stand, and
//! whether the servers answer at all.
//!
//! It has connections of its own: what it is asked for must not wait for a batch, nor a batch for it. What
//! cannot be measured is not known, and shown as such: the last figure before a server went away would look
//! like a good one.

use std::{sync::Arc, time::Duration};

use chrono::DateTime;
use passerby_shared::{ErrorChain, KeyPrefix, redis_connection::RedisLink};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    Health, WorkerStats,
    health::Part,
    in_flight::InFlight,
    ledger_keeper,
    metrics::Metrics,
    ops::{self, StatusReport, Target},
    store::{Fault, Store, StoreError, TableStats},
};

/// A server that has not answered within this time counts as away.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Observer {
    pub(crate) target: Target,
    pub(crate) store: Store,
    pub(crate) every: Duration,
    pub(crate) in_flight: InFlight,
    pub(crate) stats: Arc<WorkerStats>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
}

impl Observer {
    /// Runs until `done` fires, and then gives up whatever it is at.
    pub(crate) async fn run(mut self, done: CancellationToken) {
        tokio::select! {
            biased;
            () = done.cancelled() => {}
            () = self.run_on() => {}
        }
    }

    async fn run_on(&mut self) {
        let mut tick = interval(self.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let good_for = 2 * (self.every + 2 * PATIENCE);
        loop {
            tick.tick().await;
            self.metrics
                .worker_seen(self.in_flight.len(), self.stats.failing_for());
            // What `passerby status` shows, by the same questions.
            let report = ops::status(&mut self.target, &mut self.store).await;
            let oldest_spooled = match &report.redis {
                Some(redis) => {
                    let (link, prefix) = (&mut self.target.link, &self.target.key_prefix);
                    oldest_spooled(link, prefix, redis.now_ms).await
                }
                None => None,
            };
            let tables = look_at_tables(&mut self.store, &report).await;
            self.metrics.group_seen(&report, oldest_spooled);
            self.metrics.tables_seen(tables.stats.as_ref());
            let redis = Part::unless(report.redis_error);
            self.health
                .saw(redis, tables.postgres, tables.schema, good_for);
        }
    }
}

/// How long the oldest entry of any spool has waited; `None` when Redis does not tell.
async fn oldest_spooled(
    link: &mut RedisLink,
    key_prefix: &KeyPrefix,
    now_ms: u64,
) -> Option<Duration> {
    let now = DateTime::from_timestamp_millis(now_ms.cast_signed())?;
    let asking = async {
        let connection = link.get().await.ok()?;
        let asked = ledger_keeper::oldest_spooled(connection, key_prefix, now).await;
        Some(asked.ok()?.map_or(now, |oldest| oldest.min(now)))
    };
    let oldest = timeout(PATIENCE, asking).await.ok()??;
    (now - oldest).to_std().ok()
}

/// How the tables stand, and what that says of Postgres and of the schema.
struct Tables {
    stats: Option<TableStats>,
    postgres: Part,
    schema: Part,
}

async fn look_at_tables(store: &mut Store, report: &StatusReport) -> Tables {
    let asked = match store.check_schema().await {
        Ok(()) => store.table_stats().await,
        Err(error) => Err(error),
    };
    let (stats, error) = match asked {
        Ok(stats) => (Some(stats), None),
        Err(error) => (None, Some(error)),
    };
    let (postgres, schema) = match (&error, &report.store_error) {
        (None, None) => (Part::Ready, Part::Ready),
        // The server answers, and it is the schema that does not fit, or may not be looked at.
        (Some(error), _) if is_about_the_schema(error) => {
            (Part::Ready, Part::NotReady(ErrorChain(error).to_string()))
        }
        (Some(error), _) => {
            let unknown = Part::NotReady("not known".to_owned());
            (Part::NotReady(ErrorChain(error).to_string()), unknown)
        }
        (None, Some(error)) => (Part::NotReady(error.clone()), Part::Ready),
    };
    Tables {
        stats,
        postgres,
        schema,
    }
}

fn is_about_the_schema(error: &StoreError) -> bool {
    let is_statement = matches!(error, StoreError::Statement { .. });
    matches!(error, StoreError::Schema(_)) || is_statement && error.fault() == Fault::Configuration
}
