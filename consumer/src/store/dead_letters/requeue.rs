//! Takes letters out to be put back into their streams, so that nobody else does at the same time.

use passerby_shared::IdempotencyKey;
use uuid::Uuid;

use super::{
    DeadLetterFilter, DeadLetterRecord,
    query::{Reading, page},
};
use crate::store::{
    Store, StoreError,
    connection::{Connection, within},
};

/// Somebody who stalls with letters in hand holds up who wants to discard them, for no longer than this.
const BEGIN: &str = "
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL synchronous_commit = on;
SET LOCAL lock_timeout = '5s';
SET LOCAL idle_in_transaction_session_timeout = '60s'";

const MARK: &str = "
UPDATE dead_letters
SET requeued_at    = now(),
    requeued_key   = put_back.key,
    discarded_at   = NULL,
    discarded_by   = NULL,
    discard_reason = NULL
FROM unnest($1::bigint[], $2::uuid[]) AS put_back (id, key)
WHERE dead_letters.id = put_back.id";

/// Letters that nobody else can put back or discard until they are marked, or dropped.
#[derive(Debug)]
pub struct TakenLetters {
    letters: Vec<DeadLetterRecord>,
    last: i64,
    connection: Connection,
}

impl TakenLetters {
    /// The letters.
    pub fn letters(&self) -> &[DeadLetterRecord] {
        &self.letters
    }

    /// The number of the last letter that was looked at.
    pub fn last(&self) -> i64 {
        self.last
    }
}

impl Store {
    /// Takes some of the letters that match, the oldest that nobody else has taken; `None` when there are no
    /// more.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn take_dead_letters(
        &mut self,
        filter: &DeadLetterFilter,
    ) -> Result<Option<TakenLetters>, StoreError> {
        const TAKE: Reading = Reading {
            locking: "FOR UPDATE SKIP LOCKED",
            ..Reading::WHOLE
        };
        let connection = self.begin().await?;
        let done = within("take dead letters", self.limit(), async {
            let failed = || StoreError::statement("take rows of `dead_letters`");
            connection
                .client
                .batch_execute(BEGIN)
                .await
                .map_err(failed())?;
            let page = page(&connection.client, filter, TAKE)
                .await
                .map_err(failed())?;
            if page.last.is_none() {
                connection
                    .client
                    .batch_execute("ROLLBACK")
                    .await
                    .map_err(failed())?;
            }
            Ok(page)
        })
        .await;
        match done {
            Ok(page) => match page.last {
                Some(last) => Ok(Some(TakenLetters {
                    letters: page.letters,
                    last,
                    connection,
                })),
                None => self.end(connection, Ok(None)),
            },
            Err(error) => self.end(connection, Err(error)),
        }
    }

    /// Notes which of the letters that were taken are in their streams again, with their new keys, and lets
    /// go of all.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses. The letters then wait as before: to put
    /// them back once more, with the same keys, is safe.
    pub async fn mark_requeued(
        &mut self,
        taken: TakenLetters,
        put_back: &[(i64, IdempotencyKey)],
    ) -> Result<(), StoreError> {
        let connection = taken.connection;
        let ids: Vec<i64> = put_back.iter().map(|(id, _)| *id).collect();
        let keys: Vec<Uuid> = put_back.iter().map(|(_, key)| key.as_uuid()).collect();
        let done = within("mark dead letters", self.limit(), async {
            let failed = || StoreError::statement("update rows of `dead_letters`");
            if !ids.is_empty() {
                connection
                    .client
                    .execute(MARK, &[&ids, &keys])
                    .await
                    .map_err(failed())?;
            }
            connection
                .client
                .batch_execute("COMMIT")
                .await
                .map_err(failed())
        })
        .await;
        self.end(connection, done)
    }
}
