//! What is still in the streams can be stored again: what a restored database lacks, and nothing else.

use chrono::{DateTime, TimeDelta, Utc};
use passerby_shared::{Detection, EntryId};
use passerby_tests::{
    Env, Fault, Golden, Passerby, eventually,
    fixtures::{detection, detections, key, track},
};
use serde_json::{Value, json};

async fn replay(env: &Env, args: &[&str]) -> Value {
    let args = [&["replay", "--yes", "--json"], args].concat();
    Passerby::on(env).run(&args).await.json()
}

fn counts(report: &Value, names: [&str; 4]) -> [u64; 4] {
    names.map(|name| report[name].as_u64().unwrap())
}

/// Ten entries of ten rows each, stored; of which the database has forgotten the last four, as one that was
/// restored from a backup has.
async fn restored() -> Env {
    let env = Env::start().await;
    let n = env.publish_entries(10, 10).await;
    env.run_worker_drain().await;
    env.assert_settled_once(n).await;
    forget_from(&env, 60).await;
    env
}

async fn forget_from(env: &Env, detection_id: i64) {
    env.execute(&format!(
        "DELETE FROM ledger WHERE (entry_ms, entry_seq) IN (
             SELECT entry_ms, entry_seq FROM ledger ORDER BY entry_ms, entry_seq OFFSET {}
         );
         DELETE FROM detections WHERE detection_id >= {detection_id}",
        detection_id / 10
    ))
    .await;
}

fn time_of(id: EntryId) -> String {
    let ms = i64::try_from(id.ms).unwrap();
    DateTime::<Utc>::from_timestamp_millis(ms)
        .unwrap()
        .to_rfc3339()
}

#[tokio::test]
async fn a_restored_database_gets_what_it_lacks_and_nothing_twice() {
    let env = restored().await;
    let would = replay(&env, &["--dry-run"]).await;
    let names = ["found", "known", "replayed", "detections"];
    assert_eq!(counts(&would, names), [10, 6, 4, 40], "{would}");
    assert_eq!(env.n_rows().await, 60);
    let unasked = Passerby::on(&env).run(&["replay"]).await;
    unasked.assert_usage_error(&["not confirmed", "10 entries in 1 stream"]);

    let report = replay(&env, &[]).await;

    assert_eq!(counts(&report, names), [10, 6, 4, 40], "{report}");
    env.assert_settled_once(100).await;
    assert_eq!(env.n_ledger().await, 10);
    let again = replay(&env, &[]).await;
    assert_eq!(counts(&again, names), [10, 10, 0, 0], "{again}");
    env.assert_settled_once(100).await;
    // No group has noticed.
    assert_eq!(env.run_worker_drain().await.entries_read, 0);
}

#[tokio::test]
async fn a_replay_that_is_killed_and_repeated_stores_each_row_once() {
    let env = restored().await;
    let (proxy, _) = env.postgres_proxy().await;
    let url = format!(
        "postgresql://postgres@127.0.0.1:{}/{}?sslmode=disable",
        proxy.port(),
        env.database()
    );
    let through_proxy = Passerby::on(&env).with("PASSERBY_DATABASE_URL", &url);
    proxy.set(Fault::HoldBefore(Fault::COMMIT));
    let killed = through_proxy.start(&["replay", "--yes"]).await;
    proxy.met().await;
    killed.kill();
    assert_eq!(env.n_rows().await, 60);
    // And one that does not hear that it has committed.
    proxy.set(Fault::LoseReplyTo(Fault::COMMIT));
    through_proxy.run(&["replay", "--yes"]).await.ok();

    replay(&env, &[]).await;

    env.assert_settled_once(100).await;
}

