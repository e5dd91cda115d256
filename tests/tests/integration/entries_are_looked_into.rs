//! What an operator asks about entries is answered as it is, and asking changes nothing: no group is
//! disturbed, nothing is acknowledged, delivered or counted as delivered.

use std::time::Duration;

use passerby_consumer::ops::{Tap, TapFilter, Target};
use passerby_shared::{
    IdempotencyKey, Session,
    redis_connection::{RedisLink, RedisTimeouts},
};
use passerby_tests::{
    Env, GROUP, Golden, Passerby, eventually,
    fixtures::{detection, detections, key, track},
};
use rustix::process::Signal;
use serde_json::{Value, json};

async fn run_json(env: &Env, args: &[&str]) -> Value {
    let args = [args, &["--json"]].concat();
    Passerby::on(env).run(&args).await.json()
}

/// The whole state of the group, for comparing before and after.
async fn group_state(env: &Env) -> (Vec<String>, String) {
    let groups: redis::Value = env
        .redis(redis::cmd("XINFO").arg("GROUPS").arg(env.stream()))
        .await;
    (
        env.consumers().await,
        format!("{groups:?}{:?}", env.delivery_counts().await),
    )
}

// pending

#[tokio::test]
async fn pending_entries_are_decoded_without_being_delivered() {
    let env = Env::start().await;
    env.publish(&detections(0..10)).await;
    env.publish_tracks(&[track(1, 3)]).await;
    env.publish_session(&Session {
        session_id: "session-9".to_owned(),
        started_at: None,
        ended_at: None,
        source: None,
    })
    .await;
    env.publish_entry(&[("p", b"\xc1")]).await;
    env.publish_entry(&[("p", b"\x91\x81\xa9camera_id\xa1x")])
        .await;
    let gone = env.publish(&detections(10..11)).await;
    env.read_as("gate-host", 6).await;
    let _n: u64 = env
        .redis(redis::cmd("XDEL").arg(env.stream()).arg(gone))
        .await;
    let before = group_state(&env).await;

    let shown = run_json(&env, &["pending", "--decode"]).await;

    assert_eq!(group_state(&env).await, before);
    let entries = shown["entries"].as_array().unwrap();
    let of = |i: usize, name: &str| entries[i]["decoded"][name].clone();
    assert_eq!(of(0, "kind"), "detections");
    assert_eq!(of(0, "rows"), 10);
    assert_eq!(of(0, "camera_ids"), json!(["gate-1"]));
    assert_eq!(of(0, "session_ids"), json!(["session-1"]));
    let time = |d: chrono::DateTime<chrono::Utc>| serde_json::to_value(d).unwrap();
    assert_eq!(of(0, "first_captured_at"), time(detection(0).timestamp));
    assert_eq!(of(0, "last_captured_at"), time(detection(9).timestamp));
    assert_eq!((of(1, "kind"), of(1, "rows")), (json!("tracks"), json!(1)));
    assert_eq!(of(2, "session_ids"), json!(["session-9"]));
    assert!(of(3, "problem").as_str().unwrap().contains("MessagePack"));
    assert_eq!(of(4, "bad_rows"), 1);
    assert!(of(4, "problem").as_str().unwrap().starts_with("row 0: "));
    assert!(of(4, "key_is_derived").as_bool().unwrap());
    assert_eq!(
        (&entries[5]["is_gone"], &entries[5]["decoded"]),
        (&json!(true), &json!(null))
    );

    Golden::of("pending-decode", &env)
        .run(&["pending", "--decode"])
        .await;
}

#[tokio::test]
async fn pending_entries_are_found_by_age_and_deliveries_and_counted() {
    let env = Env::start().await;
    env.publish_entries(5, 10).await;
    env.read_as("gate-host", 5).await;
    let ids: Vec<String> = env.delivery_counts().await.into_keys().collect();
    for _ in 0..2 {
        let mut again = redis::cmd("XCLAIM");
        again
            .arg(env.stream())
            .arg(GROUP)
            .arg("yard-host")
            .arg(0)
            .arg(&ids[3..]);
        let _claimed: redis::Value = env.redis(&again).await;
    }

    let often = run_json(&env, &["pending", "--min-deliveries", "3", "--limit", "1"]).await;
    assert_eq!(often["entries"][0]["entry_id"], ids[3]);
    assert_eq!(often["entries"].as_array().unwrap().len(), 1);
    let old = run_json(&env, &["pending", "--min-age", "1h"]).await;
    assert_eq!(old["entries"], json!([]));
    let groups = run_json(&env, &["pending", "--by", "deliveries"]).await;
    assert_eq!(
        groups["groups"],
        json!([
            { "of": "1", "n_entries": 3, "oldest_entry_id": ids[0] },
            { "of": "3", "n_entries": 2, "oldest_entry_id": ids[3] },
        ])
    );
    let groups = run_json(&env, &["pending", "--by", "consumer", "--limit", "1"]).await;
    assert_eq!(groups["groups"][0]["of"], "gate-host");
    assert_eq!(groups["groups"][1]["n_entries"], 2);
    let claimed = run_json(
        &env,
        &[
            "claim",
            "--min-idle",
            "0s",
            "--min-deliveries",
            "3",
            "--yes",
        ],
    )
    .await;
    assert_eq!(claimed["stored"], 2);
}

