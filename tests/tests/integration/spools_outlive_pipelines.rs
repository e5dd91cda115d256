//! What a pipeline left in its spool is looked at and sent by hand, and is stored once.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use passerby_producer::{AsyncProducer, ProducerConfig, SpoolConfig};
use passerby_tests::{
    Env, Golden, Passerby,
    fixtures::{CAMERA, detections},
    producer_config,
};
use serde_json::{Value, json};

/// A pipeline that is gone, and never reached Redis: 100 detections are left.
async fn left(env: &Env, dir: &Path) {
    assert_eq!(rows_left(env, dir, 100).await, 100);
}

/// The same with the detections 0…n−1, beside what earlier ones left. Returns how many rows that are.
async fn rows_left(env: &Env, dir: &Path, n: u32) -> u64 {
    let producer = start(env, dir);
    let rows = detections(0..i64::from(n));
    assert_eq!(producer.record_many(rows).await.accepted, n as usize);
    producer.sync(Duration::from_secs(30)).await.unwrap();
    let stats = producer.close(Duration::ZERO).await.unwrap();
    stats.detections.spooled
}

fn start(env: &Env, dir: &Path) -> AsyncProducer {
    start_with(env, dir, Duration::from_millis(5))
}

fn start_with(env: &Env, dir: &Path, max_delay: Duration) -> AsyncProducer {
    let nowhere = "redis://127.0.0.1:1".parse().unwrap();
    let config = ProducerConfig {
        spool: Some(SpoolConfig {
            segment_bytes: 1 << 20,
            max_bytes: 4 << 20,
            ring_bytes: 1 << 20,
            ..SpoolConfig::new(dir)
        }),
        max_delay,
        ..producer_config(env, nowhere)
    };
    AsyncProducer::start(config).unwrap()
}

/// Copies a spool's files into a new directory, whoever writes them.
fn copy(spool: &Path, to: &Path) -> PathBuf {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(spool).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
    to.to_path_buf()
}

#[tokio::test]
async fn inspect_shows_what_waits_and_drain_sends_it() {
    let (env, dir) = (Env::start().await, tempfile::tempdir().unwrap());
    let spool = dir.path().join("spool");
    left(&env, &spool).await;
    let name = spool.to_str().unwrap();
    let passerby = Passerby::on(&env);

    let shown = passerby.run(&["spool", "inspect", name]).await.ok();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], "100 rows wait to be sent");
    assert!(lines[1].starts_with("  100 rows of the log in "), "{shown}");
    assert_eq!(lines[2], "  0 rows of the buffer, in no frame yet");
    let installation = format!("on disk, for 1 shard of `{}`", env.key_prefix());
    assert!(lines[4].ends_with(&installation), "{shown}");
    assert_eq!(lines[5], "in use by nobody");
    let words: Vec<&str> = lines.last().unwrap().split_whitespace().collect();
    assert_eq!(words[..2], [env.stream().as_str(), "detections"]);
    assert_eq!(words[3], "100");

    let counted = passerby.run(&["spool", "drain", name, "--dry-run"]).await;
    assert_eq!(counted.ok(), "100 rows wait to be sent\n");
    let refused = passerby.run(&["spool", "drain", name]).await;
    refused.assert_usage_error(&["not confirmed", "--yes"]);
    assert_eq!(env.n_entries().await, 0);

    let sent: Value = passerby
        .run(&["spool", "drain", name, "--yes", "--json"])
        .await
        .json();
    let n_entries = env.n_entries().await;
    assert_eq!(
        sent,
        json!({
            "rows": 100, "entries_sent": n_entries, "rows_sent": 100, "rows_left": 0,
            "rows_damaged": 0, "parts_damaged": 0,
        })
    );
    env.run_worker_drain().await;
    env.assert_settled_once(100).await;

    let nothing = passerby.run(&["spool", "drain", name, "--yes"]).await.ok();
    assert_eq!(nothing, "0 rows wait to be sent\n");
    let found = passerby
        .run(&["spool", "inspect", name, "--json"])
        .await
        .json();
    assert_eq!((&found["rows"], &found["waiting"]), (&json!(0), &json!([])));
}

