use proptest::prelude::*;

use super::*;

const SEGMENT: u64 = 7;

fn entry(n_rows: usize, payload: Vec<u8>) -> Entry {
    Entry {
        shard: 3,
        kind: Kind::Tracks,
        key: IdempotencyKey::generate(),
        payload,
        n_rows,
        n_bytes: 0,
        recent: Vec::new(),
        held: Held::Spool,
        traceparent: None,
    }
}

/// A segment of frames, each of one entry with `n` bytes, and where each frame begins.
fn segment(number: u64, payloads: &[usize]) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut starts, mut frame) = (Vec::new(), Vec::new(), Vec::new());
    for (at, n_bytes) in payloads.iter().enumerate() {
        let seq = 10 * at as u64;
        let fill = u8::try_from(at % 250).unwrap();
        let entries = [entry(10, vec![fill; *n_bytes])];
        encode(
            number,
            seq..seq + 10,
            1_790_000_000_000,
            &entries,
            &mut frame,
        );
        starts.push(bytes.len());
        bytes.extend_from_slice(&frame[..frame.len() - END_BYTES]);
    }
    bytes.extend_from_slice(&[0; 64]);
    (bytes, starts)
}

fn found(bytes: &[u8]) -> (Vec<u64>, Vec<Damage>) {
    let mut scan = Scan::new(bytes, SEGMENT, 0);
    let seqs = (&mut scan).map(|found| found.head.first_seq).collect();
    (seqs, scan.damage)
}

#[test]
fn a_frame_is_read_as_it_was_written() {
    let entries = [entry(10, vec![1; 100]), entry(1, Vec::new())];
    let mut bytes = Vec::new();
    encode(SEGMENT, 40..51, 1_790_000_000_000, &entries, &mut bytes);
    assert_eq!(bytes.len(), frame_len(&entries) + END_BYTES);

    let read: Vec<Found> = Scan::new(&bytes, SEGMENT, 0).collect();

    assert_eq!(read.len(), 1);
    assert_eq!((read[0].head.first_seq, read[0].head.through_seq), (40, 50));
    for (read, written) in read[0].entries.iter().zip(&entries) {
        assert_eq!(
            (read.key, read.shard, read.kind),
            (written.key, 3, Kind::Tracks)
        );
        assert_eq!(
            (read.n_rows, &read.payload),
            (written.n_rows, &written.payload)
        );
    }
}

#[test]
fn frames_of_what_the_file_was_before_are_none() {
    let (older, _) = segment(SEGMENT - 1, &[100; 20]);
    let (newer, _) = segment(SEGMENT, &[33; 3]);
    let newer = &newer[..newer.len() - 64 + END_BYTES];
    let mut bytes = older;
    bytes[..newer.len()].copy_from_slice(newer);

    assert_eq!(found(&bytes), (vec![0, 10, 20], vec![]));
}

#[test]
fn a_frame_cut_short_is_told_from_one_that_others_follow() {
    let (bytes, starts) = segment(SEGMENT, &[100; 3]);
    let mut cut = bytes.clone();
    cut.truncate(starts[2] + 60);
    let (seqs, damage) = found(&cut);
    assert_eq!(seqs, [0, 10]);
    assert!(!damage[0].in_the_middle);
    assert_eq!((damage[0].offset, damage[0].n_bytes), (starts[2], 60));

    let mut broken = bytes;
    broken[starts[1] + 60] ^= 1;
    let (seqs, damage) = found(&broken);
    assert_eq!(seqs, [0, 20]);
    assert!(damage[0].in_the_middle);
    let n_bytes = starts[2] - starts[1];
    assert_eq!((damage[0].offset, damage[0].n_bytes), (starts[1], n_bytes));
}

#[test]
fn a_length_is_not_believed() {
    let (mut bytes, _) = segment(SEGMENT, &[10]);
    bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..48]);
    bytes[48..52].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(found(&bytes).0, Vec::<u64>::new());
}

proptest! {
    /// Whatever becomes of the bytes, what is read was written, in order; and nothing is missing
    /// without being reported, except behind a cut between two frames.
    #[test]
    fn damage_costs_what_is_damaged_and_is_reported(
        payloads in prop::collection::vec(0..300usize, 1..20),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut: prop::sample::Index,
        is_cut: bool,
    ) {
        let (mut bytes, starts) = segment(SEGMENT, &payloads);
        let used = bytes.len() - 64;
        let mut touched = vec![false; payloads.len()];
        for (at, to) in flips {
            let at = at.index(used);
            let frame = starts.iter().rposition(|start| *start <= at).unwrap();
            touched[frame] |= bytes[at] != to;
            bytes[at] = to;
        }
        let len = if is_cut { cut.index(used) } else { bytes.len() };
        bytes.truncate(len);
        let whole = |at: usize| starts.get(at + 1).copied().unwrap_or(used) <= len;
        let wanted: Vec<u64> = (0..payloads.len())
            .filter(|at| !touched[*at] && whole(*at))
            .map(|at| 10 * at as u64)
            .collect();

        let mut scan = Scan::new(&bytes, SEGMENT, 0);
        let read: Vec<Found> = (&mut scan).collect();

        let seqs: Vec<u64> = read.iter().map(|found| found.head.first_seq).collect();
        // A flip that was flipped back is none.
        prop_assert!(wanted.iter().all(|seq| seqs.contains(seq)), "{seqs:?} {wanted:?}");
        prop_assert!(seqs.is_sorted());
        for found in &read {
            let at = usize::try_from(found.head.first_seq / 10).unwrap();
            let fill = u8::try_from(at % 250).unwrap();
            prop_assert_eq!(&found.entries[0].payload, &vec![fill; payloads[at]]);
        }
        let is_at_boundary = len == 0 || starts.contains(&len) || len >= used;
        if seqs.len() < payloads.len() && !(is_cut && is_at_boundary) {
            // A cut that leaves nothing but zeros of a head is no sign of anything.
            let rest_is_zero = bytes[scan.end()..].iter().all(|byte| *byte == 0);
            prop_assert!(!scan.damage.is_empty() || rest_is_zero);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, magic_at: prop::sample::Index, number: u64) {
        let mut bytes = bytes;
        let at = magic_at.index(bytes.len() + 1);
        bytes.splice(at..at, MAGIC.to_le_bytes());
        prop_assert_eq!(Scan::new(&bytes, number, 0).count(), 0);
    }
}
