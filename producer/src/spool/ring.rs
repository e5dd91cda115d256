//! The buffer's rows on disk: a file in memory that outlives the process.
//!
//! ```text
//! | head: what it is, two slots | record | record | … | free | … |
//! record = [length u32][crc u32][seq u64][row]
//! ```
//!
//! A record is written with plain memory writes, within the lock of the buffer. That is enough for a
//! process that is killed: the pages are the system's. Nothing here waits for the disk, with one
//! exception that is the file system's: the first write to a page that it is just writing out.
//!
//! Space is freed when the rows are in the log. What must be known then (where the oldest record is,
//! up to which number rows are in the log, up to where the log has been sent) stands in one of two
//! slots, which are written in turn: whatever moment the process dies at, one of them is whole.

use std::{fs::File, io, path::Path};

use memmap2::MmapMut;

use super::{
    error::SpoolError,
    le::{u32_at, u64_at},
    log::Position,
    row_codec,
};
use crate::row::Row;

const MAGIC: &[u8; 8] = b"pbyring1";
/// Where records begin.
const HEAD_BYTES: usize = 4096;
/// Where the slots are: in sectors of their own, so that none is torn with the other.
const SLOTS: [usize; 2] = [1024, 2048];
const SLOT_BYTES: usize = 64;
/// Length, checksum, number.
const RECORD_HEAD: usize = 16;
/// In place of a length: what follows stands at the beginning.
const WRAP: u32 = u32::MAX;

/// The buffer's rows on disk.
pub(crate) struct Ring {
    map: MmapMut,
    /// Where the next record goes, from the first byte after the head.
    head: usize,
    tail: usize,
    n_records: usize,
    state: State,
}

/// What a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct State {
    /// Grows with every slot written.
    generation: u64,
    /// Grows with every start: records of earlier ones are none.
    epoch: u32,
    /// The rows went on in memory: those in the ring are not to be sent again.
    pub(crate) is_abandoned: bool,
    tail: u64,
    /// The number of the oldest record, or of the next one.
    tail_seq: u64,
    /// Rows below this number are in the log, or were dropped.
    pub(crate) framed_below: u64,
    /// Up to where the log has been sent.
    pub(crate) cursor: Position,
}

/// What an earlier process left.
#[derive(Debug, Default)]
pub(crate) struct Left {
    pub(crate) state: State,
    /// Rows that are not known to be in the log, with their numbers, oldest first.
    pub(crate) rows: Vec<(u64, Row)>,
}

