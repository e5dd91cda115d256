use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use passerby_producer::{
    AsyncProducer, CloseError, FlushError, Health, Overflow, Producer, RecordError, Recorded,
    TroubleKind,
};
use passerby_servers::{Appendonly, RedisOptions, RedisServer};
use passerby_shared::{shard_of, wire::Kind};
use redis::Commands;

use crate::support::*;

/// What a frame may wait: far below the timeouts of Redis, far above a busy machine's scheduling.
const AT_ONCE: Duration = Duration::from_millis(100);

fn record(producer: &Producer, camera_id: &str, id: i64) -> Recorded {
    producer.record(detection(camera_id, id)).unwrap()
}

fn trouble(producer: &Producer) -> Option<TroubleKind> {
    match producer.health() {
        Health::Trouble(trouble) => Some(trouble.kind),
        _ => None,
    }
}

#[track_caller]
fn check_books(producer: &Producer, accepted: u64, published: u64) {
    let stats = producer.stats();
    let rows = stats.rows();
    assert!(rows.balances(), "{stats:?}");
    assert_eq!(
        (rows.accepted, rows.published),
        (accepted, published),
        "{stats:?}"
    );
}

#[test]
fn rows_of_every_kind_arrive_on_their_shards() {
    let redis = redis();
    let mut config = config(&redis);
    config.shards = 4.try_into().unwrap();
    let producer = Producer::start(config).unwrap();
    for id in 0..1000 {
        assert_eq!(
            record(&producer, &format!("c{}", id % 10), id),
            Recorded::Accepted
        );
    }
    assert_eq!(producer.track(track("c1", 1)), Ok(Recorded::Accepted));
    assert_eq!(producer.session(session("session")), Ok(Recorded::Accepted));
    producer.flush(SOON).unwrap();

    let mut n_rows = [0; 3];
    for shard in 0..4 {
        for entry in entries(&redis, shard) {
            match entry.kind {
                Kind::Detections => {
                    for (camera_id, _) in entry.detections() {
                        assert_eq!(shard_of(&camera_id, 4.try_into().unwrap()), shard);
                        n_rows[0] += 1;
                    }
                }
                Kind::Tracks => n_rows[1] += 1,
                Kind::Sessions => n_rows[2] += 1,
            }
        }
    }
    assert_eq!(n_rows, [1000, 1, 1]);
    let stats = producer.close(SOON).unwrap();
    assert_eq!(
        (stats.detections.published, stats.tracks.published),
        (1000, 1)
    );
    assert_eq!(stats.buffered_bytes, 0);
    assert_eq!(producer.health(), Health::Closed);
    assert_eq!(producer.record(detection("c", 0)), Err(RecordError::Closed));
}

#[test]
fn a_bad_row_costs_none_of_its_neighbours() {
    let redis = redis();
    let producer = Producer::start(config(&redis)).unwrap();
    let mut rows: Vec<_> = (0..5).map(|id| detection("c", id)).collect();
    rows[2].confidence = Some(1.5);
    let recorded = producer.record_many(rows);
    assert_eq!(recorded.accepted, 4);
    assert_eq!(recorded.invalid.len(), 1);
    let (row_idx, invalid) = &recorded.invalid[0];
    assert_eq!((*row_idx, invalid.field()), (2, "confidence"));
    producer.flush(SOON).unwrap();
    assert_eq!(producer.stats().detections.invalid, 1);
    check_books(&producer, 4, 4);
}

