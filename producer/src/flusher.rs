//! The background thread: waits until rows are due, and has them published.
//!
//! ```text
//! without a spool:  due ──▶ connected ──▶ take rows out ──▶ batch ──▶ publish ──▶ due …
//! with one:         due ──▶ take rows out ──▶ batch ──▶ log ──▶ due …
//!                                                        log ──▶ publish …
//! ```
//!
//! One flight at a time. Without a spool there is a connection before any row is taken out, so that
//! rows stay where the overflow policy can choose among them; with one, the log has room before.

use std::{io, sync::Arc, thread, time::Duration};

use tokio::{
    runtime,
    sync::oneshot,
    time::{sleep, timeout},
};

use crate::{
    batcher::Batcher,
    blocks::Block,
    books::{Bookkeeper, LAST_WORD, LAST_WORD_AT_LEAST},
    cache::{CacheQueue, CacheTask},
    config::ProducerConfig,
    handover::Handover,
    publisher::Publisher,
    saturation::{Monitor, Saturation},
    spool::Journal,
};

/// How often a producer with nothing to publish looks whether Redis is still the same server.
pub(crate) const LOOK_AFTER: Duration = Duration::from_secs(2);

/// Longest wait at the end for Redis to forget an empty spool.
const UNREGISTER: Duration = Duration::from_millis(500);

/// Starts the background thread. It ends by itself once `handover` is closed.
pub(crate) fn start(
    config: &ProducerConfig,
    handover: Arc<Handover>,
    journal: Option<Journal>,
    cache: CacheQueue,
    cache_task: CacheTask,
    saturation: Saturation,
) -> io::Result<thread::JoinHandle<()>> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let batcher = Batcher::new(config, saturation.clone());
    let monitor = config
        .saturation
        .clone()
        .map(|of| Monitor::new(config, of, saturation));
    let mut publisher = Publisher::new(config, Arc::clone(&handover), cache.clone());
    let bookkeeper = Bookkeeper::new(config, Arc::clone(&handover), cache.clone());
    let (end_books, books_end) = oneshot::channel();
    thread::Builder::new()
        .name("passerby-producer".to_owned())
        .spawn(move || {
            let ended = EndOnDrop(&handover);
            runtime.block_on(async {
                // Their end is the runtime's, so there is nothing to wait for.
                drop(tokio::spawn(cache_task.run()));
                drop(monitor.map(|monitor| tokio::spawn(monitor.run())));
                let keeping_books = tokio::spawn(bookkeeper.run(books_end));
                tokio::select! {
                    () = run(&handover, journal.as_ref(), &batcher, &mut publisher) => {}
                    () = handover.past_end() => {}
                }
                // The last chance to notice that Redis was restarted.
                if publisher.remembers() {
                    let limit = handover.time_left().min(LOOK_AFTER);
                    drop(timeout(limit, publisher.look_after()).await);
                }
                if let Some(journal) = &journal {
                    journal.close().await;
                    drop(timeout(UNREGISTER, publisher.unregister_spool()).await);
                }
                cache.drain(handover.time_left()).await;
                // Whoever is told that the producer has ended may end the process.
                if end_books.send(()).is_ok() {
                    let limit = handover.time_left().clamp(LAST_WORD_AT_LEAST, LAST_WORD);
                    drop(timeout(limit, keeping_books).await);
                }
            });
            // Whoever waits for our end may open the spool at once.
            drop(journal);
            handover.end();
            publisher.report();
            // Name resolution runs on threads of its own, which may hang for long.
            runtime.shutdown_background();
            drop(ended);
        })
}

async fn run(
    handover: &Handover,
    journal: Option<&Journal>,
    batcher: &Batcher,
    publisher: &mut Publisher,
) {
    if let Some(journal) = journal {
        let moving = async { tokio::join!(journal.fill(batcher), journal.empty(publisher)) };
        tokio::select! {
            _ = moving => {}
            () = journal.keep_synced() => {}
        }
        // All rows are published, or the disk failed and those that come are kept in memory.
    } else {
        tokio::select! {
            () = handover.making_room(publisher.warm_up()) => {}
            () = handover.closed() => {}
        }
    }
    loop {
        tokio::select! {
            is_due = handover.due() => if !is_due { break },
            () = sleep(LOOK_AFTER), if publisher.remembers() => {
                publisher.look_after().await;
                continue;
            }
        }
        handover.making_room(publisher.connected()).await;
        let mut blocks = handover.buffer().take();
        let mut entries = batcher.batch(blocks.iter_mut().flat_map(Block::rows_mut));
        let traceparent = handover.traceparent();
        for entry in &mut entries {
            entry.traceparent = traceparent;
        }
        handover.recycle(blocks);
        handover.making_room(publisher.publish(entries)).await;
    }
}

/// Whatever ends the thread, even a panic, callers must not wait for it.
struct EndOnDrop<'a>(&'a Handover);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
