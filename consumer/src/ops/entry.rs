//! What became of one entry: where it is, who had it, whether it is stored.

use std::{sync::Arc, time::Duration};

use passerby_shared::{EntryId, IdempotencyKey, StreamKey};
use redis::{Value, aio::MultiplexedConnection};
use serde::Serialize;

use super::{
    OpsError, Target,
    decoded::{self, DecodedEntry, EntryRows},
};
use crate::{
    reply::{self, Delivered},
    store::{EntryLetter, FoundRows, LedgerEntry, Store},
    trimmer::LUA_ORDER,
};

/// Rows that are looked for in Postgres, and shown.
const MAX_ROWS: usize = 1_000;
/// How long before it was added an entry's key may have been made, for it to be found in the ledger by where
/// the entry stood.
const KEY_MADE_WITHIN: Duration = Duration::from_secs(15 * 60);
/// How long after a key was made an entry that has it is looked for in the streams.
const SENT_WITHIN: Duration = Duration::from_secs(5 * 60);
/// Entries that are looked through for one that has a key.
const MAX_SEARCHED: usize = 10_000;
const SEARCHED_PAGE: usize = 200;

/// How an entry is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryName {
    /// By its ID.
    Id(EntryId),
    /// By its idempotency key.
    Key(IdempotencyKey),
}

/// What is known of an entry.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EntryReport {
    /// The consumer group that was asked about.
    pub group: String,
    /// The entry, where it is known.
    pub entry_id: Option<EntryId>,
    /// Its idempotency key, where it is known.
    pub idempotency_key: Option<IdempotencyKey>,
    /// Each stream that has, or may have had, the entry.
    pub places: Vec<EntryPlace>,
    /// What the ledger has; `None` when the key is not in it.
    pub ledger: Option<LedgerEntry>,
    /// The dead letters of the entry, at most twenty.
    pub dead_letters: Vec<EntryLetter>,
    /// Where rows like those of the entry are stored.
    pub stored: Vec<FoundRows>,
    /// Rows that were looked for, of those that the entry holds.
    pub looked_for: u64,
    /// The rows themselves, where they were asked for.
    pub rows: Option<EntryRows>,
}

/// One stream, as far as the entry is concerned.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EntryPlace {
    /// The stream.
    pub stream: String,
    /// Whether the entry is there.
    pub whereabouts: Whereabouts,
    /// How long ago it was added, in milliseconds, if it was.
    pub age_ms: u64,
    /// The first entry of the stream.
    pub first_entry_id: Option<EntryId>,
    /// The last ID that the stream gave.
    pub last_entry_id: Option<EntryId>,
    /// What the group had to do with it.
    pub delivery: Delivery,
    /// What is in it.
    pub entry: Option<DecodedEntry>,
}

/// Whether an entry is in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Whereabouts {
    /// It is there.
    There,
    /// It would stand before the first entry: if it was there, it was trimmed.
    Trimmed,
    /// It would stand between others: if it was there, it was deleted.
    Missing,
    /// Its ID is greater than any that the stream has given.
    NotYet,
    /// There is no such stream.
    NoStream,
}

/// What a group had to do with an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Delivery {
    /// There is no such group.
    NoGroup,
    /// The group has not read so far.
    NotDelivered,
    /// Somebody holds it.
    Pending {
        /// Who.
        consumer: String,
        /// For how long there has been no sign of life, in milliseconds.
        idle_ms: u64,
        /// Times Redis delivered it.
        delivery_count: u64,
    },
    /// The group has read past it, and nobody holds it: it was acknowledged, if it was there.
    Acknowledged,
}

/// `KEYS[1]` the stream; `ARGV[1]` the group, `ARGV[2]` the entry. Returns the time, whether the stream is there,
/// its first and last ID, whether the group is there, its last delivered ID, who holds the entry, and the entry.
const LOOK: &str = r"
local time = redis.call('TIME')
if redis.call('EXISTS', KEYS[1]) == 0 then return {time[1], time[2], 0, '', '', 0, '', {}, {}} end
local stream = fields(redis.call('XINFO', 'STREAM', KEYS[1]))
local first = ''
if stream['length'] > 0 then first = stream['first-entry'][1] end
local there, last_delivered, held = 0, '', {}
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = fields(flat)
  if group['name'] == ARGV[1] then
    there, last_delivered = 1, group['last-delivered-id']
    local one = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1)[1]
    if one then held = {one[2], tostring(one[3]), tostring(one[4])} end
  end
