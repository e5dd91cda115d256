//! Drops detections that are older than they are to be kept, and partitions that somebody detached to drop them and
//! did not come to it.
//!
//! A task of its own: the rows of a large day take a while to be counted, and trimming does not wait for that.

use std::{sync::Arc, time::Duration};

use chrono::{TimeDelta, Utc};
use passerby_shared::ErrorChain;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    metrics::Metrics,
    store::{DatabaseUrl, Store, StoreTimeouts},
    upkeep::PARTITIONS_EVERY,
};

pub(crate) struct RetentionKeeper {
    pub(crate) database_url: DatabaseUrl,
    pub(crate) timeouts: StoreTimeouts,
    /// `None`: for ever.
    pub(crate) retention: Option<Duration>,
    pub(crate) metrics: Arc<Metrics>,
}

impl RetentionKeeper {
    /// Runs until `done` fires, and then gives up whatever it is at: nothing is half dropped by that.
    pub(crate) async fn run(self, done: CancellationToken) {
        tokio::select! {
            biased;
            () = done.cancelled() => {}
            () = self.run_on() => {}
        }
    }

    async fn run_on(&self) {
        let mut tick = interval(PARTITIONS_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let retention = self.retention.and_then(|r| TimeDelta::from_std(r).ok());
        loop {
            tick.tick().await;
            // No connection is kept for the next time.
            let mut store = Store::new(self.database_url.clone(), self.timeouts);
            let dropped = match retention {
                Some(retention) => store.drop_detections_before(Utc::now() - retention).await,
                None => store.drop_detached_partitions().await,
            };
            if let Err(error) = dropped {
                self.metrics.upkeep_failed("retention");
                warn!(
                    error = %ErrorChain(&error),
                    doing = "drop old detections",
                    "upkeep failed: trying again later"
                );
            }
        }
    }
}
