//! A batch's COPY data in pieces, as they are handed to the driver.
//!
//! Rows that go in another order than they lie in are not brought into it beforehand: the driver copies
//! what it is given into its own buffer anyway, and copies it from where it lies.

use std::{ops::Range, sync::Arc};

use bytes::{Buf, Bytes};

use crate::batch::{Batch, RowOrder};

/// Bytes handed to the driver at a time, or a little more.
const PIECE_BYTES: usize = 512 * 1024;

/// Bytes of COPY data.
#[derive(Debug)]
pub(super) enum Piece {
    AsItLies(Bytes),
    Sorted(Sorted),
}

/// Rows of a batch, in its order.
#[derive(Debug)]
pub(super) struct Sorted {
    tuples: Bytes,
    order: Arc<RowOrder>,
    /// Rows that are still to be looked up, by their places in the order.
    rows: Range<usize>,
    /// What lies there together and comes next.
    run: Range<usize>,
    /// All that is left.
    n_bytes: usize,
}

impl Piece {
    /// All of these bytes.
    pub(super) fn all_of(mut bytes: Bytes) -> Vec<Self> {
        let mut pieces = Vec::with_capacity(bytes.len().div_ceil(PIECE_BYTES));
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE_BYTES));
            pieces.push(Self::AsItLies(piece));
        }
        pieces
    }

    /// The rows of all entries, in the order that the batch has for them.
    pub(super) fn of_batch(batch: &Batch) -> Vec<Self> {
        match &batch.order {
            Some(order) if order.len() > 0 => Sorted::all_of(&batch.tuples, order),
            _ => Self::all_of(batch.tuples.clone()),
        }
    }

    /// The rows of the included entries, in the order of these.
    pub(super) fn of_entries(batch: &Batch, included: &[usize]) -> Vec<Self> {
        if included.len() == batch.entries().len() {
            return Self::all_of(batch.tuples.clone());
        }
        let entries = included.iter().map(|&at| &batch.entries()[at]);
        entries
            .flat_map(|entry| Self::all_of(batch.tuples.slice(entry.tuples.clone())))
            .collect()
    }
}

impl Sorted {
    fn all_of(tuples: &Bytes, order: &Arc<RowOrder>) -> Vec<Piece> {
        let mut pieces = Vec::with_capacity(tuples.len().div_ceil(PIECE_BYTES));
        let mut first = 0;
        let mut n_bytes = 0;
        for nth in 0..order.len() {
            n_bytes += order
                .tuple(nth, tuples.len())
                .map_or(0, |tuple| tuple.len());
            if n_bytes >= PIECE_BYTES || nth + 1 == order.len() {
                let mut piece = Self {
                    tuples: tuples.clone(),
                    order: Arc::clone(order),
                    rows: first..nth + 1,
                    run: 0..0,
                    n_bytes,
                };
                piece.look_up();
                pieces.push(Piece::Sorted(piece));
                (first, n_bytes) = (nth + 1, 0);
            }
        }
        pieces
    }

    /// Looks up the next rows that lie together, unless some are at hand.
    fn look_up(&mut self) {
        while let Some(tuple) = self.order.tuple(self.rows.start, self.tuples.len())
            && !self.rows.is_empty()
            && (self.run.is_empty() || self.run.end == tuple.start)
        {
            self.rows.start += 1;
            if self.run.is_empty() {
                self.run = tuple;
            } else {
                self.run.end = tuple.end;
            }
        }
    }
}

impl Buf for Sorted {
    fn remaining(&self) -> usize {
        self.n_bytes
    }

    fn chunk(&self) -> &[u8] {
        &self.tuples[self.run.clone()]
    }

    fn advance(&mut self, n_bytes: usize) {
        let mut left = n_bytes;
        while left > 0 {
            let of_run = left.min(self.run.len());
            assert!(of_run > 0, "{n_bytes} bytes of {} left", self.n_bytes);
            self.run.start += of_run;
            self.n_bytes -= of_run;
            left -= of_run;
            if self.run.is_empty() {
                self.look_up();
            }
        }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        match self {
            Self::AsItLies(bytes) => bytes.remaining(),
            Self::Sorted(sorted) => sorted.remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::AsItLies(bytes) => bytes.chunk(),
            Self::Sorted(sorted) => sorted.chunk(),
        }
    }

    fn advance(&mut self, n_bytes: usize) {
        match self {
            Self::AsItLies(bytes) => bytes.advance(n_bytes),
            Self::Sorted(sorted) => sorted.advance(n_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(pieces: Vec<Piece>) -> Vec<Vec<u8>> {
        pieces
            .into_iter()
            .map(|mut piece| {
                let n_bytes = piece.remaining();
                piece.copy_to_bytes(n_bytes).to_vec()
            })
            .collect()
    }

    /// Rows of these lengths and tracks, each of its own letter, one after the other.
    fn laid(rows: &[(usize, i64)]) -> (Bytes, Arc<RowOrder>) {
        let mut order = RowOrder::default();
        let mut bytes = Vec::new();
        for (letter, &(len, track_id)) in (b'a'..).zip(rows) {
            order.push(0, Some(track_id), bytes.len());
            bytes.extend(vec![letter; len]);
        }
        order.sort();
        (bytes.into(), Arc::new(order))
    }

    #[test]
    fn a_large_batch_is_cut_between_rows_and_nothing_is_left_out() {
        let (half, few) = (PIECE_BYTES / 2, 10);
        let (bytes, order) = laid(&[(half, 3), (half, 2), (few, 4), (half, 1)]);
        let pieces = bytes_of(Sorted::all_of(&bytes, &order));
        let expected = [
            [vec![b'd'; half], vec![b'b'; half]].concat(),
            [vec![b'a'; half], vec![b'c'; few]].concat(),
        ];
        assert!(pieces == expected);
        let as_they_lie = bytes_of(Piece::all_of(bytes.clone()));
        assert!(as_they_lie.concat() == bytes);
        assert!(as_they_lie.iter().all(|piece| piece.len() <= PIECE_BYTES));
    }

    proptest! {
        #[test]
        fn however_a_piece_is_read_its_rows_come_in_order(
            rows in prop::collection::vec((1..9_usize, 0..4_i64), 1..25),
            at_a_time in prop::collection::vec(1..20_usize, 1..10),
        ) {
            let (bytes, order) = laid(&rows);
            let expected: Vec<u8> = (0..rows.len())
                .flat_map(|nth| bytes[order.tuple(nth, bytes.len()).unwrap()].to_vec())
                .collect();
            let mut pieces = Sorted::all_of(&bytes, &order);
            prop_assert_eq!(pieces.len(), 1);
            let mut piece = pieces.pop().unwrap();
            let mut read = Vec::new();
            for n_bytes in at_a_time.iter().cycle() {
                let n_bytes = piece.remaining().min(*n_bytes);
                if n_bytes == 0 {
                    break;
                }
                prop_assert!(!piece.chunk().is_empty());
                read.extend_from_slice(&piece.copy_to_bytes(n_bytes));
            }
            prop_assert!(piece.chunk().is_empty());
            prop_assert_eq!(read, expected);
        }
    }
}
