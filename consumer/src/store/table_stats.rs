//! What the catalog says of the tables: how many partitions there are, and how large things have grown.
//!
//! Reads the catalog and file sizes alone, never rows.

use super::{Store, StoreError, connection::within};

/// What the catalog says of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct TableStats {
    /// Partitions of `detections`, without the default partition.
    pub partitions: u64,
    /// Days after today (UTC) that have a partition.
    pub partitions_ahead: u64,
    /// Bytes of the default partition, without its indices; 0 when nothing was ever in it, or since it was
    /// emptied for the last time.
    pub default_partition_bytes: u64,
    /// Bytes of the ledger with its indices.
    pub ledger_bytes: u64,
}

/// Partitions are named after their day, so that their names sort as their days do.
const STATS: &str = r"
SELECT count(*) FILTER (WHERE c.relname ~ '^detections_p\d{8}$'),
       count(*) FILTER (WHERE c.relname ~ '^detections_p\d{8}$'
                          AND c.relname > 'detections_p' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')),
       coalesce(pg_relation_size(to_regclass('detections_default')), 0),
       coalesce(pg_total_relation_size(to_regclass('ledger')), 0)
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass('detections')";

impl Store {
    /// Asks the catalog how the tables stand.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn table_stats(&mut self) -> Result<TableStats, StoreError> {
        let connection = self.begin().await?;
        let done = within("ask how the tables stand", self.limit(), async {
            connection
                .client
                .query_one(STATS, &[])
                .await
                .map_err(StoreError::statement("ask how the tables stand"))
        })
        .await;
        let row = self.end(connection, done)?;
        let number = |at: usize| row.get::<_, i64>(at).cast_unsigned();
        Ok(TableStats {
            partitions: number(0),
            partitions_ahead: number(1),
            default_partition_bytes: number(2),
            ledger_bytes: number(3),
        })
    }
}
