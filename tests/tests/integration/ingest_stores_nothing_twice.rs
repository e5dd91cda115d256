//! A recorded file can be ingested again, after whatever happened to the first attempt: straight into
//! Postgres or through the stream, each of its rows is stored once.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use passerby_tests::{Env, Passerby, eventually};
use serde_json::Value;
use tempfile::TempDir;

/// 222 detections: three entries.
const CAMPUS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../cli/data/TUD-Campus.mot.txt"
);
/// 2,522 detections: 26 entries.
const STREET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/data/vtest-hog.mot.txt");

/// A folder for a test's own files.
fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn write(folder: &TempDir, name: &str, content: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

async fn ingest(env: &Env, args: &[&str]) -> Value {
    let args = [&["ingest", "--db-enable", "--json"], args].concat();
    let summary = Passerby::on(env).run(&args).await.json();
    assert_eq!(summary["files"].as_array().unwrap().len(), 1, "{summary}");
    summary["files"][0].clone()
}

/// `outcome stored/already stored/rows`
fn told(file: &Value) -> String {
    format!(
        "{} {}/{}/{}",
        file["outcome"].as_str().unwrap(),
        file["stored"],
        file["already_stored"],
        file["rows"]
    )
}

/// Asserts that a file's `n` rows are stored once, their times count from one start, and that the
/// tracks are made of all of them.
async fn assert_whole(env: &Env, n: i64, ms_per_frame: i64) {
    let found: String = env
        .value(&format!(
            "SELECT format('%s rows, %s of them different, from %s to %s, of %s starts',
                 count(*), count(DISTINCT detection_id), min(detection_id), max(detection_id),
                 count(DISTINCT timestamp - (frame_number - 1) * interval '{ms_per_frame} ms'))
             FROM detections",
        ))
        .await;
    let wanted = format!("{n} rows, {n} of them different, from 1 to {n}, of 1 starts");
    assert_eq!(found, wanted);
    let wrong_tracks: i64 = env
        .value(
            "SELECT count(*)
             FROM tracks
             FULL JOIN (
                 SELECT camera_id, track_id, count(*) AS n FROM detections
                 WHERE track_id IS NOT NULL GROUP BY camera_id, track_id
             ) AS d USING (camera_id, track_id)
             WHERE detection_count IS DISTINCT FROM n",
        )
        .await;
    assert_eq!(wrong_tracks, 0);
}

async fn first_time(env: &Env) -> DateTime<Utc> {
    env.value("SELECT min(timestamp) FROM detections").await
}

/// What an attempt that was interrupted before its very end leaves behind.
async fn forget_that_it_was_finished(env: &Env) {
    env.execute("UPDATE session_sources SET n_rows = NULL, finished_at = NULL")
        .await;
}

#[tokio::test]
async fn a_finished_file_is_not_stored_again() {
    let env = Env::start().await;
    assert_eq!(told(&ingest(&env, &[CAMPUS]).await), "stored 222/0/222");
    assert_eq!(
        told(&ingest(&env, &[CAMPUS]).await),
        "already-finished 0/222/0"
    );
    assert_whole(&env, 222, 40).await;
}

#[tokio::test]
async fn a_finished_file_is_not_stored_again_when_its_ledger_has_been_pruned() {
    let env = Env::start().await;
    ingest(&env, &[CAMPUS]).await;
    env.execute("DELETE FROM ledger").await;

    let again = ingest(&env, &[CAMPUS]).await;

    assert_eq!(told(&again), "already-finished 0/222/0");
    assert_eq!(again["people"]["people"], 13);
    assert_whole(&env, 222, 40).await;
}

#[tokio::test]
async fn a_killed_ingest_is_completed_by_the_next_with_the_first_ones_times() {
    let env = Env::start().await;
    let slow = [
        "ingest",
        STREET,
        "--db-enable",
        "--fps",
        "10",
        "--speed",
        "10", // eight seconds
        "--db-batch-size",
        "100",
        "--db-flush-interval-ms",
        "1",
    ];
    let running = Passerby::on(&env).start(&slow).await;
    eventually("it is in the middle", async || env.n_rows().await >= 500).await;
    running.kill();
    let n_before = env.n_rows().await;
    assert!(n_before < 2_522, "{n_before}");
    let first_before = first_time(&env).await;

    let other_batches = [STREET, "--fps", "10", "--db-batch-size", "777"];
    let file = ingest(&env, &other_batches).await;

    assert_eq!(
        told(&file),
        format!("stored {}/{n_before}/2522", 2_522 - n_before)
    );
    assert_eq!(first_time(&env).await, first_before);
    let started_at: DateTime<Utc> = env.value("SELECT started_at FROM sessions").await;
    assert_eq!(started_at, first_before);
    assert_whole(&env, 2_522, 100).await;
}

