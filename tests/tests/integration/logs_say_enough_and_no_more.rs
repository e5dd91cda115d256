//! The log says what an operator needs, not a thousand times a minute, and no value of a row.

use std::time::Duration;

use passerby_shared::Detection;
use passerby_tests::{
    Env, Fault, WorkerBinary, eventually,
    fixtures::{detection, detections, track},
};
use rustix::process::Signal;
use serde_json::Value;

const JSON: [&str; 2] = ["--log-format", "json"];

/// The lines with this message.
fn lines(log: &str, message: &str) -> Vec<Value> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["message"] == message)
        .collect()
}

#[tokio::test]
async fn a_slow_batch_says_what_it_was_slow_at() {
    let env = Env::start().await;
    let (proxy, _) = env.postgres_proxy().await;
    let url = format!(
        "postgresql://postgres@127.0.0.1:{}/{}?sslmode=disable",
        proxy.port(),
        env.database()
    );
    let args = [
        JSON[0],
        JSON[1],
        "--database-url",
        &url,
        "--slow-batch",
        "200ms",
    ];
    let worker = WorkerBinary::start_on(&env, &args).await;
    eventually("started", async || {
        worker.stderr().contains("worker started")
    })
    .await;
    proxy.set(Fault::Delay(Duration::from_millis(150)));
    let first = env.publish(&detections(0..10)).await;
    let last = env.publish(&detections(10..20)).await;

    let mut slow = Vec::new();
    eventually("it is said", async || {
        slow = lines(&worker.stderr(), "slow batch");
        let n_entries = slow.iter().filter_map(|line| line["n_entries"].as_u64());
        n_entries.sum::<u64>() == 2
    })
    .await;

    let (line, end) = (&slow[0], &slow[slow.len() - 1]);
    assert_eq!(line["first_entry_id"], first.to_string());
    assert_eq!(end["last_entry_id"], last.to_string());
    assert_eq!(line["level"], "WARN");
    for part in [
        "read", "decode", "fill", "queue", "retry", "begin", "copy", "others", "commit", "ack",
    ] {
        let ms = &line[format!("{part}_ms")];
        assert!(ms.is_u64(), "{part}: {ms}");
    }
    let ms = |part: &str| line[format!("{part}_ms")].as_u64().unwrap();
    assert!(ms("elapsed") >= 200 && ms("begin") >= 150, "{line}");
    assert!(ms("copy") + ms("commit") >= 150, "{line}");
    let n_rows = slow.iter().filter_map(|line| line["n_rows"].as_u64());
    assert_eq!(n_rows.sum::<u64>(), 20);
}

#[tokio::test]
async fn a_flood_of_dead_letters_is_a_few_lines_and_a_count() {
    let env = Env::start().await;
    for _ in 0..2_000 {
        env.publish_entry(&[("p", b"no payload")]).await;
    }
    let args = [JSON[0], JSON[1], "--dead-letter-limit", "100"];
    let worker = WorkerBinary::start_on(&env, &args).await;
    eventually("all are dead-lettered", async || {
        env.value::<i64>("SELECT count(*) FROM dead_letters").await == 2_000
    })
    .await;
    worker.signal(Signal::TERM);
    let log = worker.finished().await.stderr;

    let said = lines(&log, "entry dead-lettered").len() as u64;
    let counted: u64 = lines(&log, "the same again")
        .iter()
        .filter(|line| line["what"] == "entry dead-lettered")
        .filter_map(|line| line["n_more"].as_u64())
        .sum();
    assert_eq!(said + counted, 2_000, "{log}");
    assert!(said <= 30, "{said} lines");
}

#[tokio::test]
async fn no_value_of_a_row_and_no_password_is_logged_whatever_goes_wrong() {
    const MARK: &str = "xyzzy";
    let marked = |id: i64| Detection {
        camera_id: format!("{MARK}-{id}"),
        session_id: format!("{MARK}-session"),
        ..detection(id)
    };
    let env = Env::start().await;
    env.execute(&format!(
        "ALTER TABLE detections ADD CONSTRAINT no_three CHECK (detection_id <> 3 OR camera_id NOT LIKE '{MARK}%')"
    ))
    .await;
    let (postgres, _) = env.postgres_proxy().await;
    let (redis, redis_url) = env.redis_proxy().await;
    let url = format!(
        "postgresql://postgres:{MARK}-password@127.0.0.1:{}/{}?sslmode=disable",
        postgres.port(),
        env.database()
    );
    let rows: Vec<Detection> = (0..10).map(marked).collect();
    env.publish(&rows).await;
    env.publish_tracks(&[passerby_shared::Track {
        session_id: format!("{MARK}-session"),
        camera_id: format!("{MARK}-0"),
        ..track(1, 10)
    }])
    .await;
    env.publish_entry(&[("p", MARK.as_bytes())]).await;
    env.publish_entry(&[("v", MARK.as_bytes()), ("p", MARK.as_bytes())])
        .await;
    env.publish_entry(&[("k", MARK.as_bytes()), ("p", MARK.as_bytes())])
        .await;
    let args = [
        "--log",
        "trace",
        "--dead-letter-limit",
        "100",
        "--database-url",
        &url,
        "--redis-url",
        redis_url.expose(),
        "--listen",
        "127.0.0.1:0",
    ];
    let worker = WorkerBinary::start_on(&env, &args).await;
    eventually("stored, but for what cannot be", async || {
        env.n_rows().await == 9 && env.n_pending().await == 0
    })
    .await;
    assert_eq!(env.dead_letters().await.len(), 4);
    // And with servers that go away in the middle of it.
    postgres.set(Fault::LoseReplyTo(Fault::COMMIT));
    env.publish(&(10..20).map(marked).collect::<Vec<_>>()).await;
    postgres.met().await;
    postgres.heal();
    redis.cut_all().await;
    env.publish(&(20..30).map(marked).collect::<Vec<_>>()).await;
    eventually("stored", async || env.n_rows().await == 29).await;
    // And when it is too much, and the worker stops.
    worker.signal(Signal::TERM);
    let log = worker.finished().await.stderr;

    assert!(log.contains("no_three"), "the constraint is named");
    assert!(log.contains("entry dead-lettered"), "{log}");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(MARK)).collect();
    assert_eq!(lines, [""; 0]);
}

#[tokio::test]
async fn a_worker_that_stops_for_bad_rows_quotes_none_of_them() {
    const MARK: &str = "xyzzy";
    let env = Env::start().await;
    env.execute("ALTER TABLE detections ADD CONSTRAINT none_at_all CHECK (false)")
        .await;
    let rows: Vec<Detection> = (0..500)
        .map(|id| Detection {
            camera_id: MARK.into(),
            ..detection(id)
        })
        .collect();
    env.publish(&rows).await;
    let worker = WorkerBinary::start_on(&env, &[]).await;
    let finished = worker.finished().await;

    assert_eq!(finished.code, Some(1));
    let error = finished.stderr.lines().last().unwrap();
    assert!(error.contains("none_at_all"), "{error}");
    assert!(error.contains("SQLSTATE 23514"), "{error}");
    assert!(!finished.stderr.contains(MARK), "{}", finished.stderr);
}
