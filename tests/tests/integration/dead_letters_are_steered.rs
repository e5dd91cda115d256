//! Dead letters are found, put back and set aside, a few or a flood of them: nothing is destroyed or stored
//! twice by it, whoever does what at the same time.

use std::ops::Range;

use passerby_consumer::store::{DeadLetterFilter, Discard, LetterState};
use passerby_shared::{Detection, wire};
use passerby_tests::{
    Env, Fault, Golden, Passerby, eventually,
    fixtures::{self, detection, detections},
};
use serde_json::{Value, json};

async fn run(env: &Env, args: &[&str]) -> String {
    Passerby::on(env).run(args).await.ok()
}

async fn ids(env: &Env, args: &[&str]) -> Vec<i64> {
    let args = [&["dead-letters", "list", "--json"], args].concat();
    let letters = Passerby::on(env).run(&args).await.json_lines();
    letters.iter().map(|l| l["id"].as_i64().unwrap()).collect()
}

/// The detections 0…n−1, each a letter of its own, of which nothing is stored: what a constraint that was
/// dropped meanwhile has left.
async fn with_a_flood(n: i64) -> Env {
    let env = Env::start().await;
    env.create_group().await;
    insert_letters(&env, 0..n).await;
    env
}

async fn insert_letters(env: &Env, ids: Range<i64>) {
    let stream = env.stream();
    let letters: Vec<String> = ids
        .map(|id| {
            let mut payload = Vec::new();
            wire::encode_detections(&[detection(id)], &mut payload);
            let mut fields = vec![0x94];
            for part in [&b"k"[..], b"d", b"p", &payload] {
                fields.extend([0xc4, u8::try_from(part.len()).unwrap()]);
                fields.extend_from_slice(part);
            }
            let hex: String = fields.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("(now(), '{stream}', '1-{id}', gen_random_uuid(), 0, 'd', 'refused', 'x', '23514', '\\x{hex}')")
        })
        .collect();
    env.execute(&format!(
        "INSERT INTO dead_letters (dead_lettered_at, stream, entry_id, idempotency_key, row_idx, kind, reason,
                                   message, sqlstate, fields)
         VALUES {}",
        letters.join(",")
    ))
    .await;
}

/// 1: refused, of gate-1; 2: invalid, of yard-2; 3: no MessagePack; 4: of no stream that is named.
async fn with_various() -> Env {
    let env = Env::start().await;
    env.execute("ALTER TABLE detections ADD CONSTRAINT no_fives CHECK (detection_id <> 5)")
        .await;
    env.publish(&detections(0..10)).await;
    let invalid = Detection {
        camera_id: "yard-2".into(),
        session_id: "session-2".into(),
        confidence: Some(1.5),
        ..detection(10)
    };
    env.publish(&[invalid, detection(11)]).await;
    env.publish_entry(&[("p", b"\xc1")]).await;
    let mut config = env.worker_config();
    config.batch_rows = 1.try_into().unwrap(); // one letter after the other
    config.committers = 1.try_into().unwrap();
    env.drain_with(config).await;
    env.execute(
        "INSERT INTO dead_letters (dead_lettered_at, stream, entry_id, idempotency_key, reason, message, fields)
         SELECT dead_lettered_at - interval '1 day', 'elsewhere', entry_id, idempotency_key, reason, message,
                fields
         FROM dead_letters WHERE id = 3",
    )
    .await;
    let reasons: Vec<String> = env
        .dead_letters()
        .await
        .into_iter()
        .map(|l| l.reason)
        .collect();
    assert_eq!(
        reasons,
        ["refused", "invalid-row", "undecodable", "undecodable"]
    );
    env
}

