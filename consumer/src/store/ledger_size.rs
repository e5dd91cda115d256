//! How large the ledger is, without reading it whole.

use chrono::{DateTime, Utc};
use tokio_postgres::Client;

use super::{Store, StoreError, connection::within, pruning::HORIZON};

/// Pages looked at for an estimate.
const SAMPLED_PAGES: f64 = 500.0;

const SIZE: &str = "
SELECT CASE WHEN relpages > 0 AND reltuples > 0
            THEN round(reltuples / relpages * (pg_relation_size(pg_class.oid) / current_setting('block_size')::int))
            ELSE coalesce(n_live_tup, 0)
       END::bigint,
       pg_table_size(pg_class.oid),
       pg_indexes_size(pg_class.oid),
       pg_relation_size(pg_class.oid) / current_setting('block_size')::int
FROM pg_class
LEFT JOIN pg_stat_all_tables ON relid = pg_class.oid
WHERE pg_class.oid = 'ledger'::regclass";

/// What the ledger holds.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LedgerSize {
    /// Keys.
    pub keys: i64,
    /// Keys that do not tell when they were made, and are never forgotten.
    pub keys_kept_for_ever: i64,
    /// The oldest key that can be forgotten, by when it was made.
    pub oldest_key: Option<DateTime<Utc>>,
    /// All of it was counted; else it is estimated from a sample.
    pub is_exact: bool,
    /// Bytes of rows.
    pub bytes: i64,
    /// Bytes of indices.
    pub index_bytes: i64,
    /// Keys made before this time may have been forgotten; `None` while none was.
    pub horizon: Option<DateTime<Utc>>,
}

impl Store {
    /// How large the ledger is: estimated from a sample of it, or counted.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn ledger_size(&mut self, count: bool) -> Result<LedgerSize, StoreError> {
        let connection = self.begin().await?;
        let limit = if count {
            self.limit() * 30
        } else {
            self.limit()
        };
        let done = within("measure the ledger", limit, async {
            measure(&connection.client, count)
                .await
                .map_err(StoreError::statement("measure the ledger"))
        })
        .await;
        self.end(connection, done)
    }

    /// Counts the keys that pruning would forget.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn count_prunable_keys(&mut self, below: DateTime<Utc>) -> Result<u64, StoreError> {
        /// As pruning finds them.
        const COUNT: &str = "
            SELECT count(*)
            FROM ledger
            WHERE entry_ms < (extract(epoch FROM $1::timestamptz) * 1000)::bigint
              AND made_at < $1";
        let connection = self.begin().await?;
        let done = within("count keys", self.limit() * 30, async {
            let row = connection.client.query_one(COUNT, &[&below]).await;
            let row = row.map_err(StoreError::statement("count keys of the ledger"))?;
            Ok(row.get::<_, i64>(0).cast_unsigned())
        })
        .await;
        self.end(connection, done)
    }
}

async fn measure(client: &Client, count: bool) -> Result<LedgerSize, tokio_postgres::Error> {
    let size = client.query_one(SIZE, &[]).await?;
    let n_pages: i64 = size.get(3);
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let percent = (100.0 * SAMPLED_PAGES / n_pages as f64).min(100.0);
    let is_exact = count || percent >= 100.0;
    let sample = if is_exact {
        String::new()
    } else {
        // The same pages each time, so that two looks can be compared.
        format!("TABLESAMPLE SYSTEM ({percent:.6}) REPEATABLE (1)")
    };
    let sampled = client
        .query_one(
            &format!(
                "SELECT count(*), count(*) FILTER (WHERE made_at IS NULL), min(made_at)
                 FROM ledger {sample}"
            ),
            &[],
        )
        .await?;
    let (n_keys, n_kept): (i64, i64) = (sampled.get(0), sampled.get(1));
    let (keys, keys_kept_for_ever) = if is_exact {
        (n_keys, n_kept)
    } else {
        let keys: i64 = size.get(0);
        let kept = i128::from(keys) * i128::from(n_kept) / i128::from(n_keys.max(1));
        (keys, i64::try_from(kept).unwrap_or(keys))
    };
    let horizon: DateTime<Utc> = client.query_one(HORIZON, &[]).await?.get(0);
    Ok(LedgerSize {
        keys,
        keys_kept_for_ever,
        oldest_key: sampled.get(2),
        is_exact,
        bytes: size.get(1),
        index_bytes: size.get(2),
        horizon: (horizon > DateTime::UNIX_EPOCH).then_some(horizon),
    })
}
