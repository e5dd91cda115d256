//! Drops whole days of detections that are older than they are to be kept.
//!
//! Dropping a partition gives its space back at once and leaves nothing to vacuum. Three steps, so that nobody is
//! held up while the rows of a large day are counted:
//!
//! 1. It is detached, renamed and marked, in one short transaction that leaves in one packet. That takes ACCESS
//!    EXCLUSIVE on `detections` for a moment, and waits for it no longer than two seconds: a query that runs for an
//!    hour must not hold up everybody behind us.
//! 2. Its rows are counted, under a lock that nobody else wants. Until the next step they are in the books as
//!    stored, though no query of `detections` finds them any more.
//! 3. It is dropped and its rows are booked as dropped, in one packet with COMMIT.
//!
//! Whatever is interrupted leaves the partition as it was, or a table with the mark, which whoever looks after
//! retention next counts and drops. A table that somebody attaches again is left alone. What is in use is dropped
//! the next time.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio_postgres::{Client, error::SqlState};
use tracing::{info, warn};

use super::{
    Store, StoreError, books::BOOK_DROPPED, connection::within, migrations::MAINTENANCE_LOCK,
};

/// Longest wait for the rows of one partition to be counted.
const COUNT_LIMIT: Duration = Duration::from_secs(3_600);

/// A client that is frozen in the middle holds what it has for no longer than that.
const GIVE_UP: &str = "
SET LOCAL lock_timeout = '2s';
SET LOCAL idle_in_transaction_session_timeout = '10s'";

/// What stands in the catalog as the end of a partition, whatever it is called: somebody may have attached
/// one by hand.
const EXPIRED: &str = "
SELECT quote_ident(nspname) || '.' || quote_ident(relname)
FROM pg_inherits
JOIN pg_class ON pg_class.oid = inhrelid
JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE inhparent = 'detections'::regclass
  AND (regexp_match(pg_get_expr(relpartbound, pg_class.oid), 'TO \\(''([^'']+)''\\)'))[1]::timestamptz <= $1
ORDER BY 1";

/// What a partition is called and marked with once it is detached: `detections` of another schema has marks of its
/// own.
const AS_DETACHED: &str = "
SELECT quote_ident(nspname), 'detections_dropping_' || pg_class.oid, quote_literal(mark)
FROM pg_inherits
JOIN pg_class ON pg_class.oid = inhrelid
JOIN pg_namespace ON pg_namespace.oid = relnamespace
CROSS JOIN (
    SELECT format('Detached from %I.%I: Passerby counts its rows and drops it.', nspname, relname)
    FROM pg_class
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE pg_class.oid = 'detections'::regclass
) AS marks (mark)
WHERE inhparent = 'detections'::regclass AND inhrelid = to_regclass($1)";

const DETACHED: &str = "
SELECT format('%I.%I', nspname, relname)
FROM pg_description
JOIN pg_class ON pg_class.oid = objoid
JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE classoid = 'pg_class'::regclass AND objsubid = 0 AND relkind = 'r' AND NOT relispartition
  AND relname = 'detections_dropping_' || pg_class.oid
  AND description = (
      SELECT format('Detached from %I.%I: Passerby counts its rows and drops it.', nspname, relname)
      FROM pg_class
      JOIN pg_namespace ON pg_namespace.oid = relnamespace
      WHERE pg_class.oid = 'detections'::regclass
  )
ORDER BY 1";

/// What retention did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionReport {
    /// Partitions that were dropped.
    pub dropped: Vec<String>,
    /// Partitions that somebody's lock kept.
    pub kept: Vec<String>,
    /// Rows that were deleted from the quarantine.
    pub deleted_rows: u64,
}

