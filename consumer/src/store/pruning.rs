//! Lets the ledger forget keys that cannot come back.
//!
//! The horizon is moved forward first, in a transaction of its own, and keys made before it are removed
//! then. A commit enters its keys first and looks at the horizon then. So whoever enters a key that was
//! removed sees the horizon behind it, knows that the ledger cannot tell, and stores nothing: such an entry
//! becomes the dead letter `too-old`.

use chrono::{DateTime, Utc};
use tracing::info;

use super::{
    Store, StoreError,
    connection::{Connection, Prepared, answer, within},
    migrations::MAINTENANCE_LOCK,
};

/// Keys removed in one transaction.
const PAGE: i64 = 20_000;
/// Pages removed in one go; the rest is for the next time.
const MAX_PAGES: usize = 500;

pub(super) const HORIZON: &str =
    "SELECT coalesce(max(pruned_below), '1970-01-01 00:00:00+00') FROM ledger_horizon";

const MOVE_HORIZON: &str = "
INSERT INTO ledger_horizon (pruned_below) VALUES ($1)
ON CONFLICT (only_row) DO UPDATE
SET pruned_below = greatest(ledger_horizon.pruned_below, excluded.pruned_below)";

/// `entry_ms` stands there for the BRIN index: an entry is not older than its key.
const PRUNE: &str = "
DELETE FROM ledger
WHERE ctid = ANY (ARRAY(
    SELECT ctid
    FROM ledger
    WHERE entry_ms < (extract(epoch FROM $1::timestamptz) * 1000)::bigint
      AND made_at < $1
    LIMIT $2
))";

/// Keys made before this time may have been forgotten.
pub(super) async fn horizon(
    connection: &Connection,
    prepared: &Prepared,
) -> Result<DateTime<Utc>, StoreError> {
    let asking = connection.client.query_one(&prepared.horizon, &[]);
    let row = answer(connection.silence, "look at the ledger's horizon", asking).await?;
    Ok(row.get(0))
}

impl Store {
    /// The time before which keys may have been forgotten.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn ledger_horizon(&mut self) -> Result<DateTime<Utc>, StoreError> {
        let mut connection = self.begin().await?;
        let done = within("look at the ledger's horizon", self.limit(), async {
            let prepared = connection.prepared().await?;
            horizon(&connection, &prepared).await
        })
        .await;
        self.end(connection, done)
    }

    /// Forgets the keys of entries that are older than `below`, of which none may come back, and returns
    /// how many; `None` when somebody else is at it.
    ///
    /// An entry with a key that was made before `below` is dead-lettered from now on, unless the ledger
    /// still knows it. Keys that do not tell when they were made are never forgotten.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses. Some keys may be forgotten already.
    pub async fn prune_ledger(&mut self, below: DateTime<Utc>) -> Result<Option<u64>, StoreError> {
        let connection = self.begin().await?;
        let done = within(
            "prune the ledger",
            self.limit(),
            prune(&connection, below, MAX_PAGES),
        )
        .await;
        let pruned = self.end(connection, done)?;
        if let Some(n_keys) = pruned.filter(|n| *n > 0) {
            info!(n_keys, %below, "ledger pruned");
        }
        Ok(pruned)
    }

    /// As [`Store::prune_ledger`], a part of it at a time: `Some(0)` when there is no more to forget.
    ///
    /// # Errors
    ///
    /// As [`Store::prune_ledger`].
    pub async fn prune_some_of_ledger(
        &mut self,
        below: DateTime<Utc>,
    ) -> Result<Option<u64>, StoreError> {
        const SOME_PAGES: usize = 10;
        let connection = self.begin().await?;
        let pruning = prune(&connection, below, SOME_PAGES);
        let done = within("prune the ledger", self.limit(), pruning).await;
        self.end(connection, done)
    }
}

async fn prune(
    connection: &Connection,
    below: DateTime<Utc>,
    max_pages: usize,
) -> Result<Option<u64>, StoreError> {
    let failed = || StoreError::statement("prune the ledger");
    let client = &connection.client;
    let is_ours: bool = client
        .query_one("SELECT pg_try_advisory_lock($1)", &[&MAINTENANCE_LOCK])
        .await
        .map_err(failed())?
        .get(0);
    if !is_ours {
        return Ok(None);
    }
    client
        .execute(MOVE_HORIZON, &[&below])
        .await
        .map_err(StoreError::statement("move the ledger's horizon"))?;
    let mut n_pruned = 0;
    for _ in 0..max_pages {
        let n = client
            .execute(PRUNE, &[&below, &PAGE])
            .await
            .map_err(failed())?;
        n_pruned += n;
        if n < PAGE.cast_unsigned() {
            break;
        }
    }
    client
        .execute("SELECT pg_advisory_unlock($1)", &[&MAINTENANCE_LOCK])
        .await
        .map_err(failed())?;
    Ok(Some(n_pruned))
}
