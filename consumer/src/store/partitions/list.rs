//! What partitions there are, and what is in them, from the catalog alone.

use chrono::{DateTime, NaiveDate, Utc};
use tokio_postgres::Client;

use crate::store::{Store, StoreError, connection::within};

/// The default partition is counted up to this size unless somebody asks for it.
const COUNTED_BYTES: i64 = 256 << 20;

/// Estimated as the planner does: rows a page at the last ANALYZE, times the pages there are now. Before the
/// first one the statistics collector has seen how many rows came in.
const LIST: &str = "
SELECT format('%I.%I', nspname, pg_class.relname),
       expr = 'DEFAULT',
       (regexp_match(expr, 'FROM \\(''([^'']+)''\\)'))[1]::timestamptz,
       (regexp_match(expr, 'TO \\(''([^'']+)''\\)'))[1]::timestamptz,
       CASE WHEN relpages > 0 AND reltuples > 0
            THEN round(reltuples / relpages * (pg_relation_size(pg_class.oid) / current_setting('block_size')::int))
            ELSE coalesce(n_live_tup, 0)
       END::bigint,
       pg_table_size(pg_class.oid),
       pg_indexes_size(pg_class.oid)
FROM pg_inherits
JOIN pg_class ON pg_class.oid = inhrelid
JOIN pg_namespace ON pg_namespace.oid = relnamespace
LEFT JOIN pg_stat_all_tables ON relid = pg_class.oid
CROSS JOIN LATERAL pg_get_expr(relpartbound, pg_class.oid) AS expr
WHERE inhparent = 'detections'::regclass
ORDER BY 3 NULLS LAST, 1";

const DEFAULT_DAYS: &str = "
SELECT (timestamp AT TIME ZONE 'UTC')::date, count(*)
FROM detections_default
GROUP BY 1
ORDER BY 1";

/// Ranges of blocks that the BRIN indices of a partition have summarized, of how many. A page of the revmap has
/// 1360 places, of which those of ranges without a summary are (0,0).
const SUMMARIZED: &str = "
WITH brin AS (
    SELECT indexrelid::regclass::text AS name,
           ceil(pg_relation_size(indrelid) / current_setting('block_size')::float8
                / coalesce((SELECT option_value::int
                            FROM pg_options_to_table(reloptions)
                            WHERE option_name = 'pages_per_range'), 128)
           )::bigint AS n_ranges
    FROM pg_index
    JOIN pg_class ON pg_class.oid = indexrelid
    JOIN pg_am ON pg_am.oid = relam
    WHERE indrelid = $1::text::regclass AND amname = 'brin'
)
SELECT coalesce(sum(n_ranges), 0)::bigint,
       coalesce(sum((
           SELECT count(*)
           FROM generate_series(1, ceil(n_ranges / 1360.0)::int) AS block
           CROSS JOIN LATERAL brin_revmap_data(get_raw_page(name, block)) AS place
           WHERE place <> '(0,0)'
       )), 0)::bigint
FROM brin";

/// The partitions of `detections`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Partitions {
    /// Those of a span of time, oldest first.
    pub partitions: Vec<Partition>,
    /// The quarantine; `None` when somebody has removed it.
    pub default: Option<DefaultPartition>,
}

/// The partition of a day, as a rule.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Partition {
    /// Its name, quoted as SQL wants it.
    pub name: String,
    /// From this time on.
    pub from: Option<DateTime<Utc>>,
    /// Up to this time.
    pub to: Option<DateTime<Utc>>,
    /// Rows, estimated.
    pub rows_estimate: i64,
    /// Bytes of rows.
    pub bytes: i64,
    /// Bytes of indices.
    pub index_bytes: i64,
    /// Ranges of blocks of its BRIN indices, where the extension pageinspect tells.
    pub brin_ranges: Option<i64>,
    /// Those that are summarized: a query by time reads all of the others.
    pub brin_ranges_summarized: Option<i64>,
}

impl Partition {
    /// The day that it is of; `None` when it is not of one UTC day.
    pub fn day(&self) -> Option<NaiveDate> {
        let (from, to) = (self.from?, self.to?);
        let is_day =
            from.time() == chrono::NaiveTime::MIN && to - from == chrono::TimeDelta::days(1);
        is_day.then(|| from.date_naive())
    }
}

/// Rows of days without a partition.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DefaultPartition {
    /// Rows, estimated.
    pub rows_estimate: i64,
    /// Bytes of rows.
    pub bytes: i64,
    /// Bytes of indices.
    pub index_bytes: i64,
    /// Its rows by day; `None` when it is too large to be counted unasked.
    pub days: Option<Vec<DefaultDay>>,
}

/// Rows of one day in the default partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DefaultDay {
    /// The UTC day.
    pub day: NaiveDate,
    /// Rows, counted.
    pub rows: i64,
}

impl Store {
    /// The partitions of `detections`, from the catalog. The default partition's rows are counted by day when it
    /// is not large, or when `count` says so.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn partitions(&mut self, count: bool) -> Result<Partitions, StoreError> {
        let connection = self.begin().await?;
        let listing = list(&connection.client, count);
        let limit = if count {
            self.limit() * 30
        } else {
            self.limit()
        };
        let done = within("list partitions", limit, listing).await;
        self.end(connection, done)
    }
}

async fn list(client: &Client, count: bool) -> Result<Partitions, StoreError> {
    let failed = || StoreError::statement("list partitions");
    let rows = client.query(LIST, &[]).await.map_err(failed())?;
    let can_inspect: bool = client
        .query_one(
            "SELECT to_regproc('brin_revmap_data') IS NOT NULL AND to_regprocedure('get_raw_page(text,bigint)') IS NOT NULL
                    AND pg_has_role(current_user, 'pg_read_all_data', 'MEMBER') AND current_setting('is_superuser')::boolean",
            &[],
        )
        .await
        .map_err(failed())?
        .get(0);
    let mut found = Partitions {
        partitions: Vec::new(),
        default: None,
    };
    for row in &rows {
        let (name, is_default): (String, Option<bool>) = (row.get(0), row.get(1));
        let (rows_estimate, bytes, index_bytes) = (row.get(4), row.get(5), row.get(6));
        if is_default == Some(true) {
            let days = if count || bytes <= COUNTED_BYTES {
                let days = client.query(DEFAULT_DAYS, &[]).await;
                let days = days.map_err(StoreError::statement("count the default partition"))?;
                let day = |row: &tokio_postgres::Row| DefaultDay {
                    day: row.get(0),
                    rows: row.get(1),
                };
                Some(days.iter().map(day).collect())
            } else {
                None
            };
            found.default = Some(DefaultPartition {
                rows_estimate,
                bytes,
                index_bytes,
                days,
            });
            continue;
        }
        let summarized = if can_inspect {
            let counted = client.query_one(SUMMARIZED, &[&name]).await;
            Some(counted.map_err(StoreError::statement("look into BRIN indices"))?)
        } else {
            None
        };
        found.partitions.push(Partition {
            name,
            from: row.get(2),
            to: row.get(3),
            rows_estimate,
            bytes,
            index_bytes,
            brin_ranges: summarized.as_ref().map(|row| row.get(0)),
            brin_ranges_summarized: summarized.as_ref().map(|row| row.get(1)),
        });
    }
    Ok(found)
}
