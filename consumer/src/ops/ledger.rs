//! The ledger by hand: how large it is, what keeps it from forgetting, and forgetting now.
//!
//! Workers forget a horizon that they have found good an hour before, by when everything that has left a spool
//! is stored. Who prunes by hand cannot look back, and looks at everything that may come back instead: first
//! what spools hold, then every entry in the streams that is not acknowledged. What leaves a spool in between is
//! younger than what the spool had noted. Where that is too much to look at nothing is pruned.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use passerby_shared::{EntryId, StreamKey, backlog};
use redis::{Value, aio::MultiplexedConnection, streams::StreamInfoGroupsReply};
use std::{collections::HashMap, sync::Arc};

use super::{OpsError, Target};
use crate::{
    batch::made_at,
    decoder,
    ledger_keeper::{SETTLING, SPOOL_EXPIRY},
    reply,
};

/// Entries that are not acknowledged, of one stream, that are looked at.
const MAX_LOOKED_AT: u64 = 20_000;
const PAGE: usize = 500;
/// Streams looked for beyond those that are named: a stream that is overlooked would be forgotten.
const SHARDS_LOOKED_FOR: u16 = 64;

/// What may come back, and how far the ledger may forget.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LedgerOutlook {
    /// Keys made before this time may be forgotten; `None` when none may.
    pub below: Option<DateTime<Utc>>,
    /// What keeps it from forgetting all that is older than the retention.
    pub held_by: Vec<Holder>,
}

/// What keeps the ledger from forgetting.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum Holder {
    /// An entry that is delivered and not acknowledged.
    Pending {
        /// Its stream.
        stream: String,
        /// The entry.
        entry_id: String,
        /// Who holds it.
        consumer: String,
        /// When its key was made; of one that does not tell, when it was added.
        since: DateTime<Utc>,
    },
    /// An entry that is not delivered yet.
    Undelivered {
        /// Its stream.
        stream: String,
        /// The entry.
        entry_id: String,
        /// When its key was made; of one that does not tell, when it was added.
        since: DateTime<Utc>,
    },
    /// So many entries are not acknowledged that they were not looked at.
    Backlog {
        /// The stream.
        stream: String,
        /// How many.
        entries: u64,
    },
    /// A spool that was not sent whole.
    Spool {
        /// Its ID.
        spool: String,
        /// The oldest entry that it holds.
        since: DateTime<Utc>,
    },
    /// A stream that exists and was not named: entries in it would be overlooked.
    UnnamedStream {
        /// The stream.
        stream: String,
    },
}

/// Looks how far the ledger may forget, of what is older than `retention`.
///
/// # Errors
///
/// [`OpsError`] when Redis cannot be reached or refuses; also when there is no such group, since then nobody
/// knows what was stored.
pub async fn ledger_outlook(
    target: &mut Target,
    retention: Duration,
) -> Result<LedgerOutlook, OpsError> {
    let streams = target.streams.clone();
    let (group, prefix) = (target.group.clone(), target.key_prefix.clone());
    let connection = target.link.get().await?;
    let failed = || OpsError::redis("look what may come back", &streams[0]);
    // In this order: see above.
    let spools: HashMap<String, i64> = redis::cmd("HGETALL")
        .arg(prefix.spools())
        .query_async(connection)
        .await
        .map_err(failed())?;
    let (seconds, _): (i64, i64) = redis::cmd("TIME")
        .query_async(connection)
        .await
        .map_err(failed())?;
    let now = DateTime::from_timestamp(seconds, 0).unwrap_or_else(Utc::now);
    let by_age = TimeDelta::from_std(retention)
        .ok()
        .and_then(|retention| now.checked_sub_signed(retention));
    let mut outlook = LedgerOutlook {
        below: by_age,
        held_by: Vec::new(),
    };
    let mut unnamed = redis::pipe();
    let first = u16::try_from(streams.len()).unwrap_or(u16::MAX);
    let others: Vec<StreamKey> = (first..first.saturating_add(SHARDS_LOOKED_FOR))
        .map(|shard| prefix.stream(shard))
        .collect();
    for stream in &others {
        unnamed.cmd("EXISTS").arg(stream);
    }
    let exist: Vec<bool> = unnamed.query_async(connection).await.map_err(failed())?;
    for (stream, exists) in others.iter().zip(exist) {
        if exists {
            outlook.hold_all(Holder::UnnamedStream {
                stream: stream.to_string(),
            });
        }
    }
    for (spool, ms) in spools {
        if let Some(since) = DateTime::from_timestamp_millis(ms).filter(|t| *t > now - SPOOL_EXPIRY)
        {
            outlook.hold(since, Holder::Spool { spool, since });
        }
    }
    for stream in &streams {
        look_at_stream(connection, stream, &group, now, &mut outlook).await?;
    }
    Ok(outlook)
}

