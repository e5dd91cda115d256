use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use passerby_producer::{
    Fsync, Health, Overflow, Producer, ProducerConfig, Recorded, SpoolConfig, SpoolFull, Stats,
    SyncError, TroubleKind,
    spool::{Drain, inspect},
};
use passerby_servers::{RedisOptions, RedisServer};
use passerby_shared::wire::Kind;

use crate::support::*;

pub(crate) const AT_ONCE: Duration = Duration::ZERO;

pub(crate) struct Dir(tempfile::TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("spool")
    }
}

pub(crate) fn spooling(redis: &RedisServer, dir: &Path) -> ProducerConfig {
    let mut config = config(redis);
    config.max_rows = size(50);
    config.max_delay = Duration::from_millis(1);
    config.spool = Some(SpoolConfig {
        segment_bytes: 512 << 10,
        max_bytes: 4 << 20,
        ring_bytes: 1 << 20,
        ..SpoolConfig::new(dir)
    });
    config
}

fn change(config: &mut ProducerConfig, change: impl FnOnce(&mut SpoolConfig)) {
    change(config.spool.as_mut().unwrap());
}

fn record(producer: &Producer, ids: std::ops::Range<i64>) {
    for id in ids {
        let recorded = producer.record(detection("c", id)).unwrap();
        assert_eq!(recorded, Recorded::Accepted);
    }
}

/// The detections in the stream, each key once, in order.
pub(crate) fn ids(redis: &RedisServer) -> Vec<i64> {
    let entries = distinct_entries(redis, 0);
    let entries = entries
        .iter()
        .filter(|entry| entry.kind == Kind::Detections);
    let rows = entries.flat_map(Published::detections);
    rows.map(|(_, id)| id).collect()
}