end
return {time[1], time[2], 1, first, stream['last-generated-id'], there, last_delivered, held,
        redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])}";

/// Finds out what became of an entry.
///
/// Nothing is searched without bounds: an entry named by its ID whose key is not known any more is found in the
/// ledger if its key was made in the quarter of an hour before it was added, and an entry named by a key that
/// the ledger does not have is found in the streams among the 10,000 that followed the making of the key.
///
/// # Errors
///
/// [`OpsError`] when a server cannot be reached or refuses.
pub async fn entry(
    target: &mut Target,
    store: &mut Store,
    name: EntryName,
    with_rows: bool,
) -> Result<EntryReport, OpsError> {
    let mut report = EntryReport {
        group: target.group.clone(),
        entry_id: None,
        idempotency_key: None,
        places: Vec::new(),
        ledger: None,
        dead_letters: Vec::new(),
        stored: Vec::new(),
        looked_for: 0,
        rows: None,
    };
    // Where it stood, by stream; all of them where that is not known.
    let mut streams: Vec<StreamKey> = target.streams.clone();
    match name {
        EntryName::Id(id) => report.entry_id = Some(id),
        EntryName::Key(key) => {
            report.idempotency_key = Some(key);
            report.ledger = store.ledger_by_key(key).await?;
            let known = report.ledger.as_ref().and_then(|ledger| {
                Some((
                    StreamKey::from_name(ledger.stream.clone()?),
                    ledger.entry_id?,
                ))
            });
            let found = match known {
                Some(known) => Some(known),
                None => search(target, key).await?,
            };
            if let Some((stream, id)) = found {
                report.entry_id = Some(id);
                streams = vec![stream];
            }
        }
    }
    let mut rows = None;
    if let Some(id) = report.entry_id {
        for stream in &streams {
            let connection = target.link.get().await?;
            let (place, found) = look(connection, stream, &target.group, id).await?;
            rows = rows.or(found);
            report.places.push(place);
        }
        narrow(&mut report.places);
        identify(&mut report, store, id).await?;
    }
    let place = report
        .places
        .first()
        .map(|place| StreamKey::from_name(place.stream.clone()));
    let stood = place.as_ref().zip(report.entry_id);
    report.dead_letters = store.letters_of(report.idempotency_key, stood).await?;
    if let Some(rows) = &rows {
        report.looked_for = rows.len() as u64;
        report.stored = match rows {
            EntryRows::Detections(rows) => store.find_detections(rows).await?,
            EntryRows::Tracks(rows) => store.find_tracks(rows).await?,
            EntryRows::Sessions(rows) => store.find_sessions(rows).await?,
        };
    }
    report.rows = rows.filter(|_| with_rows);
    Ok(report)
}

/// Leaves out streams that cannot have had the entry, unless none can.
fn narrow(places: &mut Vec<EntryPlace>) {
    let is_there = |place: &EntryPlace| place.whereabouts == Whereabouts::There;
    let is_held = |place: &EntryPlace| matches!(place.delivery, Delivery::Pending { .. });
    if places.iter().any(|place| is_there(place) || is_held(place)) {
        places.retain(|place| is_there(place) || is_held(place));
    }
}

/// Finds the entry's key, and what the ledger has under it.
async fn identify(
    report: &mut EntryReport,
    store: &mut Store,
    id: EntryId,
) -> Result<(), OpsError> {
    let mut in_stream = report
        .places
        .iter()
        .filter_map(|place| place.entry.as_ref());
    if report.idempotency_key.is_none() {
        report.idempotency_key = in_stream.next().map(|entry| entry.idempotency_key);
    }
    if report.ledger.is_some() {
        return Ok(());
    }
    if let Some(key) = report.idempotency_key {
        report.ledger = store.ledger_by_key(key).await?;
        return Ok(());
    }
    for place in &report.places {
        let stream = StreamKey::from_name(place.stream.clone());
        // A stranger's entry, or one that was lost.
        let derived = IdempotencyKey::derived_from_entry(&stream, id);
        let mut found = store.ledger_by_key(derived).await?;
        if found.is_none() {
            found = store.ledger_by_entry(&stream, id, KEY_MADE_WITHIN).await?;
        }
        if let Some(ledger) = found {
            report.idempotency_key = Some(ledger.idempotency_key);
            report.ledger = Some(ledger);
            return Ok(());
        }
    }
    Ok(())
}

