//! The rows that wait, oldest first, in blocks of fixed size.
//!
//! A block is taken out whole and comes back empty, so neither recording nor taking copies rows, and
//! once the pipeline has found its pace nothing is allocated. Where rows pile up, the background thread
//! makes blocks ahead of them, so that `record()` need not.
//!
//! A block of rows that hold much is full before its places are taken: the places that stay empty count
//! against the buffer's bytes as well.

use std::{collections::VecDeque, mem::size_of};

use passerby_shared::Session;

use crate::row::Row;

/// Most rows in a block: about 200 KiB, which one allocation in a `record()` may cost.
const MAX_BLOCK_ROWS: usize = 1024;

/// Empty blocks that are kept ahead while rows pile up.
const AHEAD: usize = 4;

/// Some of the rows that wait.
#[derive(Debug, Default)]
pub(crate) struct Block {
    rows: VecDeque<Row>,
    n_bytes: usize,
    /// Memory of the places that stayed empty when it was closed.
    n_empty_bytes: usize,
}

impl Block {
    /// An empty block whose memory the system has already provided: a row that is the first in a page would
    /// wait for that.
    pub(crate) fn ready(n_rows: usize) -> Self {
        let nothing = || {
            Row::Session(Session {
                session_id: String::new(),
                started_at: None,
                ended_at: None,
                source: None,
            })
        };
        let mut rows = VecDeque::with_capacity(n_rows);
        rows.resize_with(n_rows, nothing);
        rows.clear();
        Self {
            rows,
            ..Self::default()
        }
    }

    /// The rows, oldest first.
    pub(crate) fn rows_mut(&mut self) -> impl Iterator<Item = &mut Row> {
        self.rows.iter_mut()
    }

    /// Takes the rows out, oldest first.
    #[cfg(test)]
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Row> {
        (self.n_bytes, self.n_empty_bytes) = (0, 0);
        self.rows.drain(..)
    }

    /// Drops the rows and keeps their memory.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        (self.n_bytes, self.n_empty_bytes) = (0, 0);
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
    /// Of the blocks that are closed.
    n_empty_bytes: usize,
}

impl Blocks {
    /// Blocks of which whole ones make up an entry of at most `max_rows` rows and `max_bytes` bytes.
    pub(crate) fn new(max_rows: usize, max_bytes: usize) -> Self {
        // No row takes less than its place.
        let most_rows = (max_bytes / size_of::<Row>()).max(1);
        let block_rows = (max_rows / max_rows.div_ceil(MAX_BLOCK_ROWS)).min(most_rows);
        Self {
            queue: VecDeque::new(),
            // One that fills while the other is sent.
            spare: vec![Block::ready(block_rows), Block::ready(block_rows)],
            block_rows,
            block_bytes: max_bytes,
            n_rows: 0,
            n_bytes: 0,
            n_empty_bytes: 0,
        }
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.n_rows
    }

    pub(crate) fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// The memory that the rows take, with the places that stay empty between them.
    pub(crate) fn n_held_bytes(&self) -> usize {
        self.n_bytes + self.n_empty_bytes
    }

