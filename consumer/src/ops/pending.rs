//! The pending entries list, for people: who holds what, for how long, how often delivered.

use passerby_shared::EntryId;
use redis::{Value, from_redis_value};

use super::{OpsError, Target};
use std::time::Duration;

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
pub struct PendingReport {
    /// Pending entries in all streams, whatever the filter.
    pub total: u64,
    /// How many each consumer holds, whatever the filter.
    pub consumers: Vec<ConsumerPending>,
    /// The entries that match, oldest first.
    pub entries: Vec<PendingEntry>,
}

/// How many entries one consumer holds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
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
pub struct PendingEntry {
    /// The stream.
    pub stream: String,
    /// The entry.
    #[serde(serialize_with = "as_text")]
    pub entry_id: EntryId,
    /// Who holds it.
    pub consumer: String,
    /// Milliseconds since it was last delivered or its holder last showed a sign of life.
    pub idle_ms: u64,
    /// Times Redis delivered it.
    pub delivery_count: u64,
}

fn as_text<S: serde::Serializer>(id: &EntryId, serializer: S) -> Result<S::Ok, S::Error> {
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
    let mut report = PendingReport::default();
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

        let mut command = redis::cmd("XPENDING");
        command.arg(stream).arg(&target.group);
        if !filter.min_idle.is_zero() {
            command
                .arg("IDLE")
                .arg(u64::try_from(filter.min_idle.as_millis()).unwrap_or(u64::MAX));
        }
        command
            .arg("-")
            .arg("+")
            .arg(filter.limit.max(1))
            .arg(filter.consumer.as_deref());
        let entries: Vec<(String, String, u64, u64)> = command
            .query_async(connection)
            .await
            .map_err(OpsError::redis("list pending entries", stream))?;
        for (id, consumer, idle_ms, delivery_count) in entries {
            let Ok(entry_id) = id.parse() else { continue };
            let stream = stream.to_string();
            report.entries.push(PendingEntry {
                stream,
                entry_id,
                consumer,
                idle_ms,
                delivery_count,
            });
        }
    }
    report.entries.sort_by_key(|entry| entry.entry_id);
    Ok(report)
}