#[tokio::test]
async fn workers_and_a_replay_at_the_same_time_store_each_row_once() {
    let env = restored().await;
    // Half of it is delivered again to a worker: as after XGROUP SETID.
    let mut back = redis::cmd("XGROUP");
    back.arg("SETID")
        .arg(env.stream())
        .arg(passerby_tests::GROUP)
        .arg("0");
    env.redis::<()>(&back).await;
    env.read_as("gone", 5).await;
    let worker = env
        .start_worker(env.claiming_config(std::time::Duration::from_millis(100)))
        .await;

    let (one, other) = (Passerby::on(&env), Passerby::on(&env));
    let args = ["replay", "--yes"];
    let (one, other) = tokio::join!(one.run(&args), other.run(&args));

    one.ok();
    other.ok();
    eventually("all is settled", async || {
        env.n_pending().await == 0 && env.n_rows().await == 100
    })
    .await;
    worker.stop().await;
    env.assert_settled_once(100).await;
}

#[tokio::test]
async fn what_is_pending_or_not_delivered_is_left_to_the_workers() {
    let env = restored().await;
    let waiting: Vec<Detection> = detections(100..110);
    env.publish(&waiting).await;
    env.read_as("slow", 1).await;
    env.publish(&detections(110..120)).await;

    let report = replay(&env, &[]).await;

    let names = ["found", "pending", "undelivered", "replayed"];
    assert_eq!(counts(&report, names), [11, 1, 1, 4], "{report}");
    assert_eq!(env.n_rows().await, 100);
    assert_eq!(env.pending().await["slow"], 1);
    env.run_claiming_worker_drain().await;
    env.assert_settled_once(120).await;
}

#[tokio::test]
async fn a_span_of_time_and_a_camera_choose_whole_entries() {
    let env = Env::start().await;
    let of_yard = |id| Detection {
        camera_id: "yard-2".into(),
        session_id: "session-2".into(),
        ..detection(id)
    };
    env.publish(&detections(0..5)).await;
    env.publish(&[detection(5), of_yard(6)]).await;
    let third = env.publish(&[of_yard(7)]).await;
    env.publish_tracks(&[track(1, 5)]).await;
    env.run_worker_drain().await;
    env.execute("TRUNCATE detections, ledger, tracks").await;
    let replayed = async |args: &[&str]| replay(&env, args).await["replayed"].clone();

    assert_eq!(replayed(&["--camera-id", "none"]).await, 0);
    assert_eq!(
        replayed(&[
            "--from",
            &time_of(EntryId {
                ms: third.ms + 60_000,
                seq: 0
            })
        ])
        .await,
        0
    );
    assert_eq!(
        replayed(&["--camera-id", "yard-2", "--session-id", "session-2"]).await,
        2
    );
    let rows = "SELECT string_agg(detection_id::text, ' ' ORDER BY detection_id) FROM detections";
    assert_eq!(env.value::<String>(rows).await, "5 6 7");
    assert_eq!(replayed(&["--last", "1h"]).await, 2);
    assert_eq!(env.value::<String>(rows).await, "0 1 2 3 4 5 6 7");
    assert_eq!(env.value::<i64>("SELECT count(*) FROM tracks").await, 1);
}

#[tokio::test]
async fn what_was_trimmed_is_said_loudly() {
    let env = restored().await;
    let mut first = redis::cmd("XRANGE");
    first.arg(env.stream()).arg("-").arg("+");
    let all: Vec<(String, Vec<Vec<u8>>)> = env.redis(&first).await;
    let from = (Utc::now() - TimeDelta::hours(1)).to_rfc3339();
    // Nothing was ever trimmed: all of the hour is there.
    let whole = replay(&env, &["--dry-run", "--from", &from]).await;
    assert_eq!(whole["gaps"], json!([]));
    let mut trim = redis::cmd("XTRIM");
    trim.arg(env.stream()).arg("MINID").arg(&all[7].0);
    env.redis::<i64>(&trim).await;

    let args = ["replay", "--yes", "--json", "--from", &from];
    let cut = Passerby::on(&env).run(&args).await;

    assert_eq!(cut.code, Some(1), "{}", cut.stderr);
    assert!(
        cut.stderr.starts_with("warning: entries from "),
        "{}",
        cut.stderr
    );
    let report: Value = serde_json::from_str(&cut.stdout).unwrap();
    assert_eq!(
        (&report["found"], &report["replayed"]),
        (&json!(3), &json!(3))
    );
    assert_eq!(report["gaps"][0]["stream"], env.stream().as_str());
    let allowed = ["--from", &from, "--allow-gap"];
    replay(&env, &allowed).await;
    // What begins behind the gap is whole.
    let id: EntryId = all[7].0.parse().unwrap();
    // The entry before it may be of the same millisecond.
    let behind = EntryId {
        ms: id.ms + 1,
        seq: 0,
    };
    replay(&env, &["--from", &time_of(behind)]).await;
}

