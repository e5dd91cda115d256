//! Memory of batches that goes round between the decoder, which fills it, and the committers, which send it.
//!
//! A batch is about a megabyte. Made anew for each, its pages would be asked of the kernel and given back
//! a hundred times a second, and a small batch would grow its buffer step by step.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::batch::{Batch, BatchMemory};

/// Emptied memory of one worker's batches.
#[derive(Debug, Clone)]
pub(crate) struct BatchMemories {
    spare: Arc<Mutex<Vec<BatchMemory>>>,
    most: usize,
    most_bytes: usize,
}

impl BatchMemories {
    /// Keeps that of at most so many batches, no more than this of each.
    pub(crate) fn new(most: usize, most_bytes: usize) -> Self {
        Self {
            spare: Arc::default(),
            most,
            most_bytes,
        }
    }

    /// For a new batch, used before if there is any.
    pub(crate) fn take(&self) -> BatchMemory {
        self.spare().pop().unwrap_or_default()
    }

    /// Takes back that of a batch that is committed.
    pub(crate) fn recycle(&self, batch: Batch) {
        let Some(memory) = batch.into_memory() else {
            return;
        };
        let mut spare = self.spare();
        if spare.len() < self.most && memory.capacity_bytes() <= self.most_bytes {
            spare.push(memory);
        }
    }

    fn spare(&self) -> MutexGuard<'_, Vec<BatchMemory>> {
        // A list is whole whoever panicked meanwhile.
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchBuilder;

    fn batch_of(memory: BatchMemory, n_bytes: usize) -> Batch {
        let mut batch = BatchBuilder::in_memory(memory);
        batch.push_raw(&vec![0; n_bytes]);
        batch.build()
    }

    #[test]
    fn a_buffer_comes_back_empty_and_with_its_memory() {
        let buffers = BatchMemories::new(1, 1 << 20);
        buffers.recycle(batch_of(buffers.take(), 100_000));
        let tuples = buffers.take().tuples;
        assert!(tuples.is_empty() && tuples.capacity() >= 100_000);
    }

    #[test]
    fn what_is_kept_is_bounded_in_number_and_bytes() {
        let buffers = BatchMemories::new(1, 1_000);
        buffers.recycle(batch_of(BatchMemory::default(), 2_000));
        assert_eq!(buffers.take().tuples.capacity(), 0);
        buffers.recycle(batch_of(BatchMemory::default(), 500));
        buffers.recycle(batch_of(BatchMemory::default(), 500));
        assert!(buffers.take().tuples.capacity() > 0);
        assert_eq!(buffers.take().tuples.capacity(), 0);
    }

    #[test]
    fn a_buffer_that_somebody_still_reads_is_left_to_them() {
        let buffers = BatchMemories::new(1, 1 << 20);
        let batch = batch_of(BatchMemory::default(), 10);
        let reading = batch.tuples.clone();
        buffers.recycle(batch);
        assert_eq!(reading, [0; 10].as_slice());
        assert_eq!(buffers.take().tuples.capacity(), 0);
    }
}
