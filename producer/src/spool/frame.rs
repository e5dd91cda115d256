//! A frame of the log: the entries of one flush, with the keys they keep.
//!
//! ```text
//! head = [magic u32][body length u32][segment u64][first seq u64][through seq u64][time ms u64]
//!        [entries u32][crc of the body u32][crc of the head u32]
//! body = entries of [key 16][shard u16][kind u8][rows u32][payload length u32][payload]
//! ```
//!
//! The head has a checksum of its own, so that a frame is found among damaged bytes without believing
//! a length. It names its segment: a segment's file is used again, and what it held before is not its.

use std::ops::{AddAssign, Range, SubAssign};

use passerby_shared::{IdempotencyKey, wire::Kind};
use serde::Serialize;

use super::le::{u32_at, u64_at};
use crate::batcher::{Entry, Held};

const MAGIC: u32 = u32::from_le_bytes(*b"pbFr");
/// Length of a frame's head.
pub(crate) const HEAD_BYTES: usize = 52;
const ENTRY_HEAD_BYTES: usize = 27;
/// Zeros after the last frame: where it was written over an older one, the older one's rest is told
/// from a frame cut short.
pub(crate) const END_BYTES: usize = 4;

/// What stands in a frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) n_body_bytes: usize,
    pub(crate) segment: u64,
    pub(crate) first_seq: u64,
    /// The last row's number: all rows up to it are in this frame or before it.
    pub(crate) through_seq: u64,
    pub(crate) at_ms: u64,
    n_entries: u32,
    body_crc: u32,
}

/// Rows by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RowCounts {
    /// Detections.
    pub detections: u64,
    /// Tracks.
    pub tracks: u64,
    /// Sessions.
    pub sessions: u64,
}

impl RowCounts {
    pub(crate) fn of(entries: &[Entry]) -> Self {
        let mut counts = Self::default();
        for entry in entries {
            counts.add(entry.kind, entry.n_rows as u64);
        }
        counts
    }

    pub(crate) fn add(&mut self, kind: Kind, n_rows: u64) {
        *match kind {
            Kind::Detections => &mut self.detections,
            Kind::Tracks => &mut self.tracks,
            Kind::Sessions => &mut self.sessions,
        } += n_rows;
    }

    /// Every kind with its rows.
    pub(crate) fn each(self) -> [(Kind, u64); 3] {
        [
            (Kind::Detections, self.detections),
            (Kind::Tracks, self.tracks),
            (Kind::Sessions, self.sessions),
        ]
    }

    /// The rows of all kinds.
    pub fn total(&self) -> u64 {
        self.detections + self.tracks + self.sessions
    }
}

impl AddAssign for RowCounts {
    fn add_assign(&mut self, other: Self) {
        self.detections += other.detections;
        self.tracks += other.tracks;
        self.sessions += other.sessions;
    }
}

impl SubAssign for RowCounts {
    fn sub_assign(&mut self, other: Self) {
        self.detections = self.detections.saturating_sub(other.detections);
        self.tracks = self.tracks.saturating_sub(other.tracks);
        self.sessions = self.sessions.saturating_sub(other.sessions);
    }
}