impl Store {
    /// Drops the partitions of `detections` that end at `before` or earlier, with those that were left detached,
    /// and deletes older rows from the quarantine. Each partition is counted first, for up to an hour.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached, or refuses something: the rest was done all the same.
    pub async fn drop_detections_before(
        &mut self,
        before: DateTime<Utc>,
    ) -> Result<RetentionReport, StoreError> {
        let mut done = Done::default();
        for table in self.detached_partitions().await? {
            done.note(self.drop_detached_partition(&table).await, table)?;
        }
        for partition in self.expired_partitions(before).await? {
            let dropped = match self.detach_partition(&partition).await {
                Ok(Some(table)) => self.drop_detached_partition(&table).await,
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            done.note(dropped, partition)?;
        }
        done.report.deleted_rows = self.delete_from_default_before(before).await?;
        match done.failed {
            None => Ok(done.report),
            Some(error) => Err(error),
        }
    }

    /// Drops the partitions that were detached for it and left there.
    ///
    /// # Errors
    ///
    /// As [`Store::drop_detections_before`].
    pub async fn drop_detached_partitions(&mut self) -> Result<RetentionReport, StoreError> {
        let mut done = Done::default();
        for table in self.detached_partitions().await? {
            done.note(self.drop_detached_partition(&table).await, table)?;
        }
        match done.failed {
            None => Ok(done.report),
            Some(error) => Err(error),
        }
    }

    async fn expired_partitions(
        &mut self,
        before: DateTime<Utc>,
    ) -> Result<Vec<String>, StoreError> {
        let connection = self.begin().await?;
        let looking = async {
            let found = connection.client.query(EXPIRED, &[&before]).await;
            let rows = found.map_err(StoreError::statement("look for old partitions"))?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        };
        let done = within("look for old partitions", self.limit(), looking).await;
        self.end(connection, done)
    }

    /// Tables that were taken out of `detections` to be dropped, and are still there.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn detached_partitions(&mut self) -> Result<Vec<String>, StoreError> {
        let connection = self.begin().await?;
        let looking = async {
            let found = connection.client.query(DETACHED, &[]).await;
            let rows = found.map_err(StoreError::statement("look for detached partitions"))?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        };
        let done = within("look for detached partitions", self.limit(), looking).await;
        self.end(connection, done)
    }

    /// Takes a partition out of `detections` to be dropped, by its name as [`Store::partitions`] has it, and
    /// returns what it is called from then on; `None` when it is no partition any more: somebody else has dropped
    /// it, or detached it to keep it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses; [`StoreError::is_in_use`] when somebody's
    /// lock is in the way. Nothing was changed then.
    pub(crate) async fn detach_partition(
        &mut self,
        partition: &str,
    ) -> Result<Option<String>, StoreError> {
        let connection = self.begin().await?;
        let done = within("detach a partition", self.limit(), async {
            let client = &connection.client;
            let doing = || StoreError::statement(format!("detach partition {partition}"));
            match detach(client, partition).await {
                Err(error) if is_gone(&error) => {
                    let rolled_back = client.batch_execute("ROLLBACK").await;
                    rolled_back.map_err(doing())?;
                    Ok(None)
                }
                detached => detached.map_err(doing()),
            }
        })
        .await;
        self.end(connection, done)
    }

    /// Counts the rows of a partition that was detached, drops it, and returns how many went with it; `None` when
    /// somebody else has dropped it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses; [`StoreError::is_in_use`] when somebody's
    /// lock is in the way, or when its rows take too long to be counted. Nothing was changed then.
    pub(crate) async fn drop_detached_partition(
        &mut self,
        table: &str,
    ) -> Result<Option<u64>, StoreError> {
        let connection = self.begin().await?;
        let limit = COUNT_LIMIT + self.limit();
        let done = within("drop a partition", limit, async {
            let client = &connection.client;
            let doing = || StoreError::statement(format!("drop partition {table}"));
            match drop_detached(client, table).await {
                Err(error) if is_gone(&error) => {
                    let rolled_back = client.batch_execute("ROLLBACK").await;
                    rolled_back.map_err(doing())?;
                    Ok(None)
                }
                dropped => Ok(Some(dropped.map_err(doing())?.cast_unsigned())),
            }
        })
        .await;
        self.end(connection, done)
    }

