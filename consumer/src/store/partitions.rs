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

mod list;

use std::{collections::BTreeSet, time::Duration};

pub use list::{DefaultDay, DefaultPartition, Partition, Partitions};

use chrono::{Days, NaiveDate, Utc};
use tokio_postgres::{Client, error::SqlState};
use tracing::{info, warn};

use super::{
    Recovery, Store, StoreError,
    connection::{Connection, within},
    migrations::MAINTENANCE_LOCK,
};

/// Partitions are made for today and so many days after it.
pub const DAYS_AHEAD: u64 = 7;
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
                // Somebody may have made it by hand.
                let there = exists(&connection.client, &table_of(day)).await;
                if there.map_err(StoreError::statement("look for a partition"))? {
                    self.days.insert(day);
                    continue;
                }
                warn!(%day, "rows go to the default partition: the day is too far ahead, or too \
                             many partitions were made already");
            } else {
                match create(connection, day, ON_DEMAND).await {
                    Ok(Made::Now { .. }) => self.n_on_demand += 1,
                    Ok(Made::Before) => {}
                    Ok(Made::InTheWay(advice)) => warn!(
                        %day,
                        advice, "no partition: rows of this day go to the default partition"
                    ),
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

/// Longest wait for rows to move while a batch waits.
const ON_DEMAND: Duration = Duration::from_secs(30);

/// What became of a partition that was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It was made.
    Now {
        /// Rows that moved into it from the default partition.
        n_moved: u64,
    },
    /// It was there.
    Before,
    /// It cannot be made: what to do about it.
    InTheWay(&'static str),
}

impl Store {
    /// Makes the partition of a day, also of one that is further ahead than workers make them. Its rows move
    /// there from the default partition in the same transaction, which takes as long as `limit` at most and
    /// keeps others from the default partition meanwhile.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses; [`StoreError::is_in_use`] when somebody's
    /// lock is in the way, or when it takes too long. Nothing was changed then.
    pub async fn make_partition(
        &mut self,
        day: NaiveDate,
        limit: Duration,
    ) -> Result<Made, StoreError> {
        let mut connection = self.begin().await?;
        let making = create(&mut connection, day, limit);
        let done = within("make a partition", limit + self.limit(), making).await;
        self.end(connection, done)
    }
}

/// The name of a day's partition.
fn table_of(day: NaiveDate) -> String {
    format!("detections_p{}", day.format("%Y%m%d"))
}

/// Makes the partition of one day.
async fn create(
    connection: &mut Connection,
    day: NaiveDate,
    limit: Duration,
) -> Result<Made, StoreError> {
    let table = table_of(day);
    let client = &connection.client;
    if exists(client, &table)
        .await
        .map_err(StoreError::statement("look for a partition"))?
    {
        return Ok(Made::Before);
    }
    let error = match create_locked(client, &table, day, limit).await {
        Ok(made) => {
            if let Made::Now { n_moved } = made {
                info!(partition = table, n_moved, "partition created");
            }
            return Ok(made);
        }
        Err(error) => error,
    };
    client
        .batch_execute("ROLLBACK")
        .await
        .map_err(StoreError::statement("roll back"))?;
    match error.code() {
        Some(&SqlState::DUPLICATE_TABLE) => Ok(Made::InTheWay(
            "a table of this name is there and is no partition of detections: attach or rename it",
        )),
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(Made::InTheWay(
            "the role may not create tables: grant CREATE on the schema and ownership of detections",
        )),
        _ => Err(StoreError::statement(format!("create partition {table}"))(
            error,
        )),
    }
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
    limit: Duration,
) -> Result<Made, tokio_postgres::Error> {
    client
        .batch_execute(&format!(
            "BEGIN;
             SET LOCAL lock_timeout = '2s';
             SET LOCAL statement_timeout = {};
             SELECT pg_advisory_xact_lock({MAINTENANCE_LOCK})",
            limit.as_millis()
        ))
        .await?;
    // Somebody else may have made it while we waited for the lock.
    if exists(client, table).await? {
        client.batch_execute("COMMIT").await?;
        return Ok(Made::Before);
    }
    let next = day + Days::new(1);
    client
        .batch_execute(&format!(
            "CREATE TABLE {table} (
                 LIKE detections INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING CONSTRAINTS
             );
             LOCK TABLE detections_default IN ACCESS EXCLUSIVE MODE"
        ))
        .await?;
    let n_moved = client
        .execute(
            &format!(
                "WITH moved AS (
                     DELETE FROM detections_default
                     WHERE timestamp >= '{day} 00:00:00+00' AND timestamp < '{next} 00:00:00+00'
                     RETURNING *
                 )
                 INSERT INTO {table} SELECT * FROM moved"
            ),
            &[],
        )
        .await?;
    client
        .batch_execute(&format!(
            "ALTER TABLE detections ATTACH PARTITION {table}
                 FOR VALUES FROM ('{day} 00:00:00+00') TO ('{next} 00:00:00+00');
             COMMIT"
        ))
        .await?;
    Ok(Made::Now { n_moved })
}
