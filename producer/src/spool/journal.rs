//! The log at work: rows into it, onto the disk, and out of it to Redis.
//!
//! Three loops on the background thread: [`fill`](Journal::fill) makes a frame of each flush,
//! [`keep_synced`](Journal::keep_synced) forces frames onto the disk, [`empty`](Journal::empty) has
//! them published in order. Whatever touches the disk runs on a thread for blocking work, so that a
//! slow disk does not hold up the track cache, which shares the runtime.
//!
//! A frame goes from the first loop to the third in memory while that keeps up. Otherwise it is
//! dropped from memory and read back from disk when its turn comes.

mod queue;

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use passerby_shared::ErrorChain;
use tokio::{
    sync::{Mutex as AsyncMutex, Notify},
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tracing::{error, warn};

use super::{
    config::{Fsync, SpoolConfig, SpoolFull},
    directory::Lock,
    error::SpoolError,
    frame::RowCounts,
    log::{AppendError, Log, Next, Position},
    open::Opened,
    ring::Ring,
};
use crate::{
    batcher::{Batcher, Entry, Held},
    blocks::Block,
    flusher::LOOK_AFTER,
    handover::Handover,
    publisher::Publisher,
};
use queue::{Frame, Queue};

/// Waits for room that others may make on the disk.
const FULL_MIN: Duration = Duration::from_millis(100);
const FULL_MAX: Duration = Duration::from_secs(5);
/// Longest wait at the end for a disk that does not answer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Journal {
    handover: Arc<Handover>,
    disk: Arc<Disk>,
    fsync: Fsync,
    when_full: SpoolFull,
    /// One at a time: what is claimed to be on the disk must be.
    syncing: AsyncMutex<()>,
    /// There is something to send, or an end of it.
    ready: Notify,
    /// Room may have been made, or there is an end of it.
    room: Notify,
    /// There is something to force onto the disk.
    unsynced: Notify,
}

/// What blocking work needs, for as long as it takes.
struct Disk {
    log: Mutex<Log>,
    /// Locked for a handful of assignments; by whoever has the log, too, and never the other way round.
    queue: Mutex<Queue>,
    _lock: Lock,
}

impl Disk {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal {
    /// Puts an opened spool to work. The ring goes to the buffer.
    pub(crate) fn new(config: &SpoolConfig, handover: Arc<Handover>, opened: Opened) -> Self {
        let Opened {
            lock, log, cursor, ..
        } = opened;
        let (n_segments, n_bytes) = log.size();
        handover.buffer().spool_size(n_segments, n_bytes);
        handover.buffer().spool_damaged(opened.n_damaged);
        let appended_to = log.end();
        handover
            .buffer()
            .spool_to(opened.ring, opened.next_seq, opened.recovered);
        Self {
            handover,
            disk: Arc::new(Disk {
                log: Mutex::new(log),
                queue: Mutex::new(Queue::new(cursor, appended_to)),
                _lock: lock,
            }),
            fsync: config.fsync,
            when_full: config.when_full,
            syncing: AsyncMutex::new(()),
            ready: Notify::new(),
            room: Notify::new(),
            unsynced: Notify::new(),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.disk.queue()
    }

    /// Works on the log, where waiting for the disk holds up nobody.
    async fn disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Log) -> T + Send + 'static,
    ) -> T {
        self.disk_and_queue(|log, _| work(log)).await
    }