#[tokio::test]
async fn another_batch_size_cuts_no_other_entries() {
    let env = Env::start().await;
    for (batch_size, expected) in [
        ("1", "stored 222/0/222"),
        ("150", "stored 0/222/222"),
        ("1000000", "stored 0/222/222"),
    ] {
        let file = ingest(&env, &[CAMPUS, "--db-batch-size", batch_size]).await;
        assert_eq!(told(&file), expected, "{batch_size}");
        forget_that_it_was_finished(&env).await;
    }
    assert_whole(&env, 222, 40).await;
}

#[tokio::test]
async fn the_same_file_made_into_other_rows_is_refused() {
    let env = Env::start().await;
    let same = ["--session-id", "s", "--camera-id", "c"];
    ingest(&env, &[&[CAMPUS][..], &same].concat()).await;
    let other: [(&[&str], &str); 4] = [
        (&["--fps", "10"], "with 25 frames a second"),
        (&["--channel-id", "7"], "as channel 0"),
        (&["--start-time", "2026-01-01T00:00:00Z"], "starting at 20"),
        (&["--camera-id", "d"], "as camera `c`"),
    ];
    for (differs, told) in other {
        let mut args = vec!["ingest", CAMPUS, "--db-enable", "--session-id", "s"];
        if differs[0] != "--camera-id" {
            args.extend(["--camera-id", "c"]);
        }
        args.extend(differs);
        let refused = Passerby::on(&env).run(&args).await;
        refused.assert_one_error_line(&[
            "session `s`",
            "`TUD-Campus.mot.txt`",
            told,
            "--session-id",
        ]);
    }
    assert_whole(&env, 222, 40).await;
}

#[tokio::test]
async fn another_version_of_a_file_is_refused() {
    let env = Env::start().await;
    let folder = folder();
    let path = write(&folder, "gate.txt", "1,1,0,0,10,20\n2,1,0,0,10,20\n");
    ingest(&env, &[text(&path), "--session-id", "s"]).await;
    write(&folder, "gate.txt", "1,1,0,0,10,20\n2,1,0,0,10,21\n");

    let refused = Passerby::on(&env)
        .run(&["ingest", text(&path), "--db-enable", "--session-id", "s"])
        .await;

    refused.assert_one_error_line(&[
        "session `s`",
        "`gate.txt` with other content",
        "--session-id",
    ]);
    assert_eq!(env.n_rows().await, 2);
}

#[tokio::test]
async fn through_the_stream_each_row_is_stored_once_and_the_session_closed() {
    let env = Env::start().await;
    let worker = env.start_worker(env.worker_config()).await;
    let args = [CAMPUS, "--redis-enable"];

    let file = ingest(&env, &args).await;
    assert_eq!(told(&file), "stored 222/0/222");
    assert_eq!(file["people"]["people"], 13);
    assert_whole(&env, 222, 40).await;
    let is_closed: bool = env
        .value("SELECT ended_at = (SELECT max(timestamp) FROM detections) FROM sessions")
        .await;
    assert!(is_closed);

    let n_entries = env.n_entries().await;
    assert_eq!(told(&ingest(&env, &args).await), "already-finished 0/222/0");
    assert_eq!(env.n_entries().await, n_entries);

    forget_that_it_was_finished(&env).await;
    ingest(&env, &args).await;
    assert!(env.n_entries().await > n_entries);
    worker.stop().await;
    assert_eq!(env.n_pending().await, 0);
    assert_whole(&env, 222, 40).await;
}

/// Each row is written at once, so that the end of the file finds nothing to write.
#[tokio::test]
async fn nothing_to_publish_is_no_failure() {
    let env = Env::start().await;
    let worker = env.start_worker(env.worker_config()).await;
    let args = [
        "ingest",
        CAMPUS,
        "--db-enable",
        "--redis-enable",
        "--db-batch-size",
        "1",
    ];
    let output = Passerby::on(&env).run(&args).await;
    assert!(
        !output.stderr.contains("publishing failed"),
        "{}",
        output.stderr
    );
    output.ok();
    worker.stop().await;
    assert_whole(&env, 222, 40).await;
}