#[tokio::test]
async fn what_the_ledger_has_forgotten_is_left_alone() {
    let env = restored().await;
    env.execute("UPDATE ledger_horizon SET pruned_below = now() + interval '1 hour'")
        .await;

    for args in [&["--dry-run"][..], &[]] {
        let report = replay(&env, args).await;
        let names = ["found", "known", "too_old", "replayed"];
        assert_eq!(counts(&report, names), [10, 6, 4, 0], "{report}");
    }

    assert_eq!(env.n_rows().await, 60);
    assert_eq!(env.dead_letters().await.len(), 0);
}

#[tokio::test]
async fn a_row_that_is_refused_in_a_replay_costs_no_neighbour() {
    let env = restored().await;
    env.execute("ALTER TABLE detections ADD CONSTRAINT no_77 CHECK (detection_id <> 77)")
        .await;

    let report = replay(&env, &[]).await;

    assert_eq!(report["dead_letters"], 1, "{report}");
    assert_eq!(env.n_rows().await, 99);
    assert_eq!(env.dead_letters().await[0].row_idx, Some(7));
    assert_eq!(replay(&env, &[]).await["dead_letters"], 0);
    assert_eq!(env.dead_letters().await.len(), 1);
}

// --into

#[tokio::test]
async fn a_table_for_comparison_gets_each_row_once_and_nothing_else_is_touched() {
    let env = Env::start().await;
    env.publish_as(key(1), &detections(0..10)).await;
    env.publish_as(key(1), &detections(0..10)).await; // sent twice
    let of_yard = Detection {
        camera_id: "yard-2".into(),
        ..detection(10)
    };
    env.publish(&[of_yard, detection(11)]).await;
    env.publish_tracks(&[track(1, 5)]).await;
    env.run_worker_drain().await;
    env.execute("DELETE FROM detections; DELETE FROM ledger; DELETE FROM tracks")
        .await;

    // A name that has to be quoted.
    let into = ["--into", "\"gate; 1\"", "--create"];
    let report = replay(&env, &[&into[..], &["--camera-id", "gate-1"]].concat()).await;

    assert_eq!(report["detections"], 11, "{report}");
    let rows = "SELECT count(DISTINCT detection_id) || ' of ' || count(*) FROM \"gate; 1\"";
    assert_eq!(env.value::<String>(rows).await, "11 of 11");
    for table in ["detections", "ledger", "tracks", "dead_letters"] {
        let n: i64 = env.value(&format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(n, 0, "{table}");
    }
    let again = ["replay", "--yes", "--into", "\"gate; 1\""];
    let refused = Passerby::on(&env).run(&again).await;
    refused.assert_one_error_line(&["is not empty", "truncate it"]);
    assert_eq!(env.value::<String>(rows).await, "11 of 11");
}

#[tokio::test]
async fn a_replay_into_a_table_that_is_killed_leaves_nothing_of_it() {
    let env = restored().await;
    env.execute("CREATE TABLE again (LIKE detections)").await;
    let (proxy, _) = env.postgres_proxy().await;
    let url = format!(
        "postgresql://postgres@127.0.0.1:{}/{}?sslmode=disable",
        proxy.port(),
        env.database()
    );
    proxy.set(Fault::HoldBefore(Fault::COMMIT));
    let killed = Passerby::on(&env)
        .with("PASSERBY_DATABASE_URL", &url)
        .start(&["replay", "--yes", "--into", "again"])
        .await;
    proxy.met().await;
    killed.kill();
    drop(proxy);

    let report = replay(&env, &["--into", "again"]).await;

    assert_eq!(report["detections"], 100);
    assert_eq!(env.value::<i64>("SELECT count(*) FROM again").await, 100);
    assert_eq!(env.n_rows().await, 60);
}

#[tokio::test]
async fn no_table_of_passerbys_own_is_written_to() {
    let env = restored().await;
    env.execute(
        "CREATE TABLE narrow (detection_id bigint);
         CREATE TABLE wrong (LIKE detections);
         ALTER TABLE wrong ALTER COLUMN camera_id TYPE varchar(9);
         CREATE VIEW seen AS SELECT * FROM detections;
         CREATE TABLE full_one AS SELECT * FROM detections",
    )
    .await;
    let day = Utc::now().format("detections_p%Y%m%d").to_string();
    for (table, words) in [
        ("detections", "one of Passerby's own"),
        ("public.detections", "one of Passerby's own"),
        ("DETECTIONS", "one of Passerby's own"),
        (day.as_str(), "one of Passerby's own"),
        ("detections_default", "one of Passerby's own"),
        ("ledger", "one of Passerby's own"),
        ("tracks", "one of Passerby's own"),
        ("seen", "no ordinary table"),
        ("narrow", "has not the columns"),
        ("wrong", "camera_id text missing or of another type"),
        ("full_one", "is not empty"),
        ("nowhere", "add --create"),
        ("a.b.c", "no name of a table"),
        ("x; DROP TABLE tracks", ""),
    ] {
        let args = ["replay", "--yes", "--into", table];
        let refused = Passerby::on(&env).run(&args).await;
        assert_eq!(refused.code, Some(1), "{table}: {}", refused.stdout);
        assert!(
            refused.stderr.contains(words),
            "{table}: {}",
            refused.stderr
        );
    }
    assert_eq!(env.n_rows().await, 60);
    assert_eq!(env.n_ledger().await, 6);
}

// --from-dead-letters

#[tokio::test]
async fn a_letter_that_is_replayed_and_put_back_is_stored_once() {
    let env = Env::start().await;
    env.execute("ALTER TABLE detections ADD CONSTRAINT no_fives CHECK (detection_id <> 5)")
        .await;
    env.publish(&detections(0..10)).await;
    env.run_worker_drain().await;
    env.execute("ALTER TABLE detections DROP CONSTRAINT no_fives")
        .await;
    let args = ["--from-dead-letters"];
    let would = replay(&env, &["--from-dead-letters", "--dry-run"]).await;
    assert_eq!(
        (&would["found"], &would["replayed"]),
        (&json!(1), &json!(1))
    );

    let report = replay(&env, &args).await;

    assert_eq!(report["replayed"], 1, "{report}");
    env.assert_settled_once(10).await;
    assert_eq!(replay(&env, &args).await["found"], 0);
    let requeue = ["dead-letters", "requeue", "1", "--yes"];
    Passerby::on(&env).run(&requeue).await.ok();
    assert_eq!(env.run_worker_drain().await.duplicates, 1);
    env.assert_settled_once(10).await;
}

#[tokio::test]
async fn a_letter_that_is_refused_in_a_replay_comes_as_a_new_one() {
    let env = Env::start().await;
    env.execute("ALTER TABLE detections ADD CONSTRAINT no_fives CHECK (detection_id <> 5)")
        .await;
    env.publish(&detections(0..10)).await;
    env.run_worker_drain().await;

    replay(&env, &["--from-dead-letters"]).await;

    let letters = env.dead_letters().await;
    assert_eq!(letters.len(), 2);
    assert!(letters[0].requeued_at.is_some() && letters[1].requeued_at.is_none());
    assert_eq!(env.n_rows().await, 9);
}

#[tokio::test]
async fn output_of_replay() {
    let env = restored().await;
    let mut golden = Golden::of("replay", &env);
    golden.run(&["replay"]).await;
    golden.run(&["replay", "--dry-run"]).await;
    golden.run(&["replay", "--yes"]).await;
    golden.run(&["replay", "--yes", "--json"]).await;
    golden
        .run(&["replay", "--into", "again", "--create", "--yes"])
        .await;
    golden.run(&["replay", "--into", "again", "--yes"]).await;
    golden.run(&["replay", "--into", "tracks", "--yes"]).await;
    golden
        .run(&["replay", "--from-dead-letters", "--yes"])
        .await;
}
