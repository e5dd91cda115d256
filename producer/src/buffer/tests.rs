use proptest::prelude::*;
use tokio::time::advance;

use super::*;
use crate::{
    config::tests::{config, size},
    row::tests::{detection, session, track},
};

const MAX_DELAY: Duration = Duration::from_millis(20);

fn buffer(overflow: Overflow, buffer_rows: usize) -> Buffer {
    let mut config = config();
    config.max_delay = MAX_DELAY;
    config.max_rows = size(4);
    config.buffer_rows = size(buffer_rows);
    config.overflow = overflow;
    config.check().unwrap();
    Buffer::new(&config)
}

fn offer(buffer: &mut Buffer, id: i64) -> Answer {
    buffer.offer(&mut Offer::new(Row::Detection(detection("c", id))))
}

fn ids(blocks: Vec<Block>) -> Vec<i64> {
    blocks
        .into_iter()
        .flat_map(|mut block| block.drain().collect::<Vec<_>>())
        .map(|row| match row {
            Row::Detection(d) => d.detection_id,
            _ => unreachable!(),
        })
        .collect()
}

fn publish(buffer: &mut Buffer, n_rows: usize) {
    let n_bytes = n_rows * Row::Detection(detection("c", 0)).n_bytes();
    buffer.published(Kind::Detections, n_rows, n_bytes, 1);
}

#[test]
fn drop_newest_keeps_what_was_accepted() {
    let mut buffer = buffer(Overflow::DropNewest, 8);
    for id in 0..10 {
        let _ = offer(&mut buffer, id);
    }
    let rows = buffer.stats().detections;
    assert_eq!((rows.accepted, rows.dropped_newest), (8, 2));
    assert_eq!(ids(buffer.take()), [0, 1, 2, 3]);
}

#[test]
fn drop_oldest_keeps_the_latest_and_never_touches_what_is_being_sent() {
    let mut buffer = buffer(Overflow::DropOldest, 8);
    for id in 0..8 {
        let _ = offer(&mut buffer, id);
    }
    let _being_sent = buffer.take();
    for id in 8..11 {
        assert!(matches!(offer(&mut buffer, id), Answer::Accepted { .. }));
    }
    assert_eq!(buffer.stats().detections.dropped_oldest, 3);
    publish(&mut buffer, 4);
    assert_eq!(ids(buffer.take()), [7, 8, 9, 10]);
    assert_eq!(buffer.stats().detections.published, 4);
}

#[test]
fn a_row_that_never_fits_is_refused_at_once_and_costs_no_other_row() {
    for overflow in [
        Overflow::DropOldest,
        Overflow::DropNewest,
        Overflow::Block(Duration::MAX),
    ] {
        let mut buffer = buffer(overflow, 8);
        let _ = offer(&mut buffer, 0);
        let mut huge = detection("c", 1);
        huge.session_id.reserve(65 << 20);
        let answer = buffer.offer(&mut Offer::new(Row::Detection(huge)));
        assert_eq!(answer, Answer::Dropped);
        assert_eq!(ids(buffer.take()), [0]);
    }
}

#[test]
fn block_leaves_the_row_with_its_caller() {
    let mut buffer = buffer(Overflow::Block(Duration::MAX), 8);
    for id in 0..8 {
        let _ = offer(&mut buffer, id);
    }
    let mut ninth = Offer::new(Row::Detection(detection("c", 8)));
    assert_eq!(buffer.offer(&mut ninth), Answer::NoRoom);
    let _being_sent = buffer.take();
    assert_eq!(buffer.offer(&mut ninth), Answer::NoRoom);
    publish(&mut buffer, 4);
    assert!(matches!(buffer.offer(&mut ninth), Answer::Accepted { .. }));
}

#[test]
fn rows_are_due_when_they_are_many_or_old_or_asked_for() {
    let mut buffer = buffer(Overflow::DropNewest, 8);
    assert_eq!(buffer.due(), Due::Later);
    let before = Instant::now();
    let _ = offer(&mut buffer, 0);
    assert!(matches!(buffer.due(), Due::At(at) if at >= before + MAX_DELAY));
    buffer.flush();
    assert_eq!(buffer.due(), Due::Now);
    drop(buffer.take());
    publish(&mut buffer, 1);
    assert!(matches!(buffer.due(), Due::At(at) if at >= before + MAX_DELAY));
    for id in 1..5 {
        assert_ne!(buffer.due(), Due::Now);
        let _ = offer(&mut buffer, id);
    }
    assert_eq!(buffer.due(), Due::Now);
    drop(buffer.take());
    publish(&mut buffer, 4);
    buffer.close();
    assert_eq!(buffer.due(), Due::Never);
    assert_eq!(offer(&mut buffer, 5), Answer::Closed);
}

