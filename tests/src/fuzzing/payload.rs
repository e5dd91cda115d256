//! Any bytes as a payload.

use std::fmt::Debug;

use passerby_shared::{
    Detection, Session, Track,
    wire::{
        BadRow, Undecodable, decode_detections, decode_sessions, decode_tracks, encode_detections,
        encode_plain_detections, encode_sessions, encode_tracks,
    },
};

use super::memory::bounded;

/// Most bad rows of an entry that is not dead-lettered as a whole.
pub(super) const MAX_BAD_ROWS: usize = 10_000;

/// What decoding may allocate. Rows are handed out one by one, so only one is in memory: a track has
/// 12 bytes for three of its trajectory's, three times that while the vector grows; a bad row is a copy
/// of itself, with names of columns and ids of a group at up to 256 bytes.
fn max_bytes(payload: &[u8]) -> usize {
    4 * 1024 + 16 * payload.len()
}

pub(super) fn run(data: &[u8]) {
    detections(data);
    tracks(data);
    sessions(data);
}

fn detections(payload: &[u8]) {
    let mut rows = Rows::default();
    let measured = bounded(max_bytes(payload), || {
        decode_detections(payload, |row_idx, found| {
            rows.count(row_idx, &found);
            if let Ok(row) = found {
                assert_eq!(row.validate(), Ok(()));
            }
        })
    });
    if !rows.agree(&measured) {
        return;
    }
    let mut good = Vec::new();
    decode_detections(payload, |_, found| match found {
        Ok(row) => good.push(row.to_detection().unwrap()),
        Err(bad) => is_bad_alone(&bad, |payload, row| {
            decode_detections(payload, |row_idx, found| row(row_idx, found.map(drop)))
        }),
    })
    .unwrap();
    if good.is_empty() {
        return;
    }
    let read = |payload: &[u8]| {
        let mut read = Vec::new();
        decode_detections(payload, |_, row| {
            read.push(row.unwrap().to_detection().unwrap());
        })
        .unwrap();
        read
    };
    let mut encoded = Vec::new();
    encode_plain_detections(&good, &mut encoded);
    assert_same(&read(&encoded), &good);

    encoded.clear();
    encode_detections(&good, &mut encoded);
    let again = read(&encoded);
    let source = |d: &Detection| (d.session_id.clone(), d.camera_id.clone(), d.channel_id);
    assert_same(&again, &grouped(good, source));
}

fn tracks(payload: &[u8]) {
    let mut rows = Rows::default();
    let measured = bounded(max_bytes(payload), || {
        decode_tracks(payload, |row_idx, found| {
            rows.count(row_idx, &found);
            if let Ok(row) = found {
                assert_eq!(row.validate(), Ok(()));
            }
        })
    });
    if !rows.agree(&measured) {
        return;
    }
    let mut good = Vec::new();
    decode_tracks(payload, |_, found| match found {
        Ok(row) => good.push(row),
        Err(bad) => is_bad_alone(&bad, |payload, row| {
            decode_tracks(payload, |row_idx, found| row(row_idx, found.map(drop)))
        }),
    })
    .unwrap();
    if good.is_empty() {
        return;
    }
    let mut encoded = Vec::new();
    encode_tracks(&good, &mut encoded);
    let mut again = Vec::new();
    decode_tracks(&encoded, |_, row| again.push(row.unwrap())).unwrap();
    let source = |t: &Track| (t.session_id.clone(), t.camera_id.clone());
    assert_same(&again, &grouped(good, source));
}

fn sessions(payload: &[u8]) {
    let mut rows = Rows::default();
    let measured = bounded(max_bytes(payload), || {
        decode_sessions(payload, |row_idx, found| {
            rows.count(row_idx, &found);
            if let Ok(row) = found {
                assert_eq!(row.validate(), Ok(()));
            }
        })
    });
    if !rows.agree(&measured) {
        return;
    }
    let mut good: Vec<Session> = Vec::new();
    decode_sessions(payload, |_, found| match found {
        Ok(row) => good.push(row),
        Err(bad) => is_bad_alone(&bad, |payload, row| {
            decode_sessions(payload, |row_idx, found| row(row_idx, found.map(drop)))
        }),
    })
    .unwrap();
    let mut encoded = Vec::new();
    encode_sessions(&good, &mut encoded);
    let mut again = Vec::new();
    decode_sessions(&encoded, |_, row| again.push(row.unwrap())).unwrap();
    assert_same(&again, &good);
}

type Row<'a> = dyn FnMut(usize, Result<(), BadRow>) + 'a;

/// The rows of a payload, counted.
#[derive(Default)]
struct Rows {
    n_rows: usize,
    n_bad: usize,
}

impl Rows {
    fn count<T>(&mut self, row_idx: usize, found: &Result<T, BadRow>) {
        assert_eq!(row_idx, self.n_rows, "rows come in order");
        self.n_rows += 1;
        self.n_bad += usize::from(found.is_err());
        assert!(self.n_bad <= MAX_BAD_ROWS);
    }

    /// Whether the payload could be read, and has as many rows as were handed out.
    fn agree(&self, decoded: &Result<usize, Undecodable>) -> bool {
        match decoded {
            Ok(n_rows) => {
                assert_eq!(*n_rows, self.n_rows);
                true
            }
            Err(error) => {
                assert!(error.to_string().len() < 1024);
                false
            }
        }
    }
}

/// A bad row's payload holds one row, which is bad in the same way: what is in the dead letters tells
/// what was sent.
fn is_bad_alone(
    bad: &BadRow,
    decode: impl FnOnce(&[u8], &mut Row<'_>) -> Result<usize, Undecodable>,
) {
    // An array among rows of the plain form is kept as it came. Alone, it would be a group.
    if bad.invalid.problem() == "is an array, expected a map" {
        return;
    }
    let mut found = Vec::new();
    let n_rows = decode(&bad.payload, &mut |_, row| {
        found.push(row.map_err(|bad| bad.invalid));
    });
    assert_eq!(n_rows, Ok(1));
    assert_eq!(found, [Err(bad.invalid.clone())]);
}

/// Rows in the order in which the compact form has them.
fn grouped<T, K: PartialEq>(rows: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut groups: Vec<(K, Vec<T>)> = Vec::new();
    for row in rows {
        let key = key(&row);
        match groups.iter_mut().find(|(other, _)| *other == key) {
            Some((_, group)) => group.push(row),
            None => groups.push((key, vec![row])),
        }
    }
    groups.into_iter().flat_map(|(_, rows)| rows).collect()
}

/// Equal, and floats to the bit: `Debug` tells −0 from 0.
fn assert_same<T: Debug + PartialEq>(found: &[T], expected: &[T]) {
    assert_eq!(found, expected);
    for (found, expected) in found.iter().zip(expected).take(16) {
        assert_eq!(format!("{found:?}"), format!("{expected:?}"));
    }
}
