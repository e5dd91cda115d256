//! Stores again what is still in the streams, as after a restored or failed-over Postgres.
//!
//! Entries that are stored stay in their stream for a time of grace. Those of a span of time are read with
//! `XRANGE`, which disturbs no group, and go through the same decoding and the same commit as a worker's: the
//! ledger knows what is stored already, and nothing is stored twice. What is pending or not delivered yet is
//! left to the workers, who would find it stored and acknowledge it; so is nothing lost by leaving it.
//!
//! What the ledger may have forgotten is never guessed about: an entry from before its horizon that it does
//! not know is counted and left alone. Unlike a worker's, it was settled once, and needs no dead letter.

mod into;
mod letters;
mod window;

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use passerby_shared::{
    EntryId, IdempotencyKey,
    wire::{EntryFields, Kind, Sources},
};
use tokio_util::sync::CancellationToken;

pub use letters::replay_dead_letters;
pub use window::{Gap, StreamWindow, replay_windows};

use self::window::Reading;
use super::{OpsError, Target, committing::Committing};
use crate::{
    batch::{BatchBuilder, RawFields, made_at},
    decoder,
    reply::Delivered,
    store::{DatabaseUrl, Store},
};

/// Rows and bytes that are committed in one transaction.
const BATCH_ROWS: usize = 5_000;
const BATCH_BYTES: usize = 4 << 20;

/// Which entries.
#[derive(Debug, Clone, Default)]
pub struct ReplayFilter {
    /// Only what was added to its stream, or dead-lettered, at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Only what was added, or dead-lettered, before this time.
    pub to: Option<DateTime<Utc>>,
    /// Only entries with a row of this camera.
    pub camera_id: Option<String>,
    /// Only entries with a row of this session.
    pub session_id: Option<String>,
}

impl ReplayFilter {
    fn asks_for_rows(&self) -> bool {
        self.camera_id.is_some() || self.session_id.is_some()
    }

    fn is_about(&self, camera_id: &str, session_id: &str) -> bool {
        let is = |wanted: &Option<String>, id: &str| wanted.as_deref().is_none_or(|w| w == id);
        is(&self.camera_id, camera_id) && is(&self.session_id, session_id)
    }

    /// Whether an entry has rows of the camera and the session, as far as they can be read.
    fn matches(&self, fields: &RawFields) -> bool {
        if !self.asks_for_rows() {
            return true;
        }
        let Ok(entry) = EntryFields::parse(decoder::pairs(fields)) else {
            return false;
        };
        let sources = Sources::of(entry.kind, entry.payload);
        let camera = self.camera_id.as_ref();
        let session = self.session_id.as_ref();
        camera.is_none_or(|id| sources.camera_ids.contains(id))
            && session.is_none_or(|id| sources.session_ids.contains(id))
    }
}

/// Where the entries go.
#[derive(Debug, Clone)]
pub enum Destination {
    /// Where workers store them, each once.
    Main,
    /// The detections that match into a table of the same columns, all or none.
    Table {
        /// Its name, as in SQL.
        name: String,
        /// Make it; it must not be there.
        create: bool,
    },
    /// Nowhere: they are counted.
    DryRun,
}

/// What became of the entries.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReplayReport {
    /// Entries, or dead letters, of the span of time.
    pub found: u64,
    /// Of those, entries that are pending: left to the workers.
    pub pending: u64,
    /// Entries that are not delivered yet, and left to the workers; an upper bound where the span ends among
    /// them.
    pub undelivered: u64,
    /// Of those found, entries without a row that matches.
    pub not_matching: u64,
    /// Of those found, entries from before the ledger's horizon that it does not know: nobody can tell whether
    /// they were stored, and they are left alone.
    pub too_old: u64,
    /// Of those found, entries that the ledger knows: nothing is written.
    pub known: u64,
    /// Of those found, entries that were stored, or in a dry run would be.
    pub replayed: u64,
    /// Detections stored; in a dry run, in the entries that would be.
    pub detections: u64,
    /// Rows of `tracks` that changed.
    pub tracks: u64,
    /// Dead letters written. Where a table is written: rows and entries that cannot be read.
    pub dead_letters: u64,
    /// Of those found, what a table of detections has no place for: tracks and sessions.
    pub other_kinds: u64,
    /// What can no longer be replayed since it was trimmed.
    pub gaps: Vec<Gap>,
    /// It was interrupted: some was not looked at.
    pub interrupted: bool,
}

