//! The pending entries list, for people: who holds what, for how long, how often delivered, and what is in it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use passerby_shared::{EntryId, StreamKey, backlog};
use redis::{Cmd, Value, aio::MultiplexedConnection, from_redis_value};
use serde::Serialize;

use super::{
    OpsError, Target,
    decoded::{self, DecodedEntry},
};

/// Entries asked for in one pipeline.
const PAGE: usize = 1_000;
/// Pending entries of a stream that are looked through for those that match.
const MAX_SCANNED: usize = 100_000;
/// Entries that are decoded.
const MAX_DECODED: usize = 1_000;
/// Entries that are read at a time to be decoded.
const DECODED_PAGE: usize = 20;

/// Which pending entries.
#[derive(Debug, Clone, Default)]
pub struct PendingFilter {
    /// Only those of this consumer.
    pub consumer: Option<String>,
    /// Only those idle for so long.
    pub min_idle: Duration,
    /// Only those that were added so long ago.
    pub min_age: Duration,
    /// Only those delivered so often.
    pub min_deliveries: u64,
    /// At most so many entries of each stream.
    pub limit: usize,
    /// Say what is in them.
    pub decode: bool,
    /// Count those that match, in groups.
    pub by: Option<PendingGroup>,
}

/// By what pending entries are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingGroup {
    /// Who holds them.
    Consumer,
    /// How often they were delivered.
    Deliveries,
    /// How long they have been in the stream.
    Age,
    /// How long ago their holder last showed a sign of life.
    Idle,
}

/// What is delivered and not yet acknowledged.
#[derive(Debug, Clone, Default, Serialize)]
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
    /// Those that match in groups, where that was asked for.
    pub groups: Vec<PendingCount>,
    /// Whether pending entries were left that nobody looked at, as there are too many.
    pub is_cut: bool,
}

/// How many entries one consumer holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConsumerPending {
    /// The stream.
    pub stream: String,
    /// The consumer.
    pub consumer: String,
    /// Entries it holds.
    pub n_entries: u64,
    /// The oldest of them.
    pub oldest_entry_id: Option<EntryId>,
    /// How long ago that was added, in milliseconds.
    pub oldest_age_ms: u64,
}

/// How many of the entries that match have something in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PendingCount {
    /// What: a consumer, a number of deliveries, or a span of time.
    pub of: String,
    /// How many.
    pub n_entries: u64,
    /// The oldest of them.
    pub oldest_entry_id: EntryId,
}

/// One pending entry.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PendingEntry {
    /// The stream.
    pub stream: String,
    /// The entry.
    pub entry_id: EntryId,
    /// Who holds it.
    pub consumer: String,
    /// Milliseconds since it was added.
    pub age_ms: u64,
    /// Milliseconds since it was last delivered or its holder last showed a sign of life.
    pub idle_ms: u64,
    /// Times Redis delivered it.
    pub delivery_count: u64,
    /// What is in it, where that was asked for; `None` also when the entry is no longer in the stream.
    pub decoded: Option<DecodedEntry>,
    /// Whether it is no longer in the stream, as far as somebody looked.
    pub is_gone: bool,
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
    let mut matched = Vec::new();
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
        let oldest = oldest_of(connection, stream, &target.group, &consumers).await?;
        let held = consumers.into_iter().zip(oldest);
        report
            .consumers
            .extend(held.map(|((consumer, n_entries), oldest)| ConsumerPending {
                stream: stream.to_string(),
                consumer,
                n_entries,
                oldest_entry_id: oldest,
                oldest_age_ms: oldest.map_or(0, |id| backlog.now_ms.saturating_sub(id.ms)),
            }));
        let mut found = Scan::of(stream, filter, backlog.now_ms);
        found.run(connection, &target.group).await?;
        report.is_cut |= found.is_cut;
        matched.extend(found.entries);
    }
    matched.sort_by_key(|entry| entry.entry_id);
    if let Some(by) = filter.by {
        report.groups = counted(by, &matched);
    }
    matched.truncate(filter.limit.max(1).saturating_mul(target.streams.len()));
    report.entries = matched;
    if filter.decode {
        decode(connection, &target.streams, &mut report.entries).await?;
    }
    Ok(report)
}

/// The oldest entry that each consumer holds.
async fn oldest_of(
    connection: &mut MultiplexedConnection,
    stream: &StreamKey,
    group: &str,
    consumers: &[(String, u64)],
) -> Result<Vec<Option<EntryId>>, OpsError> {
    if consumers.is_empty() {
        return Ok(Vec::new());
    }
    let mut pipe = redis::pipe();
    for (consumer, _) in consumers {
        pipe.cmd("XPENDING")
            .arg(stream)
            .arg(group)
            .arg("-")
            .arg("+")
            .arg(1)
            .arg(consumer);
    }
    let listed: Vec<Vec<Listed>> = pipe
        .query_async(connection)
        .await
        .map_err(OpsError::redis("list pending entries", stream))?;
    let oldest = listed.into_iter().map(|entries| {
        let (id, ..) = entries.into_iter().next()?;
        id.parse().ok()
    });
    Ok(oldest.collect())
}

/// Looks through the pending entries of one stream.
struct Scan<'a> {
    stream: &'a StreamKey,
    filter: &'a PendingFilter,
    now_ms: u64,
    wanted: usize,
    entries: Vec<PendingEntry>,
    is_cut: bool,
}

impl<'a> Scan<'a> {
    fn of(stream: &'a StreamKey, filter: &'a PendingFilter, now_ms: u64) -> Self {
        Self {
            stream,
            filter,
            now_ms,
            // Groups are made of all that match.
            wanted: if filter.by.is_some() {
                MAX_SCANNED
            } else {
                filter.limit.max(1)
            },
            entries: Vec::new(),
            is_cut: false,
        }
    }

