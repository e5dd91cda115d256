use std::path::Path;

use passerby_shared::{IdempotencyKey, wire::Kind};

use super::*;
use crate::batcher::Held;

const SEGMENT_BYTES: u64 = 64 << 10;

fn config(dir: &Path, n_segments: u64) -> SpoolConfig {
    SpoolConfig {
        segment_bytes: SEGMENT_BYTES,
        max_bytes: n_segments * SEGMENT_BYTES,
        ..SpoolConfig::new(dir)
    }
}

fn open(dir: &Path, cursor: Position) -> (Log, Found) {
    Log::open(&config(dir, 4), cursor).unwrap()
}

/// Ten rows in 20 KB: three of them fill a segment.
fn entries() -> Vec<Entry> {
    vec![Entry {
        shard: 0,
        kind: Kind::Detections,
        key: IdempotencyKey::generate(),
        payload: vec![1; 20_000],
        n_rows: 10,
        n_bytes: 0,
        recent: Vec::new(),
        held: Held::Spool,
        traceparent: None,
    }]
}

fn append(log: &mut Log, n: u64) -> Result<(Position, Position), AppendError> {
    log.append(10 * n..10 * n + 10, &entries())
}

/// Reads and acknowledges everything. Returns the last row's number of each frame, and rows lost.
fn drain(log: &mut Log) -> (Vec<u64>, u64) {
    drain_from(log, &mut Position::default())
}

fn drain_from(log: &mut Log, from: &mut Position) -> (Vec<u64>, u64) {
    let (mut seqs, mut n_lost) = (Vec::new(), 0);
    let until = log.end();
    loop {
        match log.next(*from, until) {
            Next::Frame { at, next, frame } => {
                seqs.push(frame.through_seq);
                let lost = log.acknowledge(at, next, RowCounts::of(&frame.entries));
                n_lost += lost.total();
                *from = next;
            }
            Next::Lost { rows, next } => {
                n_lost += rows.total();
                *from = next;
            }
            Next::End => return (seqs, n_lost),
        }
    }
}

/// Damages one byte of a file.
fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[usize::try_from(at).unwrap()] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn frames_come_out_in_order_and_their_segments_are_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), Position::default());
    let mut from = Position::default();
    for round in 0..5 {
        for n in 0..7 {
            append(&mut log, 10 * round + n).unwrap();
        }
        let (seqs, n_lost) = drain_from(&mut log, &mut from);
        let expected = (0..7).map(|n| 100 * round + 10 * n + 9);
        assert_eq!((seqs, n_lost), (expected.collect(), 0));
        assert!(names(dir.path()).len() <= 2, "{:?}", names(dir.path()));
    }
}

#[test]
fn what_was_not_sent_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), Position::default());
    let ends: Vec<Position> = (0..7).map(|n| append(&mut log, n).unwrap().1).collect();
    drop(log);

    let (mut log, found) = open(dir.path(), ends[1]);
    assert_eq!((found.unsent.total(), found.through_seq), (50, Some(69)));
    append(&mut log, 7).unwrap();
    drop(log);

    let (mut log, found) = open(dir.path(), ends[4]);
    assert_eq!((found.unsent.total(), found.through_seq), (30, Some(79)));
    // The first segment had been sent, and its file is the spare one.
    assert_eq!(names(dir.path())[0], "00000002.seg");
    assert_eq!(drain(&mut log).0.last(), Some(&79));
}

#[test]
fn a_full_log_takes_no_frame_until_one_was_sent_or_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), Position::default());
    for n in 0..12 {
        append(&mut log, n).unwrap();
    }
    assert!(matches!(append(&mut log, 12), Err(AppendError::Full)));
    assert_eq!(names(dir.path()).len(), 4);

    let (number, lost) = log.drop_oldest().unwrap();
    assert_eq!((number, lost.total()), (1, 30));
    append(&mut log, 12).unwrap();

    let (seqs, n_lost) = drain(&mut log);
    assert_eq!((seqs.len(), seqs[0], n_lost), (10, 39, 0));
}

#[test]
fn damage_in_the_middle_costs_what_is_damaged_and_is_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), Position::default());
    let starts: Vec<Position> = (0..4).map(|n| append(&mut log, n).unwrap().0).collect();
    let path = dir.path().join("00000001.seg");
    flip(&path, starts[1].offset + 1000);

    // While it is in use,
    let (seqs, n_lost) = drain(&mut log);
    assert_eq!((seqs, n_lost), (vec![9, 29, 39], 10));
    let aside = "00000001.seg.damaged";
    assert_eq!(names(dir.path())[0], aside);
    drop(log);

    // and when it is opened.
    fs::rename(dir.path().join(aside), &path).unwrap();
    let (mut log, found) = open(dir.path(), Position::default());
    assert_eq!((found.n_damaged, found.unsent.total()), (1, 30));
    assert_eq!(drain(&mut log).0, [9, 29, 39]);
    assert_eq!(names(dir.path())[0], aside);
    // Its number is not used again.
    drop(log);
    assert!(open(dir.path(), Position::default()).0.last_number >= 2);
}

#[test]
fn a_damaged_segment_is_kept_aside_though_it_is_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), Position::default());
    let starts: Vec<Position> = (0..3).map(|n| append(&mut log, n).unwrap().0).collect();
    flip(&dir.path().join("00000001.seg"), starts[1].offset + 1000);

    let mut from = Position::default();
    assert_eq!(drain_from(&mut log, &mut from), (vec![9, 29], 10));
    assert_eq!(names(dir.path())[0], "00000001.seg.damaged");
    append(&mut log, 3).unwrap();
    assert_eq!(drain_from(&mut log, &mut from), (vec![39], 0));
}

#[test]
fn a_frame_cut_short_is_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), Position::default());
    append(&mut log, 0).unwrap();
    let (start, _) = append(&mut log, 1).unwrap();
    drop(log);
    let path = dir.path().join("00000001.seg");
    let mut bytes = fs::read(&path).unwrap();
    let cut_at = usize::try_from(start.offset).unwrap() + 500;
    bytes[cut_at..].fill(0);
    fs::write(&path, bytes).unwrap();

    let (mut log, found) = open(dir.path(), Position::default());
    assert_eq!((found.unsent.total(), found.n_damaged), (10, 0));
    append(&mut log, 1).unwrap();
    drop(log);
    let (mut log, found) = open(dir.path(), Position::default());
    assert_eq!((found.unsent.total(), found.n_damaged), (20, 0));
    assert_eq!(drain(&mut log).0, [9, 19]);
}

#[test]
fn a_frame_larger_than_a_segment_has_one_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), Position::default());
    append(&mut log, 0).unwrap();
    let mut large = entries();
    large[0].payload = vec![2; 300_000];
    log.append(10..20, &large).unwrap();
    append(&mut log, 2).unwrap();
    assert_eq!(drain(&mut log).0, [9, 19, 29]);
    assert_eq!(names(dir.path()), ["00000003.seg", "spare.seg"]);
}
