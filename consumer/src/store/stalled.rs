//! Ends transactions of workers that stopped in the middle of a COPY.
//!
//! A worker that is frozen, or cut off without its server's noticing, keeps its transaction open, and
//! with it the ledger keys of its entries: whoever took these entries over waits for them. Outside of
//! a statement `idle_in_transaction_session_timeout` ends such a transaction; within a COPY, where the
//! server waits for the client's next rows, nothing does. `statement_timeout` does not count there.
//!
//! Ending one is harmless whomever it meets: its entries are stored by whoever waits, and should the
//! worker wake up it finds its connection gone and asks the ledger.

use std::time::Duration;

use tracing::{debug, warn};

use super::{
    Store,
    connection::{Connection, answer},
};
use passerby_shared::ErrorChain;

/// Transactions of this role that hold rows of the ledger and have been waiting for their client's COPY
/// data since before a number of seconds.
const END_STALLED: &str = "
SELECT pid, pg_terminate_backend(pid)
FROM pg_stat_activity AS activity
WHERE datname = current_database()
  AND usename = current_user
  AND pid <> pg_backend_pid()
  AND state = 'active'
  AND wait_event_type = 'Client'
  AND wait_event = 'ClientRead'
  AND query LIKE 'COPY %'
  AND query_start < clock_timestamp() - make_interval(secs => $1)
  AND EXISTS (
      SELECT FROM pg_locks
      WHERE pg_locks.pid = activity.pid
        AND locktype = 'relation'
        AND relation = 'ledger'::regclass
        AND mode = 'RowExclusiveLock'
        AND granted
  )";

impl Store {
    /// Ends what stands in the way of a commit that waited for a lock in vain.
    pub(super) async fn end_stalled_commits(&mut self) {
        // A worker that lives gives up a silent server by then, so whoever is silent longer is no
        // living worker.
        let stalled_for = self.timeouts().silence * 5 / 4;
        match self.try_end_stalled(stalled_for).await {
            Ok(0) => {}
            Ok(n) => warn!(
                n_transactions = n,
                "ended transactions whose worker stopped in the middle of a COPY"
            ),
            Err(error) => debug!(
                error = %ErrorChain(&error),
                "cannot look for stalled transactions: waiting for them"
            ),
        }
    }

    async fn try_end_stalled(&mut self, stalled_for: Duration) -> Result<usize, super::StoreError> {
        let connection = self.begin().await?;
        let done = end_stalled(&connection, stalled_for).await;
        self.end(connection, done)
    }
}

async fn end_stalled(
    connection: &Connection,
    stalled_for: Duration,
) -> Result<usize, super::StoreError> {
    let doing = "end stalled transactions";
    let preparing = connection.client.prepare(END_STALLED);
    let statement = answer(connection.silence, doing, preparing).await?;
    let seconds = stalled_for.as_secs_f64();
    let ended = answer(
        connection.silence,
        doing,
        connection.client.query(&statement, &[&seconds]),
    )
    .await?;
    Ok(ended.iter().filter(|row| row.get::<_, bool>(1)).count())
}
