//! Hands rows from the pipeline's threads to the background thread, and news of them back.
//!
//! One lock guards the buffer with its books, so a snapshot is consistent. It is held for a handful of
//! assignments and never across encoding, sending or waiting; that is why `record()` does not wait.

use std::{
    pin::pin,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use passerby_shared::Traceparent;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::{
    blocks::Block,
    buffer::{Answer, Buffer, Due, Offer, Synced},
    config::ProducerConfig,
    overflow::Overflow,
    row::Row,
};

/// How often blocks are made for rows that pile up: at 400,000 rows a second the last one is not yet full.
const MAKE_ROOM_EVERY: Duration = Duration::from_millis(5);

/// The same when no rows come: those that come then find blocks that were made before.
const MAKE_ROOM_AT_LEAST_EVERY: Duration = Duration::from_millis(40);

/// What became of a row that was offered.
#[must_use = "a dropped row is lost"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// The row is kept until Redis has it.
    Accepted,
    /// There was no room for it; it has been counted.
    Dropped,
}

/// The producer accepts no rows any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

pub(crate) struct Handover {
    buffer: Mutex<Buffer>,
    /// How long a caller waits for room; `None` when the policy is another.
    block: Option<Duration>,
    /// Rows settled, or the producer closed or ended: for callers that wait,
    settled: Condvar,
    /// of whom there are so many,
    n_waiting: AtomicUsize,
    /// and for those that wait in async code.
    settled_async: Notify,
    /// Something may be due: for the flusher.
    due: Notify,
    /// Somebody waits for rows to be published: for the publisher, when it waits between attempts.
    hurry: Notify,
    /// Somebody waits for rows to be forced onto the disk: for the spool.
    sync: Notify,
    /// What entries made from now on belong to.
    traceparent: Mutex<Option<Traceparent>>,
    /// When the background thread ends whatever is left, once the producer has been closed.
    end: watch::Sender<Option<Instant>>,
}

/// How long one call waits for room: from its first wait on, shared by the call's rows.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    until: Option<Instant>,
}

impl Patience {
    fn until(&mut self, timeout: Duration) -> Instant {
        *self.until.get_or_insert_with(|| after(timeout))
    }
}

/// The end of a wait that begins now.
pub(crate) fn after(timeout: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    Instant::now() + timeout.min(YEAR)
}

impl Handover {
    pub(crate) fn new(config: &ProducerConfig) -> Self {
        Self {
            buffer: Mutex::new(Buffer::new(config)),
            block: match config.overflow {
                Overflow::Block(timeout) => Some(timeout),
                _ => None,
            },
            settled: Condvar::new(),
            n_waiting: AtomicUsize::new(0),
            settled_async: Notify::new(),
            due: Notify::new(),
            hurry: Notify::new(),
            sync: Notify::new(),
            traceparent: Mutex::new(None),
            end: watch::Sender::new(None),
        }
    }

    /// Which trace entries that are made from now on belong to.
    pub(crate) fn set_traceparent(&self, traceparent: Option<Traceparent>) {
        *self.lock_traceparent() = traceparent;
    }

    /// Which trace an entry that is made now belongs to.
    pub(crate) fn traceparent(&self) -> Option<Traceparent> {
        *self.lock_traceparent()
    }

    fn lock_traceparent(&self) -> MutexGuard<'_, Option<Traceparent>> {
        // It is copied in and out, whoever panicked meanwhile.
        self.traceparent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The buffer, for as long as the guard lives: for assignments only.
    pub(crate) fn buffer(&self) -> MutexGuard<'_, Buffer> {
        // No code of others runs under the lock, and a frame must not die of a poisoned one.
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a row, or applies the overflow policy; waits only where the policy says so.
    pub(crate) fn record(&self, row: Row, patience: &mut Patience) -> Result<Recorded, Closed> {
        let mut offer = Offer::new(row);
        match (self.try_record(&mut offer), self.block) {
            (Some(answer), _) => answer,
            (None, None) => self.give_up(&offer),
            (None, Some(timeout)) => self
                .wait(patience.until(timeout), || self.try_record(&mut offer))
                .unwrap_or_else(|| self.give_up(&offer)),
        }
    }

