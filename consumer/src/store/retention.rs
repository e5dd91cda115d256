//! Drops whole days of detections that are older than they are to be kept.
//!
//! Dropping a partition gives its space back at once and leaves nothing to vacuum. It takes ACCESS EXCLUSIVE
//! on `detections` for a moment, and waits for that no longer than two seconds: a query that runs for an
//! hour must not hold up everybody behind us. What could not be dropped is dropped the next time.

use chrono::{DateTime, Utc};
use tokio_postgres::{Client, error::SqlState};
use tracing::{info, warn};

use super::{
    Store, StoreError,
    books::BOOK_DROPPED,
    connection::{Connection, within},
    migrations::MAINTENANCE_LOCK,
};

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

const IS_PARTITION: &str = "
SELECT EXISTS (
    SELECT FROM pg_inherits
    WHERE inhparent = 'detections'::regclass AND inhrelid = to_regclass($1)
)";

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
    /// Drops the partitions of `detections` that end at `before` or earlier, and deletes older rows from the
    /// quarantine.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses. What was dropped stays dropped.
    pub async fn drop_detections_before(
        &mut self,
        before: DateTime<Utc>,
    ) -> Result<RetentionReport, StoreError> {
        let connection = self.begin().await?;
        let dropping = drop_before(&connection, before);
        let done = within("drop old detections", self.limit(), dropping).await;
        self.end(connection, done)
    }
}

impl Store {
    /// Drops one partition of `detections`, by its name as [`Store::partitions`] has it, and returns how many
    /// rows went with it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses; [`StoreError::is_in_use`] when somebody's
    /// lock is in the way. Nothing was dropped then.
    pub async fn drop_detections_partition(&mut self, name: &str) -> Result<u64, StoreError> {
        let connection = self.begin().await?;
        let doing = format!("drop partition {name}");
        let done = within("drop a partition", self.limit(), async {
            let is_partition: bool = connection
                .client
                .query_one(IS_PARTITION, &[&name])
                .await
                .map_err(StoreError::statement("look for a partition"))?
                .get(0);
            // Somebody else has dropped it, or detached it to keep it.
            if !is_partition {
                return Ok(0);
            }
            drop_partition(&connection.client, name)
                .await
                .map_err(StoreError::statement(doing))
        })
        .await;
        Ok(self.end(connection, done)?.cast_unsigned())
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

async fn drop_before(
    connection: &Connection,
    before: DateTime<Utc>,
) -> Result<RetentionReport, StoreError> {
    let client = &connection.client;
    let mut report = RetentionReport::default();
    let expired = client
        .query(EXPIRED, &[&before])
        .await
        .map_err(StoreError::statement("look for old partitions"))?;
    for partition in expired.iter().map(|row| row.get::<_, String>(0)) {
        match drop_partition(client, &partition).await {
            Ok(n_rows) => {
                info!(partition, n_rows, "old partition dropped");
                report.dropped.push(partition);
            }
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                client
                    .batch_execute("ROLLBACK")
                    .await
                    .map_err(StoreError::statement("roll back"))?;
                warn!(
                    partition,
                    "an old partition is in use: it is dropped another time"
                );
                report.kept.push(partition);
            }
            Err(error) => {
                return Err(StoreError::statement(format!("drop partition {partition}"))(error));
            }
        }
    }
    report.deleted_rows = delete_from_quarantine(client, before)
        .await
        .map_err(StoreError::statement("delete old rows from the quarantine"))?;
    Ok(report)
}

/// Drops a partition, books its rows as dropped, and returns how many there were.
///
/// They are counted while nobody can add to them; those who look at other partitions wait only for the drop
/// itself. After an error the transaction is to be rolled back.
pub(super) async fn drop_partition(
    client: &Client,
    partition: &str,
) -> Result<i64, tokio_postgres::Error> {
    client
        .batch_execute(&format!(
            "BEGIN;
             SET LOCAL lock_timeout = '2s';
             SELECT pg_advisory_xact_lock({MAINTENANCE_LOCK})"
        ))
        .await?;
    let exists: bool = client
        .query_one("SELECT to_regclass($1) IS NOT NULL", &[&partition])
        .await?
        .get(0);
    let mut n_rows = 0;
    if exists {
        let lock = format!("LOCK TABLE {partition} IN SHARE MODE");
        client.batch_execute(&lock).await?;
        let count = format!("SELECT count(*) FROM {partition}");
        n_rows = client.query_one(&count, &[]).await?.get(0);
        client
            .batch_execute(&format!("DROP TABLE {partition}"))
            .await?;
        client.execute(BOOK_DROPPED, &[&n_rows]).await?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(n_rows)
}

async fn delete_from_quarantine(
    client: &Client,
    before: DateTime<Utc>,
) -> Result<u64, tokio_postgres::Error> {
    client.batch_execute("BEGIN").await?;
    let n_rows = client
        .execute(
            "DELETE FROM detections_default WHERE timestamp < $1",
            &[&before],
        )
        .await?;
    if n_rows > 0 {
        client
            .execute(BOOK_DROPPED, &[&n_rows.cast_signed()])
            .await?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(n_rows)
}
