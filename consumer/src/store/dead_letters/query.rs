//! Finds dead letters, in pages of bounded size.
//!
//! Camera and session stand in columns that are filled when a letter is written. Letters of before that have
//! NULL there; their payload is read instead, so that a filter finds the same letters whenever they were
//! written.

use chrono::{DateTime, Utc};
use passerby_shared::IdempotencyKey;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::{DeadLetterFilter, Reason, decode_fields, filter::Conditions, sources_of};
use crate::{
    batch::RawFields,
    store::{Store, StoreError, connection::within},
};

/// Letters read at a time.
pub(super) const PAGE: i64 = 500;
/// And no more bytes of them, unless a single one is larger.
const PAGE_BYTES: i64 = 8 << 20;

/// What has become of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum LetterState {
    /// Nobody has decided yet.
    Waiting,
    /// It was put back into its stream.
    Requeued,
    /// Somebody has decided that it is not to be stored.
    Discarded,
}

impl LetterState {
    /// The state in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Requeued => "requeued",
            Self::Discarded => "discarded",
        }
    }

    /// The condition in SQL; that of `Waiting` is that of the partial index.
    pub(super) const fn condition(self) -> &'static str {
        match self {
            Self::Waiting => "requeued_at IS NULL AND discarded_at IS NULL",
            Self::Requeued => "requeued_at IS NOT NULL AND discarded_at IS NULL",
            Self::Discarded => "discarded_at IS NOT NULL",
        }
    }
}

/// A row of `dead_letters`.
#[derive(Debug, Clone)]
pub struct DeadLetterRecord {
    /// The letter's number.
    pub id: i64,
    /// When it was written.
    pub dead_lettered_at: DateTime<Utc>,
    /// The stream it came from.
    pub stream: String,
    /// The entry it is, or was in.
    pub entry_id: String,
    /// The entry's idempotency key.
    pub key: IdempotencyKey,
    /// The row within the entry; `None` for the whole entry.
    pub row_idx: Option<i32>,
    /// The kind of the rows, where it could be read.
    pub kind: Option<String>,
    /// See [`Reason::as_str`].
    pub reason: String,
    /// What is wrong, for people.
    pub message: String,
    /// What Postgres said, if it was Postgres.
    pub sqlstate: Option<String>,
    /// The entry's fields; for a row, with a payload that holds this row alone.
    pub fields: RawFields,
    /// The cameras of its rows, as far as they can be read.
    pub camera_ids: Vec<String>,
    /// The sessions of its rows, as far as they can be read.
    pub session_ids: Vec<String>,
    /// When it was last put back into its stream.
    pub requeued_at: Option<DateTime<Utc>>,
    /// The idempotency key it was put back with.
    pub requeued_key: Option<IdempotencyKey>,
    /// When it was discarded.
    pub discarded_at: Option<DateTime<Utc>>,
    /// Who discarded it.
    pub discarded_by: Option<String>,
    /// Why it was discarded.
    pub discard_reason: Option<String>,
}

impl DeadLetterRecord {
    /// What has become of it.
    pub fn state(&self) -> LetterState {
        match (self.discarded_at, self.requeued_at) {
            (Some(_), _) => LetterState::Discarded,
            (None, Some(_)) => LetterState::Requeued,
            (None, None) => LetterState::Waiting,
        }
    }

    /// Of an invalid row, the field that is wrong, as its message begins with it.
    pub fn bad_field(&self) -> Option<&str> {
        let (field, _) = self.message.split_once(": ")?;
        (self.reason == Reason::InvalidRow.as_str()).then_some(field)
    }
}

/// How letters are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// Whether the fields are read always, which are most of a letter's bytes, or only where camera and session
    /// must be read out of them.
    pub(super) whole: bool,
    /// A condition beside those of the filter.
    pub(super) condition: &'static str,
    /// How they are locked.
    pub(super) locking: &'static str,
}

impl Reading {
    /// Without the fields.
    pub(super) const HEADS: Self = Self {
        whole: false,
        condition: "TRUE",
        locking: "",
    };
    /// With the fields.
    pub(super) const WHOLE: Self = Self {
        whole: true,
        ..Self::HEADS
    };
}

/// Some of the letters that match, the oldest.
pub(super) struct Page {
    /// Those that match.
    pub(super) letters: Vec<DeadLetterRecord>,
    /// The number of the last one looked at; `None` when there are no more.
    pub(super) last: Option<i64>,
}