impl LedgerOutlook {
    /// Nothing may be forgotten.
    fn hold_all(&mut self, holder: Holder) {
        self.below = None;
        self.held_by.push(holder);
    }

    /// Nothing may be forgotten that is not older than this.
    fn hold(&mut self, since: DateTime<Utc>, holder: Holder) {
        if self.below.is_some_and(|below| since < below) {
            self.below = Some(since);
            self.held_by.push(holder);
        }
    }
}

/// Looks at the entries of a stream that are not acknowledged.
async fn look_at_stream(
    connection: &mut MultiplexedConnection,
    stream: &StreamKey,
    group: &str,
    now: DateTime<Utc>,
    outlook: &mut LedgerOutlook,
) -> Result<(), OpsError> {
    let failed = || OpsError::redis("look what may come back", stream);
    // Fails where there is no group.
    let _: Value = redis::cmd("XPENDING")
        .arg(stream)
        .arg(group)
        .query_async(connection)
        .await
        .map_err(failed())?;
    let backlog = backlog::measure(connection, stream, group)
        .await
        .map_err(failed())?;
    if backlog.entries() > MAX_LOOKED_AT {
        outlook.hold_all(Holder::Backlog {
            stream: stream.to_string(),
            entries: backlog.entries(),
        });
        return Ok(());
    }
    let is_waiting = backlog.age() > SETTLING;
    let groups: StreamInfoGroupsReply = redis::cmd("XINFO")
        .arg("GROUPS")
        .arg(stream)
        .query_async(connection)
        .await
        .map_err(failed())?;
    let delivered = groups
        .groups
        .iter()
        .find(|found| found.name == group)
        .and_then(|found| found.last_delivered_id.parse::<EntryId>().ok())
        .unwrap_or(EntryId::MIN);
    let key = Arc::new(stream.clone());
    let mut oldest: Option<(DateTime<Utc>, Holder)> = None;
    let mut note = |since: DateTime<Utc>, holder: Holder| {
        if oldest.as_ref().is_none_or(|(oldest, _)| since < *oldest) {
            oldest = Some((since, holder));
        }
    };
    // Pending entries: each with its fields, which hold its key.
    let mut next = EntryId::MIN;
    loop {
        let pending: Vec<(String, String, u64, u64)> = redis::cmd("XPENDING")
            .arg(stream)
            .arg(group)
            .arg(next)
            .arg("+")
            .arg(PAGE)
            .query_async(connection)
            .await
            .map_err(failed())?;
        let Some(last) = pending.last().and_then(|p| p.0.parse::<EntryId>().ok()) else {
            break;
        };
        next = last.next();
        let mut pipe = redis::pipe();
        for (id, ..) in &pending {
            pipe.cmd("XRANGE").arg(stream).arg(id).arg(id);
        }
        let found: Vec<Value> = pipe.query_async(connection).await.map_err(failed())?;
        for ((id, consumer, ..), found) in pending.iter().zip(found) {
            let Ok(entry_id) = id.parse::<EntryId>() else {
                continue;
            };
            let entries = reply::claimed_entries(found, &key)?;
            let since = entries
                .first()
                .and_then(|entry| made_at(decoder::key_of(entry), Some(&entry.origin)))
                .unwrap_or_else(|| added_at(entry_id));
            note(
                since,
                Holder::Pending {
                    stream: stream.to_string(),
                    entry_id: id.clone(),
                    consumer: consumer.clone(),
                    since,
                },
            );
        }
        if pending.len() < PAGE {
            break;
        }
    }
    let mut next = delivered.next();
    loop {
        let found: Value = redis::cmd("XRANGE")
            .arg(stream)
            .arg(next)
            .arg("+")
            .arg("COUNT")
            .arg(PAGE)
            .query_async(connection)
            .await
            .map_err(failed())?;
        let entries = reply::claimed_entries(found, &key)?;
        let Some(last) = entries.last() else { break };
        next = last.origin.id.next();
        for entry in &entries {
            let since = made_at(decoder::key_of(entry), Some(&entry.origin))
                .unwrap_or_else(|| added_at(entry.origin.id));
            note(
                since,
                Holder::Undelivered {
                    stream: stream.to_string(),
                    entry_id: entry.origin.id.to_string(),
                    since,
                },
            );
        }
        if entries.len() < PAGE {
            break;
        }
    }
    if let Some((since, holder)) = oldest {
        if is_waiting {
            // As workers have it: while something waits for so long, nobody knows why.
            outlook.hold_all(holder);
        } else {
            outlook.hold(since.min(now), holder);
        }
    }
    Ok(())
}

fn added_at(id: EntryId) -> DateTime<Utc> {
    i64::try_from(id.ms)
        .ok()
        .and_then(DateTime::from_timestamp_millis)
        .unwrap_or(DateTime::UNIX_EPOCH)
}
