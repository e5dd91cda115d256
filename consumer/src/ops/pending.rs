//! The pending entries list, for people: who holds what, for how long, how often delivered.

use std::time::Duration;

use passerby_shared::{EntryId, StreamKey, backlog};
use redis::{Cmd, Value, from_redis_value};

use super::{OpsError, Target};

/// Entries asked for by name in one pipeline.
const PAGE: usize = 1_000;

/// Which pending entries.
#[derive(Debug, Clone, Default)]
pub struct PendingFilter {
    /// Only those of this consumer.
    pub consumer: Option<String>,
    /// Only those idle for so long.
    pub min_idle: Duration,
    /// At most so many entries of each stream.
    pub limit: usize,
}

/// What is delivered and not yet acknowledged.
#[derive(Debug, Clone, Default, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PendingReport {
    /// Pending entries in all streams, whatever the filter.
    pub total: u64,
    /// Entries that no worker has read yet.
    pub undelivered: u64,
    /// Whether that is known; else it is an estimate, which is never more than the streams' length.
    pub undelivered_is_exact: bool,
    /// How many each consumer holds, whatever the filter.
    pub consumers: Vec<ConsumerPending>,
    /// The entries that match, oldest first.
    pub entries: Vec<PendingEntry>,
}

/// How many entries one consumer holds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConsumerPending {
    /// The stream.
    pub stream: String,
    /// The consumer.
    pub consumer: String,
    /// Entries it holds.
    pub n_entries: u64,
}

/// One pending entry.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PendingEntry {
    /// The stream.
    pub stream: String,
    /// The entry.
    #[serde(serialize_with = "as_text")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub entry_id: EntryId,
    /// Who holds it.
    pub consumer: String,
    /// Milliseconds since it was last delivered or its holder last showed a sign of life.
    pub idle_ms: u64,
    /// Times Redis delivered it.
    pub delivery_count: u64,
}

pub(super) fn as_text<S: serde::Serializer>(
    id: &EntryId,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// Looks at the pending entries lists.
///
/// # Errors
///
/// [`OpsError`] when Redis cannot be reached or refuses; also when there is no such group.
pub async fn pending(
    target: &mut Target,
    filter: &PendingFilter,
) -> Result<PendingReport, OpsError> {
    let mut report = PendingReport {
        undelivered_is_exact: true,
        ..PendingReport::default()
    };
    let connection = target.link.get().await?;
    for stream in &target.streams {
        // `[n, smallest ID, greatest ID, [[consumer, n]…]]`; nil instead of the last three when n is 0.
        let (total, _, _, consumers): (u64, Value, Value, Value) = redis::cmd("XPENDING")
            .arg(stream)
            .arg(&target.group)
            .query_async(connection)
            .await
            .map_err(OpsError::redis("list pending entries", stream))?;
        report.total += total;
        let backlog = backlog::measure(connection, stream, &target.group)
            .await
            .map_err(OpsError::redis("measure the backlog", stream))?;
        report.undelivered += backlog.undelivered;
        report.undelivered_is_exact &= backlog.is_exact;
        let consumers: Vec<(String, u64)> = match consumers {
            Value::Nil => Vec::new(),
            some => from_redis_value(some).unwrap_or_default(),
        };
        report
            .consumers
            .extend(
                consumers
                    .into_iter()
                    .map(|(consumer, n_entries)| ConsumerPending {
                        stream: stream.to_string(),
                        consumer,
                        n_entries,
                    }),
            );

        let entries: Vec<Listed> = list(stream, &target.group, filter, None)
            .query_async(connection)
            .await
            .map_err(OpsError::redis("list pending entries", stream))?;
        let entries = entries.into_iter();
        report
            .entries
            .extend(entries.filter_map(|entry| read(stream, entry)));
    }
    report.entries.sort_by_key(|entry| entry.entry_id);
    Ok(report)
}

/// Those of `ids` that match, however many others there are before them.
pub(super) async fn named(
    target: &mut Target,
    filter: &PendingFilter,
    ids: &[EntryId],
) -> Result<Vec<PendingEntry>, OpsError> {
    let mut found = Vec::new();
    let connection = target.link.get().await?;
    for stream in &target.streams {
        for page in ids.chunks(PAGE) {
            let mut pipe = redis::pipe();
            for id in page {
                pipe.add_command(list(stream, &target.group, filter, Some(*id)));
            }
            let entries: Vec<Vec<Listed>> = pipe
                .query_async(connection)
                .await
                .map_err(OpsError::redis("list pending entries", stream))?;
            let entries = entries.into_iter().flatten();
            found.extend(entries.filter_map(|entry| read(stream, entry)));
        }
    }
    Ok(found)
}

/// ID, consumer, idle time and delivery count, as Redis lists them.
type Listed = (String, String, u64, u64);

/// Lists the entries that match: all of them, or one.
fn list(stream: &StreamKey, group: &str, filter: &PendingFilter, id: Option<EntryId>) -> Cmd {
    let mut command = redis::cmd("XPENDING");
    command.arg(stream).arg(group);
    if !filter.min_idle.is_zero() {
        command
            .arg("IDLE")
            .arg(u64::try_from(filter.min_idle.as_millis()).unwrap_or(u64::MAX));
    }
    match id {
        Some(id) => command.arg(id).arg(id).arg(1),
        None => command.arg("-").arg("+").arg(filter.limit.max(1)),
    };
    command.arg(filter.consumer.as_deref());
    command
}

fn read(
    stream: &StreamKey,
    (id, consumer, idle_ms, delivery_count): Listed,
) -> Option<PendingEntry> {
    Some(PendingEntry {
        stream: stream.to_string(),
        entry_id: id.parse().ok()?,
        consumer,
        idle_ms,
        delivery_count,
    })
}