async fn look(
    connection: &mut MultiplexedConnection,
    stream: &StreamKey,
    group: &str,
    id: EntryId,
) -> Result<(EntryPlace, Option<EntryRows>), OpsError> {
    type Reply = (u64, u64, u8, String, String, u8, String, Vec<String>, Value);
    let reply: Reply = redis::Script::new(&format!("{LUA_ORDER}{LOOK}"))
        .key(stream)
        .arg(group)
        .arg(id)
        .invoke_async(connection)
        .await
        .map_err(OpsError::redis("look for an entry", stream))?;
    let (seconds, micros, exists, first, last, has_group, last_delivered, held, entries) = reply;
    let now_ms = seconds * 1_000 + micros / 1_000;
    let shared = Arc::new(stream.clone());
    let delivered = reply::claimed_entries(entries, &shared)?;
    let decoded = delivered.first().and_then(|there| {
        Some(decoded::decode(
            &there.origin,
            there.fields.as_ref()?,
            MAX_ROWS,
        ))
    });
    let (first, last) = (first.parse().ok(), last.parse().ok());
    let (entry, rows) = decoded.unzip();
    let place = EntryPlace {
        stream: stream.to_string(),
        whereabouts: match () {
            () if exists == 0 => Whereabouts::NoStream,
            () if entry.is_some() => Whereabouts::There,
            () if last.is_some_and(|last| id > last) => Whereabouts::NotYet,
            () if first.is_none_or(|first| id < first) => Whereabouts::Trimmed,
            () => Whereabouts::Missing,
        },
        age_ms: now_ms.saturating_sub(id.ms),
        first_entry_id: first,
        last_entry_id: last,
        delivery: delivery(has_group == 1, &last_delivered, held, id),
        entry,
    };
    Ok((place, rows))
}

fn delivery(has_group: bool, last_delivered: &str, held: Vec<String>, id: EntryId) -> Delivery {
    if let Ok([consumer, idle_ms, delivery_count]) = <[String; 3]>::try_from(held) {
        return Delivery::Pending {
            consumer,
            idle_ms: idle_ms.parse().unwrap_or(0),
            delivery_count: delivery_count.parse().unwrap_or(0),
        };
    }
    match last_delivered.parse::<EntryId>() {
        _ if !has_group => Delivery::NoGroup,
        Ok(last) if id <= last => Delivery::Acknowledged,
        _ => Delivery::NotDelivered,
    }
}

/// Looks for an entry that has this key among those added after the key was made.
async fn search(
    target: &mut Target,
    key: IdempotencyKey,
) -> Result<Option<(StreamKey, EntryId)>, OpsError> {
    let Some(made_at_ms) = key.made_at_ms() else {
        return Ok(None);
    };
    let connection = target.link.get().await?;
    let sent_within = u64::try_from(SENT_WITHIN.as_millis()).unwrap_or(u64::MAX);
    for stream in &target.streams {
        let shared = Arc::new(stream.clone());
        let mut from = EntryId {
            ms: made_at_ms.saturating_sub(1_000),
            seq: 0,
        };
        let until = EntryId {
            ms: made_at_ms.saturating_add(sent_within),
            seq: u64::MAX,
        };
        for _ in 0..MAX_SEARCHED / SEARCHED_PAGE {
            let value: Value = redis::cmd("XRANGE")
                .arg(stream)
                .arg(from)
                .arg(until)
                .arg("COUNT")
                .arg(SEARCHED_PAGE)
                .query_async(connection)
                .await
                .map_err(OpsError::redis("look for a key", stream))?;
            let entries = reply::claimed_entries(value, &shared)?;
            let has_key = |entry: &&Delivered| {
                let fields = entry.fields.as_ref();
                let pairs = fields.into_iter().flatten().map(|(n, v)| (&n[..], &v[..]));
                passerby_shared::wire::key_of(pairs) == Some(key)
            };
            if let Some(found) = entries.iter().find(has_key) {
                return Ok(Some((stream.clone(), found.origin.id)));
            }
            match entries.last() {
                Some(last) if entries.len() == SEARCHED_PAGE => from = last.origin.id.next(),
                _ => break,
            }
        }
    }
    Ok(None)
}