/// Replays the entries of a span of time that are settled and still in their streams.
///
/// `progress` is told how many milliseconds of the streams lie behind, of how many.
///
/// # Errors
///
/// [`OpsError`] when a server cannot be reached or refuses. Repeating it is safe: the ledger knows what was
/// stored, and of a table nothing was kept.
pub async fn replay(
    target: &mut Target,
    database_url: &DatabaseUrl,
    filter: &ReplayFilter,
    destination: &Destination,
    stop: &CancellationToken,
    mut progress: impl FnMut(u64, &ReplayReport),
) -> Result<ReplayReport, OpsError> {
    let windows = replay_windows(target, filter).await?;
    let mut report = ReplayReport {
        gaps: windows.iter().filter_map(|w| w.gap.clone()).collect(),
        undelivered: windows.iter().map(|w| w.undelivered).sum(),
        ..ReplayReport::default()
    };
    let mut sink = Sink::open(database_url, destination).await?;
    let mut ms_before = 0;
    for window in &windows {
        let mut reading = Reading::new(window);
        while !stop.is_cancelled()
            && let Some(page) = reading.next(target).await?
        {
            report.found += page.entries.len() as u64;
            report.pending += page.n_pending();
            let (pending, entries) = (page.pending, page.entries);
            let settled = entries
                .into_iter()
                .filter(|entry| !pending.contains(&entry.origin.id))
                .collect();
            sink.take(settled, filter, &mut report).await?;
            progress(ms_before + reading.ms_behind(), &report);
        }
        ms_before += window.ms();
    }
    report.interrupted = stop.is_cancelled();
    sink.close(&mut report).await?;
    Ok(report)
}

/// What takes the entries.
#[expect(clippy::large_enum_variant, reason = "there is one of them")]
enum Sink {
    Main {
        committing: Committing,
        /// For questions to the ledger.
        store: Store,
        horizon: DateTime<Utc>,
        batch: BatchBuilder,
    },
    Table(into::Writing),
    Counting {
        store: Store,
        horizon: DateTime<Utc>,
        seen: HashSet<IdempotencyKey>,
    },
}

/// Commits a batch, and adds what became of it to the report.
async fn commit(
    committing: &mut Committing,
    batch: BatchBuilder,
    report: &mut ReplayReport,
) -> Result<(), OpsError> {
    let (outcome, done) = committing.commit(batch.build()).await;
    report.replayed += outcome.entries;
    report.known += outcome.duplicates;
    report.detections += outcome.detections;
    report.tracks += outcome.tracks;
    report.dead_letters += outcome.dead_letters;
    done
}

impl Sink {
    async fn open(database_url: &DatabaseUrl, destination: &Destination) -> Result<Self, OpsError> {
        let mut store = Store::connect(database_url).await?;
        store.check_schema().await?;
        Ok(match destination {
            Destination::Main => Self::Main {
                committing: Committing::start(database_url),
                horizon: store.ledger_horizon().await?,
                store,
                batch: BatchBuilder::default(),
            },
            Destination::Table { name, create } => {
                Self::Table(into::Writing::begin(&mut store, name, *create).await?)
            }
            Destination::DryRun => Self::Counting {
                horizon: store.ledger_horizon().await?,
                store,
                seen: HashSet::new(),
            },
        })
    }