    /// As [`Handover::record`], for async callers.
    ///
    /// # Cancel safety
    ///
    /// A dropped call has neither recorded nor counted the row.
    pub(crate) async fn record_async(
        &self,
        row: Row,
        patience: &mut Patience,
    ) -> Result<Recorded, Closed> {
        let mut offer = Offer::new(row);
        match (self.try_record(&mut offer), self.block) {
            (Some(answer), _) => answer,
            (None, None) => self.give_up(&offer),
            (None, Some(timeout)) => self
                .wait_async(patience.until(timeout), || self.try_record(&mut offer))
                .await
                .unwrap_or_else(|| self.give_up(&offer)),
        }
    }

    /// `None` when there is no room and the caller is to wait.
    fn try_record(&self, offer: &mut Offer) -> Option<Result<Recorded, Closed>> {
        let answer = self.buffer().offer(offer);
        match answer {
            Answer::Accepted {
                wake_flusher,
                wake_waiting,
            } => {
                if wake_flusher {
                    self.due.notify_one();
                }
                if wake_waiting {
                    self.announce();
                }
                Some(Ok(Recorded::Accepted))
            }
            Answer::Dropped => Some(Ok(Recorded::Dropped)),
            Answer::NoRoom => None,
            Answer::Closed => Some(Err(Closed)),
        }
    }

    fn give_up(&self, offer: &Offer) -> Result<Recorded, Closed> {
        self.buffer().give_up(offer);
        Ok(Recorded::Dropped)
    }

    /// Drops rows that have become entries, and gives their blocks back.
    pub(crate) fn recycle(&self, mut blocks: Vec<Block>) {
        // Before the lock: each row has strings to free.
        blocks.iter_mut().for_each(Block::clear);
        let too_many = self.buffer().recycle(blocks);
        drop(too_many);
    }

