//! Partitions by hand: made ahead, dropped, and filled from the default partition.
//!
//! Each partition is a transaction of its own, under the lock that workers take for the same work. What
//! somebody's lock is in the way of is tried again a few times, and named when it does not help.

use std::time::Duration;

use chrono::{DateTime, Days, NaiveDate, Utc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::OpsError;
use crate::store::{DAYS_AHEAD, DefaultDay, Made, Store};

/// Attempts on a partition that is in use; each waits for two seconds.
const ATTEMPTS: usize = 5;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(500);

/// What became of the partitions that were to be there.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PartitionsMade {
    /// Days whose partition was made; in a dry run, would be.
    pub made: Vec<NaiveDate>,
    /// Rows that moved from the default partition; in a dry run, would.
    pub rows_moved: u64,
    /// Days that had one.
    pub existing: u64,
    /// Days that have none, and why.
    pub failed: Vec<DayKept>,
}

/// A day that stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DayKept {
    /// The day.
    pub day: NaiveDate,
    /// Its rows in the default partition, where they were counted.
    pub rows: Option<i64>,
    /// Why.
    pub why: String,
}

/// The days from today on, so many after it as well.
pub fn days_ahead(n: u64) -> Vec<NaiveDate> {
    let today = Utc::now().date_naive();
    (0..=n).map(|n| today + Days::new(n)).collect()
}

/// The days of the default partition that workers would make a partition of, and those that they leave to it
/// on purpose: too far ahead, as from a camera with a wrong clock.
pub fn within_policy(days: &[DefaultDay]) -> (Vec<DefaultDay>, Vec<DefaultDay>) {
    let horizon = Utc::now().date_naive() + Days::new(DAYS_AHEAD);
    days.iter().partition(|day| day.day <= horizon)
}

/// Makes the partitions of these days, those that are missing.
///
/// # Errors
///
/// [`OpsError`] when Postgres cannot be reached or refuses. What was made stays.
pub async fn make_partitions(
    store: &mut Store,
    days: &[NaiveDate],
    limit: Duration,
    stop: &CancellationToken,
    mut progress: impl FnMut(&PartitionsMade),
) -> Result<PartitionsMade, OpsError> {
    let mut report = PartitionsMade::default();
    for &day in days {
        if stop.is_cancelled() {
            report.fail(day, "interrupted before it");
            continue;
        }
        let mut attempt = 1;
        loop {
            match store.make_partition(day, limit).await {
                Ok(Made::Now { n_moved }) => {
                    report.made.push(day);
                    report.rows_moved += n_moved;
                }
                Ok(Made::Before) => report.existing += 1,
                Ok(Made::InTheWay(advice)) => report.fail(day, advice),
                Err(error) if error.is_in_use() && attempt < ATTEMPTS => {
                    attempt += 1;
                    sleep(BETWEEN_ATTEMPTS).await;
                    continue;
                }
                Err(error) if error.is_in_use() => report.fail(
                    day,
                    "the default partition is in use, or its rows take too long to move: try again later",
                ),
                Err(error) => return Err(error.into()),
            }
            break;
        }
        progress(&report);
    }
    Ok(report)
}

impl PartitionsMade {
    fn fail(&mut self, day: NaiveDate, why: &str) {
        self.failed.push(DayKept {
            day,
            rows: None,
            why: why.to_owned(),
        });
    }
}

/// What became of the partitions that were to be dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PartitionsDropped {
    /// Those that were dropped, by name.
    pub dropped: Vec<String>,
    /// Rows that went with them, counted.
    pub rows: u64,
    /// Rows that were deleted from the default partition.
    pub rows_of_default: u64,
    /// Those that somebody's lock kept.
    pub in_use: Vec<String>,
    /// Those that are out of `detections` and were not dropped, because somebody reads them or the rest was
    /// interrupted: a worker drops them within ten minutes, or the next `passerby partitions drop`.
    pub detached: Vec<String>,
}

/// Drops partitions, by name; `default_before` deletes older rows from the default partition as well.
///
/// # Errors
///
/// [`OpsError`] when Postgres cannot be reached or refuses. What was dropped stays dropped.
pub async fn drop_partitions(
    store: &mut Store,
    names: &[String],
    default_before: Option<DateTime<Utc>>,
    stop: &CancellationToken,
) -> Result<PartitionsDropped, OpsError> {
    let mut report = PartitionsDropped::default();
    for table in store.detached_partitions().await? {
        drop_detached(store, &table, &table, stop, &mut report).await?;
    }
    for name in names {
        let mut attempt = 1;
        while !stop.is_cancelled() {
            match store.detach_partition(name).await {
                Ok(Some(table)) => drop_detached(store, &table, name, stop, &mut report).await?,
                // Somebody else has.
                Ok(None) => report.dropped.push(name.clone()),
                Err(error) if error.is_in_use() && attempt < ATTEMPTS => {
                    attempt += 1;
                    sleep(BETWEEN_ATTEMPTS).await;
                    continue;
                }
                Err(error) if error.is_in_use() => report.in_use.push(name.clone()),
                Err(error) => return Err(error.into()),
            }
            break;
        }
    }
    if let Some(before) = default_before.filter(|_| !stop.is_cancelled()) {
        report.rows_of_default = store.delete_from_default_before(before).await?;
    }
    Ok(report)
}

/// Counts and drops a table, unless it is told to stop meanwhile.
async fn drop_detached(
    store: &mut Store,
    table: &str,
    name: &str,
    stop: &CancellationToken,
    report: &mut PartitionsDropped,
) -> Result<(), OpsError> {
    let dropping = store.drop_detached_partition(table);
    match stop.run_until_cancelled(dropping).await {
        Some(Ok(n_rows)) => {
            report.rows += n_rows.unwrap_or(0);
            report.dropped.push(name.to_owned());
        }
        Some(Err(error)) if !error.is_in_use() => return Err(error.into()),
        Some(Err(_)) | None => report.detached.push(table.to_owned()),
    }
    Ok(())
}