// entry

#[tokio::test]
async fn an_entry_is_followed_from_the_stream_into_postgres() {
    let env = Env::start().await;
    let id = env.publish_as(key(1), &detections(0..10)).await.to_string();
    let mut golden = Golden::of("entry", &env);
    let about = async |id: &str| run_json(&env, &["entry", id]).await;

    golden.note("nobody has read it");
    golden.run(&["entry", &id]).await;
    assert_eq!(
        about(&id).await["places"][0]["delivery"],
        json!({ "state": "no-group" })
    );
    env.create_group().await;
    assert_eq!(
        about(&id).await["places"][0]["delivery"],
        json!({ "state": "not-delivered" })
    );

    env.read_as("gate-host", 1).await;
    golden.note("a worker holds it");
    golden.run(&["entry", &id]).await;
    let held = about(&id).await;
    assert_eq!(held["places"][0]["delivery"]["consumer"], "gate-host");
    assert_eq!(held["places"][0]["delivery"]["delivery_count"], 1);
    assert_eq!(held["ledger"], json!(null));
    assert_eq!(held["stored"], json!([]));

    env.run_claiming_worker_drain().await;
    golden.note("it is stored");
    golden.run(&["entry", &id]).await;
    let stored = about(&id).await;
    assert_eq!(
        stored["places"][0]["delivery"],
        json!({ "state": "acknowledged" })
    );
    assert_eq!(stored["ledger"]["n_rows"], 10);
    assert_eq!(stored["ledger"]["idempotency_key"], key(1).to_string());
    assert_eq!(stored["stored"][0]["n_rows"], 10);
    assert_eq!(stored["looked_for"], 10);

    // Only time has passed.
    let mut by_key = about(&key(1).to_string()).await;
    by_key["places"][0]["age_ms"] = stored["places"][0]["age_ms"].clone();
    assert_eq!(by_key, stored);

    let _n: u64 = env
        .redis(redis::cmd("XTRIM").arg(env.stream()).arg("MAXLEN").arg(0))
        .await;
    golden.note("the stream is trimmed");
    golden.run(&["entry", &key(1).to_string()]).await;
    golden.run(&["entry", &key(1).to_string(), "--json"]).await;
    let trimmed = about(&key(1).to_string()).await;
    assert_eq!(trimmed["places"][0]["whereabouts"], "trimmed");
    assert_eq!(trimmed["ledger"]["entry_id"], id);

    golden.note("what is not known");
    golden.run(&["entry", &key(2).to_string()]).await;
    golden.run(&["entry", "1600000000000-0"]).await;
    golden.run(&["entry", "yesterday's"]).await;
}

#[tokio::test]
async fn an_entry_that_was_trimmed_is_found_in_the_ledger_by_its_id() {
    let env = Env::start().await;
    let with_key = env
        .publish_as(IdempotencyKey::generate(), &detections(0..3))
        .await;
    let mut payload = Vec::new();
    passerby_shared::wire::encode_detections(&detections(3..5), &mut payload);
    let without_key = env.publish_entry(&[("p", &payload)]).await;
    env.run_worker_drain().await;
    let _n: u64 = env
        .redis(redis::cmd("XTRIM").arg(env.stream()).arg("MAXLEN").arg(0))
        .await;

    for (id, n_rows) in [(with_key, 3), (without_key, 2)] {
        let found = run_json(&env, &["entry", &id.to_string()]).await;
        assert_eq!(found["ledger"]["n_rows"], n_rows, "{found}");
        assert_eq!(found["ledger"]["entry_id"], id.to_string());
    }
}

