//! A pipeline that is killed at any moment has lost nothing that it was told is accepted.

use std::{
    env,
    fs::File,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use passerby_producer::{Fsync, Overflow, Producer, Recorded};
use passerby_servers::{Appendonly, RedisOptions, RedisServer};

use crate::{spool, support::*};

const DIR: &str = "PASSERBY_TEST_SPOOL";
const REDIS: &str = "PASSERBY_TEST_REDIS";
const FIRST_ID: &str = "PASSERBY_TEST_FIRST_ID";
const N_ROWS: &str = "PASSERBY_TEST_ROWS";

/// The pipeline: the test below runs it in a process of its own. By itself it does nothing.
#[test]
fn pipeline() {
    let Ok(dir) = env::var(DIR) else { return };
    let number = |name| env::var(name).unwrap().parse::<i64>().unwrap();
    let mut config =
        passerby_producer::ProducerConfig::new(env::var(REDIS).unwrap().parse().unwrap());
    config.retry_min = std::time::Duration::from_millis(1);
    config.retry_max = std::time::Duration::from_millis(50);
    config.max_delay = std::time::Duration::from_millis(1);
    config.max_rows = size(40);
    config.overflow = Overflow::Block(SOON);
    config.spool = Some(passerby_producer::SpoolConfig {
        segment_bytes: 128 << 10,
        max_bytes: 8 << 20,
        ring_bytes: 256 << 10,
        fsync: Fsync::Each,
        ..passerby_producer::SpoolConfig::new(dir)
    });
    config.max_bytes = size(16 << 10);
    let producer = Producer::start(config).unwrap();
    let mut noted = noted();
    let first = number(FIRST_ID);
    for id in first..first + number(N_ROWS) {
        assert_eq!(producer.record(detection("c", id)), Ok(Recorded::Accepted));
        // One write to a pipe: it is done when this process is killed after it.
        noted.write_all(format!("\n@{id}\n").as_bytes()).unwrap();
    }
    producer.flush(SOON).unwrap();
    producer.close(SOON).unwrap();
}

/// Standard output, without anything in between.
fn noted() -> File {
    let fd = rustix::io::dup(std::io::stdout()).unwrap();
    File::from(fd)
}

/// As many as are asked for, from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn start(dir: &spool::Dir, redis: &RedisServer, first_id: i64, n_rows: i64) -> Child {
    Command::new(env::current_exe().unwrap())
        .args([
            "killed::pipeline",
            "--exact",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DIR, dir.path())
        .env(REDIS, redis.url())
        .env(FIRST_ID, first_id.to_string())
        .env(N_ROWS, n_rows.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Reads the ids that a pipeline notes, until there are so many or it has ended.
fn read_noted(out: &mut impl BufRead, n: u64, noted: &mut Vec<i64>) {
    let mut line = String::new();
    let mut n_read = 0;
    while n_read < n {
        line.clear();
        if out.read_line(&mut line).unwrap() == 0 {
            return;
        }
        // A line that the kill cut short is no number, or that of no later row.
        if let Some(id) = line.strip_prefix('@').and_then(|id| id.strip_suffix('\n')) {
            noted.push(id.parse().unwrap());
            n_read += 1;
        }
    }
}

#[test]
fn a_pipeline_that_is_killed_loses_nothing_and_sends_nothing_under_two_keys() {
    let dir = spool::Dir::new();
    let mut redis = RedisServer::start(RedisOptions {
        appendonly: Appendonly::Always,
        ..RedisOptions::default()
    })
    .unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut noted, mut first_id) = (Vec::new(), 0);
    for round in 0..8 {
        // Redis is away in every third round.
        if round % 3 == 2 {
            redis.kill().unwrap();
        }
        let mut child = start(&dir, &redis, first_id, 1_000_000);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        read_noted(&mut out, 1 + random.below(4000), &mut noted);
        child.kill().unwrap();
        child.wait().unwrap();
        read_noted(&mut out, u64::MAX, &mut noted);
        // Of what was accepted the last may not have been noted.
        first_id = noted.last().unwrap() + 10;
        if round % 3 == 2 {
            redis.restart().unwrap();
        }
    }
    let mut child = start(&dir, &redis, first_id, 100);
    let mut out = BufReader::new(child.stdout.take().unwrap());
    read_noted(&mut out, u64::MAX, &mut noted);
    assert!(child.wait().unwrap().success());

    let published = spool::ids(&redis);
    let mut sorted = published.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), published.len(), "rows under two keys");
    let missing: Vec<i64> = noted
        .iter()
        .copied()
        .filter(|id| sorted.binary_search(id).is_err())
        .collect();
    assert_eq!(missing, Vec::<i64>::new(), "of {} noted", noted.len());
    assert!(published.is_sorted(), "not in order");
    // Accepted and not noted: at most one row of each run.
    assert!(
        published.len() - noted.len() <= 8,
        "{} {}",
        published.len(),
        noted.len()
    );
}
