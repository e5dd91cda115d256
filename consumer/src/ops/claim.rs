//! Takes pending entries over by hand: to be stored at once, or by a worker that is named.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use passerby_shared::{EntryId, StreamKey};
use redis::{Value, aio::MultiplexedConnection};
use tokio::time::timeout;

use super::{
    OpsError, PendingFilter, Target,
    committing::Committing,
    pending::{named, pending},
};
use crate::{
    ConsumerName,
    batch::{Batch, BatchBuilder, Origin},
    decoder, group,
    reply::{self, Delivered},
    store::{Fault, Store},
};

/// Longest search for the rows of a page that Postgres refuses.
const SEARCH_LIMIT: Duration = Duration::from_secs(60);
/// Entries taken over in one transaction.
const PAGE: usize = 100;

/// Which entries to take over.
#[derive(Debug, Clone, Default)]
pub struct ClaimFilter {
    /// Only these; all that match otherwise when empty.
    pub ids: Vec<EntryId>,
    /// Only those of this consumer.
    pub consumer: Option<String>,
    /// Only those idle for so long.
    pub min_idle: Duration,
    /// Only those delivered so often.
    pub min_deliveries: u64,
    /// At most so many of each stream, of those that are not named.
    pub limit: usize,
}

/// What became of the entries.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClaimReport {
    /// Entries that matched.
    pub matched: usize,
    /// Who held them.
    pub from: Vec<ClaimedFrom>,
    /// Entries taken over; others were settled, or claimed by somebody else, in between.
    pub claimed: usize,
    /// Entries stored now.
    pub stored: usize,
    /// Entries that the ledger knew: acknowledged, and nothing written.
    pub duplicates: usize,
    /// Detections stored.
    pub detections: u64,
    /// Dead letters written.
    pub dead_letters: usize,
}

/// How many of the entries that matched one consumer held.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClaimedFrom {
    /// The stream.
    pub stream: String,
    /// The consumer.
    pub consumer: String,
    /// Entries.
    pub n_entries: usize,
}

/// The entries that match, by stream; notes in the report who holds them.
async fn matching(
    target: &mut Target,
    filter: &ClaimFilter,
    report: &mut ClaimReport,
) -> Result<Vec<(StreamKey, Vec<EntryId>)>, OpsError> {
    let pending_filter = PendingFilter {
        consumer: filter.consumer.clone(),
        min_idle: filter.min_idle,
        min_deliveries: filter.min_deliveries,
        limit: filter.limit,
        ..PendingFilter::default()
    };
    let entries = if filter.ids.is_empty() {
        pending(target, &pending_filter).await?.entries
    } else {
        let ids: BTreeSet<EntryId> = filter.ids.iter().copied().collect();
        named(target, &pending_filter, &Vec::from_iter(ids)).await?
    };
    report.matched = entries.len();
    for entry in &entries {
        let known = report
            .from
            .iter_mut()
            .find(|from| from.stream == entry.stream && from.consumer == entry.consumer);
        match known {
            Some(from) => from.n_entries += 1,
            None => report.from.push(ClaimedFrom {
                stream: entry.stream.clone(),
                consumer: entry.consumer.clone(),
                n_entries: 1,
            }),
        }
    }
    Ok(target
        .streams
        .iter()
        .map(|stream| {
            let ids = entries
                .iter()
                .filter(|entry| entry.stream == stream.as_str())
                .map(|entry| entry.entry_id)
                .collect();
            (stream.clone(), ids)
        })
        .collect())
}

/// Counts the entries that [`claim`] and [`hand_over`] would take over, and takes none.
///
/// # Errors
///
/// As [`claim`].
pub async fn claim_dry_run(
    target: &mut Target,
    filter: &ClaimFilter,
) -> Result<ClaimReport, OpsError> {
    let mut report = ClaimReport::default();
    matching(target, filter, &mut report).await?;
    Ok(report)
}

