//! Commits a batch: its rows, its dead letters and its ledger keys in one transaction.
//!
//! The fast path takes it that no entry was committed before and enters the keys into the ledger in the
//! packet that begins the transaction and the COPY; should one be there already, Postgres refuses them and
//! the careful path begins anew: it enters the keys that are new, and stores the rows of those alone. A batch
//! with an entry that was redelivered goes the careful way from the start.
//!
//! ```text
//! ──▶ BEGIN, hold sessions, enter keys, read the horizon, begin COPY     ◀── five answers
//! ──▶ rows, end of COPY, the books, COMMIT                               ◀── three answers
//! ```

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use passerby_shared::IdempotencyKey;
use tracing::warn;

use super::{
    DeadLetter, Reason, ReasonCounts, Store, StoreError,
    books::{Writer, Written, keep_and_commit},
    connection::{Connection, Prepared, answer, within},
    copy::{self, CopyIn},
    dead_letters,
    ledger::{self, IS_IN_TRANSACTION},
    pieces::Piece,
    pruning,
    sessions::{self, Joining},
    tracks,
};
use crate::{
    batch::{Batch, Origin, RowOrder},
    timing::Lap,
};

/// Proof that entries need no further delivery: stored, or written to the dead letters.
///
/// Only [`Store::commit`] makes one, after COMMIT, so an early `XACK` does not compile:
///
/// ```compile_fail,E0451
/// use passerby_consumer::{batch::Origin, store::Settled};
///
/// fn pretend(origins: Vec<Origin>) -> Settled {
///     Settled { origins } // error: field `origins` of struct `Settled` is private
/// }
/// ```
///
/// Nor can one be kept and used again:
///
/// ```compile_fail,E0599
/// fn twice(settled: passerby_consumer::store::Settled) {
///     drop(settled.clone());
/// }
/// ```
#[must_use = "settled entries stay pending until they are acknowledged"]
#[derive(Debug)]
pub struct Settled {
    origins: Vec<Origin>,
}

impl Settled {
    /// Where the entries stand in Redis.
    pub fn into_origins(self) -> Vec<Origin> {
        self.origins
    }
}

/// What a commit wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CommitReport {
    /// Entries committed now.
    pub entries: usize,
    /// Entries that the ledger knew already; nothing was written for them.
    pub duplicates: usize,
    /// Detections stored.
    pub detections: u64,
    /// Rows of `tracks` that changed.
    pub tracks: u64,
    /// Dead letters written.
    pub dead_letters: usize,
    /// Of these, how many have which reason.
    pub reasons: ReasonCounts,
    /// What it took.
    pub times: CommitTimes,
}

/// How long the parts of a commit took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CommitTimes {
    /// A connection, partitions, BEGIN and the ledger's keys.
    pub begin: Duration,
    /// The COPY.
    pub copy: Duration,
    /// Tracks, sessions and dead letters.
    pub others: Duration,
    /// COMMIT.
    pub commit: Duration,
}

impl CommitReport {
    fn dead_lettered(&mut self, reasons: ReasonCounts) {
        self.reasons = self.reasons.and(reasons);
        self.dead_letters = self.reasons.total();
    }
}

/// Begins a transaction. Every commit waits for the WAL's flush whatever the server's default, since
/// the acknowledgement that follows cannot be taken back. The timeouts bound what a stalled worker can
/// hold up, and what a slow server can hold up here.
fn begin_transaction(silence: Duration) -> String {
    let ms = |duration: Duration| duration.as_millis().max(1);
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED;
         SET LOCAL synchronous_commit = on;
         {IS_IN_TRANSACTION};
         SET LOCAL lock_timeout = {};
         SET LOCAL statement_timeout = {};
         SET LOCAL idle_in_transaction_session_timeout = {}",
        ms(silence * 2 / 5),
        ms(silence * 4 / 5),
        ms(silence * 5 / 4),
    )
}

/// A commit that failed, with what was in the COPY when it did.
#[derive(Debug)]
pub struct CommitError {
    /// What went wrong.
    pub error: StoreError,
    pub(crate) copying: Option<Copying>,
}

/// The rows that were being copied when a COPY failed.
#[derive(Debug)]
pub(crate) struct Copying {
    /// The entries whose rows they are, by index.
    pub(crate) entries: Vec<usize>,
    /// The order they went in, where it was not that of the entries.
    order: Option<Arc<RowOrder>>,
}

impl From<StoreError> for CommitError {
    fn from(error: StoreError) -> Self {
        Self {
            error,
            copying: None,
        }
    }
}

