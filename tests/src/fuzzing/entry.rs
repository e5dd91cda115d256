//! Entries with any fields, through the worker's decoder.
//!
//! The bytes are entries one after the other, so that entries with the same key, and good ones after
//! bad ones, meet in one batch:
//!
//! ```text
//! entry = [flags u8] fields of [name u8][value length u16 le][value]
//! flags = number of fields (0…7) | 8 delivered before | 16 gone from Redis | 32 the other stream
//! name  = 0 `v`, 1 `k`, 2 `i`, 3 `p`, 4 `tp`; of another, n bytes long: 5 | n << 3, and the name behind it
//! ```
//!
//! A value of length 65535 is everything that is left, as is one that is longer than that.

use std::sync::Arc;

use passerby_consumer::{
    batch::{Origin, RawFields},
    fuzzing::{self, Delivery},
};
use passerby_shared::{EntryId, StreamKey};

use super::{memory, payload::MAX_BAD_ROWS};

const MAX_ENTRIES: usize = 8;
const NAMES: [&[u8]; 5] = [b"v", b"k", b"i", b"p", b"tp"];
const REST: u16 = u16::MAX;

pub(super) fn run(data: &[u8]) {
    let entries = split(data);
    let delivered = entries.clone();
    let (batch, n_bytes) = memory::measured(|| fuzzing::decode(delivered));
    let n_letters = fuzzing::n_dead_letters(&batch);
    assert!(n_letters <= entries.len() * MAX_BAD_ROWS);
    // 64 KiB for what every batch has. A row takes at least 9 bytes in its payload and up to 700 with
    // its ids, three times that while a vector of them grows. A bad row makes a dead letter of up to
    // 1 KiB, with its origin, key, reason and fields, and an empty map of one byte is one: therefore
    // their number is limited.
    let max_bad_rows = data.len().min(entries.len() * MAX_BAD_ROWS);
    let max_bytes = 64 * 1024 + 256 * data.len() + 1024 * max_bad_rows;
    assert!(
        n_bytes <= max_bytes,
        "{n_bytes} bytes were allocated, at most {max_bytes} may be"
    );
    fuzzing::check(batch, &entries);
}

fn split(data: &[u8]) -> Vec<Delivery> {
    let streams = ["passerby:stream:{0}", "passerby:stream:{1}"]
        .map(|name| Arc::new(StreamKey::from_name(name)));
    let mut rest = data;
    let mut entries = Vec::new();
    while entries.len() < MAX_ENTRIES
        && let Some((flags, after)) = rest.split_first()
    {
        rest = after;
        let fields: RawFields = (0..flags & 7)
            .filter_map(|_| field(&mut rest))
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let origin = Origin {
            stream: Arc::clone(&streams[usize::from(flags & 32 != 0)]),
            id: EntryId {
                ms: 1_792_000_000_000,
                seq: entries.len() as u64,
            },
        };
        entries.push((origin, (flags & 16 == 0).then_some(fields), flags & 8 != 0));
    }
    entries
}

fn field(rest: &mut &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (name, after) = rest.split_first()?;
    *rest = after;
    let name = match NAMES.get(usize::from(name & 7)) {
        Some(name) => name.to_vec(),
        None => take(rest, usize::from(name >> 3)),
    };
    let (len, after) = rest.split_first_chunk().unwrap_or((&[0, 0], &[]));
    *rest = after;
    let len = match u16::from_le_bytes(*len) {
        REST => rest.len(),
        len => usize::from(len),
    };
    Some((name, take(rest, len)))
}

fn take(rest: &mut &[u8], len: usize) -> Vec<u8> {
    let (taken, after) = rest.split_at(len.min(rest.len()));
    *rest = after;
    taken.to_vec()
}

/// The bytes that stand for these entries. The last value of all may have any length, the others less
/// than 64 KiB; other names than those of the wire format may have 31 bytes.
pub(super) fn framed(entries: &[&[(&[u8], &[u8])]]) -> Vec<u8> {
    let mut out = Vec::new();
    for fields in entries {
        out.push(u8::try_from(fields.len()).unwrap());
        for (name, value) in *fields {
            match NAMES.iter().position(|known| known == name) {
                Some(at) => out.push(u8::try_from(at).unwrap()),
                None => {
                    out.push(5 | u8::try_from(name.len()).unwrap() << 3);
                    out.extend_from_slice(name);
                }
            }
            let len = u16::try_from(value.len()).unwrap_or(REST);
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(value);
        }
    }
    out
}