/// Whether the row wakes the flusher.
fn wakes(buffer: &mut Buffer, id: i64) -> bool {
    match offer(buffer, id) {
        Answer::Accepted { wake_flusher, .. } => wake_flusher,
        answer => panic!("{answer:?}"),
    }
}

#[test]
fn only_the_first_row_and_the_one_that_fills_an_entry_wake_the_flusher() {
    let mut buffer = buffer(Overflow::DropNewest, 8);
    assert_eq!(buffer.due(), Due::Later);
    let woken: Vec<bool> = (0..6).map(|id| wakes(&mut buffer, id)).collect();
    assert_eq!(woken, [true, false, false, true, false, false]);
}

#[tokio::test(start_paused = true)]
async fn a_busy_pipeline_finds_a_flusher_that_looks_by_itself() {
    let mut buffer = buffer(Overflow::DropNewest, 800);
    assert_eq!(buffer.due(), Due::Later);
    let (mut woken, mut n_sent, mut looks) = (Vec::new(), Vec::new(), Due::Later);
    // A row every 7 ms, for which two or three share an entry.
    for id in 0..60 {
        if wakes(&mut buffer, id) {
            woken.push(id);
            looks = buffer.due();
        }
        let until = Instant::now() + Duration::from_millis(7);
        while let Due::At(at) = looks
            && at <= until
        {
            advance(at - Instant::now()).await;
            looks = buffer.due();
            if looks == Due::Now {
                let n_rows = ids(buffer.take()).len();
                n_sent.push(n_rows);
                publish(&mut buffer, n_rows);
                looks = buffer.due();
            }
        }
        advance(until - Instant::now()).await;
    }
    assert_eq!(woken, [0]);
    assert!(n_sent.iter().all(|n| (2..=3).contains(n)), "{n_sent:?}");

    // When no rows come any more, it looks once more and sleeps.
    advance(MAX_DELAY).await;
    let n_rows = ids(buffer.take()).len();
    publish(&mut buffer, n_rows);
    assert!(matches!(buffer.due(), Due::At(_)));
    advance(MAX_DELAY).await;
    assert_eq!(buffer.due(), Due::Later);
    assert!(wakes(&mut buffer, 60));
}

#[test]
fn a_flush_waits_for_what_is_being_sent_even_when_newer_rows_are_dropped() {
    let mut buffer = buffer(Overflow::DropOldest, 8);
    for id in 0..4 {
        let _ = offer(&mut buffer, id);
    }
    let below = buffer.flush();
    drop(buffer.take());
    for id in 4..20 {
        let _ = offer(&mut buffer, id);
    }
    assert_eq!(buffer.n_left(below), 4);
    publish(&mut buffer, 3);
    assert_eq!(buffer.n_left(below), 1);
    publish(&mut buffer, 1);
    assert!(buffer.is_settled(below));
}

#[derive(Debug, Clone)]
enum Step {
    Detection,
    Track { n_points: usize },
    Session,
    Refused,
    Take,
    Publish,
    Flush,
    End,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => Just(Step::Detection),
        4 => (0_usize..400).prop_map(|n_points| Step::Track { n_points }),
        2 => Just(Step::Session),
        1 => Just(Step::Refused),
        3 => Just(Step::Take),
        3 => Just(Step::Publish),
        1 => Just(Step::Flush),
        1 => Just(Step::End),
    ]
}