#[tokio::test]
async fn a_killed_ingest_through_the_stream_is_completed_by_one_past_the_stream() {
    let env = Env::start().await;
    let worker = env.start_worker(env.worker_config()).await;
    let slow = [
        "ingest",
        STREET,
        "--db-enable",
        "--redis-enable",
        "--speed",
        "4", // eight seconds
        "--db-batch-size",
        "100",
        "--db-flush-interval-ms",
        "1",
    ];
    let running = Passerby::on(&env).start(&slow).await;
    eventually("it is in the middle", async || env.n_rows().await >= 500).await;
    running.kill();

    let file = ingest(&env, &[STREET]).await;

    assert_eq!(file["outcome"], "stored");
    worker.stop().await;
    assert_whole(&env, 2_522, 40).await;
}

#[tokio::test]
async fn without_a_worker_the_rows_wait_in_the_stream() {
    let env = Env::start().await;
    let args = ["ingest", CAMPUS, "--db-enable", "--redis-enable"];
    let impatient = [&args[..], &["--wait", "100ms"]].concat();

    let said = Passerby::on(&env).run(&impatient).await.ok();
    assert!(said.contains("222 rows are in the stream"), "{said}");
    assert!(said.contains("start `passerby-worker`"), "{said}");
    assert_eq!(env.n_rows().await, 0);
    let file = ingest(&env, &[CAMPUS, "--redis-enable", "--wait", "100ms"]).await;
    assert_eq!(told(&file), "in-stream 0/0/222");

    let worker = env.start_worker(env.worker_config()).await;
    let said = Passerby::on(&env).run(&args).await.ok();

    assert!(said.contains("people: 13"), "{said}");
    worker.stop().await;
    assert_whole(&env, 222, 40).await;
}

#[tokio::test]
async fn a_file_named_twice_is_waited_for_once() {
    let env = Env::start().await;
    let args = [
        "ingest",
        CAMPUS,
        CAMPUS,
        "--db-enable",
        "--redis-enable",
        "--wait",
        "2s",
        "--db-flush-interval-ms",
        "60000",
        "--json",
    ];
    let running = Passerby::on(&env).start(&args).await;
    eventually("the file is in the stream twice", async || {
        env.n_entries().await == 2 * (3 + 13) // detections and tracks
    })
    .await;
    let worker = env.start_worker(env.worker_config()).await;

    let summary = running.finished().await.json();

    assert_eq!(told(&summary["files"][0]), "in-stream 0/0/222");
    assert_eq!(told(&summary["files"][1]), "stored 222/0/222");
    worker.stop().await;
    assert_whole(&env, 222, 40).await;
}