#[tokio::test]
async fn an_entry_is_found_in_the_stream_by_its_key() {
    let env = Env::start().await;
    env.publish_entries(3, 1).await;
    let key = IdempotencyKey::generate();
    let id = env.publish_as(key, &detections(3..5)).await;

    let found = run_json(&env, &["entry", &key.to_string(), "--rows"]).await;

    assert_eq!(found["entry_id"], id.to_string());
    let rows = found["rows"].as_array().unwrap();
    let ids: Vec<_> = rows.iter().map(|row| row["detection_id"].clone()).collect();
    assert_eq!(ids, [3, 4]);
}

#[tokio::test]
async fn an_entry_with_dead_letters_says_so() {
    let env = Env::start().await;
    env.execute("ALTER TABLE detections ADD CONSTRAINT no_fives CHECK (detection_id <> 5)")
        .await;
    let id = env.publish(&detections(0..10)).await.to_string();
    let bad = env.publish_entry(&[("p", b"\xc1")]).await.to_string();
    env.run_worker_drain().await;

    let found = run_json(&env, &["entry", &id]).await;

    assert_eq!(found["dead_letters"][0]["row"], 5);
    assert_eq!(found["stored"][0]["n_rows"], 9);
    let mut golden = Golden::of("entry-dead-letters", &env);
    golden.run(&["entry", &id]).await;
    golden.run(&["entry", &bad]).await;
}

// tap

#[tokio::test]
async fn tap_shows_what_comes_in_and_disturbs_nobody() {
    let env = Env::start().await;
    env.publish(&detections(0..5)).await;
    env.read_as("gate-host", 1).await;
    let before = env.delivery_counts().await;
    let args = [
        "tap",
        "--count",
        "4",
        "--for",
        "1m",
        "--track-id",
        "2",
        "--json",
    ];
    let tap = Passerby::on(&env).start(&args).await;

    // It begins with what comes in after it has begun: it is given more until it has enough.
    let mut n = 0;
    let tapped = {
        let finishing = tap.finished();
        tokio::pin!(finishing);
        loop {
            tokio::select! {
                output = &mut finishing => break output,
                () = tokio::time::sleep(Duration::from_millis(50)) => {
                    n += 1;
                    env.publish(&detections(100 * n..100 * n + 14)).await;
                }
            }
        }
    };

    assert!(
        tapped.stderr.contains("4 rows shown of "),
        "{}",
        tapped.stderr
    );
    let rows = tapped.json_lines();
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert_eq!(row["detection"]["track_id"], 2);
    }
    assert_eq!(env.delivery_counts().await, before);
    assert_eq!(env.consumers().await, ["gate-host"]);
}

#[tokio::test]
async fn tap_names_what_cannot_be_decoded_and_goes_on() {
    let env = Env::start().await;
    let target = Target {
        link: RedisLink::new(env.redis_url(), RedisTimeouts::default()),
        key_prefix: env.key_prefix().clone(),
        streams: vec![env.stream()],
        group: GROUP.to_owned(),
    };
    let mut tap = Tap::start(&target, TapFilter::default()).await.unwrap();
    let bad = env.publish_entry(&[("p", b"\xc1")]).await;
    env.publish(&detections(0..2)).await;

    let mut tapped = Vec::new();
    while tapped.len() < 3 {
        tapped.extend(tap.next().await.unwrap());
    }

    assert_eq!(tapped[0].entry_id, bad);
    assert!(tapped[0].problem.as_ref().unwrap().contains("MessagePack"));
    assert_eq!(tapped[1].detection, Some(detection(0)));
    assert_eq!(tapped[2].detection, Some(detection(1)));
    env.publish_entries(30, 1).await;
    tap.skip_to_now().await.unwrap();
    env.publish(&detections(7..8)).await;
    let next = tap.next().await.unwrap();
    assert_eq!(next[0].detection, Some(detection(7)));
    // Redis 6.2 does not count.
    assert!(
        [0, 30].contains(&tap.counts().skipped),
        "{:?}",
        tap.counts()
    );
}

#[tokio::test]
async fn tap_stops_at_its_time_and_at_a_signal() {
    let env = Env::start().await;
    let mut golden = Golden::of("tap", &env);
    golden.run(&["tap", "--for", "100ms"]).await;
    golden.run(&["tap", "--rate", "0"]).await;

    let tap = Passerby::on(&env).start(&["tap", "--for", "10m"]).await;
    eventually("it reads", async || {
        let clients: String = env.redis(redis::cmd("CLIENT").arg("LIST")).await;
        clients.contains("cmd=xread ")
    })
    .await;
    rustix::process::kill_process(tap.pid(), Signal::INT).unwrap();
    let ended = tap.finished().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("0 rows shown of 0 in 0 entries"),
        "{}",
        ended.stderr
    );
}
