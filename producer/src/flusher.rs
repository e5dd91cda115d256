//! The background thread: waits until rows are due, and has them published.
//!
//! ```text
//! due ──▶ connected ──▶ take rows out ──▶ batch ──▶ publish ──▶ due …
//! ```
//!
//! One flight at a time, and a connection before any row is taken out. A spool on disk will stand
//! between `batch` and `publish`, and be drained first.

use std::{io, sync::Arc, thread};

use tokio::runtime;

use crate::{
    batcher::Batcher,
    blocks::Block,
    cache::{CacheQueue, CacheTask},
    config::ProducerConfig,
    handover::Handover,
    publisher::Publisher,
};

/// Starts the background thread. It ends by itself once `handover` is closed.
pub(crate) fn start(
    config: &ProducerConfig,
    handover: Arc<Handover>,
    cache: CacheQueue,
    cache_task: CacheTask,
) -> io::Result<thread::JoinHandle<()>> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let batcher = Batcher::new(config);
    let mut publisher = Publisher::new(config, Arc::clone(&handover), cache.clone());
    thread::Builder::new()
        .name("passerby-producer".to_owned())
        .spawn(move || {
            let ended = EndOnDrop(&handover);
            runtime.block_on(async {
                // Its end is the runtime's, so there is nothing to wait for.
                drop(tokio::spawn(cache_task.run()));
                tokio::select! {
                    () = run(&handover, &batcher, &mut publisher) => {}
                    () = handover.past_end() => {}
                }
                cache.drain(handover.time_left()).await;
            });
            handover.end();
            publisher.report();
            // Name resolution runs on threads of its own, which may hang for long.
            runtime.shutdown_background();
            drop(ended);
        })
}

async fn run(handover: &Handover, batcher: &Batcher, publisher: &mut Publisher) {
    tokio::select! {
        () = publisher.warm_up() => {}
        () = handover.closed() => {}
    }
    while handover.due().await {
        publisher.connected().await;
        let mut blocks = handover.buffer().take();
        let entries = batcher.batch(blocks.iter_mut().flat_map(Block::drain));
        handover.buffer().recycle(blocks);
        publisher.publish(entries).await;
    }
}

/// Whatever ends the thread, even a panic, callers must not wait for it.
struct EndOnDrop<'a>(&'a Handover);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