    pub(crate) fn push(&mut self, row: Row, n_bytes: usize) {
        let fits = self.queue.back().is_some_and(|block| {
            block.rows.len() < self.block_rows && block.n_bytes + n_bytes <= self.block_bytes
        });
        if !fits {
            if let Some(full) = self.queue.back_mut() {
                let n_empty = full.rows.capacity() - full.rows.len();
                full.n_empty_bytes = n_empty * size_of::<Row>();
                self.n_empty_bytes += full.n_empty_bytes;
            }
            let block = self.spare.pop().unwrap_or_else(|| Block {
                rows: VecDeque::with_capacity(self.block_rows),
                ..Block::default()
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
        if block.rows.is_empty()
            && let Some(mut emptied) = self.queue.pop_front()
        {
            self.n_empty_bytes -= emptied.n_empty_bytes;
            emptied.clear();
            self.spare.push(emptied);
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
            self.n_empty_bytes -= block.n_empty_bytes;
            taken.extend(self.queue.pop_front());
        }
        self.n_rows -= n_rows;
        self.n_bytes -= n_bytes;
        (taken, n_rows, n_bytes)
    }

    /// Takes blocks back that have been emptied, and returns those that are too many: for the caller to
    /// free, who need not hold a lock for it.
    pub(crate) fn recycle(&mut self, emptied: Vec<Block>) -> Vec<Block> {
        // As many as are taken at once and one that fills meanwhile, or those that were made ahead.
        let keep = (emptied.len() + 1).max(AHEAD);
        debug_assert!(
            emptied
                .iter()
                .all(|block| block.rows.is_empty() && block.n_bytes + block.n_empty_bytes == 0),
            "a block that is filled again would count what it held before"
        );
        self.spare.extend(emptied);
        self.spare.split_off(keep.min(self.spare.len()))
    }

    /// How large a block is to be made ahead, with room for so many more rows; `None` when there are enough.
    pub(crate) fn wants_block(&self, room_rows: usize) -> Option<usize> {
        let wanted = room_rows.div_ceil(self.block_rows).min(AHEAD);
        (self.spare.len() < wanted).then_some(self.block_rows)
    }

    /// Takes a block that was made ahead.
    pub(crate) fn add(&mut self, block: Block) {
        self.spare.push(block);
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.spare.clear();
        (self.n_rows, self.n_bytes, self.n_empty_bytes) = (0, 0, 0);
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
        taken.iter_mut().for_each(Block::clear);
        assert!(blocks.recycle(taken).is_empty());
    }

    #[test]
    fn blocks_that_were_made_ahead_outlast_a_flush_and_what_is_too_much_is_handed_back() {
        let mut blocks = Blocks::new(10, 1 << 20);
        while let Some(n_rows) = blocks.wants_block(100) {
            blocks.add(Block::ready(n_rows));
        }
        push(&mut blocks, Row::Detection(detection("c", 0)));
        let (mut taken, ..) = blocks.take(10, usize::MAX);
        taken.iter_mut().for_each(Block::clear);
        assert!(blocks.recycle(taken).is_empty());
        assert_eq!(blocks.wants_block(100), None);
        let too_many = (0..3).map(|_| Block::ready(10)).collect();
        assert_eq!(blocks.recycle(too_many).len(), 3);
    }

    #[test]
    fn places_that_stay_empty_count_until_their_block_is_gone() {
        let mut blocks = Blocks::new(100, 64 * 1024);
        for _ in 0..100 {
            push(&mut blocks, Row::Track(track("c", 1_000)));
        }
        let memory = |blocks: &Blocks| -> usize {
            let places = blocks.queue.iter().map(|block| block.rows.capacity());
            places.sum::<usize>() * size_of::<Row>()
        };
        // Each row charges its own place; only the last block is still to be filled.
        let charged_places = blocks.n_rows() * size_of::<Row>() + blocks.n_empty_bytes;
        let still_open = blocks.queue.back().unwrap().rows.capacity() * size_of::<Row>();
        assert!(charged_places + still_open >= memory(&blocks));
        assert!(blocks.n_empty_bytes > 0);

        let (taken, ..) = blocks.take(50, usize::MAX);
        assert!(!taken.is_empty());
        while blocks.pop_oldest().is_some() {}
        assert_eq!(blocks.n_held_bytes(), 0);
    }

    #[test]
    fn a_block_has_no_more_places_than_its_bytes_can_fill() {
        let mut blocks = Blocks::new(1_000, 4_096);
        for id in 0..1_000 {
            push(&mut blocks, Row::Detection(detection("c", id)));
        }
        for block in &blocks.queue {
            assert!(block.rows.capacity() * size_of::<Row>() <= 4_096);
        }
    }

    #[test]
    fn blocks_are_made_ahead_as_long_as_rows_may_come() {
        let mut blocks = Blocks::new(10, 1 << 20);
        let mut n_made = 0;
        while let Some(n_rows) = blocks.wants_block(100) {
            blocks.add(Block::ready(n_rows));
            n_made += 1;
        }
        assert_eq!((n_made, blocks.spare.len()), (2, AHEAD));
        for id in 0..15 {
            push(&mut blocks, Row::Detection(detection("c", id)));
        }
        assert_eq!(blocks.wants_block(85), Some(10));
        assert_eq!(blocks.wants_block(15), None);
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
        assert_eq!(Blocks::new(500, 1 << 20).block_rows, 500);
        assert_eq!(Blocks::new(5000, 1 << 20).block_rows, 1000);
        assert_eq!(Blocks::new(1, 1 << 20).block_rows, 1);
    }
}
