//! Partitions are seen, made, emptied and dropped by hand, and no row is lost or seen twice by it.

use chrono::{Days, NaiveDate, Utc};
use passerby_shared::Detection;
use passerby_tests::{
    Env, Golden, Passerby, eventually,
    fixtures::{detection, detections, midnight_in_days},
};
use serde_json::{Value, json};

fn in_days(id: i64, days: u64) -> Detection {
    Detection {
        timestamp: midnight_in_days(days) + chrono::TimeDelta::milliseconds(id),
        ..detection(id)
    }
}

fn day(days: u64) -> String {
    midnight_in_days(days).date_naive().to_string()
}

fn past(days: u64) -> NaiveDate {
    Utc::now().date_naive() - Days::new(days)
}

async fn partitions(env: &Env, args: &[&str]) -> Value {
    let args = [&["partitions"], args, &["--json"]].concat();
    Passerby::on(env).run(&args).await.json()
}

async fn n_in_default(env: &Env) -> i64 {
    env.value("SELECT count(*) FROM detections_default").await
}

/// The detections 0…9 in the default partition, two of each of these days: as they are there when the worker's
/// role may not make partitions.
async fn in_default(env: &Env, days: [NaiveDate; 5]) {
    env.publish(&detections(0..10)).await;
    env.run_worker_drain().await;
    for (n, day) in days.iter().enumerate() {
        env.execute(&format!(
            "UPDATE detections SET timestamp = '{day} 12:00:00+00' WHERE detection_id / 2 = {n}"
        ))
        .await;
    }
    assert_eq!(n_in_default(env).await, 10);
}

#[tokio::test]
async fn rows_of_the_default_partition_move_to_their_days() {
    let env = Env::start().await;
    let far = Utc::now().date_naive() + Days::new(400);
    in_default(&env, [past(40), past(41), past(42), past(43), far]).await;
    let would = partitions(&env, &["repair", "--dry-run"]).await;
    assert_eq!(
        (&would["rows_moved"], &would["existing"]),
        (&json!(8), &json!(0))
    );
    assert_eq!(n_in_default(&env).await, 10);
    let unasked = Passerby::on(&env).run(&["partitions", "repair"]).await;
    unasked.assert_usage_error(&["move 8 rows out of the default partition: 4 days from"]);

    let report = partitions(&env, &["repair", "--yes"]).await;

    assert_eq!(
        (
            &report["rows_moved"],
            report["made"].as_array().unwrap().len()
        ),
        (&json!(8), 4)
    );
    let stays = &report["failed"][0];
    assert_eq!(
        (&stays["day"], &stays["rows"]),
        (&json!(far.to_string()), &json!(2))
    );
    env.assert_stored_once(10).await;
    assert_eq!(n_in_default(&env).await, 2);
    // A day that is named moves whatever the policy says.
    partitions(&env, &["repair", &far.to_string(), "--yes"]).await;
    assert_eq!(n_in_default(&env).await, 0);
    env.assert_stored_once(10).await;
    let nothing = partitions(&env, &["repair", "--yes"]).await;
    assert_eq!(nothing["rows_moved"], 0);
}

#[tokio::test]
async fn rows_move_once_while_workers_write_rows_of_the_same_day() {
    let env = Env::start().await;
    let worker = env.start_worker(env.worker_config()).await;
    let writing = async {
        for first in (0..2_000).step_by(20) {
            let rows: Vec<Detection> = (first..first + 20).map(|id| in_days(id, 30)).collect();
            env.publish(&rows).await;
        }
    };
    let repairing = async {
        eventually("rows are in the default partition", async || {
            n_in_default(&env).await > 0
        })
        .await;
        let args = ["partitions", "repair", &day(30), "--yes", "--json"];
        Passerby::on(&env).run(&args).await.json()
    };

    let ((), report) = tokio::join!(writing, repairing);

    assert!(report["rows_moved"].as_u64() > Some(0), "{report}");
    eventually("all is stored", async || env.n_rows().await == 2_000).await;
    worker.stop().await;
    env.assert_settled_once(2_000).await;
    assert_eq!(n_in_default(&env).await, 0);
}

#[tokio::test]
async fn days_with_too_many_rows_stay_and_are_named() {
    let env = Env::start().await;
    in_default(&env, [past(40), past(40), past(40), past(41), past(41)]).await;

    let report = partitions(&env, &["repair", "--yes", "--max-rows", "5"]).await;

    assert_eq!(report["made"], json!([past(41).to_string()]));
    assert_eq!(report["failed"][0]["rows"], 6);
    assert_eq!(n_in_default(&env).await, 6);
    env.assert_stored_once(10).await;
}

#[tokio::test]
async fn partitions_are_made_as_far_ahead_as_somebody_asks() {
    let env = Env::start().await;
    let would = partitions(&env, &["ensure", "--days-ahead", "30", "--dry-run"]).await;
    let n_made = would["made"].as_array().unwrap().len();
    assert!(n_made >= 23, "{would}");

    let report = partitions(&env, &["ensure", "--days-ahead", "30"]).await;

    assert_eq!(report["made"], would["made"]);
    let again = partitions(&env, &["ensure", "--days-ahead", "30"]).await;
    assert_eq!(
        (&again["made"], &again["existing"]),
        (&json!([]), &json!(31))
    );
    // What a worker stores goes there, though it would not make it.
    env.publish(&[in_days(0, 30)]).await;
    env.run_worker_drain().await;
    assert_eq!(n_in_default(&env).await, 0);
}