#[track_caller]
fn check_books(stats: &Stats) {
    for rows in [stats.detections, stats.tracks, stats.sessions] {
        assert!(rows.balances(), "{stats:?}");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[track_caller]
fn refused(config: ProducerConfig, words: &[&str]) {
    let error = Producer::start(config).map(drop).unwrap_err().to_string();
    for word in words {
        assert!(error.contains(word), "{error}");
    }
}

fn trouble(producer: &Producer) -> Option<TroubleKind> {
    match producer.health() {
        Health::Trouble(trouble) => Some(trouble.kind),
        _ => None,
    }
}

#[test]
fn rows_go_through_the_spool_and_leave_nothing_behind() {
    let (redis, dir) = (redis(), Dir::new());
    for fsync in [Fsync::Never, Fsync::default(), Fsync::Each] {
        let mut config = spooling(&redis, &dir.path());
        change(&mut config, |spool| spool.fsync = fsync);
        let producer = Producer::start(config).unwrap();
        let n_before = ids(&redis).len();
        record(&producer, 0..1000);
        assert_eq!(producer.track(track("c", 1)), Ok(Recorded::Accepted));
        producer.flush(SOON).unwrap();
        assert_eq!(ids(&redis)[n_before..], (0..1000).collect::<Vec<_>>());
        let stats = producer.close(SOON).unwrap();
        check_books(&stats);
        let rows = stats.rows();
        assert_eq!((rows.recovered, rows.published, rows.spooled), (0, 1001, 0));
        assert_eq!(inspect(&dir.path()).unwrap().frames, 0);
    }
}

#[test]
fn what_redis_did_not_get_is_sent_first_and_in_order_by_the_next_run() {
    let (mut redis, dir) = (redis(), Dir::new());
    redis.kill().unwrap();
    let producer = Producer::start(spooling(&redis, &dir.path())).unwrap();
    record(&producer, 0..1000);
    let stats = producer.close(AT_ONCE).unwrap();
    check_books(&stats);
    assert_eq!(stats.detections.spooled, 1000);
    let (found, waiting) = (inspect(&dir.path()).unwrap(), 1000);
    assert_eq!(found.rows + found.ring.total(), waiting, "{found:?}");

    // It is still away when the next one begins.
    let producer = Producer::start(spooling(&redis, &dir.path())).unwrap();
    assert_eq!(producer.stats().detections.recovered, 1000);
    record(&producer, 1000..2000);
    check_books(&producer.stats());
    redis.restart().unwrap();
    producer.flush(SOON).unwrap();

    assert_eq!(ids(&redis), (0..2000).collect::<Vec<_>>());
    let stats = producer.close(SOON).unwrap();
    check_books(&stats);
    assert_eq!(
        (stats.detections.published, stats.detections.spooled),
        (2000, 0)
    );
}

#[test]
fn an_outage_costs_disk_and_not_memory() {
    let (mut redis, dir) = (redis(), Dir::new());
    let mut config = spooling(&redis, &dir.path());
    config.buffer_rows = size(500);
    config.overflow = Overflow::Block(SOON);
    // More than the window that is kept in memory holds.
    change(&mut config, |spool| spool.max_bytes = 64 << 20);
    redis.kill().unwrap();
    let producer = Producer::start(config).unwrap();
    record(&producer, 0..150_000);
    let stats = producer.stats();
    check_books(&stats);
    assert!(stats.detections.buffered <= 500, "{stats:?}");
    assert!(stats.spool.bytes > 4 << 20, "{stats:?}");
    redis.restart().unwrap();
    record(&producer, 150_000..150_100);
    producer.flush(SOON).unwrap();
    assert_eq!(ids(&redis), (0..150_100).collect::<Vec<_>>());
    check_books(&producer.stats());
}

#[test]
fn rows_of_the_ring_alone_are_sent_by_the_next_run() {
    let (redis, dir) = (redis(), Dir::new());
    let mut config = spooling(&redis, &dir.path());
    config.max_rows = size(500);
    config.max_delay = Duration::from_secs(60);
    let producer = Producer::start(config.clone()).unwrap();
    record(&producer, 0..100);
    // As the files are when the process is killed now.
    let left = dir.path().with_extension("left");
    copy(&dir.path(), &left);
    let found = inspect(&left).unwrap();
    assert_eq!((found.rows, found.ring.detections), (0, 100));

    config.spool.as_mut().unwrap().dir = left;
    let next = Producer::start(config).unwrap();
    assert_eq!(next.stats().detections.recovered, 100);
    next.flush(SOON).unwrap();
    assert_eq!(ids(&redis), (0..100).collect::<Vec<_>>());
}

#[test]
fn synced_rows_are_in_the_log() {
    let (mut redis, dir) = (redis(), Dir::new());
    redis.kill().unwrap();
    let mut config = spooling(&redis, &dir.path());
    config.max_delay = Duration::from_secs(60);
    change(&mut config, |spool| spool.fsync = Fsync::Never);
    let producer = Producer::start(config).unwrap();
    record(&producer, 0..120);
    producer.sync(SOON).unwrap();
    producer.sync(SOON).unwrap();
    let found = inspect(&dir.path()).unwrap();
    assert_eq!((found.rows, found.ring.total()), (120, 0));
    assert_eq!(found.held_by, Some(std::process::id()));

    let without = Producer::start(crate::support::config(&redis)).unwrap();
    assert_eq!(without.sync(SOON), Err(SyncError::NoSpool));
}

#[test]
fn a_full_spool_keeps_what_it_has() {
    let (mut redis, dir) = (redis(), Dir::new());
    redis.kill().unwrap();
    let mut config = spooling(&redis, &dir.path());
    config.buffer_rows = size(1000);
    let producer = Producer::start(config).unwrap();
    let (mut n_accepted, mut id) = (Vec::new(), 0);
    eventually("the spool is full", || {
        for _ in 0..1000 {
            if producer.record(detection("c", id)).unwrap() == Recorded::Accepted {
                n_accepted.push(id);
            }
            id += 1;
        }
        producer.stats().detections.dropped_newest > 0 && producer.stats().spool.segments == 8
    });
    check_books(&producer.stats());
    redis.restart().unwrap();
    producer.flush(SOON).unwrap();
    assert_eq!(ids(&redis), n_accepted);
    let stats = producer.close(SOON).unwrap();
    check_books(&stats);
    assert_eq!(stats.detections.published, n_accepted.len() as u64);
    assert_eq!(stats.detections.dropped_spool_full, 0);
}

#[test]
fn a_full_spool_that_may_drops_its_oldest_rows_and_counts_them() {
    let (mut redis, dir) = (redis(), Dir::new());
    redis.kill().unwrap();
    let mut config = spooling(&redis, &dir.path());
    config.overflow = Overflow::Block(SOON);
    change(&mut config, |spool| spool.when_full = SpoolFull::DropOldest);
    let producer = Producer::start(config).unwrap();
    let mut n = 0;
    while producer.stats().detections.dropped_spool_full < 5_000 {
        record(&producer, n..n + 1000);
        n += 1000;
        check_books(&producer.stats());
    }
    redis.restart().unwrap();
    producer.flush(SOON).unwrap();
    let stats = producer.close(SOON).unwrap();
    check_books(&stats);
    let n_dropped = i64::try_from(stats.detections.dropped_spool_full).unwrap();
    let found = ids(&redis);
    // The frame that is being sent when its segment is dropped is kept.
    let kept: Vec<i64> = (n_dropped..n).collect();
    let n_first = found.len() - kept.len().min(found.len());
    assert!(
        n_first == 0 && found.last() == Some(&(n - 1)),
        "{n_dropped} {n}"
    );
    assert_eq!(found.len(), kept.len());
    assert!(found.is_sorted());
}

#[test]
fn a_second_producer_is_told_who_has_the_directory() {
    let (redis, dir) = (redis(), Dir::new());
    let config = spooling(&redis, &dir.path());
    let producer = Producer::start(config.clone()).unwrap();
    let (path, pid) = (dir.path(), std::process::id().to_string());
    refused(config.clone(), &[path.to_str().unwrap(), &pid, "in use"]);
    producer.close(SOON).unwrap();
    Producer::start(config).unwrap().close(SOON).unwrap();
}

#[test]
fn a_directory_that_cannot_be_used_is_explained() {
    let (redis, dir) = (redis(), Dir::new());
    let path = dir.path();
    let config = spooling(&redis, &path);
    let at = |path: &Path| {
        let mut config = config.clone();
        config.spool.as_mut().unwrap().dir = path.to_path_buf();
        config
    };
    fs::write(&path, "a file").unwrap();
    refused(
        config.clone(),
        &[path.to_str().unwrap(), "is not a directory"],
    );
    refused(at(&path.join("below")), &["is not a directory"]);
    fs::remove_file(&path).unwrap();

    Producer::start(config.clone())
        .unwrap()
        .close(SOON)
        .unwrap();
    let mut other = config.clone();
    other.key_prefix = "other".parse().unwrap();
    refused(other, &["passerby", "other", "passerby spool drain"]);

    let meta = path.join("spool");
    let text = fs::read_to_string(&meta).unwrap();
    fs::write(&meta, text.replace("spool 1", "spool 2")).unwrap();
    refused(
        config.clone(),
        &[meta.to_str().unwrap(), "version 2", "newer than 1"],
    );
    fs::write(&meta, "junk").unwrap();
    refused(config.clone(), &["is no description of a spool"]);
}

#[test]
fn shards_may_grow_and_must_not_shrink_under_rows() {
    let (mut redis, dir) = (redis(), Dir::new());
    redis.kill().unwrap();
    let mut config = spooling(&redis, &dir.path());
    config.shards = 2.try_into().unwrap();
    let producer = Producer::start(config.clone()).unwrap();
    for id in 0..10 {
        let accepted = producer.record(detection(&format!("c{id}"), id));
        assert_eq!(accepted, Ok(Recorded::Accepted));
    }
    producer.sync(SOON).unwrap();
    producer.close(AT_ONCE).unwrap();
    config.shards = 1.try_into().unwrap();
    refused(
        config.clone(),
        &["shard 1", "has 1", "passerby spool drain"],
    );
    redis.restart().unwrap();
    config.shards = 4.try_into().unwrap();
    let producer = Producer::start(config.clone()).unwrap();
    producer.flush(SOON).unwrap();
    assert_eq!(producer.close(SOON).unwrap().detections.published, 10);
    // Nothing waits any more.
    config.shards = 1.try_into().unwrap();
    Producer::start(config).unwrap().close(SOON).unwrap();
}

#[test]
fn a_disk_that_fails_ends_the_spool_and_not_the_producer() {
    let (redis, dir) = (redis(), Dir::new());
    let mut config = spooling(&redis, &dir.path());
    config.overflow = Overflow::Block(SOON);
    change(&mut config, |spool| spool.fsync = Fsync::Each);
    let producer = Producer::start(config.clone()).unwrap();
    record(&producer, 0..100);
    producer.flush(SOON).unwrap();
    // Its next segment has no place to be.
    let moved = dir.path().with_extension("moved");
    fs::rename(dir.path(), &moved).unwrap();
    let mut id = 100;
    eventually("the spool is abandoned", || {
        record(&producer, id..id + 500);
        id += 500;
        producer.stats().spool.is_abandoned
    });
    record(&producer, id..id + 100);
    producer.flush(SOON).unwrap();
    assert_eq!(trouble(&producer), Some(TroubleKind::Spool));
    assert_eq!(producer.sync(SOON), Err(SyncError::Abandoned));
    let stats = producer.close(SOON).unwrap();
    check_books(&stats);
    assert_eq!(ids(&redis), (0..id + 100).collect::<Vec<_>>());

    // What went on in memory is not made entries again.
    assert!(inspect(&moved).unwrap().is_abandoned);
    config.spool.as_mut().unwrap().dir = moved;
    let next = Producer::start(config).unwrap();
    next.flush(SOON).unwrap();
    assert_eq!(ids(&redis), (0..id + 100).collect::<Vec<_>>());
}

#[test]
fn damage_costs_what_is_damaged() {
    let (mut redis, dir) = (redis(), Dir::new());
    redis.kill().unwrap();
    let config = spooling(&redis, &dir.path());
    let producer = Producer::start(config.clone()).unwrap();
    for n in 0..10 {
        record(&producer, 10 * n..10 * n + 10);
        producer.sync(SOON).unwrap();
    }
    producer.close(AT_ONCE).unwrap();
    let segment = dir.path().join("00000001.seg");
    let mut bytes = fs::read(&segment).unwrap();
    let starts: Vec<usize> = bytes
        .windows(4)
        .enumerate()
        .filter(|(_, window)| window == b"pbFr")
        .map(|(at, _)| at)
        .collect();
    bytes[starts[5] + 100] ^= 0x10;
    fs::write(&segment, bytes).unwrap();
    let found = inspect(&dir.path()).unwrap();
    assert_eq!(found.damaged[0].file, segment);
    assert_eq!(found.damaged[0].offset, starts[5] as u64);

    redis.restart().unwrap();
    let next = Producer::start(config).unwrap();
    next.flush(SOON).unwrap();
    let published = ids(&redis);
    assert!(published.len() >= 80, "{published:?}");
    let stats = next.close(SOON).unwrap();
    check_books(&stats);
    assert_eq!(stats.spool.damaged, 1);
    let lost: Vec<i64> = (0..100).filter(|id| !published.contains(id)).collect();
    assert!(
        !lost.is_empty() && lost.len() <= 20 && published.is_sorted(),
        "{lost:?}"
    );
}

#[test]
fn what_a_pipeline_left_is_drained() {
    let (mut redis, dir) = (redis(), Dir::new());
    redis.kill().unwrap();
    let mut config = spooling(&redis, &dir.path());
    config.key_prefix = "gate".parse().unwrap();
    config.shards = 2.try_into().unwrap();
    let producer = Producer::start(config).unwrap();
    record(&producer, 0..500);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let drain = |redis: &RedisServer| {
        let url = redis.url().parse().unwrap();
        runtime.block_on(async { Drain::start(&dir.path(), url) })
    };
    let in_use = drain(&redis).map(drop).unwrap_err().to_string();
    assert!(in_use.contains("in use by process"), "{in_use}");
    producer.close(AT_ONCE).unwrap();

    redis.restart().unwrap();
    let draining = drain(&redis).unwrap();
    runtime.block_on(draining.wait(SOON)).unwrap();
    let stats = runtime.block_on(draining.close()).unwrap();
    assert_eq!(
        (stats.detections.recovered, stats.detections.published),
        (500, 500)
    );
    assert_eq!(inspect(&dir.path()).unwrap().rows, 0);
    let n_entries: usize = (0..2)
        .map(|shard| {
            let key = format!("gate:stream:{{{shard}}}");
            redis::Commands::xlen::<_, usize>(&mut connect(&redis), key).unwrap()
        })
        .sum();
    assert!(n_entries >= 10);
    let nothing = Drain::start(&dir.path().join("none"), redis.url().parse().unwrap());
    assert!(
        nothing
            .unwrap_err()
            .to_string()
            .contains("there is no spool")
    );
}

#[test]
fn another_redis_gets_what_the_last_one_had_just_got() {
    // Without persistence: it forgets everything.
    let mut redis = RedisServer::start(RedisOptions::default()).unwrap();
    let producer = Producer::start(config(&redis)).unwrap();
    record(&producer, 0..100);
    producer.flush(SOON).unwrap();
    let keys: Vec<_> = entries(&redis, 0).iter().map(|entry| entry.key).collect();
    redis.kill().unwrap();
    redis.restart().unwrap();
    assert!(entries(&redis, 0).is_empty());

    record(&producer, 100..200);
    producer.flush(SOON).unwrap();

    assert_eq!(ids(&redis), (0..200).collect::<Vec<_>>());
    let again = entries(&redis, 0);
    assert!(
        keys.iter()
            .all(|key| again.iter().any(|entry| entry.key == *key))
    );
    let stats = producer.stats();
    assert_eq!(stats.entries_resent, keys.len() as u64);
    check_books(&stats);
    assert_eq!(stats.detections.published, 200);
}

/// A file system of a few megabytes, where the test may make one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(dir: &Dir, options: &str) -> Option<Self> {
        let path = dir.0.path().join("disk");
        fs::create_dir(&path).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&path);
        match mount.output() {
            Ok(mounted) if mounted.status.success() => Some(Self(path)),
            failed => {
                eprintln!("skipped: a file system cannot be mounted here: {failed:?}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).output());
    }
}

#[test]
fn a_read_only_directory_is_explained() {
    let (redis, dir) = (redis(), Dir::new());
    let Some(disk) = SmallDisk::mount(&dir, "ro,size=1m") else {
        return;
    };
    let path = disk.0.join("spool");
    refused(
        spooling(&redis, &path),
        &[path.to_str().unwrap(), "writable"],
    );
}

#[test]
fn a_disk_that_others_fill_does_not_stop_delivery() {
    let (mut redis, dir) = (redis(), Dir::new());
    let Some(disk) = SmallDisk::mount(&dir, "size=8m") else {
        return;
    };
    let path = disk.0.join("spool");
    let mut config = spooling(&redis, &path);
    config.overflow = Overflow::Block(SOON);
    config.buffer_rows = size(1000);
    let producer = Producer::start(config.clone()).unwrap();
    let filler = disk.0.join("filler");
    let fill = || drop(fs::write(&filler, vec![1; 16 << 20]));
    fill();

    // Segments are used again and again.
    record(&producer, 0..60_000);
    producer.flush(SOON).unwrap();
    assert_eq!(ids(&redis).len(), 60_000);
    assert_eq!(producer.health(), Health::Up);

    // Redis is away, too: what there is of segments is used, then the buffer.
    redis.kill().unwrap();
    let recording = {
        let producer = producer.clone();
        std::thread::spawn(move || record(&producer, 60_000..120_000))
    };
    eventually("the buffer is full", || {
        producer.stats().detections.buffered == 1000
    });
    check_books(&producer.stats());
    redis.restart().unwrap();
    fs::remove_file(&filler).unwrap();
    recording.join().unwrap();
    producer.flush(SOON).unwrap();
    let stats = producer.close(SOON).unwrap();
    check_books(&stats);
    assert_eq!(stats.detections.published, 120_000);

    fill();
    let other = disk.0.join("other");
    config.spool.as_mut().unwrap().dir = other.clone();
    refused(
        config,
        &[other.to_str().unwrap(), "no room", "free some space"],
    );
}

/// What workers find in Redis about spools.
fn notes(redis: &RedisServer) -> std::collections::HashMap<String, i64> {
    redis::Commands::hgetall(&mut connect(redis), "passerby:spools").unwrap()
}

#[test]
fn workers_are_told_up_to_when_a_spool_has_been_sent() {
    // What was noted must outlive the kill.
    let mut redis = RedisServer::start(RedisOptions {
        appendonly: passerby_servers::Appendonly::Always,
        ..RedisOptions::default()
    })
    .unwrap();
    let dir = Dir::new();
    let started_ms = chrono::Utc::now().timestamp_millis();
    let producer = Producer::start(spooling(&redis, &dir.path())).unwrap();
    record(&producer, 0..10);
    producer.flush(SOON).unwrap();
    eventually("noted", || !notes(&redis).is_empty());
    let noted = notes(&redis);
    let (spool, sent_ms) = noted.iter().next().unwrap();
    assert!(
        spool.ends_with(dir.path().to_str().unwrap()),
        "{spool} names the directory"
    );
    let now_ms = chrono::Utc::now().timestamp_millis();
    assert!((started_ms..=now_ms).contains(sent_ms));

    // What it leaves behind holds its note, and so the ledger.
    redis.kill().unwrap();
    record(&producer, 10..20);
    producer.close(AT_ONCE).unwrap();
    redis.restart().unwrap();
    assert_eq!(notes(&redis), noted);

    // Once everything is sent nothing is held any more.
    let producer = Producer::start(spooling(&redis, &dir.path())).unwrap();
    producer.flush(SOON).unwrap();
    producer.close(SOON).unwrap();
    assert!(notes(&redis).is_empty());
    assert_eq!(ids(&redis), (0..20).collect::<Vec<_>>());
}