#[tokio::test]
async fn without_db_enable_nothing_is_stored_anywhere() {
    let env = Env::with_empty_database().await;

    // Servers that are named are not even asked.
    let unreachable = Passerby::on(&env)
        .with("PASSERBY_DATABASE_URL", "postgresql://127.0.0.1:1/x")
        .with("PASSERBY_REDIS_URL", "redis://127.0.0.1:1");
    for passerby in [Passerby::on(&env), Passerby::alone(), unreachable] {
        let said = passerby.run(&["ingest", CAMPUS]).await.ok();
        assert!(said.contains("222 good rows on 13 tracks"), "{said}");
        assert!(said.contains("nothing was stored"), "{said}");
    }

    let n_tables: i64 = env
        .value("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        .await;
    assert_eq!(n_tables, 0);
    let n_keys: i64 = env.redis(redis::cmd("EXISTS").arg(env.stream())).await;
    assert_eq!(n_keys, 0);
}

#[tokio::test]
async fn redis_enable_without_db_enable_is_wrong_usage() {
    let refused = Passerby::alone()
        .run(&["ingest", CAMPUS, "--redis-enable"])
        .await;
    refused.assert_usage_error(&["--db-enable"]);
}

const WITH_BAD_LINES: &str = "\
# frame, track, left, top, width, height
1,1,0,0,10,20
1,two,0,0,10,20

2,1,0,0,10,-20
3,1,0,0
4,1,0,0,10,20,1.5
5,1,0,0,10,20
";

#[tokio::test]
async fn bad_lines_are_reported_counted_and_skipped() {
    let env = Env::start().await;
    let folder = folder();
    let path = write(&folder, "bad.mot.txt", WITH_BAD_LINES);

    let run = Passerby::on(&env)
        .run(&["ingest", text(&path), "--db-enable"])
        .await;

    let lines: Vec<&str> = run.stderr.lines().collect();
    let starts = [
        "3: track_id: `two`",
        "5: bbox_height: -20",
        "6: the number of columns is 4",
    ];
    assert_eq!(lines.len(), starts.len(), "{}", run.stderr);
    for (line, start) in lines.iter().zip(starts) {
        let start = format!("{}:{start}", text(&path));
        assert!(line.starts_with(&start), "{line}");
    }
    let said = run.ok();
    assert!(said.contains("stored 3 rows on 1 track"), "{said}");
    assert!(said.contains("3 bad lines skipped"), "{said}");
    assert!(said.contains("1 score outside 0…1"), "{said}");
    let stored: Vec<i64> = env
        .value("SELECT array_agg(frame_number ORDER BY timestamp) FROM detections")
        .await;
    assert_eq!(stored, [1, 4, 5]);

    let again = ingest(&env, &[text(&path)]).await;
    assert_eq!(told(&again), "already-finished 0/3/0");
}

#[tokio::test]
async fn strict_stops_at_the_first_bad_line_and_a_mended_file_is_stored_whole() {
    let env = Env::start().await;
    let folder = folder();
    let path = write(&folder, "bad.mot.txt", WITH_BAD_LINES);

    let stopped = Passerby::on(&env)
        .run(&["ingest", text(&path), "--db-enable", "--strict"])
        .await;

    stopped.assert_one_error_line(&["--strict", "bad.mot.txt:3: track_id: `two`"]);
    assert_eq!(env.n_rows().await, 0);

    write(&folder, "bad.mot.txt", "1,1,0,0,10,20\n2,1,0,0,10,20\n");
    let file = ingest(&env, &[text(&path), "--strict"]).await;
    assert_eq!(told(&file), "stored 2/0/2");
}

#[tokio::test]
async fn several_files_of_both_formats_are_sessions_of_their_own() {
    let env = Env::start().await;
    let folder = folder();
    let ndjson = write(
        &folder,
        "gate-1.ndjson",
        r#"{"frame_number":1,"track_id":4,"bbox_x":1,"bbox_y":2,"bbox_width":3,"bbox_height":4,"gender":"f"}
           {"frame_number":2,"track_id":4,"bbox_x":1,"bbox_y":2,"bbox_width":3,"bbox_height":4,"camera_id":"gate-2"}
"#,
    );
    let args = ["ingest", CAMPUS, text(&ndjson), "--db-enable", "--json"];

    let summary = Passerby::on(&env).run(&args).await.json();

    let told: Vec<String> = summary["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| format!("{} {}", told(file), file["camera_id"]))
        .collect();
    assert_eq!(
        told,
        [
            r#"stored 222/0/222 "TUD-Campus""#,
            r#"stored 2/0/2 "gate-1""#
        ]
    );
    assert_eq!(summary["people"]["people"], 15);
    assert_eq!(summary["people"]["female"], 1);
    let cameras: Vec<String> = env
        .value(
            "SELECT array_agg(DISTINCT format('%s %s', camera_id, session_id LIKE 'gate-1-%'))
             FROM detections",
        )
        .await;
    assert_eq!(cameras, ["TUD-Campus f", "gate-1 t", "gate-2 t"]);

    let again = Passerby::on(&env).run(&args).await.json();
    for file in again["files"].as_array().unwrap() {
        assert_eq!(file["outcome"], "already-finished");
    }
    assert_eq!(env.n_rows().await, 224);
}

#[tokio::test]
async fn standard_input_is_read_once_and_remembered() {
    let env = Env::start().await;
    let campus = std::fs::read(CAMPUS).unwrap();
    let args = ["ingest", "-", "--db-enable", "--json"];
    for expected in ["stored 222/0/222", "already-finished 0/222/0"] {
        let summary = Passerby::on(&env).stdin(&campus).run(&args).await.json();
        assert_eq!(told(&summary["files"][0]), expected);
        assert_eq!(summary["files"][0]["camera_id"], "stdin");
    }
    assert_whole(&env, 222, 40).await;
}

#[tokio::test]
async fn the_summary_has_a_shape_that_programs_can_rely_on() {
    let env = Env::start().await;
    let args = [
        "ingest",
        CAMPUS,
        "--db-enable",
        "--json",
        "--session-id",
        "s",
        "--camera-id",
        "c",
    ];
    let mut summary = Passerby::on(&env).run(&args).await.json();
    assert!(summary["elapsed_ms"].take().is_u64());
    let people = serde_json::json!(
        { "detections": 222, "people": 13, "male": 0, "female": 0, "unknown": 13 }
    );
    assert_eq!(
        summary,
        serde_json::json!({
            "files": [{
                "file": "TUD-Campus.mot.txt",
                "session_id": "s",
                "camera_id": "c",
                "outcome": "stored",
                "rows": 222,
                "bad_lines": 0,
                "clamped": 0,
                "stored": 222,
                "already_stored": 0,
                "tracks": 13,
                "people": people,
            }],
            "people": people,
            "elapsed_ms": null,
        })
    );
}
