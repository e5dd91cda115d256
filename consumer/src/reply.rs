//! Takes the replies of stream commands apart by value.
//!
//! redis-rs' `StreamReadReply` clones the whole reply before it reads it, keeps each entry's fields
//! in a hash map, and so loses fields that occur twice.

use std::{sync::Arc, time::Duration};

use passerby_shared::{EntryId, StreamKey, redis_connection::Reply};
use tokio::time::Instant;

use crate::batch::{Origin, RawFields};

/// An entry as Redis delivered it.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) origin: Origin,
    /// `None` when the entry was deleted or trimmed after it had been delivered for the first time.
    pub(crate) fields: Option<RawFields>,
    /// It was, or may have been, delivered before.
    pub(crate) again: bool,
}

impl Delivered {
    pub(crate) fn n_bytes(&self) -> usize {
        self.fields
            .iter()
            .flatten()
            .map(|(name, value)| name.len() + value.len())
            .sum()
    }
}

/// What one read delivered.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) entries: Vec<Delivered>,
    /// When.
    pub(crate) at: Instant,
    /// How long the read took, the wait for something to read included.
    pub(crate) took: Duration,
}

/// A page of the pending entries list, taken over.
#[derive(Debug)]
pub(crate) struct Claimed {
    /// Where the next page begins; `0-0` at the end.
    pub(crate) next: EntryId,
    pub(crate) delivered: Vec<Delivered>,
    /// Entries were claimed that are deleted and not named: they are found in the own history.
    pub(crate) has_nameless: bool,
}

/// A reply of a shape that the command does not have.
#[derive(Debug, thiserror::Error)]
#[error("unexpected reply to {command}: {found}")]
pub struct UnexpectedReply {
    command: &'static str,
    found: String,
}

pub(crate) fn unexpected(command: &'static str, value: &Reply) -> UnexpectedReply {
    let found = match value {
        Reply::Array(items) => format!("an array of {}", items.len()),
        other => {
            let text = format!("{other:?}");
            text.chars().take(80).collect()
        }
    };
    UnexpectedReply { command, found }
}

/// Reads the reply of `XREADGROUP`: nil, or `[[stream, [entry…]]…]`.
pub(crate) fn read_reply(
    reply: impl Into<Reply>,
    streams: &[Arc<StreamKey>],
    again: bool,
) -> Result<Vec<Delivered>, UnexpectedReply> {
    const COMMAND: &str = "XREADGROUP";
    let mut delivered = Vec::new();
    let by_stream = match reply.into() {
        Reply::Nil => return Ok(delivered),
        Reply::Array(by_stream) => by_stream,
        other => return Err(unexpected(COMMAND, &other)),
    };
    for value in by_stream {
        let (name, entries) = match value {
            Reply::Array(pair) => match <[Reply; 2]>::try_from(pair) {
                Ok([Reply::Bulk(name), Reply::Array(entries)]) => (name, entries),
                Ok([name, _]) => return Err(unexpected(COMMAND, &name)),
                Err(pair) => return Err(unexpected(COMMAND, &Reply::Array(pair))),
            },
            other => return Err(unexpected(COMMAND, &other)),
        };
        let stream = streams
            .iter()
            .find(|stream| stream.as_str().as_bytes() == name)
            .ok_or_else(|| unexpected(COMMAND, &Reply::Bulk(name)))?;
        for value in entries {
            delivered.push(entry(COMMAND, value, stream, again)?);
        }
    }
    Ok(delivered)
}

/// Reads the reply of `XAUTOCLAIM`: `[next, [entry…], [deleted ID…]]`, the last from Redis 7 on.
/// Before, entries deleted meanwhile are nil within the list, without their ID, and stay pending with
/// the claimer.
pub(crate) fn claim_reply(
    reply: Reply,
    stream: &Arc<StreamKey>,
) -> Result<Claimed, UnexpectedReply> {
    const COMMAND: &str = "XAUTOCLAIM";
    let Reply::Array(items) = reply else {
        return Err(unexpected(COMMAND, &reply));
    };
    let mut items = items.into_iter();
    let next = match items.next() {
        Some(Reply::Bulk(id)) => EntryId::from_bytes(&id).ok(),
        _ => None,
    };
    let next = next.ok_or_else(|| unexpected(COMMAND, &Reply::Nil))?;
    let mut delivered = Vec::new();
    let mut has_nameless = false;
    if let Some(Reply::Array(entries)) = items.next() {
        for value in entries {
            if value == Reply::Nil {
                has_nameless = true;
            } else {
                delivered.push(entry(COMMAND, value, stream, true)?);
            }
        }
    }
    if let Some(Reply::Array(deleted)) = items.next() {
        for value in deleted {
            if let Reply::Bulk(id) = &value
                && let Ok(id) = EntryId::from_bytes(id)
            {
                let origin = Origin {
                    stream: Arc::clone(stream),
                    id,
                };
                delivered.push(Delivered {
                    origin,
                    fields: None,
                    again: true,
                });
            }
        }
    }
    Ok(Claimed {
        next,
        delivered,
        has_nameless,
    })
}