/// Writes a frame, with the end mark behind it.
pub(crate) fn encode(
    segment: u64,
    seqs: Range<u64>,
    at_ms: u64,
    entries: &[Entry],
    out: &mut Vec<u8>,
) {
    out.clear();
    out.resize(HEAD_BYTES, 0);
    for entry in entries {
        out.extend_from_slice(entry.key.as_bytes());
        out.extend_from_slice(&entry.shard.to_le_bytes());
        out.push(entry.kind.as_str().as_bytes()[0]);
        out.extend_from_slice(&len32(entry.n_rows).to_le_bytes());
        out.extend_from_slice(&len32(entry.payload.len()).to_le_bytes());
        out.extend_from_slice(&entry.payload);
    }
    let (head, body) = out.split_at_mut(HEAD_BYTES);
    let fields: [&[u8]; 8] = [
        &MAGIC.to_le_bytes(),
        &len32(body.len()).to_le_bytes(),
        &segment.to_le_bytes(),
        &seqs.start.to_le_bytes(),
        &seqs.end.saturating_sub(1).to_le_bytes(),
        &at_ms.to_le_bytes(),
        &len32(entries.len()).to_le_bytes(),
        &crc32fast::hash(body).to_le_bytes(),
    ];
    let mut at = 0;
    for field in fields {
        head[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    }
    let crc = crc32fast::hash(&head[..at]);
    head[at..].copy_from_slice(&crc.to_le_bytes());
    out.resize(out.len() + END_BYTES, 0);
}

/// How many bytes of the log entries with payloads of so many bytes take, at most.
pub(crate) fn encoded_len(n_payload_bytes: usize, n_entries: usize) -> usize {
    HEAD_BYTES + END_BYTES + n_payload_bytes + n_entries * ENTRY_HEAD_BYTES
}

/// The bytes that [`encode`] makes of these entries, without the end mark.
pub(crate) fn frame_len(entries: &[Entry]) -> usize {
    let n_payload_bytes = entries.iter().map(|entry| entry.payload.len()).sum();
    encoded_len(n_payload_bytes, entries.len()) - END_BYTES
}

fn len32(len: usize) -> u32 {
    u32::try_from(len).expect("a flush is far smaller than 4 GiB: checked with the config")
}

/// Reads the head of a frame of this segment; `None` when there is none.
pub(crate) fn head(bytes: &[u8], segment: u64) -> Option<Head> {
    let head: &[u8; HEAD_BYTES] = bytes.first_chunk()?;
    if u32_at(head, 0) != MAGIC || u32_at(head, 48) != crc32fast::hash(&head[..48]) {
        return None;
    }
    let head = Head {
        n_body_bytes: usize::try_from(u32_at(head, 4)).ok()?,
        segment: u64_at(head, 8),
        first_seq: u64_at(head, 16),
        through_seq: u64_at(head, 24),
        at_ms: u64_at(head, 32),
        n_entries: u32_at(head, 40),
        body_crc: u32_at(head, 44),
    };
    (head.segment == segment && head.first_seq <= head.through_seq && head.through_seq < u64::MAX)
        .then_some(head)
}

/// The segment that a head names, whichever it is; 0 when it cannot be read.
pub(crate) fn segment_said(bytes: &[u8; HEAD_BYTES]) -> u64 {
    let said = u64_at(bytes, 8);
    head(bytes, said).map_or(0, |head| head.segment)
}

/// The body's entries; `None` when it is damaged.
pub(crate) fn entries(head: &Head, body: &[u8]) -> Option<Vec<Entry>> {
    if crc32fast::hash(body) != head.body_crc {
        return None;
    }
    let mut entries = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (fixed, after) = rest.split_first_chunk::<ENTRY_HEAD_BYTES>()?;
        let kind = std::str::from_utf8(&fixed[18..19]).ok()?.parse().ok()?;
        let n_rows = usize::try_from(u32_at(fixed, 19)).ok()?;
        let n_payload_bytes = usize::try_from(u32_at(fixed, 23)).ok()?;
        let (payload, after) = after.split_at_checked(n_payload_bytes)?;
        entries.push(Entry {
            shard: u16::from_le_bytes([fixed[16], fixed[17]]),
            kind,
            key: IdempotencyKey::from_field(&fixed[..16]).ok()?,
            payload: payload.to_vec(),
            n_rows,
            n_bytes: 0,
            recent: Vec::new(),
            held: Held::Spool,
            // A frame outlives whoever could look at its trace.
            traceparent: None,
        });
        rest = after;
    }
    (entries.len() as u64 == u64::from(head.n_entries)).then_some(entries)
}

/// Something in a segment that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) offset: usize,
    pub(crate) n_bytes: usize,
    /// Whether frames follow: then rows are lost. Otherwise the last frame was being written.
    pub(crate) in_the_middle: bool,
}

/// A frame that was found in a segment, and where the next one may begin.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) head: Head,
    pub(crate) at: Range<usize>,
    pub(crate) entries: Vec<Entry>,
}

/// Reads a segment's frames one after the other, over what is damaged.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    bytes: &'a [u8],
    segment: u64,
    at: usize,
    /// No frame begins below this number: numbers only grow.
    next_seq: u64,
    pub(crate) damage: Vec<Damage>,
}

impl<'a> Scan<'a> {
    /// Frames from this offset on.
    pub(crate) fn new(bytes: &'a [u8], segment: u64, at: usize) -> Self {
        Self {
            bytes,
            segment,
            at,
            next_seq: 0,
            damage: Vec::new(),
        }
    }

    /// Behind the last frame that was read.
    pub(crate) fn end(&self) -> usize {
        self.at
    }

    fn frame_at(&self, at: usize) -> Option<Found> {
        let bytes = self.bytes.get(at..)?;
        let head = head(bytes, self.segment)?;
        let body = bytes.get(HEAD_BYTES..HEAD_BYTES.checked_add(head.n_body_bytes)?)?;
        if head.first_seq < self.next_seq {
            return None;
        }
        Some(Found {
            head,
            at: at..at + HEAD_BYTES + head.n_body_bytes,
            entries: entries(&head, body)?,
        })
    }

    /// The next frame behind something unreadable.
    fn find_later(&self) -> Option<Found> {
        let magic = MAGIC.to_le_bytes();
        let from = self.at + 1;
        let candidates = self.bytes.get(from..)?.windows(magic.len()).enumerate();
        candidates
            .filter(|(_, window)| *window == magic)
            .find_map(|(at, _)| self.frame_at(from + at))
    }
}

impl Iterator for Scan<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        let rest = self.bytes.get(self.at..)?;
        let found = match self.frame_at(self.at) {
            Some(found) => found,
            None => {
                let found = self.find_later();
                let is_end = rest.iter().take(END_BYTES).all(|byte| *byte == 0);
                if let Some(found) = found {
                    self.damage.push(Damage {
                        offset: self.at,
                        n_bytes: found.at.start - self.at,
                        in_the_middle: true,
                    });
                    found
                } else {
                    if !is_end {
                        let used = rest.iter().rposition(|byte| *byte != 0);
                        let said = head(rest, self.segment)
                            .map(|head| HEAD_BYTES.saturating_add(head.n_body_bytes));
                        self.damage.push(Damage {
                            offset: self.at,
                            n_bytes: said.unwrap_or(usize::MAX).min(used.map_or(0, |at| at + 1)),
                            in_the_middle: false,
                        });
                    }
                    return None;
                }
            }
        };
        self.at = found.at.end;
        self.next_seq = found.head.through_seq + 1;
        Some(found)
    }
}

#[cfg(test)]
mod tests;