#[tokio::test]
async fn letters_are_found_by_every_filter_whenever_they_were_written() {
    let env = with_various().await;
    for round in ["with columns", "written before there were columns"] {
        let check = async |args: &[&str], expected: &[i64]| {
            assert_eq!(ids(&env, args).await, expected, "{args:?}, {round}");
            let summary = ["dead-letters", "list", "--summary", "--json"];
            let counts = Passerby::on(&env)
                .run(&[&summary, args].concat())
                .await
                .json_lines();
            let n: u64 = counts.iter().map(|c| c["waiting"].as_u64().unwrap()).sum();
            assert_eq!(n, expected.len() as u64, "{args:?}, {round}: {counts:?}");
        };
        check(&[], &[1, 2, 3, 4]).await;
        check(&["--camera-id", "gate-1"], &[1]).await;
        check(&["--camera-id", "yard-2"], &[2]).await;
        check(&["--session-id", "session-2"], &[2]).await;
        check(&["--session-id", "session-2", "--camera-id", "gate-1"], &[]).await;
        check(&["--reason", "undecodable"], &[3, 4]).await;
        check(&["--sqlstate", "23514"], &[1]).await;
        check(&["--sqlstate", "23"], &[1]).await;
        check(&["--sqlstate", "22"], &[]).await;
        check(&["--stream", "elsewhere"], &[4]).await;
        check(&["--last", "1h"], &[1, 2, 3]).await;
        check(&["--to", &fixtures::midnight_in_days(0).to_rfc3339()], &[4]).await;
        check(&["2-3"], &[2, 3]).await;
        check(&["3-", "1"], &[1, 3, 4]).await;
        check(&["--state", "requeued"], &[]).await;
        env.execute("UPDATE dead_letters SET camera_ids = NULL, session_ids = NULL")
            .await;
    }
    let unknown = run(&env, &["dead-letters", "list", "3"]).await;
    assert!(unknown.contains("  unknown  "), "{unknown}");
    let summary = run(&env, &["dead-letters", "list", "--summary"]).await;
    assert!(summary.contains("confidence"), "{summary}");
    Passerby::on(&env)
        .run(&["dead-letters", "list", "7-5"])
        .await
        .assert_usage_error(&["7-5", "100-250"]);
}

