//! Counts dead letters: by what is wrong, and by what became of them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use tokio_postgres::{Client, Row};

use super::{
    DeadLetterFilter, DeadLetterRecord, LetterState, Reason,
    filter::Conditions,
    query::{PAGE, Reading, page},
};
use crate::store::{Store, StoreError, connection::within};

/// Dead letters of one reason, SQLSTATE and field.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeadLetterCount {
    /// See [`Reason::as_str`].
    pub reason: String,
    /// What Postgres said, if it was Postgres.
    pub sqlstate: Option<String>,
    /// The field that is wrong, of invalid rows.
    pub field: Option<String>,
    /// Those of which nobody has decided yet.
    pub waiting: u64,
    /// Those that were put back.
    pub requeued: u64,
    /// Those that were discarded.
    pub discarded: u64,
    /// When the first of them was written.
    pub oldest: DateTime<Utc>,
    /// When the last of them was written.
    pub newest: DateTime<Utc>,
}

impl DeadLetterCount {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.waiting + self.requeued + self.discarded
    }

    fn add(&mut self, other: &Self) {
        self.waiting += other.waiting;
        self.requeued += other.requeued;
        self.discarded += other.discarded;
        self.oldest = self.oldest.min(other.oldest);
        self.newest = self.newest.max(other.newest);
    }
}

impl From<&DeadLetterRecord> for DeadLetterCount {
    fn from(letter: &DeadLetterRecord) -> Self {
        let is = |state| u64::from(letter.state() == state);
        Self {
            reason: letter.reason.clone(),
            sqlstate: letter.sqlstate.clone(),
            field: letter.bad_field().map(str::to_owned),
            waiting: is(LetterState::Waiting),
            requeued: is(LetterState::Requeued),
            discarded: is(LetterState::Discarded),
            oldest: letter.dead_lettered_at,
            newest: letter.dead_lettered_at,
        }
    }
}

impl Store {
    /// Counts the dead letters that match, by reason, SQLSTATE and field, whatever the filter's limit; the
    /// most frequent first.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn count_dead_letters(
        &mut self,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<DeadLetterCount>, StoreError> {
        let connection = self.begin().await?;
        let done = within("count dead letters", self.limit(), async {
            count(&connection.client, filter)
                .await
                .map_err(StoreError::statement("count `dead_letters`"))
        })
        .await;
        self.end(connection, done)
    }
}

async fn count(
    client: &Client,
    filter: &DeadLetterFilter,
) -> Result<Vec<DeadLetterCount>, tokio_postgres::Error> {
    let mut conditions = Conditions::of(filter);
    if filter.asks_for_sources() {
        conditions.and_always("camera_ids IS NOT NULL");
    }
    let invalid_row = conditions.param(Reason::InvalidRow.as_str());
    let [waiting, requeued, discarded] = [
        LetterState::Waiting,
        LetterState::Requeued,
        LetterState::Discarded,
    ]
    .map(LetterState::condition);
    let sql = format!(
        "SELECT reason, sqlstate,
                CASE WHEN reason = {invalid_row} AND message LIKE '%: %'
                     THEN split_part(message, ': ', 1) END AS field,
                count(*) FILTER (WHERE {waiting}),
                count(*) FILTER (WHERE {requeued}),
                count(*) FILTER (WHERE {discarded}),
                min(dead_lettered_at),
                max(dead_lettered_at)
         FROM dead_letters
         WHERE {}
         GROUP BY 1, 2, 3",
        conditions.sql
    );
    let rows = client.query(&sql, &conditions.params()).await?;
    let n = |row: &Row, at| row.get::<_, i64>(at).cast_unsigned();
    let mut counts: BTreeMap<_, DeadLetterCount> = BTreeMap::new();
    let mut add = |one: DeadLetterCount| {
        let name = (one.reason.clone(), one.sqlstate.clone(), one.field.clone());
        counts
            .entry(name)
            .and_modify(|all| all.add(&one))
            .or_insert(one);
    };
    for row in &rows {
        add(DeadLetterCount {
            reason: row.get(0),
            sqlstate: row.get(1),
            field: row.get(2),
            waiting: n(row, 3),
            requeued: n(row, 4),
            discarded: n(row, 5),
            oldest: row.get(6),
            newest: row.get(7),
        });
    }
    if filter.asks_for_sources() {
        const UNREAD: Reading = Reading {
            condition: "camera_ids IS NULL",
            ..Reading::HEADS
        };
        let mut unread = filter.clone();
        unread.limit = PAGE;
        loop {
            let page = page(client, &unread, UNREAD).await?;
            let Some(last) = page.last else { break };
            unread.after = last;
            page.letters.iter().for_each(|letter| add(letter.into()));
        }
    }
    let mut counts: Vec<_> = counts.into_values().collect();
    counts.sort_by_key(|count| std::cmp::Reverse(count.total()));
    Ok(counts)
}