/// Reads some of the letters that match.
pub(super) async fn page(
    client: &Client,
    filter: &DeadLetterFilter,
    reading: Reading,
) -> Result<Page, tokio_postgres::Error> {
    let mut conditions = Conditions::of(filter);
    conditions.and_always(reading.condition);
    let limit = conditions.param(filter.limit.min(PAGE));
    let locking = reading.locking;
    let fields = if reading.whole {
        "fields"
    } else {
        "CASE WHEN camera_ids IS NULL THEN fields END"
    };
    let sql = format!(
        "WITH found AS MATERIALIZED (
             SELECT id, {fields} AS needed_fields
             FROM dead_letters
             WHERE {}
             ORDER BY id
             LIMIT {limit}
             {locking}
         ), sized AS (
             SELECT id, needed_fields,
                    sum(octet_length(needed_fields)) OVER (ORDER BY id)
                        - octet_length(needed_fields) AS n_bytes_before
             FROM found
         )
         SELECT id, dead_lettered_at, stream, entry_id, idempotency_key, row_idx, kind, reason,
                message, sqlstate, needed_fields, camera_ids, session_ids, requeued_at, requeued_key,
                discarded_at, discarded_by, discard_reason
         FROM dead_letters JOIN sized USING (id)
         WHERE coalesce(n_bytes_before, 0) < {PAGE_BYTES}
         ORDER BY id",
        conditions.sql
    );
    let rows = client.query(&sql, &conditions.params()).await?;
    let last = rows.last().map(|row| row.get(0));
    let mut letters: Vec<DeadLetterRecord> = rows.iter().map(from_row).collect();
    letters.retain(|letter| filter.is_about(letter));
    Ok(Page { letters, last })
}

impl Store {
    /// The dead letters that match, oldest first, with all their fields.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn query_dead_letters(
        &mut self,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<DeadLetterRecord>, StoreError> {
        self.find_dead_letters(filter, Reading::WHOLE).await
    }

    /// As [`Store::query_dead_letters`], without the fields.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn list_dead_letters(
        &mut self,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<DeadLetterRecord>, StoreError> {
        self.find_dead_letters(filter, Reading::HEADS).await
    }

    async fn find_dead_letters(
        &mut self,
        filter: &DeadLetterFilter,
        reading: Reading,
    ) -> Result<Vec<DeadLetterRecord>, StoreError> {
        let connection = self.begin().await?;
        let done = within("query dead letters", self.limit(), async {
            let mut filter = filter.clone();
            let mut letters = Vec::new();
            while filter.limit > 0 {
                let page = page(&connection.client, &filter, reading)
                    .await
                    .map_err(StoreError::statement("query `dead_letters`"))?;
                let Some(last) = page.last else { break };
                filter.after = last;
                filter.limit -= i64::try_from(page.letters.len()).unwrap_or(i64::MAX);
                letters.extend(page.letters);
            }
            Ok(letters)
        })
        .await;
        self.end(connection, done)
    }

    /// The number of the newest dead letter; 0 when there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the server cannot be reached or refuses.
    pub async fn last_dead_letter(&mut self) -> Result<i64, StoreError> {
        let connection = self.begin().await?;
        let done = within("look for the newest dead letter", self.limit(), async {
            let row = connection
                .client
                .query_one("SELECT coalesce(max(id), 0) FROM dead_letters", &[])
                .await
                .map_err(StoreError::statement("query `dead_letters`"))?;
            Ok(row.get(0))
        })
        .await;
        self.end(connection, done)
    }
}

fn from_row(row: &Row) -> DeadLetterRecord {
    let fields = row
        .get::<_, Option<&[u8]>>(10)
        .map(decode_fields)
        .unwrap_or_default();
    let (camera_ids, session_ids) = match (row.get(11), row.get(12)) {
        (Some(camera_ids), Some(session_ids)) => (camera_ids, session_ids),
        _ => {
            let sources = sources_of(&fields);
            (
                Vec::from_iter(sources.camera_ids),
                Vec::from_iter(sources.session_ids),
            )
        }
    };
    DeadLetterRecord {
        id: row.get(0),
        dead_lettered_at: row.get(1),
        stream: row.get(2),
        entry_id: row.get(3),
        key: row.get::<_, Uuid>(4).into(),
        row_idx: row.get(5),
        kind: row.get(6),
        reason: row.get(7),
        message: row.get(8),
        sqlstate: row.get(9),
        fields,
        camera_ids,
        session_ids,
        requeued_at: row.get(13),
        requeued_key: row.get::<_, Option<Uuid>>(14).map(Into::into),
        discarded_at: row.get(15),
        discarded_by: row.get(16),
        discard_reason: row.get(17),
    }
}
