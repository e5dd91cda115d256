//! One partition of `detections` for each UTC day, made ahead and on demand.
//!
//! A partition is made as a table of its own and then attached: that takes a SHARE UPDATE EXCLUSIVE
//! lock on `detections`, which does not wait for a COPY that is under way, where
//! `CREATE TABLE … PARTITION OF` takes ACCESS EXCLUSIVE and does. Attaching takes ACCESS EXCLUSIVE on
//! the default partition, though, and so waits for queries that look into it, for a bounded time.
//!
//! Rows of a day without a partition land in `detections_default`, the quarantine; they move into
//! their partition when it is made. Days further ahead than [`DAYS_AHEAD`] are left to the quarantine
//! on purpose: they come from cameras with a wrong clock.

use std::collections::BTreeSet;

use chrono::{Days, NaiveDate, Utc};
use tokio_postgres::{Client, error::SqlState};
use tracing::{info, warn};

use super::{
    Recovery, Store, StoreError,
    connection::{Connection, within},
    migrations::MAINTENANCE_LOCK,
};

/// Partitions are made for today and so many days after it.
pub(super) const DAYS_AHEAD: u64 = 7;
/// Most partitions made on demand by one store, so that a clock that jumps through the past cannot
/// fill the catalog.
const MAX_ON_DEMAND: usize = 1_000;

/// So often is a batch kept waiting for a partition that somebody's lock is in the way of; after that
/// its rows go to the quarantine.
const MAX_LOCK_TIMEOUTS: usize = 5;

/// Days that need no further look: their partition exists, or is not to be.
#[derive(Debug, Default)]
pub(super) struct KnownPartitions {
    days: BTreeSet<NaiveDate>,
    n_on_demand: usize,
    n_lock_timeouts: usize,
}

impl KnownPartitions {
    /// Forgets which partitions exist: somebody may have dropped one.
    pub(super) fn forget(&mut self) {
        self.days.clear();
    }

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
            } else {
                match create(connection, day).await {
                    Ok(created) => self.n_on_demand += usize::from(created),
                    Err(error)
                        if is_lock_timeout(&error) && self.n_lock_timeouts >= MAX_LOCK_TIMEOUTS =>
                    {
                        self.n_lock_timeouts = 0;
                        warn!(%day, "rows go to the default partition: somebody holds its lock");
                    }
                    // No fault of the rows that are to be stored: something in the quarantine, or somebody's
                    // constraint, does not go with a partition.
                    Err(error) if error.recovery() == Recovery::DeadLetter => {
                        warn!(
                            %day,
                            error = error.trouble().message,
                            "rows go to the default partition: theirs cannot be made"
                        );
                    }
                    Err(error) => {
                        self.n_lock_timeouts += usize::from(is_lock_timeout(&error));
                        return Err(error);
                    }
                }
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
        Some(&SqlState::DUPLICATE_TABLE) => {
            "a table of this name is there and is no partition of detections: attach or rename it"
        }
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            "the role may not create tables: grant CREATE on the schema and ownership of detections"
        }
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

/// Somebody is in the way: with a lock, or with so many rows in the quarantine that they do not move
/// in time.
fn is_lock_timeout(error: &StoreError) -> bool {
    error.db_error().is_some_and(|db| {
        [SqlState::LOCK_NOT_AVAILABLE, SqlState::QUERY_CANCELED].contains(db.code())
    })
}

async fn exists(client: &Client, table: &str) -> Result<bool, tokio_postgres::Error> {
    const IS_ATTACHED: &str = "
        SELECT EXISTS (
            SELECT FROM pg_inherits
            WHERE inhparent = 'detections'::regclass AND inhrelid = to_regclass($1)
        )";
    Ok(client.query_one(IS_ATTACHED, &[&table]).await?.get(0))
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
             SET LOCAL statement_timeout = '30s';
             SELECT pg_advisory_xact_lock({MAINTENANCE_LOCK})"
        ))
        .await?;
    // Somebody else may have made it while we waited for the lock.
    let missing = !exists(client, table).await?;
    if missing {
        let next = day + Days::new(1);
        client
            .batch_execute(&format!(
                "CREATE TABLE {table} (
                     LIKE detections INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING CONSTRAINTS
                 );
                 LOCK TABLE detections_default IN ACCESS EXCLUSIVE MODE;
                 WITH moved AS (
                     DELETE FROM detections_default
                     WHERE timestamp >= '{day} 00:00:00+00' AND timestamp < '{next} 00:00:00+00'
                     RETURNING *
                 )
                 INSERT INTO {table} SELECT * FROM moved;
                 ALTER TABLE detections ATTACH PARTITION {table}
                     FOR VALUES FROM ('{day} 00:00:00+00') TO ('{next} 00:00:00+00')"
            ))
            .await?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(missing)
}
