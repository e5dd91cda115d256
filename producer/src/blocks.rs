//! The rows that wait, oldest first, in blocks of fixed size.
//!
//! A block is taken out whole and comes back empty, so neither recording nor taking copies rows, and
//! once the pipeline has found its pace nothing is allocated.

use std::collections::VecDeque;

use crate::row::Row;

/// Most rows in a block: about 100 KiB, which one allocation in a `record()` may cost.
const MAX_BLOCK_ROWS: usize = 1024;

/// Some of the rows that wait.
#[derive(Debug, Default)]
pub(crate) struct Block {
    rows: VecDeque<Row>,
    n_bytes: usize,
}

impl Block {
    /// Takes the rows out, oldest first.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Row> {
        self.n_bytes = 0;
        self.rows.drain(..)
    }
}

#[derive(Debug)]
pub(crate) struct Blocks {
    queue: VecDeque<Block>,
    /// Empty blocks to be used again.
    spare: Vec<Block>,
    block_rows: usize,
    block_bytes: usize,
    n_rows: usize,
    n_bytes: usize,
}

impl Blocks {
    /// Blocks of which whole ones make up an entry of at most `max_rows` rows and `max_bytes` bytes.
    pub(crate) fn new(max_rows: usize, max_bytes: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            spare: Vec::new(),
            block_rows: max_rows / max_rows.div_ceil(MAX_BLOCK_ROWS),
            block_bytes: max_bytes,
            n_rows: 0,
            n_bytes: 0,
        }
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.n_rows
    }

    pub(crate) fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    pub(crate) fn push(&mut self, row: Row, n_bytes: usize) {
        let fits = self.queue.back().is_some_and(|block| {
            block.rows.len() < self.block_rows && block.n_bytes + n_bytes <= self.block_bytes
        });
        if !fits {
            let block = self.spare.pop().unwrap_or_else(|| Block {
                rows: VecDeque::with_capacity(self.block_rows),
                n_bytes: 0,
            });
            self.queue.push_back(block);
        }
        let block = self.queue.back_mut().expect("pushed above if it was empty");
        block.rows.push_back(row);
        block.n_bytes += n_bytes;
        self.n_rows += 1;
        self.n_bytes += n_bytes;
    }

    pub(crate) fn pop_oldest(&mut self) -> Option<Row> {
        let block = self.queue.front_mut()?;
        let row = block.rows.pop_front()?;
        let n_bytes = row.n_bytes();
        block.n_bytes -= n_bytes;
        self.n_rows -= 1;
        self.n_bytes -= n_bytes;
        if block.rows.is_empty() {
            self.spare.extend(self.queue.pop_front());
        }
        Some(row)
    }

    /// Takes the oldest blocks: at least one, further ones while all stay within `max_rows` and
    /// `max_bytes`. Returns them with the rows and bytes they hold.
    pub(crate) fn take(&mut self, max_rows: usize, max_bytes: usize) -> (Vec<Block>, usize, usize) {
        let (mut taken, mut n_rows, mut n_bytes) = (Vec::new(), 0, 0);
        while let Some(block) = self.queue.front() {
            let rows = n_rows + block.rows.len();
            let bytes = n_bytes + block.n_bytes;
            if !taken.is_empty() && (rows > max_rows || bytes > max_bytes) {
                break;
            }
            (n_rows, n_bytes) = (rows, bytes);
            taken.extend(self.queue.pop_front());
        }
        self.n_rows -= n_rows;
        self.n_bytes -= n_bytes;
        (taken, n_rows, n_bytes)
    }

    /// Takes blocks back that have been emptied.
    pub(crate) fn recycle(&mut self, emptied: Vec<Block>) {
        // As many as are taken at once, and one that fills meanwhile.
        let keep = emptied.len() + 1;
        self.spare.extend(emptied);
        self.spare.truncate(keep);
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.spare.clear();
        (self.n_rows, self.n_bytes) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::{detection, track};

    fn push(blocks: &mut Blocks, row: Row) {
        let n_bytes = row.n_bytes();
        blocks.push(row, n_bytes);
    }

    #[test]
    fn rows_come_out_in_order_and_within_the_limits() {
        let mut blocks = Blocks::new(10, 1 << 20);
        for id in 0..35 {
            push(&mut blocks, Row::Detection(detection("c", id)));
        }
        let (mut taken, n_rows, _) = blocks.take(25, usize::MAX);
        assert_eq!((taken.len(), n_rows, blocks.n_rows()), (2, 20, 15));
        let ids: Vec<i64> = taken
            .iter_mut()
            .flat_map(Block::drain)
            .map(|row| match row {
                Row::Detection(d) => d.detection_id,
                _ => unreachable!(),
            })
            .collect();
        assert_eq!(ids, (0..20).collect::<Vec<_>>());
        blocks.recycle(taken);
        assert_eq!(blocks.spare.len(), 2);
    }

    #[test]
    fn a_row_larger_than_a_block_has_a_block_of_its_own() {
        let mut blocks = Blocks::new(10, 4096);
        for _ in 0..3 {
            push(&mut blocks, Row::Track(track("c", 10_000)));
        }
        let (taken, n_rows, _) = blocks.take(10, 4096);
        assert_eq!((taken.len(), n_rows), (1, 1));
    }

    #[test]
    fn an_entry_of_many_rows_is_made_of_whole_blocks() {
        assert_eq!(Blocks::new(500, 1).block_rows, 500);
        assert_eq!(Blocks::new(5000, 1).block_rows, 1000);
        assert_eq!(Blocks::new(1, 1).block_rows, 1);
    }
}