impl Ring {
    /// Opens the file of a ring, making it if need be, and reads what is left in it.
    ///
    /// The rows stay in the file until [`Ring::restart`].
    pub(crate) fn open(path: &Path, n_bytes: u64) -> Result<(Self, Option<Left>), SpoolError> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(SpoolError::io("open", path))?;
        let size = file
            .metadata()
            .map_err(SpoolError::io("look at", path))?
            .len();
        let left = if size == 0 {
            super::files::write_in_place(&file);
            None
        } else {
            let bytes = std::fs::read(path).map_err(SpoolError::io("read", path))?;
            check_version(path, &bytes)?;
            read(&bytes)
        };
        let wanted = HEAD_BYTES as u64 + n_bytes;
        // A ring of another size keeps its size until it is empty: that is now, or at the next start.
        let keeps_rows = left.as_ref().is_some_and(|left| !left.rows.is_empty());
        if size < wanted || (size > wanted && !keeps_rows) {
            // Written and not only set aside: a page whose place on the disk is known is made
            // writable without the file system's journal, which may be waiting for the disk.
            super::files::fill(&file, size.min(wanted), wanted)
                .map_err(SpoolError::allocate(path, wanted))?;
            file.set_len(wanted).map_err(SpoolError::io("size", path))?;
        }
        let map = map(&file).map_err(SpoolError::io("map", path))?;
        let state = left.as_ref().map(|left| left.state).unwrap_or_default();
        let mut ring = Self {
            map,
            head: 0,
            tail: 0,
            n_records: 0,
            state,
        };
        if left.is_none() {
            ring.map[..8].copy_from_slice(MAGIC);
        }
        Ok((ring, left))
    }

    /// Empties the ring: all rows below `next_seq` are in the log, or are not to be sent.
    pub(crate) fn restart(&mut self, next_seq: u64, cursor: Position) {
        self.map[..8].copy_from_slice(MAGIC);
        (self.head, self.tail, self.n_records) = (0, 0, 0);
        self.state = State {
            generation: self.state.generation,
            epoch: self.state.epoch.wrapping_add(1),
            is_abandoned: false,
            tail: 0,
            tail_seq: next_seq,
            framed_below: next_seq,
            cursor,
        };
        self.write_state();
    }

    /// Whether a row would ever find room.
    pub(crate) fn can_hold(&self, row: &Row) -> bool {
        record_len(row) <= self.capacity()
    }

    /// Whether a row has room now.
    pub(crate) fn has_room(&self, row: &Row) -> bool {
        self.place(record_len(row)).is_some()
    }

    /// Writes a row. Its number is that of the row before and one; false when there is no room.
    pub(crate) fn push(&mut self, seq: u64, row: &Row) -> bool {
        let len = record_len(row);
        let Some(at) = self.place(len) else {
            return false;
        };
        if self.n_records == 0 {
            // Only a few pages stay in use, however large the ring is.
            (self.tail, self.state.tail_seq) = (at, seq);
            self.write_state();
        } else if at < self.head && self.capacity() - self.head >= 4 {
            let head = HEAD_BYTES + self.head;
            self.map[head..head + 4].copy_from_slice(&WRAP.to_le_bytes());
        }
        let record = &mut self.map[HEAD_BYTES + at..HEAD_BYTES + at + len];
        let (head, row_bytes) = record.split_at_mut(RECORD_HEAD);
        row_codec::encode(row, row_bytes);
        let n_bytes = u32::try_from(row_bytes.len()).unwrap_or(WRAP);
        head[8..].copy_from_slice(&seq.to_le_bytes());
        head[4..8].copy_from_slice(&checksum(self.state.epoch, seq, row_bytes).to_le_bytes());
        head[..4].copy_from_slice(&n_bytes.to_le_bytes());
        self.head = at + len;
        self.n_records += 1;
        true
    }

    /// Frees the rows below this number: they are in the log, or were dropped.
    pub(crate) fn release_below(&mut self, seq: u64) {
        while self.n_records > 0 && self.state.tail_seq < seq {
            let (at, len) = match self.length_at(self.tail) {
                None => (0, self.length_at(0).unwrap_or(0)),
                Some(len) => (self.tail, len),
            };
            self.tail = at + len;
            self.state.tail_seq += 1;
            self.n_records -= 1;
        }
        if self.n_records == 0 {
            self.state.tail_seq = self.state.tail_seq.max(seq);
            (self.head, self.tail) = (0, 0);
        }
        self.state.framed_below = self.state.framed_below.max(seq);
        self.write_state();
    }

    /// Notes up to where the log has been sent.
    pub(crate) fn sent_to(&mut self, cursor: Position) {
        self.state.cursor = cursor;
        self.write_state();
    }

    /// Marks the rows as going on in memory only.
    pub(crate) fn abandon(&mut self) {
        self.state.is_abandoned = true;
        self.write_state();
    }

    /// Forces everything onto the disk. Slow.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.map.flush()
    }

    fn capacity(&self) -> usize {
        self.map.len().saturating_sub(HEAD_BYTES)
    }

    /// Where a record of this length goes.
    fn place(&self, len: usize) -> Option<usize> {
        let capacity = self.capacity();
        if self.n_records == 0 {
            return (len <= capacity).then_some(0);
        }
        if self.head < self.tail {
            // Never quite full: equal offsets mean empty.
            return (self.tail - self.head > len).then_some(self.head);
        }
        if capacity - self.head >= len {
            return Some(self.head);
        }
        (self.tail > len).then_some(0)
    }

    /// The length of the record at this offset; `None` when the next one stands at the beginning.
    fn length_at(&self, at: usize) -> Option<usize> {
        record_at(&self.map[HEAD_BYTES..], at).map(|(len, _)| RECORD_HEAD + len)
    }

    fn write_state(&mut self) {
        self.state.generation += 1;
        self.state.tail = self.tail as u64;
        let slot = SLOTS[usize::from(self.state.generation % 2 == 1)];
        self.map[slot..slot + SLOT_BYTES].copy_from_slice(&self.state.encode());
    }
}