    async fn run(
        &mut self,
        connection: &mut MultiplexedConnection,
        group: &str,
    ) -> Result<(), OpsError> {
        // Of those that are older there may be none: the server is asked for no others.
        let until = self.now_ms.saturating_sub(millis(self.filter.min_age));
        let until = EntryId {
            ms: until,
            seq: u64::MAX,
        };
        let mut from = EntryId::MIN;
        let mut n_scanned = 0;
        loop {
            let page = PAGE.min(self.wanted);
            let listed: Vec<Listed> = list(self.stream, group, self.filter, from, until, page)
                .query_async(connection)
                .await
                .map_err(OpsError::redis("list pending entries", self.stream))?;
            let n_listed = listed.len();
            n_scanned += n_listed;
            let mut last = from;
            for one in listed {
                let Some(entry) = read(self.stream, one, self.now_ms) else {
                    continue;
                };
                last = entry.entry_id;
                if entry.delivery_count >= self.filter.min_deliveries
                    && self.entries.len() < self.wanted
                {
                    self.entries.push(entry);
                }
            }
            if n_listed < page || self.entries.len() >= self.wanted {
                break;
            }
            if n_scanned >= MAX_SCANNED {
                self.is_cut = true;
                break;
            }
            from = last.next();
        }
        Ok(())
    }
}

fn counted(by: PendingGroup, entries: &[PendingEntry]) -> Vec<PendingCount> {
    // Sorted by what they have in common, as numbers where it is one.
    let mut groups = BTreeMap::<(u64, String), PendingCount>::new();
    for entry in entries {
        let key = match by {
            PendingGroup::Consumer => (0, entry.consumer.clone()),
            PendingGroup::Deliveries => (entry.delivery_count, entry.delivery_count.to_string()),
            PendingGroup::Age => span(entry.age_ms),
            PendingGroup::Idle => span(entry.idle_ms),
        };
        let group = groups
            .entry(key)
            .or_insert_with_key(|(_, of)| PendingCount {
                of: of.clone(),
                n_entries: 0,
                oldest_entry_id: entry.entry_id,
            });
        group.n_entries += 1;
        group.oldest_entry_id = group.oldest_entry_id.min(entry.entry_id);
    }
    groups.into_values().collect()
}

/// The span of time that a time falls into, and its rank.
fn span(ms: u64) -> (u64, String) {
    const SPANS: [(u64, &str); 6] = [
        (1_000, "less than 1s"),
        (10_000, "1s to 10s"),
        (60_000, "10s to 1m"),
        (600_000, "1m to 10m"),
        (3_600_000, "10m to 1h"),
        (86_400_000, "1h to 1d"),
    ];
    let found = SPANS.into_iter().find(|(below, _)| ms < *below);
    let (rank, name) = found.unwrap_or((u64::MAX, "1d and more"));
    (rank, name.to_owned())
}

/// Says of the first entries what is in them.
async fn decode(
    connection: &mut MultiplexedConnection,
    streams: &[StreamKey],
    entries: &mut [PendingEntry],
) -> Result<(), OpsError> {
    let n_decoded = entries.len().min(MAX_DECODED);
    for stream in streams {
        let shared = Arc::new(stream.clone());
        let mut here: Vec<&mut PendingEntry> = entries[..n_decoded]
            .iter_mut()
            .filter(|entry| entry.stream == stream.as_str())
            .collect();
        for page in here.chunks_mut(DECODED_PAGE) {
            let ids: Vec<EntryId> = page.iter().map(|entry| entry.entry_id).collect();
            let found = decoded::read(connection, &shared, &ids).await?;
            for entry in page {
                let there = found
                    .iter()
                    .find(|delivered| delivered.origin.id == entry.entry_id);
                match there.and_then(|there| Some((&there.origin, there.fields.as_ref()?))) {
                    Some((origin, fields)) => {
                        entry.decoded = Some(decoded::decode(origin, fields, 0).0);
                    }
                    None => entry.is_gone = true,
                }
            }
        }
    }
    Ok(())
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
                pipe.add_command(list(stream, &target.group, filter, *id, *id, 1));
            }
            let entries: Vec<Vec<Listed>> = pipe
                .query_async(connection)
                .await
                .map_err(OpsError::redis("list pending entries", stream))?;
            let entries = entries.into_iter().flatten();
            found.extend(
                entries
                    .filter_map(|entry| read(stream, entry, 0))
                    .filter(|entry| entry.delivery_count >= filter.min_deliveries),
            );
        }
    }
    Ok(found)
}

/// ID, consumer, idle time and delivery count, as Redis lists them.
type Listed = (String, String, u64, u64);

/// Lists the entries of a span that match.
fn list(
    stream: &StreamKey,
    group: &str,
    filter: &PendingFilter,
    from: EntryId,
    until: EntryId,
    limit: usize,
) -> Cmd {
    let mut command = redis::cmd("XPENDING");
    command.arg(stream).arg(group);
    if !filter.min_idle.is_zero() {
        command.arg("IDLE").arg(millis(filter.min_idle));
    }
    command.arg(from).arg(until).arg(limit);
    command.arg(filter.consumer.as_deref());
    command
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn read(
    stream: &StreamKey,
    (id, consumer, idle_ms, delivery_count): Listed,
    now_ms: u64,
) -> Option<PendingEntry> {
    let entry_id: EntryId = id.parse().ok()?;
    Some(PendingEntry {
        stream: stream.to_string(),
        entry_id,
        consumer,
        age_ms: now_ms.saturating_sub(entry_id.ms),
        idle_ms,
        delivery_count,
        decoded: None,
        is_gone: false,
    })
}
