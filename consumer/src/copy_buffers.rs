//! COPY buffers that go round between the decoder, which fills them, and the committers, which send them.
//!
//! A batch is about a megabyte. Made anew for each, its pages would be asked of the kernel and given back
//! a hundred times a second, and a small batch would grow its buffer step by step.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{batch::Batch, store::CopyBuffer};

/// Emptied COPY buffers of one worker.
#[derive(Debug, Clone)]
pub(crate) struct CopyBuffers {
    spare: Arc<Mutex<Vec<CopyBuffer>>>,
    most: usize,
    most_bytes: usize,
}

impl CopyBuffers {
    /// Keeps at most so many buffers, none larger than this.
    pub(crate) fn new(most: usize, most_bytes: usize) -> Self {
        Self {
            spare: Arc::default(),
            most,
            most_bytes,
        }
    }

    /// An empty buffer, used before if there is one.
    pub(crate) fn take(&self) -> CopyBuffer {
        self.spare().pop().unwrap_or_default()
    }

    /// Takes back the buffer of a batch that is committed.
    pub(crate) fn recycle(&self, batch: Batch) {
        let Some(buffer) = batch.into_copy_buffer() else {
            return;
        };
        let mut spare = self.spare();
        if spare.len() < self.most && buffer.capacity() <= self.most_bytes {
            spare.push(buffer);
        }
    }

    fn spare(&self) -> MutexGuard<'_, Vec<CopyBuffer>> {
        // A list of buffers is whole whoever panicked meanwhile.
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchBuilder;

    fn batch_of(buffer: CopyBuffer, n_bytes: usize) -> Batch {
        let mut batch = BatchBuilder::with_buffer(buffer);
        batch.push_raw(&vec![0; n_bytes]);
        batch.build()
    }

    #[test]
    fn a_buffer_comes_back_empty_and_with_its_memory() {
        let buffers = CopyBuffers::new(1, 1 << 20);
        buffers.recycle(batch_of(buffers.take(), 100_000));
        let buffer = buffers.take();
        assert!(buffer.is_empty() && buffer.capacity() >= 100_000);
    }

    #[test]
    fn what_is_kept_is_bounded_in_number_and_bytes() {
        let buffers = CopyBuffers::new(1, 1_000);
        buffers.recycle(batch_of(CopyBuffer::new(), 2_000));
        assert_eq!(buffers.take().capacity(), 0);
        buffers.recycle(batch_of(CopyBuffer::new(), 500));
        buffers.recycle(batch_of(CopyBuffer::new(), 500));
        assert!(buffers.take().capacity() > 0);
        assert_eq!(buffers.take().capacity(), 0);
    }

    #[test]
    fn a_buffer_that_somebody_still_reads_is_left_to_them() {
        let buffers = CopyBuffers::new(1, 1 << 20);
        let batch = batch_of(CopyBuffer::new(), 10);
        let reading = batch.tuples.clone();
        buffers.recycle(batch);
        assert_eq!(reading, [0; 10].as_slice());
        assert_eq!(buffers.take().capacity(), 0);
    }
}