#[test]
fn a_redis_that_is_down_at_start_gets_the_rows_when_it_is_up() {
    let mut redis = redis();
    redis.kill().unwrap();
    let producer = Producer::start(config(&redis)).unwrap();
    for id in 0..2000 {
        assert_eq!(record(&producer, "c", id), Recorded::Accepted);
    }
    eventually("trouble", || {
        trouble(&producer) == Some(TroubleKind::Unreachable)
    });
    assert_eq!(
        producer.flush(Duration::from_millis(50)),
        Err(FlushError { n_rows: 2000 })
    );
    assert!(
        producer
            .stats()
            .last_error
            .unwrap()
            .error
            .starts_with("connect to Redis")
    );

    redis.restart().unwrap();
    producer.flush(SOON).unwrap();

    let ids: Vec<i64> = entries(&redis, 0)
        .iter()
        .flat_map(|e| e.detections())
        .map(|(_, id)| id)
        .collect();
    assert_eq!(ids, (0..2000).collect::<Vec<_>>());
    assert_eq!(producer.health(), Health::Up);
    check_books(&producer, 2000, 2000);
}

#[test]
fn a_redis_killed_again_and_again_loses_no_row_and_no_order() {
    let mut redis = RedisServer::start(RedisOptions {
        appendonly: Appendonly::Always,
        ..RedisOptions::default()
    })
    .unwrap();
    let mut config = config(&redis);
    config.max_rows = size(50);
    config.max_delay = Duration::from_millis(1);
    let producer = Producer::start(config).unwrap();
    let running = AtomicBool::new(true);

    let n_recorded = thread::scope(|scope| {
        let recorders: Vec<_> = (0..2)
            .map(|camera| {
                let (producer, running) = (&producer, &running);
                scope.spawn(move || {
                    let mut id = 0;
                    while running.load(Ordering::Relaxed) {
                        assert_eq!(
                            record(producer, &format!("c{camera}"), id),
                            Recorded::Accepted
                        );
                        id += 1;
                        thread::park_timeout(Duration::from_micros(200));
                    }
                    id
                })
            })
            .collect();
        for _ in 0..5 {
            let before = producer.stats().entries_published;
            eventually("entries", || {
                producer.stats().entries_published > before + 20
            });
            redis.restart().unwrap();
        }
        running.store(false, Ordering::Relaxed);
        let recorded = recorders.into_iter().map(|r| r.join().unwrap());
        recorded.collect::<Vec<i64>>()
    });
    producer.flush(SOON).unwrap();

    let mut next = [0, 0];
    for entry in distinct_entries(&redis, 0) {
        for (camera_id, id) in entry.detections() {
            let camera = usize::from(camera_id == "c1");
            assert_eq!(id, next[camera]);
            next[camera] += 1;
        }
    }
    assert_eq!(next.as_slice(), n_recorded);
    let n_rows = u64::try_from(n_recorded.iter().sum::<i64>()).unwrap();
    check_books(&producer, n_rows, n_rows);
    let stats = producer.stats();
    assert!(stats.reconnects >= 5, "{stats:?}");
}

#[test]
fn record_never_waits_for_a_redis_that_stopped_answering() {
    let mut redis = redis();
    let mut config = config(&redis);
    config.buffer_rows = size(5_000);
    let producer = Producer::start(config).unwrap();
    assert_eq!(record(&producer, "c", 0), Recorded::Accepted);
    producer.flush(SOON).unwrap();
    redis.pause().unwrap();

    let (begun, mut longest, mut id) = (Instant::now(), Duration::ZERO, 1);
    while begun.elapsed() < Duration::from_secs(2) {
        let one = Instant::now();
        drop(producer.record(detection("c", id)));
        longest = longest.max(one.elapsed());
        id += 1;
    }
    eprintln!("longest record() of {id}: {longest:?}");
    assert!(longest < AT_ONCE, "{longest:?}");
    let rows = producer.stats().detections;
    assert!(rows.balances());
    assert_eq!(rows.buffered, 5_000);
    assert!(rows.dropped_newest > 0);

    redis.resume().unwrap();
    producer.flush(SOON).unwrap();
    check_books(&producer, 5_001, 5_001);
    let stored = distinct_entries(&redis, 0);
    let n_stored: usize = stored.iter().map(|e| e.detections().len()).sum();
    // Redis works on what it was sent before the producer gave up waiting, so an entry is there twice.
    let n_sent = entries(&redis, 0).len();
    assert!(
        n_sent > stored.len(),
        "{n_sent} entries, {} keys",
        stored.len()
    );
    assert_eq!(n_stored, 5_001);
}