/// Takes entries over and stores them at once, each exactly once as a worker would.
///
/// # Errors
///
/// [`OpsError`] when a server cannot be reached or refuses; entries taken over and not stored then
/// stay pending, and a worker will take them over in its turn.
pub async fn claim(
    target: &mut Target,
    store: &mut Store,
    filter: &ClaimFilter,
) -> Result<ClaimReport, OpsError> {
    let consumer = ConsumerName::generate();
    let mut report = ClaimReport::default();
    for (stream, ids) in matching(target, filter, &mut report).await? {
        let stream = Arc::new(stream);
        for page in ids.chunks(PAGE) {
            let connection = target.link.get().await?;
            let (page, gone) = split_gone(connection, &stream, page).await?;
            let mut entries = Vec::new();
            if !page.is_empty() {
                let value: Value = redis::cmd("XCLAIM")
                    .arg(stream.as_ref())
                    .arg(&target.group)
                    .arg(consumer.as_str())
                    .arg(millis(filter.min_idle))
                    .arg(page)
                    .query_async(connection)
                    .await
                    .map_err(OpsError::redis("claim entries", &stream))?;
                entries = reply::claimed_entries(value, &stream)?;
            }
            entries.extend(gone.into_iter().map(|id| Delivered {
                origin: Origin {
                    stream: Arc::clone(&stream),
                    id,
                },
                fields: None,
                again: true,
            }));
            if entries.is_empty() {
                continue;
            }
            report.claimed += entries.len();
            let mut batch = BatchBuilder::default();
            for entry in entries {
                decoder::decode(&mut batch, entry);
            }
            let (settled, stored) = store_at_once(store, batch.build(), &mut report).await;
            let ids: Vec<EntryId> = settled.into_iter().map(|origin| origin.id).collect();
            if !ids.is_empty() {
                let connection = target.link.get().await?;
                let _n: u64 = redis::cmd("XACK")
                    .arg(stream.as_ref())
                    .arg(&target.group)
                    .arg(ids)
                    .query_async(connection)
                    .await
                    .map_err(OpsError::redis("acknowledge entries", &stream))?;
            }
            stored?;
        }
        let connection = target.link.get().await?;
        group::leave(connection, &stream, &target.group, &consumer)
            .await
            .map_err(OpsError::redis("leave the group", &stream))?;
    }
    Ok(report)
}

/// Commits a batch, and returns the entries that may be acknowledged, also where that failed. A row that Postgres
/// refuses is looked for and dead-lettered as a worker does it, without its neighbours.
async fn store_at_once(
    store: &mut Store,
    batch: Batch,
    report: &mut ClaimReport,
) -> (Vec<Origin>, Result<(), OpsError>) {
    let n = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    match store.commit(&batch).await {
        Ok((settled, commit)) => {
            report.stored += commit.entries;
            report.duplicates += commit.duplicates;
            report.detections += commit.detections;
            report.dead_letters += commit.dead_letters;
            (settled.into_origins(), Ok(()))
        }
        Err(failure) if failure.error.fault() == Fault::Data => {
            let mut committing = Committing::start(store.url());
            // A worker tries again for ever; whoever types a command wants to hear of it. What was stored is in the
            // ledger, and stays pending until somebody finds it there.
            let searching = timeout(SEARCH_LIMIT, committing.commit(batch)).await;
            let Ok((outcome, done)) = searching else {
                return (Vec::new(), Err(failure.error.into()));
            };
            report.stored += n(outcome.entries);
            report.duplicates += n(outcome.duplicates);
            report.detections += outcome.detections;
            report.dead_letters += n(outcome.dead_letters);
            let done = match done {
                Ok(()) => committing.close().await,
                failed => failed,
            };
            (outcome.settled, done)
        }
        Err(failure) => (Vec::new(), Err(failure.error.into())),
    }
}

/// Hands entries to a worker. It takes them up when they have been idle for its `min-idle`, or when
/// it starts.
///
/// # Errors
///
/// [`OpsError`] when Redis cannot be reached or refuses.
pub async fn hand_over(
    target: &mut Target,
    to: &ConsumerName,
    filter: &ClaimFilter,
) -> Result<ClaimReport, OpsError> {
    let mut report = ClaimReport::default();
    for (stream, ids) in matching(target, filter, &mut report).await? {
        for page in ids.chunks(PAGE) {
            let connection = target.link.get().await?;
            // Entries that are gone stay where they are, for a worker to make dead letters of.
            let (page, _gone) = split_gone(connection, &stream, page).await?;
            if page.is_empty() {
                continue;
            }
            let claimed: Vec<String> = redis::cmd("XCLAIM")
                .arg(&stream)
                .arg(&target.group)
                .arg(to.as_str())
                .arg(millis(filter.min_idle))
                .arg(page)
                .arg("JUSTID")
                .query_async(connection)
                .await
                .map_err(OpsError::redis("claim entries", &stream))?;
            report.claimed += claimed.len();
        }
    }
    Ok(report)
}

/// Splits off the entries that are no longer in the stream. `XCLAIM` forgets such entries silently,
/// and they are to be dead letters instead.
async fn split_gone(
    connection: &mut MultiplexedConnection,
    stream: &StreamKey,
    ids: &[EntryId],
) -> Result<(Vec<EntryId>, Vec<EntryId>), OpsError> {
    let mut pipe = redis::pipe();
    for id in ids {
        pipe.cmd("XRANGE").arg(stream).arg(*id).arg(*id);
    }
    let found: Vec<Vec<Value>> = pipe
        .query_async(connection)
        .await
        .map_err(OpsError::redis("look for entries", stream))?;
    let (there, gone): (Vec<_>, Vec<_>) = ids
        .iter()
        .zip(found)
        .partition(|(_, entries)| !entries.is_empty());
    let only_ids =
        |pairs: Vec<(&EntryId, Vec<Value>)>| pairs.into_iter().map(|(id, _)| *id).collect();
    Ok((only_ids(there), only_ids(gone)))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
