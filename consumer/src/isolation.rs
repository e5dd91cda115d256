//! Finds the rows that Postgres refuses where it names none.
//!
//! A COPY names the line it refuses; an upsert, a trigger or a deferred constraint does not. The entry is
//! then tried in halves, in transactions that are always rolled back, until the rows are found that are
//! refused by themselves.

use std::ops::Range;

use tokio_postgres::error::DbError;

use crate::{
    batch::Batch,
    store::{CommitError, Recovery, Store, StoreError},
};

/// Rows of one entry that are looked for; of an entry with more, all is refused.
const MAX_ROWS: usize = 100;

/// A row and why it is refused.
pub(crate) struct RefusedRow {
    /// Its place among the rows of the entry that are to be stored.
    pub(crate) nth: usize,
    pub(crate) sqlstate: String,
    pub(crate) message: String,
}

/// The rows that are refused by themselves of a batch with one entry, in order. None when they are
/// refused only together, or when they are too many to look for.
///
/// # Errors
///
/// What else went wrong, as for a commit.
pub(crate) async fn refused_rows(
    store: &mut Store,
    batch: &Batch,
) -> Result<Vec<RefusedRow>, StoreError> {
    let mut refused = Vec::new();
    let all = 0..batch.n_rows_to_store();
    let mut ranges = Vec::<Range<usize>>::from([all]);
    while let Some(range) = ranges.pop() {
        if range.is_empty() {
            continue;
        }
        let Err(CommitError { error, .. }) = store.rehearse(&batch.only_rows(range.clone())).await
        else {
            continue;
        };
        if error.recovery() != Recovery::DeadLetter {
            return Err(error);
        }
        if range.len() > 1 {
            let middle = range.start + range.len() / 2;
            ranges.push(middle..range.end);
            ranges.push(range.start..middle);
            continue;
        }
        if refused.len() == MAX_ROWS {
            return Ok(Vec::new());
        }
        let db = error.db_error();
        refused.push(RefusedRow {
            nth: range.start,
            sqlstate: db.map_or_else(String::new, |db| db.code().code().to_owned()),
            message: db.map_or_else(|| error.to_string(), |db: &DbError| db.message().to_owned()),
        });
    }
    Ok(refused)
}