#[test]
fn a_full_redis_gets_the_rows_when_it_has_room() {
    let redis = redis();
    let producer = Producer::start(config(&redis)).unwrap();
    let mut admin = connect(&redis);
    let set_maxmemory = |admin: &mut redis::Connection, bytes: &str| {
        let set = redis::cmd("CONFIG")
            .arg(&["SET", "maxmemory", bytes])
            .query::<()>(admin);
        set.unwrap();
    };
    set_maxmemory(&mut admin, "1");
    for id in 0..1000 {
        assert_eq!(record(&producer, "c", id), Recorded::Accepted);
    }
    eventually("trouble", || trouble(&producer) == Some(TroubleKind::Busy));
    check_books(&producer, 1000, 0);
    set_maxmemory(&mut admin, "0");
    producer.flush(SOON).unwrap();
    check_books(&producer, 1000, 1000);
    assert_eq!(producer.stats().reconnects, 0);
}

#[test]
fn a_key_of_another_type_keeps_the_rows_until_an_operator_acts() {
    let redis = redis();
    let mut admin = connect(&redis);
    let _: () = admin.set("passerby:stream:{0}", "mistake").unwrap();
    let mut config = config(&redis);
    config.shards = 4.try_into().unwrap();
    let producer = Producer::start(config).unwrap();
    let refused = (0..)
        .map(|i| format!("c{i}"))
        .find(|c| shard_of(c, 4.try_into().unwrap()) == 0);
    let other = (0..)
        .map(|i| format!("c{i}"))
        .find(|c| shard_of(c, 4.try_into().unwrap()) == 1);
    assert_eq!(record(&producer, &refused.unwrap(), 1), Recorded::Accepted);
    assert_eq!(record(&producer, &other.unwrap(), 2), Recorded::Accepted);
    eventually("trouble", || {
        trouble(&producer) == Some(TroubleKind::Refused)
    });
    let error = producer.stats().last_error.unwrap().error;
    assert!(
        error.contains("passerby:stream:{0}") && error.contains("WRONGTYPE"),
        "{error}"
    );
    check_books(&producer, 2, 1);

    let _: () = admin.del("passerby:stream:{0}").unwrap();
    producer.flush(SOON).unwrap();
    assert_eq!(entries(&redis, 0).len() + entries(&redis, 1).len(), 2);
}

#[test]
fn drop_oldest_publishes_the_latest_rows_after_an_outage() {
    let mut redis = redis();
    redis.kill().unwrap();
    let mut config = config(&redis);
    config.max_rows = size(10);
    config.buffer_rows = size(100);
    config.overflow = Overflow::DropOldest;
    let producer = Producer::start(config).unwrap();
    for id in 0..1000 {
        assert_eq!(record(&producer, "c", id), Recorded::Accepted);
    }
    redis.restart().unwrap();
    producer.flush(SOON).unwrap();
    let ids: Vec<i64> = entries(&redis, 0)
        .iter()
        .flat_map(|e| e.detections())
        .map(|(_, id)| id)
        .collect();
    assert_eq!(ids, (900..1000).collect::<Vec<_>>());
    check_books(&producer, 1000, 100);
}

#[test]
fn block_waits_for_room_and_loses_nothing() {
    let redis = redis();
    let mut config = config(&redis);
    config.max_rows = size(100);
    config.buffer_rows = size(200);
    config.overflow = Overflow::Block(SOON);
    let producer = Producer::start(config).unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let recorded = producer.record_many((0..10_000).map(|id| detection("c", id)));
                assert_eq!(recorded.accepted, 10_000);
            });
        }
    });
    producer.flush(SOON).unwrap();
    check_books(&producer, 30_000, 30_000);
}