#[tokio::test]
async fn a_spool_that_was_sent_twice_is_stored_once() {
    let (env, dir) = (Env::start().await, tempfile::tempdir().unwrap());
    let spool = dir.path().join("spool");
    left(&env, &spool).await;
    let again = copy(&spool, &dir.path().join("again"));
    for dir in [&spool, &again] {
        let args = ["spool", "drain", dir.to_str().unwrap(), "--yes"];
        let sent = Passerby::on(&env).run(&args).await.ok();
        assert!(sent.starts_with("100 of 100 rows sent in "), "{sent}");
    }
    env.run_worker_drain().await;
    env.assert_settled_once(100).await;
}

/// Overwrites the first row of the first frame in the spool's log.
fn damage(dir: &Path) {
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    paths.sort();
    let mut bytes = std::fs::read(&paths[0]).unwrap();
    let at = bytes
        .windows(6)
        .position(|name| name == CAMERA.as_bytes())
        .unwrap();
    bytes[at..at + 6].fill(0xff);
    std::fs::write(&paths[0], bytes).unwrap();
}

#[tokio::test]
async fn rows_that_cannot_be_read_fail_a_drain_which_sends_all_others() {
    let (env, dir) = (Env::start().await, tempfile::tempdir().unwrap());
    let spool = dir.path().join("spool");
    assert_eq!(rows_left(&env, &spool, 10).await, 10);
    assert_eq!(rows_left(&env, &spool, 20).await, 30);
    damage(&spool);
    let name = spool.to_str().unwrap();
    let passerby = Passerby::on(&env);
    let looked = passerby.run(&["spool", "drain", name, "--dry-run"]).await;
    let looked = looked.ok();
    let damage = looked.lines().nth(1).unwrap();
    assert!(damage.starts_with("damaged: "), "{looked}");
    assert!(damage.ends_with("/00000001.seg"), "{looked}");

    let drained = passerby.run(&["spool", "drain", name, "--yes"]).await;
    assert_eq!(drained.code, Some(1), "{}", drained.stderr);
    let last = drained.stderr.lines().last().unwrap();
    let aside = spool.join("00000001.seg.damaged");
    let told = format!(
        "error: 1 part of the spool could not be read: see {}, and move it away when nobody needs it any more",
        aside.display()
    );
    assert_eq!(last, told, "{}", drained.stderr);
    env.run_worker_drain().await;
    env.assert_settled_once(20).await;

    let nothing = passerby
        .run(&["spool", "drain", name, "--yes", "--json"])
        .await;
    assert_eq!(nothing.code, Some(1));
    let nothing: Value = serde_json::from_str(&nothing.stdout).unwrap();
    assert_eq!([&nothing["rows"], &nothing["parts_damaged"]], [0, 1]);

    // A pipeline that is started again leaves it alone, and once it has been moved away all is well.
    let kept = std::fs::read(&aside).unwrap();
    assert_eq!(rows_left(&env, &spool, 10).await, 10);
    assert_eq!(std::fs::read(&aside).unwrap(), kept);
    std::fs::remove_file(&aside).unwrap();
    let drained = passerby.run(&["spool", "drain", name, "--yes"]).await.ok();
    assert!(drained.starts_with("10 of 10 rows sent"), "{drained}");
}