impl State {
    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        let fields = [
            self.generation,
            u64::from(self.epoch) | u64::from(self.is_abandoned) << 32,
            self.tail,
            self.tail_seq,
            self.framed_below,
            self.cursor.segment,
            self.cursor.offset,
        ];
        for (at, field) in fields.into_iter().enumerate() {
            slot[8 * at..8 * at + 8].copy_from_slice(&field.to_le_bytes());
        }
        let crc = crc32fast::hash(&slot[..56]);
        slot[56..60].copy_from_slice(&crc.to_le_bytes());
        slot
    }

    fn decode(slot: &[u8]) -> Option<Self> {
        let slot: &[u8; SLOT_BYTES] = slot.try_into().ok()?;
        let field = |at: usize| u64_at(slot, 8 * at);
        if u32_at(slot, 56) != crc32fast::hash(&slot[..56]) || field(0) == 0 {
            return None;
        }
        let [epoch, flags] = [field(1) & u64::from(u32::MAX), field(1) >> 32];
        Some(Self {
            generation: field(0),
            epoch: u32::try_from(epoch).ok()?,
            is_abandoned: flags & 1 != 0,
            tail: field(2),
            tail_seq: field(3),
            framed_below: field(4),
            cursor: Position {
                segment: field(5),
                offset: field(6),
            },
        })
    }
}

/// Says when the bytes are a ring of a version that only later programs know.
pub(crate) fn check_version(path: &Path, bytes: &[u8]) -> Result<(), SpoolError> {
    let Some(magic) = bytes.first_chunk::<8>() else {
        return Ok(());
    };
    match magic.strip_prefix(b"pbyring") {
        Some(&[version @ b'2'..=b'9']) => Err(SpoolError::Newer {
            path: path.to_path_buf(),
            version: u32::from(version - b'0'),
            known: 1,
        }),
        _ => Ok(()),
    }
}

/// Reads what is left in the bytes of a ring; `None` when no slot can be read. Never panics.
pub(crate) fn read(bytes: &[u8]) -> Option<Left> {
    if bytes.first_chunk() != Some(MAGIC) {
        return None;
    }
    let records = bytes.get(HEAD_BYTES..)?;
    let state = SLOTS
        .into_iter()
        .filter_map(|slot| State::decode(bytes.get(slot..slot + SLOT_BYTES)?))
        .max_by_key(|state| state.generation)?;
    let mut rows = Vec::new();
    if !state.is_abandoned {
        let mut at = usize::try_from(state.tail).ok()?;
        let mut seq = state.tail_seq;
        let mut has_wrapped = false;
        loop {
            let Some((len, row)) = record_at(records, at) else {
                if has_wrapped || at == 0 {
                    break;
                }
                (at, has_wrapped) = (0, true);
                continue;
            };
            let head = &records[at..at + RECORD_HEAD];
            if u64_at(head, 8) != seq || u32_at(head, 4) != checksum(state.epoch, seq, row) {
                // Where the last record reaches the end of the file there is no mark.
                break;
            }
            if seq >= state.framed_below {
                rows.extend(row_codec::decode(row).map(|row| (seq, row)));
            }
            let Some(next) = seq.checked_add(1) else {
                break;
            };
            (at, seq) = (at + RECORD_HEAD + len, next);
        }
    }
    Some(Left { state, rows })
}

/// The row at this offset, unchecked; `None` when the next one stands at the beginning.
fn record_at(records: &[u8], at: usize) -> Option<(usize, &[u8])> {
    let head = records.get(at..at.checked_add(RECORD_HEAD)?)?;
    let len = u32_at(head, 0);
    if len == WRAP {
        return None;
    }
    let len = usize::try_from(len).ok()?;
    let row = records.get(at + RECORD_HEAD..(at + RECORD_HEAD).checked_add(len)?)?;
    Some((len, row))
}

fn record_len(row: &Row) -> usize {
    RECORD_HEAD + row_codec::encoded_len(row)
}

fn checksum(epoch: u32, seq: u64, row: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(epoch);
    crc.update(&seq.to_le_bytes());
    crc.update(row);
    crc.finalize()
}

/// Maps a file into memory.
#[expect(
    unsafe_code,
    reason = "a mapping is only as sound as nobody cutting or changing the file: its directory is \
              locked for this producer, the file is as long as it will ever be, and every byte of it \
              has its place on the disk"
)]
fn map(file: &File) -> io::Result<MmapMut> {
    // SAFETY: see above. What is read back from the mapping is checked as if it came from outside.
    unsafe { MmapMut::map_mut(file) }
}

#[cfg(test)]
mod tests;