#[test]
fn close_ends_in_time_and_tells_what_was_lost() {
    let mut redis = redis();
    let producer = Producer::start(config(&redis)).unwrap();
    assert_eq!(record(&producer, "c", 0), Recorded::Accepted);
    producer.flush(SOON).unwrap();
    redis.pause().unwrap();
    for id in 1..=10 {
        assert_eq!(record(&producer, "c", id), Recorded::Accepted);
    }
    let begun = Instant::now();
    let closed = producer.clone().close(Duration::from_millis(200));
    assert_eq!(closed, Err(CloseError { n_rows: 10 }));
    assert!(
        begun.elapsed() < Duration::from_millis(400),
        "{:?}",
        begun.elapsed()
    );
    check_books(&producer, 11, 1);
    assert_eq!(producer.stats().detections.dropped_closed, 10);
    assert_eq!(producer.close(SOON), closed);
}

#[test]
fn the_last_handle_publishes_what_is_left_when_it_is_dropped() {
    let redis = redis();
    let mut config = config(&redis);
    config.max_delay = Duration::from_secs(60);
    let producer = Producer::start(config).unwrap();
    let clone = producer.clone();
    assert_eq!(record(&producer, "c", 1), Recorded::Accepted);
    drop(producer);
    assert_eq!(record(&clone, "c", 2), Recorded::Accepted);
    drop(clone);
    assert_eq!(entries(&redis, 0)[0].detections().len(), 2);
}

#[tokio::test]
async fn the_async_handle_keeps_the_same_promises() {
    let mut redis = redis();
    redis.kill().unwrap();
    let mut config = config(&redis);
    config.max_rows = size(10);
    config.buffer_rows = size(20);
    config.overflow = Overflow::Block(SOON);
    let producer = AsyncProducer::start(config).unwrap();
    let recording = {
        let producer = producer.clone();
        tokio::spawn(async move {
            let rows = (0..1000).map(|id| detection("c", id));
            producer.record_many(rows).await
        })
    };
    assert!(producer.flush(Duration::from_millis(50)).await.is_ok() || !recording.is_finished());
    let redis = tokio::task::spawn_blocking(move || {
        redis.restart().unwrap();
        redis
    });
    let _redis = redis.await.unwrap();
    assert_eq!(recording.await.unwrap().accepted, 1000);
    producer.flush(SOON).await.unwrap();
    let stats = producer.close(SOON).await.unwrap();
    assert_eq!(stats.detections.published, 1000);
    assert!(stats.detections.balances());
}

#[test]
fn a_producer_with_nothing_to_publish_notices_that_redis_forgot_and_sends_again() {
    let mut redis = redis(); // without an append-only file: it forgets everything
    let producer = Producer::start(config(&redis)).unwrap();
    for id in 0..10 {
        assert_eq!(
            producer.record(detection("c", id)).unwrap(),
            Recorded::Accepted
        );
    }
    producer.flush(SOON).unwrap();
    let before = entries(&redis, 0);
    redis.kill().unwrap();
    redis.restart().unwrap();

    eventually("sent again", || entries(&redis, 0).len() == before.len());

    let keys = |entries: &[Published]| entries.iter().map(|e| e.key).collect::<Vec<_>>();
    assert_eq!(keys(&entries(&redis, 0)), keys(&before));
    producer.close(SOON).unwrap();
}

#[test]
fn a_producer_that_is_closed_after_redis_forgot_sends_again() {
    let mut redis = redis();
    let producer = Producer::start(config(&redis)).unwrap();
    assert_eq!(
        producer.record(detection("c", 1)).unwrap(),
        Recorded::Accepted
    );
    producer.flush(SOON).unwrap();
    redis.kill().unwrap();
    redis.restart().unwrap();

    producer.close(SOON).unwrap();

    assert_eq!(entries(&redis, 0).len(), 1);
}