/// A pipeline was killed while it wrote a frame, whose rows are still in its buffer's file.
#[tokio::test]
async fn a_frame_that_was_cut_short_fails_no_drain() {
    let (env, dir) = (Env::start().await, tempfile::tempdir().unwrap());
    let spool = dir.path().join("spool");
    let producer = start_with(&env, &spool, Duration::from_secs(60));
    let recorded = producer.record_many(detections(0..10)).await;
    assert_eq!(recorded.accepted, 10);
    // As they are on the disk then.
    let killed = copy(&spool, &dir.path().join("killed"));
    let segment = killed.join("00000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap_or_else(|_| vec![0; 1 << 20]);
    assert!(bytes.iter().all(|byte| *byte == 0), "there is no frame");
    bytes[..70].copy_from_slice(&[b"pbFr".as_slice(), &[7; 66]].concat());
    std::fs::write(&segment, bytes).unwrap();

    let name = killed.to_str().unwrap();
    let passerby = Passerby::on(&env);
    let found = passerby.run(&["spool", "inspect", name, "--json"]).await;
    assert_eq!(found.json()["damaged"], json!([]));
    let drained = passerby.run(&["spool", "drain", name, "--yes"]).await.ok();
    assert!(drained.starts_with("10 of 10 rows sent"), "{drained}");
    producer.close(Duration::ZERO).await.unwrap();
    env.run_worker_drain().await;
    env.assert_settled_once(10).await;
}

/// The last frame is as damaged as if it had been cut short, but its rows are nowhere else.
#[tokio::test]
async fn a_damaged_last_frame_fails_a_drain() {
    let (env, dir) = (Env::start().await, tempfile::tempdir().unwrap());
    let spool = dir.path().join("spool");
    assert_eq!(rows_left(&env, &spool, 10).await, 10);
    damage(&spool);
    let args = ["spool", "drain", spool.to_str().unwrap(), "--yes"];
    let drained = Passerby::on(&env).run(&args).await;
    drained.assert_one_error_line(&["1 part of the spool", "00000001.seg", "move it away"]);
}

#[tokio::test]
async fn a_spool_in_use_is_shown_and_not_drained() {
    let (env, dir) = (Env::start().await, tempfile::tempdir().unwrap());
    let spool = dir.path().join("spool");
    let producer = start(&env, &spool);
    let recorded = producer.record_many(detections(0..10)).await;
    assert_eq!(recorded.accepted, 10);
    let name = spool.to_str().unwrap();
    let pid = std::process::id().to_string();

    let found = Passerby::on(&env)
        .run(&["spool", "inspect", name, "--json"])
        .await
        .json();
    assert_eq!(found["held_by"], json!(std::process::id()));
    let refused = Passerby::on(&env)
        .run(&["spool", "drain", name, "--yes"])
        .await;
    refused.assert_one_error_line(&[name, "is in use by process", &pid]);
    producer.close(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_done_is_explained() {
    let (env, dir) = (Env::start().await, tempfile::tempdir().unwrap());
    let name = dir.path().to_str().unwrap();
    for command in ["inspect", "drain"] {
        let refused = Passerby::on(&env).run(&["spool", command, name]).await;
        refused.assert_one_error_line(&["there is no spool in", name]);
    }
    let spool = dir.path().join("spool");
    left(&env, &spool).await;
    let nowhere = Passerby::on(&env).with("PASSERBY_REDIS_URL", "redis://127.0.0.1:1");
    let name = spool.to_str().unwrap();
    let args = ["spool", "drain", name, "--yes", "--patience", "0s"];
    let failed = nowhere.run(&args).await;
    assert_eq!(failed.code, Some(1));
    assert!(
        failed
            .stdout
            .ends_with("0 of 100 rows sent in 0 entries, 100 left\n")
    );
    assert!(
        failed.stderr.contains("connect to Redis at"),
        "{}",
        failed.stderr
    );
    assert!(
        failed.stderr.contains("stays in the spool"),
        "{}",
        failed.stderr
    );
}

#[tokio::test]
async fn output() {
    let (env, dir) = (Env::start().await, tempfile::tempdir().unwrap());
    let spool = dir.path().join("gate/spool");
    // One row: how many entries more rows become depends on the moment.
    assert_eq!(rows_left(&env, &spool, 1).await, 1);
    let name = spool.to_str().unwrap();
    let mut golden = Golden::of("spool", &env);
    golden.redact(dir.path().to_str().unwrap(), "/var/lib");
    golden.run(&["spool", "inspect", name]).await;
    golden.run(&["spool", "inspect", name, "--json"]).await;
    golden.run(&["spool", "drain", name, "--dry-run"]).await;
    golden
        .run(&["spool", "drain", name, "--dry-run", "--json"])
        .await;
    golden.run(&["spool", "drain", name]).await;
    golden
        .run(&["spool", "drain", name, "--yes", "--json"])
        .await;
    golden.run(&["spool", "drain", name, "--yes"]).await;
    golden.run(&["spool", "inspect", name]).await;
    // The directory above.
    let folder = dir.path().join("gate");
    let folder = folder.to_str().unwrap();
    golden.run(&["spool", "inspect", folder]).await;
}
