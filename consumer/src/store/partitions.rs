//! One partition of `detections` for each UTC day, made ahead and on demand.
//!
//! A partition is made as a table of its own and then attached: that takes a SHARE UPDATE EXCLUSIVE
//! lock on `detections`, which does not wait for a COPY that is under way, where
//! `CREATE TABLE … PARTITION OF` takes ACCESS EXCLUSIVE and does.
//!
//! Rows of a day without a partition land in `detections_default`, the quarantine. Days further ahead
//! than [`DAYS_AHEAD`] are left to it on purpose: they come from cameras with a wrong clock.

use std::collections::BTreeSet;

use chrono::{Days, NaiveDate, Utc};
use tokio_postgres::{Client, error::SqlState};
use tracing::{info, warn};

use super::{
    Store, StoreError,
    connection::{Connection, within},
    migrations::MAINTENANCE_LOCK,
};

/// Partitions are made for today and so many days after it.
pub(super) const DAYS_AHEAD: u64 = 7;
/// Most partitions made on demand by one store, so that a clock that jumps through the past cannot
/// fill the catalog.
const MAX_ON_DEMAND: usize = 1_000;

/// Days that need no further look: their partition exists, or is not to be.
#[derive(Debug, Default)]
pub(super) struct KnownPartitions {
    days: BTreeSet<NaiveDate>,
    n_on_demand: usize,
}

impl KnownPartitions {
    pub(super) fn contains_all(&self, days: &BTreeSet<NaiveDate>) -> bool {
        days.is_subset(&self.days)
    }

    /// Makes the partitions that `days` need, as far as they may be made.
    ///
    /// A partition that cannot be made is no error: the rows go to the quarantine, and a warning
    /// says so.
    pub(super) async fn ensure(
        &mut self,
        connection: &mut Connection,
        days: &BTreeSet<NaiveDate>,
    ) -> Result<(), StoreError> {
        let horizon = Utc::now().date_naive() + Days::new(DAYS_AHEAD);
        for &day in days {
            if self.days.contains(&day) {
                continue;
            }
            if day > horizon || self.n_on_demand >= MAX_ON_DEMAND {
                warn!(%day, "rows go to the default partition: the day is too far ahead, or too \
                             many partitions were made already");
            } else if create(connection, day).await? {
                self.n_on_demand += 1;
            }
            self.days.insert(day);
        }
        Ok(())
    }
}

impl Store {
    /// Makes the partitions of today and the next seven days.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn ensure_partitions_ahead(&mut self) -> Result<(), StoreError> {
        let today = Utc::now().date_naive();
        let days = (0..=DAYS_AHEAD).map(|n| today + Days::new(n)).collect();
        let mut connection = self.begin().await?;
        let limit = self.limit();
        let making = self.partitions.ensure(&mut connection, &days);
        let done = within("make partitions", limit, making).await;
        self.end(connection, done)
    }
}

/// Makes the partition of one day; `false` when it was there or cannot be made now.
async fn create(connection: &mut Connection, day: NaiveDate) -> Result<bool, StoreError> {
    let table = format!("detections_p{}", day.format("%Y%m%d"));
    let client = &connection.client;
    if exists(client, &table)
        .await
        .map_err(StoreError::statement("look for a partition"))?
    {
        return Ok(false);
    }
    let error = match create_locked(client, &table, day).await {
        Ok(created) => {
            if created {
                info!(partition = table, "partition created");
            }
            return Ok(created);
        }
        Err(error) => error,
    };
    client
        .batch_execute("ROLLBACK")
        .await
        .map_err(StoreError::statement("roll back"))?;
    let advice = match error.code() {
        // Somebody made it while we waited for the lock: a transaction under way does not see that
        // early enough for IF NOT EXISTS.
        Some(&SqlState::DUPLICATE_TABLE) => return Ok(false),
        Some(&SqlState::CHECK_VIOLATION) => {
            "the default partition already holds rows of this day; they can still be queried"
        }
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            "the role may not create tables: grant CREATE on the schema and ownership of detections"
        }
        Some(&SqlState::LOCK_NOT_AVAILABLE) => "somebody else holds the lock",
        _ => {
            return Err(StoreError::statement(format!("create partition {table}"))(
                error,
            ));
        }
    };
    warn!(
        partition = table,
        advice, "no partition: rows of this day go to the default partition"
    );
    Ok(false)
}

async fn exists(client: &Client, table: &str) -> Result<bool, tokio_postgres::Error> {
    Ok(client
        .query_one("SELECT to_regclass($1) IS NOT NULL", &[&table])
        .await?
        .get(0))
}

async fn create_locked(
    client: &Client,
    table: &str,
    day: NaiveDate,
) -> Result<bool, tokio_postgres::Error> {
    client
        .batch_execute(&format!(
            "BEGIN;
             SET LOCAL lock_timeout = '2s';
             SELECT pg_advisory_xact_lock({MAINTENANCE_LOCK})"
        ))
        .await?;
    // Somebody else may have made it while we waited for the lock.
    let missing = !exists(client, table).await?;
    if missing {
        let next = day + Days::new(1);
        client
            .batch_execute(&format!(
                "CREATE TABLE {table} (LIKE detections INCLUDING DEFAULTS INCLUDING STORAGE);
                 ALTER TABLE detections ATTACH PARTITION {table}
                     FOR VALUES FROM ('{day} 00:00:00+00') TO ('{next} 00:00:00+00')"
            ))
            .await?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(missing)
}