impl CommitError {
    /// The place of the refused row among those of the entries in [`CommitError::copying`], where Postgres
    /// named it.
    pub(crate) fn refused_row(&self) -> Option<usize> {
        let nth = copy::line_of(self.error.db_error()?)?.checked_sub(1)?;
        match &self.copying.as_ref()?.order {
            Some(order) => order.row(nth),
            None => Some(nth),
        }
    }
}

impl Store {
    /// Commits a batch, each of its entries unless it was committed before.
    ///
    /// # Errors
    ///
    /// Nothing was stored, or — when the connection broke during COMMIT — all of it was. In either
    /// case the same batch may be committed again: the ledger knows.
    ///
    /// # Cancel safety
    ///
    /// A dropped call leaves the same doubt as an error, and the same remedy.
    pub async fn commit(&mut self, batch: &Batch) -> Result<(Settled, CommitReport), CommitError> {
        let mut lap = Lap::begin();
        let mut connection = self.begin().await?;
        let limit = self.limit();
        let (url, timeouts) = (self.url().clone(), self.timeouts());
        let partitions = &mut self.partitions;
        let mut copying = None;
        let done = within("commit", limit, async {
            if !partitions.contains_all(&batch.days) {
                partitions.ensure(&mut connection, &batch.days).await?;
            }
            if !batch.may_be_known {
                let stored = fast_path(&mut connection, batch, &mut copying, &mut lap).await?;
                if let Some(report) = stored {
                    return Ok(report);
                }
                // Its COPY was refused, which leaves the driver out of step with the server; and what it
                // holds is released when it ends.
                connection = Connection::open(&url, timeouts).await?;
            }
            careful_path(&mut connection, batch, &mut copying, &mut lap).await
        })
        .await;
        match self.end(connection, done) {
            Ok(report) => {
                let origins = batch
                    .entries()
                    .iter()
                    .filter_map(|entry| entry.origin.clone())
                    .chain(batch.twins.iter().cloned())
                    .collect();
                Ok((Settled { origins }, report))
            }
            Err(error) => {
                self.partitions.forget();
                if error.is_lock_timeout() && !error.is_about("partition") {
                    self.end_stalled_commits().await;
                }
                Err(CommitError { error, copying })
            }
        }
    }
}

impl Store {
    /// Writes the rows of a batch as a commit would, and takes them back. Tells so whether Postgres
    /// would store them.
    ///
    /// # Errors
    ///
    /// As [`Store::commit`].
    pub(crate) async fn rehearse(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let mut connection = self.begin().await?;
        let limit = self.limit();
        let mut copying = None;
        let done = within("try rows", limit, async {
            let all: Vec<usize> = (0..batch.entries().len()).collect();
            let prepared = connection.prepared().await?;
            let joining = begin(&connection, &prepared, batch, &all).await?;
            let lap = &mut Lap::begin();
            write_rows(
                &connection,
                &prepared,
                batch,
                &all,
                joining,
                &mut copying,
                lap,
            )
            .await?;
            // What is deferred to the commit would otherwise never be heard of.
            let ending = "SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK";
            let ending = connection.client.batch_execute(ending);
            answer(connection.silence, "check deferred constraints", ending).await
        })
        .await;
        self.end(connection, done)
            .map_err(|error| CommitError { error, copying })
    }
}