/// Reads the reply of `XCLAIM`: `[entry…]`, with nil for entries deleted meanwhile before Redis 7.
pub(crate) fn claimed_entries(
    reply: impl Into<Reply>,
    stream: &Arc<StreamKey>,
) -> Result<Vec<Delivered>, UnexpectedReply> {
    const COMMAND: &str = "XCLAIM";
    let entries = match reply.into() {
        Reply::Array(entries) => entries,
        other => return Err(unexpected(COMMAND, &other)),
    };
    entries
        .into_iter()
        .filter(|value| *value != Reply::Nil)
        .map(|value| entry(COMMAND, value, stream, true))
        .collect()
}

/// Reads `[id, [name, value, …]]`, or `[id, nil]`.
fn entry(
    command: &'static str,
    value: Reply,
    stream: &Arc<StreamKey>,
    again: bool,
) -> Result<Delivered, UnexpectedReply> {
    let Reply::Array(pair) = value else {
        return Err(unexpected(command, &value));
    };
    let [id, fields] =
        <[Reply; 2]>::try_from(pair).map_err(|p| unexpected(command, &Reply::Array(p)))?;
    let Reply::Bulk(id_bytes) = &id else {
        return Err(unexpected(command, &id));
    };
    let id = EntryId::from_bytes(id_bytes).map_err(|_| unexpected(command, &id))?;
    let origin = Origin {
        stream: Arc::clone(stream),
        id,
    };
    let flat = match fields {
        Reply::Nil => {
            return Ok(Delivered {
                origin,
                fields: None,
                again,
            });
        }
        Reply::Array(flat) => flat,
        other => return Err(unexpected(command, &other)),
    };
    let mut fields = RawFields::with_capacity(flat.len() / 2);
    let mut flat = flat.into_iter();
    while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
        let (Reply::Bulk(name), Reply::Bulk(value)) = (name, value) else {
            return Err(unexpected(command, &Reply::Nil));
        };
        fields.push((name, value));
    }
    Ok(Delivered {
        origin,
        fields: Some(fields),
        again,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Reply {
        redis::parse_redis_value(text.as_bytes()).unwrap().into()
    }

    #[test]
    fn an_entry_keeps_fields_that_occur_twice_and_says_when_it_is_gone() {
        let streams = [Arc::new(StreamKey::from_name("s"))];
        let reply = parse(
            "*1\r\n*2\r\n$1\r\ns\r\n*2\r\n\
             *2\r\n$3\r\n5-1\r\n*4\r\n$1\r\np\r\n$1\r\n1\r\n$1\r\np\r\n$1\r\n2\r\n\
             *2\r\n$3\r\n6-0\r\n*-1\r\n",
        );
        let delivered = read_reply(reply, &streams, false).unwrap();
        assert_eq!(delivered[0].fields.as_ref().unwrap().len(), 2);
        assert_eq!(delivered[1].origin.id, EntryId { ms: 6, seq: 0 });
        assert!(delivered[1].fields.is_none());
        assert!(read_reply(Reply::Nil, &streams, false).unwrap().is_empty());
        assert!(read_reply(parse("+OK\r\n"), &streams, false).is_err());
    }

    #[test]
    fn deleted_entries_are_found_in_a_claim_of_redis_7() {
        let stream = Arc::new(StreamKey::from_name("s"));
        let reply = parse("*3\r\n$3\r\n0-0\r\n*0\r\n*1\r\n$3\r\n7-0\r\n");
        let claimed = claim_reply(reply, &stream).unwrap();
        assert_eq!(claimed.next, EntryId::MIN);
        assert_eq!(claimed.delivered[0].origin.id, EntryId { ms: 7, seq: 0 });
        let reply = parse("*2\r\n$3\r\n0-0\r\n*1\r\n*-1\r\n");
        assert!(claim_reply(reply, &stream).unwrap().has_nameless);
    }
}