proptest! {
    #[test]
    fn the_books_balance_and_the_bounds_hold_after_every_step(
        steps in proptest::collection::vec(step(), 1..300),
        policy in 0..3,
    ) {
        let mut config = config();
        config.max_rows = size(5);
        config.max_bytes = size(4096);
        config.buffer_rows = size(12);
        config.buffer_bytes = size(10_000);
        config.overflow = match policy {
            0 => Overflow::DropNewest,
            1 => Overflow::DropOldest,
            _ => Overflow::Block(Duration::ZERO),
        };
        let mut buffer = Buffer::new(&config);
        let mut flight: Vec<Row> = Vec::new();
        let mut offered = 0;
        for step in steps {
            let row = match step {
                Step::Detection => Some(Row::Detection(detection("c", 0))),
                Step::Track { n_points } => Some(Row::Track(track("c", n_points))),
                Step::Session => Some(Row::Session(session("s"))),
                _ => None,
            };
            if let Some(row) = row.filter(|_| !buffer.has_ended()) {
                offered += 1;
                let mut offer = Offer::new(row);
                if buffer.offer(&mut offer) == Answer::NoRoom {
                    buffer.give_up(&offer);
                }
            }
            match step {
                Step::Refused => buffer.refused(Kind::Tracks, |rows| rows.invalid += 1),
                Step::Take if flight.is_empty() => {
                    let mut blocks = buffer.take();
                    flight = blocks.iter_mut().flat_map(|b| b.drain().collect::<Vec<_>>()).collect();
                    buffer.recycle(blocks);
                }
                Step::Publish if !buffer.has_ended() => if let Some(row) = flight.pop() {
                    buffer.published(row.kind(), 1, row.n_bytes(), 1);
                }
                Step::Flush => { buffer.flush(); }
                Step::End => buffer.end(),
                _ => {}
            }
            let stats = buffer.stats();
            for kind in [Kind::Detections, Kind::Tracks, Kind::Sessions] {
                prop_assert!(stats.kind(kind).balances(), "{stats:?}");
            }
            let rows = stats.rows();
            prop_assert_eq!(rows.accepted + rows.dropped_newest + rows.block_timeouts, offered);
            prop_assert!(rows.buffered <= 12 && stats.buffered_bytes <= 10_000);
            if !buffer.has_ended() {
                let held = (buffer.blocks.n_rows() + flight.len()) as u64;
                prop_assert_eq!(rows.buffered, held);
                prop_assert_eq!(buffer.n_left(buffer.next_seq), held);
            }
        }
    }
}

mod with_a_ring {
    use super::*;
    use crate::{
        batcher::{Batcher, Entry, Held},
        spool::{Position, Ring, RowCounts},
    };

    fn ring(dir: &tempfile::TempDir) -> Ring {
        let path = dir.path().join("buffer.ring");
        let (mut ring, _) = Ring::open(&path, 64 << 10).unwrap();
        ring.restart(0, Position::default());
        ring
    }

    /// The numbers of the rows that the next run would find.
    fn on_disk(dir: &tempfile::TempDir) -> Vec<u64> {
        let bytes = std::fs::read(dir.path().join("buffer.ring")).unwrap();
        let left = crate::spool::read_ring(&bytes).unwrap();
        left.rows.iter().map(|(seq, _)| *seq).collect()
    }

    fn spooled_entries(rows: &mut [Block]) -> Vec<Entry> {
        let batcher = Batcher::new(&config(), crate::saturation::Saturation::default());
        let mut entries = batcher.batch(rows.iter_mut().flat_map(Block::rows_mut));
        rows.iter_mut().for_each(Block::clear);
        entries
            .iter_mut()
            .for_each(|entry| entry.held = Held::Spool);
        entries
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever happens, the file holds what is in the buffer, and the books balance.
        #[test]
        fn the_ring_holds_what_the_buffer_holds(
            steps in prop::collection::vec(0..6u8, 1..150),
            drop_oldest: bool,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let policy = if drop_oldest { Overflow::DropOldest } else { Overflow::DropNewest };
            let mut buffer = buffer(policy, 12);
            buffer.spool_to(ring(&dir), 0, RowCounts::default());
            let (mut flight, mut log) = (Vec::new(), Vec::new());
            for (id, step) in steps.into_iter().enumerate() {
                match step {
                    0..=3 => drop(offer(&mut buffer, i64::try_from(id).unwrap())),
                    4 if buffer.flight_seqs().is_empty() => flight = buffer.take(),
                    4 => {
                        let entries = spooled_entries(&mut flight);
                        buffer.framed(RowCounts::of(&entries));
                        log.extend(entries);
                    }
                    _ => log.drain(..).for_each(|entry| buffer.published_from_spool(&entry)),
                }
                let rows = buffer.stats().detections;
                prop_assert!(rows.balances(), "{rows:?}");
                let n_spooled: usize = log.iter().map(|entry| entry.n_rows).sum();
                prop_assert_eq!(rows.spooled, n_spooled as u64);
                // Rows dropped behind those in flight stay until these are in the log.
                let found = on_disk(&dir);
                prop_assert_eq!(found.last().map(|seq| seq + 1).unwrap_or(buffer.next_seq), buffer.next_seq);
                if buffer.flight_seqs().is_empty() {
                    prop_assert_eq!(found.len() as u64, rows.buffered);
                } else {
                    prop_assert!(found.len() as u64 >= rows.buffered);
                }
            }
            let left = buffer.stats().detections;
            buffer.close();
            buffer.end();
            let rows = buffer.stats().detections;
            prop_assert_eq!((rows.spooled, rows.dropped_closed), (left.spooled + left.buffered, 0));
            prop_assert!(rows.balances());
        }
    }
}