/// Stores all entries; `None` when the ledger knows one of them, with nothing stored.
async fn fast_path(
    connection: &mut Connection,
    batch: &Batch,
    copying: &mut Option<Copying>,
    lap: &mut Lap,
) -> Result<Option<CommitReport>, StoreError> {
    let all: Vec<usize> = (0..batch.entries().len()).collect();
    let prepared = connection.prepared().await?;
    let books_row = connection.books.next(batch.key_prefix());
    let client = &connection.client;
    let pieces = Piece::of_batch(batch);
    let begin_copy = async {
        if pieces.is_empty() {
            return Ok(None);
        }
        CopyIn::begin(connection, copying_rows(batch), &prepared.copy_detections)
            .await
            .map(Some)
    };
    // All of it leaves in one packet, in this order: `join!` of futures-util polls in order, and the driver
    // sends what is polled. The horizon must be read after the keys are in. No row follows before all of it
    // is answered.
    let (begun, entered, horizon, copy) = futures_util::join!(
        begin(connection, &prepared, batch, &all),
        answer(
            connection.silence,
            format!("insert {} rows into `ledger`", all.len()),
            ledger::enter(client, &prepared.enter_keys, batch)
        ),
        pruning::horizon(connection, &prepared),
        begin_copy,
    );
    let joining = match (begun, entered) {
        (_, Err(error)) if ledger::is_taken(&error) => return Ok(None),
        // Whatever comes after a failure fails of it.
        (Err(first), _) | (Ok(_), Err(first)) => return Err(first),
        (Ok(joining), Ok(_)) => joining,
    };
    if batch.is_older_than(horizon?) {
        return Ok(None);
    }
    let mut report = CommitReport {
        entries: all.len(),
        ..CommitReport::default()
    };
    report.times.begin = lap.next();
    if let Some(copy) = copy? {
        *copying = Some(Copying {
            entries: all.clone(),
            order: batch.order.clone(),
        });
        if joining.is_done() && batch.is_only_detections() {
            let written = Written::of(batch, &all, &[], batch.n_detections() as u64);
            let committing = keep_and_commit(client, &prepared, books_row, written);
            let (copied, committed) = copy.send_then(pieces, committing).await;
            report.detections = copied?;
            *copying = None;
            report.times.copy = lap.next();
            answer(connection.silence, "commit", committed).await?;
            report.times.commit = lap.next();
            return Ok(Some(report));
        }
        report.detections = copy.send(pieces).await?;
        *copying = None;
    }
    report.times.copy = lap.next();
    write_others(connection, &prepared, batch, &all, joining, &mut report).await?;
    report.dead_lettered(write_dead_letters(connection, batch, &all).await?);
    report.times.others = lap.next();
    let written = Written::of(batch, &all, &[], report.detections);
    commit(connection, &prepared, books_row, written).await?;
    report.times.commit = lap.next();
    Ok(Some(report))
}

/// Stores the entries that the ledger does not know.
async fn careful_path(
    connection: &mut Connection,
    batch: &Batch,
    copying: &mut Option<Copying>,
    lap: &mut Lap,
) -> Result<CommitReport, StoreError> {
    let all: Vec<usize> = (0..batch.entries().len()).collect();
    let prepared = connection.prepared().await?;
    let books_row = connection.books.next(batch.key_prefix());
    let joining = begin(connection, &prepared, batch, &all).await?;
    let new: HashSet<IdempotencyKey> = answer(
        connection.silence,
        format!("insert {} rows into `ledger`", all.len()),
        ledger::enter_new(&connection.client, batch),
    )
    .await?
    .into_iter()
    .collect();
    let horizon = pruning::horizon(connection, &prepared).await?;
    let (too_old, included): (Vec<usize>, Vec<usize>) = all
        .iter()
        .copied()
        .filter(|&at| new.contains(&batch.entries()[at].key))
        .partition(|&at| batch.entries()[at].is_older_than(horizon));
    let begin = lap.next();
    let mut report = write_rows(
        connection, &prepared, batch, &included, joining, copying, lap,
    )
    .await?;
    report.times.begin = begin;
    report.dead_lettered(write_dead_letters(connection, batch, &included).await?);
    report.dead_lettered(write_too_old(connection, batch, &too_old, horizon).await?);
    report.times.others = lap.next();
    let written = Written::of(batch, &included, &too_old, report.detections);
    commit(connection, &prepared, books_row, written).await?;
    report.times.commit = lap.next();
    report.entries = included.len() + too_old.len();
    report.duplicates = all.len() - report.entries;
    Ok(report)
}

/// Begins the transaction, and holds the sessions that it writes rows of.
async fn begin(
    connection: &Connection,
    prepared: &Prepared,
    batch: &Batch,
    included: &[usize],
) -> Result<Joining, StoreError> {
    let session_ids: BTreeSet<&str> = included
        .iter()
        .flat_map(|&at| &batch.entries()[at].session_ids)
        .map(String::as_str)
        .collect();
    let silence = connection.silence;
    let begin = begin_transaction(silence);
    // Both requests leave in one packet: the driver pipelines what is polled together.
    let (begun, joined) = futures_util::join!(
        answer(silence, "begin", connection.client.batch_execute(&begin)),
        answer(
            silence,
            "lock rows of `sessions`",
            sessions::join(&connection.client, prepared, &session_ids)
        ),
    );
    begun.and(joined)
}

fn copying_rows(batch: &Batch) -> String {
    format!("copy {} rows into `detections`", batch.n_detections())
}

async fn commit(
    connection: &Connection,
    prepared: &Prepared,
    books_row: Writer<'_>,
    written: Written,
) -> Result<(), StoreError> {
    let committing = keep_and_commit(&connection.client, prepared, books_row, written);
    answer(connection.silence, "commit", committing).await
}

