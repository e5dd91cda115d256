//! Sets dead letters aside, without destroying them; and destroys what was set aside long ago.
//!
//! A discarded letter stays whole, with who discarded it, when and why, and can be restored or put back until
//! it is purged. Each statement checks the letters' state anew, so that nothing is discarded that somebody puts
//! back at the same time.

use std::time::Duration;

use tokio_postgres::types::ToSql;

use super::{
    DeadLetterFilter, LetterState,
    query::{Reading, page},
};
use crate::store::{Store, StoreError, connection::within};

/// Who discards letters, and why.
#[derive(Debug, Clone)]
pub struct Discard {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

const DISCARD: &str = "
UPDATE dead_letters
SET discarded_at = now(), discarded_by = $2, discard_reason = $3
WHERE id = ANY ($1)
  AND discarded_at IS NULL
  AND (requeued_at IS NOT NULL) = $4";

const RESTORE: &str = "
UPDATE dead_letters
SET discarded_at = NULL, discarded_by = NULL, discard_reason = NULL
WHERE id = ANY ($1)
  AND discarded_at IS NOT NULL";

const PURGE: &str = "
DELETE FROM dead_letters
WHERE id = ANY ($1)
  AND discarded_at < now() - $2 * interval '1 second'";

impl Store {
    /// Discards the letters that match, of which nobody has decided yet, and returns how many. Letters that
    /// were put back are discarded where the filter asks for that state.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses. Some may be discarded already; to call it
    /// again is safe.
    pub async fn discard_dead_letters(
        &mut self,
        filter: &DeadLetterFilter,
        discard: &Discard,
    ) -> Result<u64, StoreError> {
        let are_requeued = filter.state == Some(LetterState::Requeued);
        let state = if are_requeued {
            LetterState::Requeued
        } else {
            LetterState::Waiting
        };
        let filter = DeadLetterFilter {
            state: Some(state),
            ..filter.clone()
        };
        let params: [&(dyn ToSql + Sync); 3] = [&discard.by, &discard.reason, &are_requeued];
        self.change_letters("discard dead letters", &filter, DISCARD, &params)
            .await
    }

    /// Lets the letters that match wait again, of those that were discarded, and returns how many.
    ///
    /// # Errors
    ///
    /// As [`Store::discard_dead_letters`].
    pub async fn restore_dead_letters(
        &mut self,
        filter: &DeadLetterFilter,
    ) -> Result<u64, StoreError> {
        let filter = DeadLetterFilter {
            state: Some(LetterState::Discarded),
            ..filter.clone()
        };
        self.change_letters("restore dead letters", &filter, RESTORE, &[])
            .await
    }

    /// Destroys the letters that match and were discarded so long ago, and returns how many.
    ///
    /// # Errors
    ///
    /// As [`Store::discard_dead_letters`].
    pub async fn purge_dead_letters(
        &mut self,
        filter: &DeadLetterFilter,
        older_than: Duration,
    ) -> Result<u64, StoreError> {
        let filter = DeadLetterFilter {
            state: Some(LetterState::Discarded),
            ..filter.clone()
        };
        let seconds = older_than.as_secs_f64();
        self.change_letters("purge dead letters", &filter, PURGE, &[&seconds])
            .await
    }

    /// Runs a statement on the letters that match, page by page: `$1` are their numbers.
    async fn change_letters(
        &mut self,
        doing: &'static str,
        filter: &DeadLetterFilter,
        statement: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, StoreError> {
        let mut filter = filter.clone();
        let mut n_changed = 0;
        while filter.limit > 0 {
            let connection = self.begin().await?;
            let done = within(doing, self.limit(), async {
                let page = page(&connection.client, &filter, Reading::HEADS)
                    .await
                    .map_err(StoreError::statement("query `dead_letters`"))?;
                let ids: Vec<i64> = page.letters.iter().map(|letter| letter.id).collect();
                let params = [&[&ids as &(dyn ToSql + Sync)], params].concat();
                let n = connection
                    .client
                    .execute(statement, &params)
                    .await
                    .map_err(StoreError::statement(doing))?;
                Ok((page.last, ids.len(), n))
            })
            .await;
            let (last, n_matched, n) = self.end(connection, done)?;
            n_changed += n;
            let Some(last) = last else { break };
            filter.after = last;
            filter.limit -= i64::try_from(n_matched).unwrap_or(i64::MAX);
        }
        Ok(n_changed)
    }
}