#[tokio::test]
async fn discarded_letters_are_kept_and_can_come_back() {
    let env = with_various().await;
    let discard = [
        "dead-letters",
        "discard",
        "--because",
        "a test row",
        "--by",
        "ann",
    ];
    let with = |args: &[&'static str]| [&discard[..], args].concat();

    let all = Passerby::on(&env).run(&with(&["--yes"])).await;
    all.assert_usage_error(&["which letters", "--all"]);
    let unasked = Passerby::on(&env)
        .run(&with(&["--camera-id", "gate-1"]))
        .await;
    unasked.assert_usage_error(&["1 letter refused (23514)", "not confirmed"]);
    let why = Passerby::on(&env)
        .run(&["dead-letters", "discard", "1", "--yes"])
        .await;
    why.assert_usage_error(&["--because"]);
    assert_eq!(ids(&env, &["--state", "waiting"]).await, [1, 2, 3, 4]);

    let said = run(&env, &with(&["--camera-id", "gate-1", "--yes"])).await;
    assert_eq!(said, "1 dead letter discarded\n");
    run(&env, &with(&["3-", "--yes"])).await;

    assert_eq!(ids(&env, &["--state", "discarded"]).await, [1, 3, 4]);
    let letters = env.dead_letters().await;
    assert_eq!(letters.len(), 4);
    assert_eq!(letters[0].discarded_by.as_deref(), Some("ann"));
    assert_eq!(letters[0].discard_reason.as_deref(), Some("a test row"));
    // Nobody puts back by accident what was discarded.
    let would: Value = Passerby::on(&env)
        .run(&["dead-letters", "requeue", "--dry-run", "--json"])
        .await
        .json();
    assert_eq!(would["matched"], 1);
    assert_eq!(would["by_reason"][0]["field"], "confidence");

    let restore = ["dead-letters", "discard", "--restore", "3", "--yes"];
    assert_eq!(run(&env, &restore).await, "1 dead letter restored\n");
    assert_eq!(ids(&env, &["--state", "waiting"]).await, [2, 3]);
    env.execute("ALTER TABLE detections DROP CONSTRAINT no_fives")
        .await;
    run(&env, &["dead-letters", "requeue", "1", "--yes"]).await;
    env.run_worker_drain().await;
    assert_eq!(
        env.value::<i64>("SELECT count(*) FROM detections WHERE detection_id = 5")
            .await,
        1
    );
    assert_eq!(ids(&env, &["--state", "requeued"]).await, [1]);
}

#[tokio::test]
async fn only_what_was_discarded_long_ago_is_destroyed() {
    let env = with_various().await;
    let discard = ["dead-letters", "discard", "1-3", "--because", "x", "--yes"];
    run(&env, &discard).await;
    env.execute(
        "UPDATE dead_letters SET discarded_at = discarded_at - interval '40 days' WHERE id = 2",
    )
    .await;
    let purge = ["dead-letters", "discard", "--purge"];
    let with = |args: &[&'static str]| [&purge[..], args].concat();

    let unbounded = Passerby::on(&env).run(&with(&["--yes"])).await;
    unbounded.assert_usage_error(&["--older-than"]);
    let would = Passerby::on(&env)
        .run(&with(&["--older-than", "30d", "--dry-run", "--json"]))
        .await
        .json();
    assert_eq!(would["matched"], 1);
    let unasked = Passerby::on(&env)
        .run(&with(&["--older-than", "30d"]))
        .await;
    unasked.assert_usage_error(&["1 letter invalid-row", "not confirmed"]);
    assert_eq!(env.dead_letters().await.len(), 4);

    let said = run(&env, &with(&["--older-than", "30d", "--yes"])).await;
    assert_eq!(said, "1 dead letter purged\n");
    assert_eq!(ids(&env, &[]).await, [1, 3, 4]);
}

#[tokio::test]
async fn a_letter_that_is_being_put_back_is_not_discarded() {
    let env = with_a_flood(3).await;
    let (mut one, mut other) = (env.store().await, env.store().await);
    let all = DeadLetterFilter {
        limit: 1_000,
        ..DeadLetterFilter::default()
    };
    let taken = one.take_dead_letters(&all).await.unwrap().unwrap();
    assert_eq!(taken.letters().len(), 3);
    let discard = Discard {
        by: "ann".into(),
        reason: "x".into(),
    };
    let discarding = tokio::spawn({
        let all = all.clone();
        async move { other.discard_dead_letters(&all, &discard).await }
    });
    eventually("the other waits", async || {
        env.value::<i64>(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .await
            == 1
    })
    .await;
    // Nobody else has them in hand meanwhile.
    assert!(
        env.store()
            .await
            .take_dead_letters(&all)
            .await
            .unwrap()
            .is_none()
    );

    let put_back: Vec<_> = (1..=2).map(|id| (id, fixtures::key(7))).collect();
    one.mark_requeued(taken, &put_back).await.unwrap();

    assert_eq!(discarding.await.unwrap().unwrap(), 1);
    let states: Vec<_> = env.dead_letters().await.iter().map(|l| l.state()).collect();
    assert_eq!(
        states,
        [
            LetterState::Requeued,
            LetterState::Requeued,
            LetterState::Discarded
        ]
    );
}

#[tokio::test]
async fn a_requeue_that_is_killed_and_repeated_stores_each_row_once() {
    let env = with_a_flood(1_200).await;
    let (proxy, _) = env.postgres_proxy().await;
    let url = format!(
        "postgresql://postgres@127.0.0.1:{}/{}?sslmode=disable",
        proxy.port(),
        env.database()
    );
    // The first page is in the stream, and not marked.
    proxy.set(Fault::HoldBefore(b"UPDATE dead_letters"));
    let requeue = ["dead-letters", "requeue", "--yes", "--json"];
    let killed = Passerby::on(&env)
        .with("PASSERBY_DATABASE_URL", &url)
        .start(&requeue)
        .await;
    proxy.met().await;
    killed.kill();
    drop(proxy);
    assert_eq!(ids(&env, &["--state", "requeued"]).await, [] as [i64; 0]);
    env.run_worker_drain().await;
    assert_eq!(env.n_rows().await, 500);

    let repeated = Passerby::on(&env).run(&requeue).await.json();
    assert_eq!(repeated["requeued"], 1_200);
    let worker = env.run_worker_drain().await;

    assert_eq!(worker.duplicates, 500);
    env.assert_settled_once(1_200).await;
    assert_eq!(ids(&env, &["--state", "waiting"]).await, [] as [i64; 0]);
}

#[tokio::test]
async fn a_flood_does_not_fill_redis_where_nobody_reads() {
    let env = with_a_flood(30).await;
    let n_before = env.n_entries().await;
    let requeue = [
        "dead-letters",
        "requeue",
        "--yes",
        "--json",
        "--max-backlog",
        "20",
        "--patience",
        "100ms",
    ];

    let stopped = Passerby::on(&env).run(&requeue).await;

    assert_eq!(stopped.code, Some(1));
    assert!(
        stopped.stderr.contains("20 entries are not acknowledged"),
        "{}",
        stopped.stderr
    );
    let report: Value = serde_json::from_str(&stopped.stdout).unwrap();
    assert_eq!(report["requeued"], 20);
    assert_eq!(
        report["stopped"],
        json!({ "why": "backlog", "entries": 20 })
    );
    assert_eq!(env.n_entries().await, n_before + 20);

    env.run_worker_drain().await;
    Passerby::on(&env).run(&requeue).await.ok();
    env.run_worker_drain().await;
    env.assert_settled_once(30).await;
}

#[tokio::test]
async fn a_flood_goes_as_fast_as_workers_store_it() {
    let env = with_a_flood(3_000).await;
    let worker = env.start_worker(env.worker_config()).await;
    let requeue = ["dead-letters", "requeue", "--yes", "--max-backlog", "100"];

    // Two at once, who do not put the same letters back.
    let (one, other) = (Passerby::on(&env), Passerby::on(&env));
    let (one, other) = tokio::join!(one.run(&requeue), other.run(&requeue));

    one.ok();
    other.ok();
    eventually("all is stored", async || env.n_rows().await == 3_000).await;
    assert_eq!(worker.stop().await.duplicates, 0);
    env.assert_settled_once(3_000).await;
}

#[tokio::test]
async fn requeue_stops_before_redis_is_full() {
    let env = Env::dedicated().await;
    env.create_group().await;
    insert_letters(&env, 0..10).await;
    let used: String = env.redis(redis::cmd("INFO").arg("memory")).await;
    let used = used
        .lines()
        .find_map(|l| l.strip_prefix("used_memory:"))
        .unwrap();
    let limit = used.parse::<u64>().unwrap() * 5 / 4; // 80 % are used
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("maxmemory").arg(limit);
    env.redis::<()>(&set).await;

    let stopped = Passerby::on(&env)
        .run(&["dead-letters", "requeue", "--yes"])
        .await;

    assert_eq!(stopped.code, Some(1), "{}", stopped.stdout);
    assert!(
        stopped.stderr.contains("% of its maxmemory"),
        "{}",
        stopped.stderr
    );
    assert_eq!(ids(&env, &["--state", "waiting"]).await.len(), 10);
}

#[tokio::test]
async fn letters_of_streams_that_nobody_named_stay_where_they_are() {
    let env = with_various().await;
    let requeue = ["dead-letters", "requeue", "4-", "--yes", "--json"];

    let report = Passerby::on(&env).run(&requeue).await.json();
    assert_eq!(
        (&report["elsewhere"], &report["requeued"]),
        (&json!(1), &json!(0))
    );

    let named = [&requeue[..], &["--stream", "elsewhere"]].concat();
    let report = Passerby::on(&env).run(&named).await.json();
    assert_eq!(report["requeued"], 1);
    assert_eq!(
        env.redis::<i64>(redis::cmd("XLEN").arg("elsewhere")).await,
        1
    );
    env.redis::<()>(redis::cmd("DEL").arg("elsewhere")).await;
}

#[tokio::test]
async fn a_bad_field_is_pointed_at_where_it_stands() {
    let env = with_various().await;
    let shown = Passerby::on(&env)
        .run(&["dead-letters", "show", "2", "--json"])
        .await
        .json();

    let row = &shown["rows"][0];
    assert_eq!(row["problem"]["field"], "confidence");
    let fields = row["fields"].as_array().unwrap();
    let bad = fields.iter().find(|f| f["name"] == "confidence").unwrap();
    assert_eq!(
        (&bad["value"], &bad["type"]),
        (&json!(1.5), &json!("float"))
    );
    // A 32-bit float, as it stands in the bytes that are shown.
    let at = 2 * usize::try_from(bad["offset"].as_u64().unwrap()).unwrap();
    let payload = shown["fields"]
        .as_array()
        .unwrap()
        .iter()
        .find(|f| f[0] == "p")
        .unwrap();
    assert_eq!(&payload[1].as_str().unwrap()[at..at + 10], "ca3fc00000");
}

#[tokio::test]
async fn an_export_holds_every_letter_once_and_goes_on_where_it_ended() {
    let env = with_a_flood(1_200).await;
    let file = tempfile::tempdir().unwrap();
    let path = file.path().join("letters.ndjson");
    let export = ["dead-letters", "export", "--output", path.to_str().unwrap()];
    let first = Passerby::on(&env)
        .run(&[&export[..], &["--limit", "700"]].concat())
        .await;
    assert!(first.stderr.contains("--after 700"), "{}", first.stderr);
    first.ok();
    let again = Passerby::on(&env).run(&export).await;
    again.assert_one_error_line(&["letters.ndjson", "--append"]);

    Passerby::on(&env)
        .run(&[&export[..], &["--append", "--after", "700"]].concat())
        .await
        .ok();

    let written = std::fs::read_to_string(&path).unwrap();
    let letters: Vec<Value> = written
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let ids: Vec<i64> = letters.iter().map(|l| l["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, Vec::from_iter(1..=1_200));
    assert_eq!(letters[5]["rows"][0]["fields"][3]["name"], "timestamp");
    assert_eq!(letters[5]["raw_fields"][0], json!(["aw==", "ZA=="]));
    let raw = Passerby::on(&env)
        .run(&["dead-letters", "export", "7", "--format", "msgpack"])
        .await
        .ok();
    assert!(raw.starts_with('\u{fffd}') && raw.len() > 30, "{raw:?}");
}

#[tokio::test]
async fn output_of_dead_letters() {
    let env = with_various().await;
    // Broken in the second of two rows.
    let mut cut = Vec::new();
    wire::encode_detections(&detections(20..22), &mut cut);
    let at = cut.len() - 20;
    cut[at] = 0xc1;
    env.publish_entry(&[("v", b"1"), ("p", &cut)]).await;
    env.run_worker_drain().await;
    let mut golden = Golden::of("dead-letters", &env);
    golden.run(&["dead-letters", "list"]).await;
    golden
        .run(&["dead-letters", "list", "--json", "--limit", "2"])
        .await;
    golden
        .run(&["dead-letters", "list", "--csv", "--limit", "2"])
        .await;
    golden.run(&["dead-letters", "list", "--summary"]).await;
    golden
        .run(&["dead-letters", "list", "--summary", "--json", "1"])
        .await;
    golden.run(&["dead-letters", "show", "1"]).await;
    golden.run(&["dead-letters", "show", "2"]).await;
    golden.run(&["dead-letters", "show", "2", "--json"]).await;
    golden.run(&["dead-letters", "show", "5"]).await;
    golden.run(&["dead-letters", "show", "9"]).await;
    golden.run(&["dead-letters", "requeue", "--dry-run"]).await;
    golden
        .run(&["dead-letters", "requeue", "--dry-run", "--json", "1"])
        .await;
    golden.run(&["dead-letters", "requeue"]).await;
    golden.run(&["dead-letters", "requeue", "1", "--yes"]).await;
    golden
        .run(&["dead-letters", "requeue", "4", "--yes", "--json"])
        .await;
    golden.run(&["dead-letters", "discard", "--yes"]).await;
    golden
        .run(&[
            "dead-letters",
            "discard",
            "--reason",
            "undecodable",
            "--because",
            "old firmware",
        ])
        .await;
    let discard = [
        "dead-letters",
        "discard",
        "3",
        "--because",
        "old firmware",
        "--by",
        "ann",
    ];
    golden.run(&[&discard[..], &["--dry-run"]].concat()).await;
    golden.run(&[&discard[..], &["--yes"]].concat()).await;
    golden
        .run(&[&discard[..], &["--yes", "--json"]].concat())
        .await;
    golden
        .run(&["dead-letters", "discard", "--restore", "3", "--yes"])
        .await;
    golden.run(&["dead-letters", "export", "3"]).await;
}