    /// Waits until rows are to be sent; `false` when there will never be any again.
    pub(crate) async fn due(&self) -> bool {
        loop {
            let due = self.buffer().due();
            match due {
                Due::Now => return true,
                Due::Never => return false,
                Due::Later => self.due.notified().await,
                Due::At(at) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.due.notified() => {}
                },
            }
        }
    }

    /// Waits for what may take long, such as Redis, and meanwhile makes blocks for the rows that come.
    ///
    /// # Cancel safety
    ///
    /// As that of `slow`.
    pub(crate) async fn making_room<T>(&self, slow: impl Future<Output = T>) -> T {
        let mut slow = pin!(slow);
        let mut pause = MAKE_ROOM_EVERY;
        loop {
            tokio::select! {
                biased;
                done = &mut slow => return done,
                () = sleep(pause) => pause = match self.make_room() {
                    0 => (2 * pause).min(MAKE_ROOM_AT_LEAST_EVERY),
                    _ => MAKE_ROOM_EVERY,
                },
            }
        }
    }

    /// Makes the blocks that are wanted, and returns how many.
    fn make_room(&self) -> usize {
        let mut n_made = 0;
        loop {
            let wanted = self.buffer().wants_block();
            let Some(n_rows) = wanted else { return n_made };
            // Made while nobody has to wait for it.
            let block = Block::ready(n_rows);
            self.buffer().add_block(block);
            n_made += 1;
        }
    }

    /// Waits until somebody waits for rows to be published.
    pub(crate) async fn hurry(&self) {
        self.hurry.notified().await;
    }

    /// Tells everybody who waits that rows settled.
    pub(crate) fn announce(&self) {
        // A system call that is mostly in vain. Whoever is not counted yet has yet to take the lock under
        // which things changed, and finds them changed.
        if self.n_waiting.load(SeqCst) > 0 {
            self.settled.notify_all();
        }
        self.settled_async.notify_waiters();
    }

    /// Asks for a flush of all rows recorded so far, and waits until none of them is left. Returns how
    /// many are.
    pub(crate) fn flush(&self, timeout: Duration) -> u64 {
        let deadline = after(timeout);
        let below = self.begin_flush();
        self.wait(deadline, || self.settled_below(below))
            .unwrap_or_else(|| self.buffer().n_left(below))
    }

    /// As [`Handover::flush`], for async callers. Cancel safe.
    pub(crate) async fn flush_async(&self, timeout: Duration) -> u64 {
        let deadline = after(timeout);
        let below = self.begin_flush();
        self.wait_async(deadline, || self.settled_below(below))
            .await
            .unwrap_or_else(|| self.buffer().n_left(below))
    }

    fn begin_flush(&self) -> u64 {
        let mut buffer = self.buffer();
        let below = buffer.flush();
        let settled = buffer.is_settled(below);
        drop(buffer);
        if !settled {
            self.due.notify_one();
            self.hurry.notify_one();
        }
        below
    }

    fn settled_below(&self, below: u64) -> Option<u64> {
        let buffer = self.buffer();
        buffer.is_settled(below).then(|| buffer.n_left(below))
    }

    /// Waits until all rows recorded so far are on the disk, or have no spool any more.
    pub(crate) fn sync(&self, timeout: Duration) -> Synced {
        let deadline = after(timeout);
        let below = self.begin_sync();
        self.wait(deadline, || self.synced_below(below))
            .unwrap_or_else(|| self.buffer().is_synced(below))
    }

    /// As [`Handover::sync`], for async callers. Cancel safe.
    pub(crate) async fn sync_async(&self, timeout: Duration) -> Synced {
        let deadline = after(timeout);
        let below = self.begin_sync();
        self.wait_async(deadline, || self.synced_below(below))
            .await
            .unwrap_or_else(|| self.buffer().is_synced(below))
    }

    fn begin_sync(&self) -> u64 {
        let below = self.buffer().sync();
        self.due.notify_one();
        self.sync.notify_one();
        below
    }

    fn synced_below(&self, below: u64) -> Option<Synced> {
        let buffer = self.buffer();
        match buffer.is_synced(below) {
            Synced::NotYet(_) if !buffer.has_ended() => None,
            synced => Some(synced),
        }
    }

    /// Waits until somebody waits for rows to be forced onto the disk.
    pub(crate) async fn sync_wanted(&self) {
        self.sync.notified().await;
    }

    /// Has rows in the log forced onto the disk now, if somebody waits for that.
    pub(crate) fn hurry_sync(&self) {
        if self.buffer().wants_sync() {
            self.sync.notify_one();
        }
    }

    /// Calls `ready` now and after every change until it gives something, or until the deadline.
    pub(crate) fn wait<T>(
        &self,
        deadline: Instant,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        self.n_waiting.fetch_add(1, SeqCst);
        let _counted = CountedOnDrop(&self.n_waiting);
        loop {
            // Read before `ready` looks, so that no change is missed.
            let n_changes = self.buffer().n_changes();
            if let Some(value) = ready() {
                return Some(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let unchanged = |buffer: &mut Buffer| buffer.n_changes() == n_changes;
            drop(
                self.settled
                    .wait_timeout_while(self.buffer(), left, unchanged)
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
    }

    /// As [`Handover::wait`], for async callers. Cancel safe if `ready` is.
    pub(crate) async fn wait_async<T>(
        &self,
        deadline: Instant,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        loop {
            let mut settled = pin!(self.settled_async.notified());
            // Listens before `ready` looks, so that no change is missed.
            settled.as_mut().enable();
            if let Some(value) = ready() {
                return Some(value);
            }
            if timeout_at(deadline, settled).await.is_err() {
                return ready();
            }
        }
    }

    /// Accepts nothing more, and gives what is left until `deadline` to be published. Of several
    /// deadlines the earliest counts.
    pub(crate) fn close(&self, deadline: Instant) {
        self.buffer().close();
        self.end.send_modify(|end| {
            *end = Some(end.map_or(deadline, |earlier| earlier.min(deadline)));
        });
        self.due.notify_one();
        self.hurry.notify_one();
        self.announce();
    }

    /// Waits until the producer is closed.
    pub(crate) async fn closed(&self) {
        // Does not fail: the sender is ours.
        drop(self.end.subscribe().wait_for(Option::is_some).await);
    }

    /// Waits until a closed producer's time is up.
    pub(crate) async fn past_end(&self) {
        let mut end = self.end.subscribe();
        loop {
            let deadline = *end.borrow_and_update();
            match deadline {
                None => drop(end.changed().await),
                Some(deadline) => tokio::select! {
                    () = sleep_until(deadline) => return,
                    changed = end.changed() => drop(changed),
                },
            }
        }
    }

    /// How long a closed producer still has.
    pub(crate) fn time_left(&self) -> Duration {
        let end = *self.end.borrow();
        end.map_or(Duration::ZERO, |end| {
            end.saturating_duration_since(Instant::now())
        })
    }

    /// Books what is left, as lost unless it is on disk, and tells everybody: the background thread's
    /// last act.
    pub(crate) fn end(&self) {
        self.buffer().end();
        self.announce();
    }
}

/// Takes a caller back out of the number of those who wait.
struct CountedOnDrop<'a>(&'a AtomicUsize);

impl Drop for CountedOnDrop<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests;