#[tokio::test]
async fn a_dropped_day_is_gone_and_does_not_come_back() {
    let env = Env::start().await;
    let old = Detection {
        timestamp: past(50).and_hms_opt(1, 0, 0).unwrap().and_utc(),
        ..detection(0)
    };
    let id = env.publish(&[old]).await;
    env.publish(&detections(1..3)).await;
    env.run_worker_drain().await;
    let yesterday = past(50).to_string();
    let listed = partitions(&env, &["list"]).await;
    assert_eq!(
        listed["partitions"][0]["from"],
        format!("{yesterday}T00:00:00Z")
    );

    let missing = Passerby::on(&env)
        .run(&["partitions", "drop", "2001-01-01", "--yes"])
        .await;
    missing.assert_one_error_line(&["no partition of 2001-01-01", "nothing was dropped"]);
    let unasked = Passerby::on(&env)
        .run(&["partitions", "drop", &yesterday])
        .await;
    unasked.assert_usage_error(&["detections_p", "drop 1 partition with about", "for good"]);
    let report = partitions(&env, &["drop", &yesterday, "--yes"]).await;

    assert_eq!(
        (
            &report["dropped"].as_array().unwrap().len(),
            &report["rows"]
        ),
        (&1, &json!(1))
    );
    assert_eq!(env.n_rows().await, 2);
    assert_eq!(env.n_ledger().await, 2);
    let books: i64 = env
        .value("SELECT sum(detections - detections_dropped)::bigint FROM books")
        .await;
    assert_eq!(books, 2);
    // Delivered again, the entry is known.
    let mut back = redis::cmd("XGROUP");
    back.arg("SETID")
        .arg(env.stream())
        .arg(passerby_tests::GROUP);
    back.arg(format!("{}-{}", id.ms - 1, id.seq));
    env.redis::<()>(&back).await;
    assert_eq!(env.run_worker_drain().await.duplicates, 2);
    assert_eq!(env.n_rows().await, 2);
}

#[tokio::test]
async fn a_drop_by_age_takes_whole_days_and_waits_for_locks() {
    let env = Env::start().await;
    in_default(&env, [past(40), past(41), past(50), past(51), past(52)]).await;
    partitions(&env, &["repair", "--yes", "--max-rows", "9"]).await;
    env.execute(&format!(
        "INSERT INTO detections SELECT '{} 12:00:00+00', detection_id + 10, track_id, frame_number, channel_id,
             confidence, bbox_x, bbox_y, bbox_width, bbox_height, gender_confidence, degraded, gender, camera_id,
             session_id
         FROM detections WHERE detection_id = 0",
        past(60)
    ))
    .await;
    assert_eq!(n_in_default(&env).await, 1);
    let (client, connection) = tokio_postgres::connect(
        &env.servers.postgres_url(env.database()),
        tokio_postgres::NoTls,
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    client
        .batch_execute("BEGIN; SELECT count(*) FROM detections")
        .await
        .unwrap();

    let args = [
        "partitions",
        "drop",
        "--older-than",
        "45d",
        "--yes",
        "--json",
    ];
    let dropping = Passerby::on(&env).start(&args).await;
    eventually("it waits for the query", async || {
        env.value::<i64>(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .await
            > 0
    })
    .await;
    client.batch_execute("COMMIT").await.unwrap();

    let report = dropping.finished().await.json();
    assert_eq!(report["dropped"].as_array().unwrap().len(), 3, "{report}");
    assert_eq!(
        (&report["rows"], &report["rows_of_default"]),
        (&json!(6), &json!(1))
    );
    assert_eq!(env.n_rows().await, 4);
}

#[tokio::test]
async fn output_of_partitions() {
    let env = Env::start().await;
    let far = Utc::now().date_naive() + Days::new(400);
    in_default(&env, [past(2), past(2), past(2), past(3), far]).await;
    let mut golden = Golden::of("partitions", &env);
    env.execute("ANALYZE detections").await;
    golden.run(&["partitions", "list"]).await;
    golden.run(&["partitions", "repair", "--dry-run"]).await;
    golden.run(&["partitions", "repair"]).await;
    golden.run(&["partitions", "repair", "--yes"]).await;
    golden
        .run(&["partitions", "repair", "--yes", "--json"])
        .await;
    golden
        .run(&["partitions", "ensure", "--days-ahead", "9", "--dry-run"])
        .await;
    golden
        .run(&["partitions", "ensure", "--days-ahead", "9"])
        .await;
    golden
        .run(&["partitions", "ensure", "--days-ahead", "9", "--json"])
        .await;
    env.execute("ANALYZE detections").await;
    golden
        .run(&["partitions", "drop", &past(2).to_string(), "--dry-run"])
        .await;
    golden
        .run(&["partitions", "drop", &past(2).to_string(), "--yes"])
        .await;
    golden
        .run(&["partitions", "drop", &past(2).to_string(), "--yes"])
        .await;
    golden
        .run(&[
            "partitions",
            "drop",
            &past(3).to_string(),
            "--yes",
            "--json",
        ])
        .await;
}