    /// Deletes the rows of the default partition that are older, and returns how many.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn delete_from_default_before(
        &mut self,
        before: DateTime<Utc>,
    ) -> Result<u64, StoreError> {
        let connection = self.begin().await?;
        let deleting = async {
            delete_from_quarantine(&connection.client, before)
                .await
                .map_err(StoreError::statement("delete old rows from the quarantine"))
        };
        let done = within(
            "delete old rows from the quarantine",
            self.limit(),
            deleting,
        )
        .await;
        self.end(connection, done)
    }
}

/// What was done, and what failed first.
#[derive(Default)]
struct Done {
    report: RetentionReport,
    failed: Option<StoreError>,
}

impl Done {
    /// What is wrong with one partition is no reason to keep the others; what is wrong with the server is.
    fn note(
        &mut self,
        dropped: Result<Option<u64>, StoreError>,
        partition: String,
    ) -> Result<(), StoreError> {
        match dropped {
            Ok(Some(n_rows)) => {
                info!(partition, n_rows, "old partition dropped");
                self.report.dropped.push(partition);
            }
            Ok(None) => {}
            Err(error) if error.is_in_use() => {
                warn!(
                    partition,
                    "an old partition is in use, or takes too long to count: it is dropped another time"
                );
                self.report.kept.push(partition);
            }
            Err(error) if error.db_error().is_some() => {
                self.failed.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Somebody else was faster.
fn is_gone(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::UNDEFINED_TABLE)
}

/// Takes ACCESS EXCLUSIVE on `detections` first and holds nothing that a committer wants meanwhile.
async fn detach(client: &Client, partition: &str) -> Result<Option<String>, tokio_postgres::Error> {
    let Some(row) = client.query_opt(AS_DETACHED, &[&partition]).await? else {
        return Ok(None);
    };
    let (schema, name, mark): (String, String, String) = (row.get(0), row.get(1), row.get(2));
    let table = format!("{schema}.{name}");
    client
        .batch_execute(&format!(
            "BEGIN;
             {GIVE_UP};
             SELECT pg_advisory_xact_lock({MAINTENANCE_LOCK});
             ALTER TABLE detections DETACH PARTITION {partition};
             ALTER TABLE {partition} RENAME TO {name};
             COMMENT ON TABLE {table} IS {mark};
             COMMIT"
        ))
        .await?;
    Ok(Some(table))
}

/// Of two that drop the same table the second waits for the first's lock; readers do not.
async fn drop_detached(client: &Client, table: &str) -> Result<i64, tokio_postgres::Error> {
    client
        .batch_execute(&format!(
            "BEGIN;
             {GIVE_UP};
             SET LOCAL statement_timeout = {};
             LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE",
            COUNT_LIMIT.as_millis()
        ))
        .await?;
    let count = format!("SELECT count(*) FROM {table}");
    let n_rows: i64 = client.query_one(&count, &[]).await?.get(0);
    let book = BOOK_DROPPED.replace("$1", &n_rows.to_string());
    client
        .batch_execute(&format!("DROP TABLE {table}; {book}; COMMIT"))
        .await?;
    Ok(n_rows)
}

async fn delete_from_quarantine(
    client: &Client,
    before: DateTime<Utc>,
) -> Result<u64, tokio_postgres::Error> {
    client.batch_execute(&format!("BEGIN; {GIVE_UP}")).await?;
    let n_rows = client
        .execute(
            "DELETE FROM detections_default WHERE timestamp < $1",
            &[&before],
        )
        .await?;
    let book = BOOK_DROPPED.replace("$1", &n_rows.to_string());
    client.batch_execute(&format!("{book}; COMMIT")).await?;
    Ok(n_rows)
}
