use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::*;
use crate::{
    config::tests::{config, size},
    row::tests::detection,
};

fn handover(overflow: Overflow) -> Arc<Handover> {
    let mut config = config();
    config.max_rows = size(50);
    config.buffer_rows = size(200);
    config.overflow = overflow;
    Arc::new(Handover::new(&config))
}

fn record(handover: &Handover, id: i64) -> Result<Recorded, Closed> {
    handover.record(Row::Detection(detection("c", id)), &mut Patience::default())
}

/// Takes a flight out and publishes it; `false` when there will never be another.
async fn publish_one_flight(handover: &Handover) -> bool {
    if !handover.due().await {
        return false;
    }
    let mut blocks = handover.buffer().take();
    for block in &mut blocks {
        for row in block.drain() {
            handover.buffer().published(row.kind(), 1, row.n_bytes(), 1);
        }
    }
    handover.buffer().recycle(blocks);
    handover.announce();
    true
}

#[test]
fn the_books_balance_at_every_moment_under_many_threads() {
    for overflow in [
        Overflow::DropNewest,
        Overflow::DropOldest,
        Overflow::Block(Duration::from_secs(60)),
    ] {
        let handover = handover(overflow);
        let recording = AtomicBool::new(true);
        thread::scope(|scope| {
            let recorders: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        for id in 0..5_000 {
                            record(&handover, id).map(drop).unwrap();
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .unwrap();
                runtime.block_on(async { while publish_one_flight(&handover).await {} });
                handover.end();
            });
            scope.spawn(|| {
                while recording.load(Ordering::Relaxed) {
                    let stats = handover.buffer().stats().clone();
                    assert!(stats.detections.balances(), "{stats:?}");
                    assert!(stats.detections.buffered <= 200);
                }
            });
            for recorder in recorders {
                recorder.join().unwrap();
            }
            recording.store(false, Ordering::Relaxed);
            assert_eq!(handover.flush(Duration::from_secs(60)), 0);
            handover.close(after(Duration::from_secs(60)));
        });
        let rows = handover.buffer().stats().detections;
        assert!(rows.balances());
        assert_eq!(rows.buffered + rows.dropped_closed + rows.block_timeouts, 0);
        assert_eq!(
            rows.published + rows.dropped_oldest + rows.dropped_newest,
            20_000
        );
        assert_eq!(record(&handover, 0), Err(Closed));
    }
}

#[tokio::test(start_paused = true)]
async fn an_async_caller_waits_for_room_and_no_longer_than_it_said() {
    let handover = handover(Overflow::Block(Duration::from_secs(3)));
    let record = async |id| {
        let row = Row::Detection(detection("c", id));
        handover.record_async(row, &mut Patience::default()).await
    };
    for id in 0..200 {
        assert_eq!(record(id).await, Ok(Recorded::Accepted));
    }
    let begun = Instant::now();
    assert_eq!(record(200).await, Ok(Recorded::Dropped));
    assert_eq!(begun.elapsed(), Duration::from_secs(3));
    assert_eq!(handover.buffer().stats().detections.block_timeouts, 1);

    let (recorded, _) = tokio::join!(record(201), publish_one_flight(&handover));
    assert_eq!(recorded, Ok(Recorded::Accepted));
}

#[tokio::test(start_paused = true)]
async fn a_flush_says_how_many_rows_are_left() {
    let handover = handover(Overflow::DropNewest);
    for id in 0..3 {
        record(&handover, id).map(drop).unwrap();
    }
    assert_eq!(handover.flush_async(Duration::from_secs(1)).await, 3);
    let (left, _) = tokio::join!(
        handover.flush_async(Duration::from_secs(1)),
        publish_one_flight(&handover)
    );
    assert_eq!(left, 0);
}

#[tokio::test(start_paused = true)]
async fn the_earliest_deadline_ends_a_closed_producer() {
    let handover = handover(Overflow::DropNewest);
    let begun = Instant::now();
    handover.close(after(Duration::from_secs(9)));
    handover.close(after(Duration::from_secs(2)));
    handover.close(after(Duration::from_secs(5)));
    handover.past_end().await;
    assert_eq!(begun.elapsed(), Duration::from_secs(2));
}
