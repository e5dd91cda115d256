//! Any bytes as what a producer left on disk.
//!
//! ```text
//! input = [flags u8][length of the log u16 le][log][slot 64][slot 64][records]
//! flags = 1 leave the checksums of the log as they are | 2 those of the ring
//! ```
//!
//! The ring's slots stand where they do in its file, with what is between them left out. Nobody guesses
//! a checksum, so they are put right: damage that keeps them right is beyond what a disk does, and must
//! harm no more.

use passerby_producer::spool::recover_bytes;

use super::memory::bounded;

const SEGMENT: u64 = 1;
const FRAME_HEAD_BYTES: usize = 52;
const RING_HEAD_BYTES: usize = 4096;
const SLOTS: [usize; 2] = [1024, 2048];
const SLOT_BYTES: usize = 64;
const RECORD_HEAD_BYTES: usize = 16;

pub(super) fn run(data: &[u8]) {
    let (log, ring) = parts(data);
    // The entries of one frame are in memory, each at least 27 bytes of the log; of the ring all rows
    // are, each at least 40 bytes of a record; both in a vector that grows.
    let max_bytes = 8 * 1024 + 32 * (log.len() + ring.len() - RING_HEAD_BYTES);
    let (n_entries, n_rows) = bounded(max_bytes, || recover_bytes(SEGMENT, &log, &ring));
    assert!(n_entries <= log.len() / 27);
    assert!(n_rows <= (ring.len() - RING_HEAD_BYTES) / RECORD_HEAD_BYTES);
}

/// The log and the ring.
fn parts(data: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (flags, rest) = data.split_first().unwrap_or((&0, &[]));
    let (len, rest) = rest.split_first_chunk().unwrap_or((&[0, 0], &[]));
    let (log, rest) = rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len()));
    let (mut log, mut ring) = (log.to_vec(), ring(rest));
    if flags & 1 == 0 {
        put_log_right(&mut log);
    }
    if flags & 2 == 0 {
        put_ring_right(&mut ring);
    }
    (log, ring)
}

fn ring(rest: &[u8]) -> Vec<u8> {
    let mut ring = vec![0; RING_HEAD_BYTES];
    ring[..8].copy_from_slice(b"pbyring1");
    let mut rest = rest;
    for slot in SLOTS {
        let taken;
        (taken, rest) = rest.split_at(SLOT_BYTES.min(rest.len()));
        ring[slot..slot + taken.len()].copy_from_slice(taken);
    }
    ring.extend_from_slice(rest);
    ring
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn put_log_right(log: &mut [u8]) {
    for at in 0..log.len().saturating_sub(FRAME_HEAD_BYTES - 1) {
        if !log[at..].starts_with(b"pbFr") {
            continue;
        }
        let (head, body) = log[at..].split_at_mut(FRAME_HEAD_BYTES);
        if let Some(body) = body.get(..u32_at(head, 4)) {
            head[44..48].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        }
        let crc = crc32fast::hash(&head[..48]);
        head[48..].copy_from_slice(&crc.to_le_bytes());
    }
}

fn put_ring_right(ring: &mut [u8]) {
    for slot in SLOTS {
        let crc = crc32fast::hash(&ring[slot..slot + 56]);
        ring[slot + 56..slot + 60].copy_from_slice(&crc.to_le_bytes());
    }
    // The records of the slot that counts: the one written last.
    let slot = SLOTS.into_iter().max_by_key(|slot| u64_at(ring, *slot));
    let slot = slot.unwrap_or(SLOTS[0]);
    let epoch = u32::try_from(u32_at(ring, slot + 8)).unwrap();
    let (tail, mut seq) = (u64_at(ring, slot + 16), u64_at(ring, slot + 24));
    let Ok(tail) = usize::try_from(tail) else {
        return;
    };
    let records = &mut ring[RING_HEAD_BYTES..];
    // Up to the end of the file, and from its beginning up to where it began.
    for (mut at, end) in [(tail, records.len()), (0, tail)] {
        while let Some(record) = records.get_mut(at..end)
            && record.len() >= RECORD_HEAD_BYTES
        {
            let len = u32_at(record, 0);
            let (head, row) = record.split_at_mut(RECORD_HEAD_BYTES);
            let Some(row) = row.get(..len) else {
                break;
            };
            let mut crc = crc32fast::Hasher::new_with_initial(epoch);
            crc.update(&seq.to_le_bytes());
            crc.update(row);
            head[4..8].copy_from_slice(&crc.finalize().to_le_bytes());
            head[8..].copy_from_slice(&seq.to_le_bytes());
            (at, seq) = (at + RECORD_HEAD_BYTES + len, seq.wrapping_add(1));
        }
    }
}

/// The bytes that stand for this log and these records, of a ring that begins with row 7.
pub(super) fn framed(flags: u8, log: &[u8], tail: u64, records: &[u8]) -> Vec<u8> {
    let mut out = vec![flags];
    out.extend_from_slice(&u16::try_from(log.len()).unwrap().to_le_bytes());
    out.extend_from_slice(log);
    for generation in [1_u64, 2] {
        let slot = [generation, 3, tail, 7, 0, SEGMENT, 0, 0];
        out.extend(slot.into_iter().flat_map(u64::to_le_bytes));
    }
    out.extend_from_slice(records);
    out
}

/// A frame with these numbers of its rows and these bytes of entries.
pub(super) fn frame(segment: u64, seqs: [u64; 2], n_entries: u32, body: &[u8]) -> Vec<u8> {
    let mut out = b"pbFr".to_vec();
    out.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
    for field in [segment, seqs[0], seqs[1], 1_792_000_000_000] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(&n_entries.to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(body);
    out
}

/// An entry of a frame, whose payload says that it has this length.
pub(super) fn entry(kind: u8, said_len: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0xab; 16];
    out.extend_from_slice(&[0, 0, kind, 1, 0, 0, 0]);
    out.extend_from_slice(&said_len.to_le_bytes());
    out.extend_from_slice(payload);
    out
}

/// A record of a row, whose head says that it has this length.
pub(super) fn record(said_len: u32, row: &[u8]) -> Vec<u8> {
    let mut out = said_len.to_le_bytes().to_vec();
    out.extend_from_slice(&[0; 12]);
    out.extend_from_slice(row);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::Target;

    #[test]
    fn what_is_sound_is_recovered() {
        let seeds = Target::Spool.seeds();
        let (_, sound) = seeds
            .iter()
            .find(|(name, _)| name == "line-sound-0")
            .unwrap();
        let (log, mut ring) = parts(sound);
        assert_eq!(recover_bytes(SEGMENT, &log, &ring), (3, 3));
        // And nothing else: a checksum that is wrong costs the row and those behind it.
        let last = ring.len() - 1;
        ring[last] ^= 1;
        assert_eq!(recover_bytes(SEGMENT, &log, &ring), (3, 2));
    }
}