async fn write_rows(
    connection: &Connection,
    prepared: &Prepared,
    batch: &Batch,
    included: &[usize],
    joining: Joining,
    copying: &mut Option<Copying>,
    lap: &mut Lap,
) -> Result<CommitReport, StoreError> {
    let mut report = CommitReport::default();
    let pieces = Piece::of_entries(batch, included);
    if !pieces.is_empty() {
        *copying = Some(Copying {
            entries: included.to_vec(),
            order: None,
        });
        let statement = &prepared.copy_detections;
        let copy = CopyIn::begin(connection, copying_rows(batch), statement).await?;
        report.detections = copy.send(pieces).await?;
        *copying = None;
    }
    report.times.copy = lap.next();
    write_others(connection, prepared, batch, included, joining, &mut report).await?;
    Ok(report)
}

/// Writes what follows the detections.
async fn write_others(
    connection: &Connection,
    prepared: &Prepared,
    batch: &Batch,
    included: &[usize],
    joining: Joining,
    report: &mut CommitReport,
) -> Result<(), StoreError> {
    let (client, silence) = (&connection.client, connection.silence);
    let entries = || included.iter().map(|&at| &batch.entries()[at]);
    let announced = entries()
        .flat_map(|entry| &batch.sessions[entry.sessions.clone()])
        .collect();
    let joining = joining.finish(client, prepared, announced);
    answer(silence, "write to `sessions`", joining).await?;
    let merged = tracks::merged(entries().flat_map(|entry| &batch.tracks[entry.tracks.clone()]));
    if !merged.is_empty() {
        let doing = format!("upsert {} rows into `tracks`", merged.len());
        report.tracks = answer(silence, doing, tracks::upsert(client, &merged)).await?;
    }
    Ok(())
}

/// Writes the dead letters of the included entries and returns how many there are of which reason.
async fn write_dead_letters(
    connection: &Connection,
    batch: &Batch,
    included: &[usize],
) -> Result<ReasonCounts, StoreError> {
    let (lost, mut letters): (Vec<_>, Vec<_>) = included
        .iter()
        .flat_map(|&at| &batch.dead_letters[batch.entries()[at].dead_letters.clone()])
        .partition(|letter| letter.reason == Reason::Lost);
    if !lost.is_empty() {
        // What was stored before Redis lost it is not lost.
        let asking = ledger::stored_entries(&connection.client, &lost);
        let stored = answer(connection.silence, "look into the ledger", asking).await?;
        letters.extend(
            lost.into_iter()
                .enumerate()
                .filter(|(n, _)| stored.binary_search(n).is_err())
                .map(|(_, letter)| letter),
        );
    }
    insert_dead_letters(connection, &letters).await
}

/// Writes dead letters of entries that may have been stored, and forgotten, long ago.
async fn write_too_old(
    connection: &Connection,
    batch: &Batch,
    too_old: &[usize],
    horizon: DateTime<Utc>,
) -> Result<ReasonCounts, StoreError> {
    let letters: Vec<DeadLetter> = too_old
        .iter()
        .map(|&at| &batch.entries()[at])
        .filter_map(|entry| {
            let made_at = entry.made_at?;
            warn!(
                entry_id = entry.origin.as_ref().map(|o| tracing::field::display(o.id)),
                %made_at,
                %horizon,
                "entry is older than the ledger's horizon: dead-lettered"
            );
            Some(DeadLetter {
                origin: entry.origin.clone()?,
                key: entry.key,
                row_idx: None,
                kind: None,
                reason: Reason::TooOld,
                message: format!(
                    "its key was made at {made_at}, before the ledger's horizon ({horizon}): nobody can \
                     tell any more whether it was stored; look for its rows before putting it back"
                ),
                sqlstate: None,
                fields: entry.fields.clone(),
            })
        })
        .collect();
    let letters: Vec<&DeadLetter> = letters.iter().collect();
    insert_dead_letters(connection, &letters).await
}

async fn insert_dead_letters(
    connection: &Connection,
    letters: &[&DeadLetter],
) -> Result<ReasonCounts, StoreError> {
    if !letters.is_empty() {
        let doing = format!("insert {} rows into `dead_letters`", letters.len());
        let inserting = dead_letters::insert(&connection.client, letters);
        answer(connection.silence, doing, inserting).await?;
    }
    Ok(ReasonCounts::of(letters))
}

impl Connection {
    /// A bare COPY in a transaction of its own; see [`Store::copy_raw`].
    pub(super) async fn copy_raw(&mut self, tuples: Bytes) -> Result<u64, StoreError> {
        let statement = self.prepared().await?.copy_detections;
        let doing = "copy into `detections`".to_owned();
        CopyIn::begin(self, doing, &statement)
            .await?
            .send(Piece::all_of(tuples))
            .await
    }
}