    async fn take(
        &mut self,
        entries: Vec<Delivered>,
        filter: &ReplayFilter,
        report: &mut ReplayReport,
    ) -> Result<(), OpsError> {
        let n_found = entries.len();
        let mut keyed: Vec<(IdempotencyKey, Delivered)> = entries
            .into_iter()
            .filter(|entry| (entry.fields.as_ref()).is_some_and(|fields| filter.matches(fields)))
            .map(|entry| (decoder::key_of(&entry), entry))
            .collect();
        report.not_matching += (n_found - keyed.len()) as u64;
        match self {
            Self::Main {
                committing,
                store,
                horizon,
                batch,
            } => {
                let is_old = |(key, entry): &(IdempotencyKey, Delivered)| {
                    made_at(*key, Some(&entry.origin)).is_some_and(|made_at| made_at < *horizon)
                };
                let old: Vec<IdempotencyKey> =
                    keyed.iter().filter(|e| is_old(e)).map(|e| e.0).collect();
                if !old.is_empty() {
                    let known = store.known_keys(&old).await?;
                    keyed.retain(|entry| {
                        let is_unknown = is_old(entry) && !known.contains(&entry.0);
                        report.too_old += u64::from(is_unknown);
                        !is_unknown
                    });
                }
                for (_, mut entry) in keyed {
                    entry.again = true;
                    decoder::decode(batch, entry);
                    if batch.n_rows() >= BATCH_ROWS || batch.n_bytes() >= BATCH_BYTES {
                        commit(committing, std::mem::take(batch), report).await?;
                    }
                }
            }
            Self::Table(writing) => writing.write(keyed, filter, report).await?,
            Self::Counting {
                store,
                horizon,
                seen,
            } => {
                let keys: Vec<IdempotencyKey> = keyed.iter().map(|(key, _)| *key).collect();
                let known = store.known_keys(&keys).await?;
                for (key, entry) in keyed {
                    let made_at = made_at(key, Some(&entry.origin));
                    if known.contains(&key) || !seen.insert(key) {
                        report.known += 1;
                    } else if made_at.is_some_and(|made_at| made_at < *horizon) {
                        report.too_old += 1;
                    } else {
                        report.replayed += 1;
                        report.detections += n_detections(&entry);
                    }
                }
            }
        }
        Ok(())
    }

    /// Commits what was taken so far.
    async fn flush(&mut self, report: &mut ReplayReport) -> Result<(), OpsError> {
        match self {
            Self::Main {
                committing, batch, ..
            } if !batch.is_empty() => commit(committing, std::mem::take(batch), report).await,
            _ => Ok(()),
        }
    }

    async fn close(mut self, report: &mut ReplayReport) -> Result<(), OpsError> {
        self.flush(report).await?;
        match self {
            Self::Main { committing, .. } => committing.close().await,
            Self::Table(_) if report.interrupted => Ok(()), // nothing of it is kept
            Self::Table(writing) => writing.commit().await,
            Self::Counting { .. } => Ok(()),
        }
    }
}

/// The detections of an entry, good ones alone.
fn n_detections(entry: &Delivered) -> u64 {
    let fields = entry.fields.as_deref().unwrap_or_default();
    let pairs = fields.iter().map(|(name, value)| (&name[..], &value[..]));
    let mut n = 0;
    if let Ok(entry) = EntryFields::parse(pairs)
        && entry.kind == Kind::Detections
    {
        let decoded = passerby_shared::wire::decode_detections(entry.payload, |_, row| {
            n += u64::from(row.is_ok());
        });
        if decoded.is_err() {
            return 0;
        }
    }
    n
}

/// What is in a stream of what is asked for.
fn bounds(filter: &ReplayFilter) -> (EntryId, EntryId) {
    let ms = |time: DateTime<Utc>| u64::try_from(time.timestamp_millis()).unwrap_or(0);
    let first = filter.from.map_or(EntryId::MIN, |from| EntryId {
        // An entry of the very millisecond may be older, and is known then.
        ms: ms(from),
        seq: 0,
    });
    let last = filter.to.map_or(EntryId::MAX, |to| match ms(to) {
        0 => EntryId::MIN,
        ms => EntryId {
            ms: ms - 1,
            seq: u64::MAX,
        },
    });
    (first, last)
}
