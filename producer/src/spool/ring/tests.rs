use proptest::prelude::*;

use super::*;
use crate::row::tests::{detection, track};

fn row(id: u64) -> Row {
    Row::Detection(detection("camera", i64::try_from(id).unwrap()))
}

fn ids(left: &Left) -> Vec<u64> {
    for (seq, row) in &left.rows {
        let Row::Detection(row) = row else { panic!() };
        assert_eq!(u64::try_from(row.detection_id).unwrap(), *seq);
    }
    left.rows.iter().map(|(seq, _)| *seq).collect()
}

fn open(dir: &tempfile::TempDir, n_bytes: u64) -> (Ring, Option<Left>) {
    Ring::open(&dir.path().join("buffer.ring"), n_bytes).unwrap()
}

fn started(n_bytes: u64) -> (tempfile::TempDir, Ring) {
    let dir = tempfile::tempdir().unwrap();
    let (mut ring, left) = open(&dir, n_bytes);
    assert!(left.is_none());
    ring.restart(0, Position::default());
    (dir, ring)
}

#[test]
fn rows_are_found_again_after_the_process_is_gone() {
    let (dir, mut ring) = started(64 << 10);
    for seq in 0..10 {
        assert!(ring.push(seq, &row(seq)));
    }
    ring.release_below(4);
    ring.sent_to(Position {
        segment: 3,
        offset: 70,
    });
    drop(ring);

    let (mut ring, left) = open(&dir, 64 << 10);
    let left = left.unwrap();
    assert_eq!(ids(&left), [4, 5, 6, 7, 8, 9]);
    assert_eq!(left.state.framed_below, 4);
    assert_eq!(
        left.state.cursor,
        Position {
            segment: 3,
            offset: 70
        }
    );
    ring.restart(10, left.state.cursor);
    drop(ring);
    assert_eq!(ids(&open(&dir, 64 << 10).1.unwrap()), Vec::<u64>::new());
}

#[test]
fn an_empty_ring_begins_at_its_beginning_again() {
    let (_dir, mut ring) = started(64 << 10);
    for seq in 0..10_000 {
        assert!(ring.push(seq, &row(seq)));
        assert!(ring.head < 300);
        ring.release_below(seq + 1);
    }
}

#[test]
fn a_full_ring_takes_no_row_and_loses_none() {
    let (dir, mut ring) = started(64 << 10);
    let mut n = 0;
    while ring.has_room(&row(n)) {
        assert!(ring.push(n, &row(n)));
        n += 1;
    }
    assert!(n > 500 && !ring.push(n, &row(n)));
    assert!(!ring.can_hold(&Row::Track(track("c", 16_000))));
    drop(ring);
    assert_eq!(ids(&open(&dir, 64 << 10).1.unwrap()).len() as u64, n);
}

#[test]
fn abandoned_rows_are_not_found_again() {
    let (dir, mut ring) = started(64 << 10);
    assert!(ring.push(0, &row(0)));
    ring.abandon();
    drop(ring);
    let left = open(&dir, 64 << 10).1.unwrap();
    assert!(left.state.is_abandoned && left.rows.is_empty());
}

#[test]
fn a_ring_of_a_later_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("buffer.ring");
    std::fs::write(&path, b"pbyring2").unwrap();
    let error = Ring::open(&path, 64 << 10).err().unwrap().to_string();
    assert!(error.contains("format version 2, newer than 1"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// What is in the file is at every moment what was pushed and not released, through any number of
    /// wraps.
    #[test]
    fn the_file_holds_what_is_held(
        steps in prop::collection::vec((1..40u64, 0..60u64), 1..40),
    ) {
        let (dir, mut ring) = started(64 << 10);
        let path = dir.path().join("buffer.ring");
        let (mut next, mut oldest) = (0, 0);
        for (push, release) in steps {
            for _ in 0..push * 8 {
                if ring.push(next, &row(next)) {
                    next += 1;
                }
            }
            let left = read(&std::fs::read(&path).unwrap()).unwrap();
            prop_assert_eq!(ids(&left), Vec::from_iter(oldest..next));
            oldest = next.min(oldest + release * 8);
            ring.release_below(oldest);
            let left = read(&std::fs::read(&path).unwrap()).unwrap();
            prop_assert_eq!(ids(&left), Vec::from_iter(oldest..next));
        }
    }

    /// Damage costs rows, and never makes one.
    #[test]
    fn damage_never_makes_a_row(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)) {
        let (dir, mut ring) = started(64 << 10);
        for seq in 0..100 {
            assert!(ring.push(seq, &row(seq)));
        }
        let mut bytes = std::fs::read(dir.path().join("buffer.ring")).unwrap();
        for (at, to) in flips {
            // Where something stands: the head and the records.
            let at = at.index(HEAD_BYTES + ring.head);
            bytes[at] = to;
        }
        if let Some(left) = read(&bytes) {
            let found = ids(&left);
            prop_assert_eq!(&found, &Vec::from_iter(0..found.len() as u64));
        }
    }
}