    /// As [`Journal::disk`], where the log and what is known of it must change together.
    async fn disk_and_queue<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Log, &Disk) -> T + Send + 'static,
    ) -> T {
        let disk = Arc::clone(&self.disk);
        let worked = spawn_blocking(move || {
            let mut log = disk.log.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut log, &disk)
        });
        worked.await.expect("work on the log does not panic")
    }

    /// Makes frames of rows, until there will be no rows any more or the disk fails.
    pub(crate) async fn fill(&self, batcher: &Batcher) {
        while self.handover.due().await {
            let n_bytes = self.handover.buffer().next_flight_bytes();
            // Rows stay in the buffer until there is room, where the overflow policy can choose.
            let has_room = self.has_room(n_bytes as u64);
            if !self.handover.making_room(has_room).await {
                break;
            }
            let (mut blocks, seqs) = {
                let mut buffer = self.handover.buffer();
                (buffer.take(), buffer.flight_seqs())
            };
            let entries = batcher.batch(blocks.iter_mut().flat_map(Block::rows_mut));
            self.handover.recycle(blocks);
            if entries.is_empty() {
                continue;
            }
            if let Err(orphans) = self.append(seqs, entries).await {
                self.queue().orphans = orphans;
                break;
            }
        }
        self.queue().is_filled = true;
        self.ready.notify_one();
    }

    /// Waits until the log has room; false when there is no log any more.
    async fn has_room(&self, n_bytes: u64) -> bool {
        let mut delay = FULL_MIN;
        loop {
            if self.queue().is_abandoned {
                return false;
            }
            match self.disk(move |log| log.prepare(n_bytes)).await {
                Ok(()) => {
                    self.handover.buffer().spool_trouble(None);
                    return true;
                }
                Err(AppendError::Io(error)) => {
                    self.abandon(&error).await;
                    return false;
                }
                Err(AppendError::Full) => self.make_room(&mut delay).await,
            }
        }
    }

    async fn make_room(&self, delay: &mut Duration) {
        if self.when_full == SpoolFull::DropOldest && self.drop_oldest().await {
            return;
        }
        self.handover.buffer().spool_trouble(Some(
            "the spool is full: rows wait in the buffer until Redis takes some, or the disk has room",
        ));
        if *delay == FULL_MIN {
            warn!("the spool is full: rows wait in the buffer until Redis takes some");
        }
        tokio::select! {
            () = self.room.notified() => {}
            () = sleep(*delay) => {}
        }
        *delay = (*delay * 2).min(FULL_MAX);
    }

    /// Drops the oldest segment, except for the frame that is being sent.
    async fn drop_oldest(&self) -> bool {
        let dropped = self.disk_and_queue(|log, disk| {
            let (number, mut lost) = log.drop_oldest()?;
            let mut queue = disk.queue();
            if let Some((segment, rows)) = queue.sending
                && segment == number
            {
                lost -= rows;
            }
            queue.fall_back_to(Position {
                segment: number + 1,
                offset: 0,
            });
            Some(lost)
        });
        let Some(lost) = dropped.await else {
            return false;
        };
        self.handover
            .buffer()
            .lost_from_spool(lost, |rows| &mut rows.dropped_spool_full);
        self.handover.announce();
        warn!(
            n_rows = lost.total(),
            "the spool is full: its oldest rows were dropped"
        );
        true
    }

    /// Adds a frame to the log, and hands it on. Gives the entries back when there is no log any more.
    async fn append(&self, seqs: Range<u64>, entries: Vec<Entry>) -> Result<(), Vec<Entry>> {
        let rows = RowCounts::of(&entries);
        let entries = Arc::new(entries);
        let mut delay = FULL_MIN;
        let (at, next, (n_segments, n_bytes)) = loop {
            let (frame, frame_seqs) = (Arc::clone(&entries), seqs.clone());
            let appended = self.disk(move |log| {
                let (at, next) = log.append(frame_seqs, &frame)?;
                Ok((at, next, log.size()))
            });
            match appended.await {
                Ok(appended) => break appended,
                Err(AppendError::Full) => self.make_room(&mut delay).await,
                Err(AppendError::Io(error)) => {
                    self.abandon(&error).await;
                }
            }
            if self.queue().is_abandoned {
                return Err(owned(entries));
            }
        };
        if self.fsync == Fsync::Each && !self.sync().await {
            // In the log or not: with the same keys it is stored once.
            return Err(owned(entries));
        }
        {
            let mut buffer = self.handover.buffer();
            buffer.framed(rows);
            buffer.spool_size(n_segments, n_bytes);
            if self.fsync == Fsync::Each {
                buffer.synced(seqs.end);
            }
        }
        self.handover.announce();
        let mut entries = owned(entries);
        for entry in &mut entries {
            entry.held = Held::Spool;
        }
        self.queue().push(Frame {
            at,
            next,
            through_seq: seqs.end.saturating_sub(1),
            entries,
        });
        self.ready.notify_one();
        self.unsynced.notify_one();
        self.handover.hurry_sync();
        Ok(())
    }

    /// Forces frames onto the disk when it is time. Does not end.
    pub(crate) async fn keep_synced(&self) {
        loop {
            let interval = async {
                self.unsynced.notified().await;
                match self.fsync {
                    Fsync::Interval(interval) => sleep(interval).await,
                    Fsync::Never | Fsync::Each => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.handover.sync_wanted() => {}
                () = interval => {}
            }
            self.sync().await;
        }
    }

    /// Forces all frames so far onto the disk; false when that failed, and there is no log any more.
    async fn sync(&self) -> bool {
        let _one_at_a_time = self.syncing.lock().await;
        if self.queue().is_abandoned {
            return false;
        }
        let below = self.handover.buffer().framed_below();
        let unsynced = self.disk(Log::unsynced).await;
        let synced = spawn_blocking(move || unsynced.sync()).await;
        match synced.expect("syncing does not panic") {
            Ok(()) => {
                self.handover.buffer().synced(below);
                self.handover.announce();
                true
            }
            Err(error) => {
                self.abandon(&error).await;
                false
            }
        }
    }

    /// Has everything in the log published, in order, until there will be nothing any more.
    pub(crate) async fn empty(&self, publisher: &mut Publisher) {
        tokio::select! {
            () = publisher.warm_up() => {}
            () = self.handover.closed() => {}
        }
        while let Some(mut frame) = self.next(publisher).await {
            publisher.publish(std::mem::take(&mut frame.entries)).await;
            // At once: should the producer be ended now, the frame is known to be sent.
            self.acknowledge(&frame).await;
            publisher.register_spool().await;
        }
        let orphans = std::mem::take(&mut self.queue().orphans);
        if !orphans.is_empty() {
            publisher.publish(orphans).await;
        }
    }

    async fn next(&self, publisher: &mut Publisher) -> Option<Frame> {
        loop {
            let (from, until) = {
                let mut queue = self.queue();
                if let Some(frame) = queue.pop() {
                    return Some(frame);
                }
                if queue.read_from >= queue.appended_to {
                    queue.is_behind = false;
                    if queue.is_filled {
                        return None;
                    }
                }
                (queue.read_from, queue.appended_to)
            };
            if from >= until {
                // Nothing else here may be given up half way.
                tokio::select! {
                    () = self.ready.notified() => {}
                    () = sleep(LOOK_AFTER), if publisher.remembers() => publisher.look_after().await,
                }
                continue;
            }
            let read = self.disk_and_queue(move |log, disk| {
                // A segment may just have been dropped.
                let from = disk.queue().read_from.max(from);
                let read = log.next(from, until);
                let mut queue = disk.queue();
                match &read {
                    Next::Frame { at, next, frame } => {
                        queue.read_from = *next;
                        queue.sending = Some((at.segment, RowCounts::of(&frame.entries)));
                    }
                    Next::Lost { next, .. } => queue.read_from = *next,
                    Next::End => queue.read_from = from.max(until),
                }
                read
            });
            match read.await {
                Next::Frame { at, next, frame } => {
                    return Some(Frame {
                        at,
                        next,
                        through_seq: frame.through_seq,
                        entries: frame.entries,
                    });
                }
                Next::Lost { rows, .. } => self.lost(rows),
                Next::End => {}
            }
        }
    }

    /// Books rows that could not be read back.
    fn lost(&self, rows: RowCounts) {
        if rows.total() == 0 {
            return;
        }
        let mut buffer = self.handover.buffer();
        buffer.lost_from_spool(rows, |rows| &mut rows.dropped_spool_damaged);
        buffer.spool_damaged(1);
        drop(buffer);
        self.handover.announce();
    }

    async fn acknowledge(&self, frame: &Frame) {
        let (at, next) = (frame.at, frame.next);
        // Before anything is waited for: should this be the last that is done, it is known to be sent.
        self.handover.buffer().settled(frame.through_seq, next);
        let acknowledged = self.disk_and_queue(move |log, disk| {
            let sent = disk.queue().sending.take();
            let rows = sent.map_or_else(RowCounts::default, |(_, rows)| rows);
            (log.acknowledge(at, next, rows), log.size())
        });
        let (lost, (n_segments, n_bytes)) = acknowledged.await;
        self.lost(lost);
        self.handover.buffer().spool_size(n_segments, n_bytes);
        self.handover.announce();
        self.room.notify_one();
    }

    /// Goes on without a spool: what is in memory is published from there.
    async fn abandon(&self, error: &SpoolError) {
        let text = ErrorChain(error).to_string();
        let ring = self.handover.buffer().abandon_spool(&text);
        {
            let mut queue = self.queue();
            if queue.is_abandoned {
                return;
            }
            queue.is_abandoned = true;
        }
        error!(
            error = text,
            "the spool's disk fails: rows are kept in memory only from now on, and are lost with this \
             process; mend the disk and start the pipeline anew"
        );
        if let Some(ring) = ring {
            // The mark must get onto the disk, if anything still does.
            drop(spawn_blocking(move || ring.flush()));
        }
        self.room.notify_one();
        self.ready.notify_one();
        self.handover.announce();
    }

    /// Leaves everything on disk, for the next run.
    pub(crate) async fn close(&self) {
        let ring = self.handover.buffer().close_ring();
        let Some(ring) = ring else { return };
        let is_forced = self.fsync != Fsync::Never;
        let closed = self.disk(move |log| if is_forced { force(log, &ring) } else { Ok(()) });
        match timeout(CLOSE_TIMEOUT, closed).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => error!(
                error = %ErrorChain(&error),
                "the spool's disk fails: what is in the spool may not survive a power cut"
            ),
            Err(_) => error!("the spool's disk does not answer: the spool was left as it is"),
        }
    }
}

fn force(log: &mut Log, ring: &Ring) -> Result<(), SpoolError> {
    log.unsynced().sync()?;
    ring.flush().map_err(SpoolError::io(
        "sync",
        std::path::Path::new(super::directory::RING),
    ))
}

/// Takes entries back from a blocking call that has ended.
fn owned(entries: Arc<Vec<Entry>>) -> Vec<Entry> {
    Arc::into_inner(entries).expect("the call that shared them has returned")
}
