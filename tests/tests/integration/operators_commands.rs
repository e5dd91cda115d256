//! What an operator does by hand is as safe as what workers do: each row is stored once, and nothing
//! happens that was not confirmed.

use std::time::Duration;

use passerby_consumer::WorkerConfig;
use passerby_shared::wire;
use passerby_tests::{
    Env, Fault, Passerby, eventually,
    fixtures::{detection, detections, key},
};
use serde_json::{Value, json};

async fn run(env: &Env, args: &[&str]) -> String {
    Passerby::on(env).run(args).await.ok()
}

async fn run_json(env: &Env, args: &[&str]) -> Value {
    let args = [args, &["--json"]].concat();
    Passerby::on(env).run(&args).await.json()
}

/// Entries of ten rows each, delivered to a consumer that does nothing with them.
async fn held_by(env: &Env, consumer: &str, first_entry: i64, n_entries: i64) {
    for n in first_entry..first_entry + n_entries {
        env.publish(&detections(10 * n..10 * n + 10)).await;
    }
    env.read_as(consumer, usize::try_from(n_entries).unwrap())
        .await;
}

async fn pending_ids(env: &Env) -> Vec<String> {
    env.delivery_counts().await.into_keys().collect()
}

// pending

#[tokio::test]
async fn pending_shows_who_holds_what() {
    let env = Env::start().await;
    held_by(&env, "gate-host", 0, 2).await;
    held_by(&env, "yard-host", 2, 1).await;

    let shown = run(&env, &["pending"]).await;

    let lines: Vec<&str> = shown.lines().collect();
    let stream = env.stream();
    assert_eq!(lines[0], "3 pending");
    let begins = |line: &str, with: String| assert!(line.starts_with(&with), "{line}");
    begins(
        lines[1],
        format!("  2 with gate-host on {stream}, the oldest"),
    );
    begins(
        lines[2],
        format!("  1 with yard-host on {stream}, the oldest"),
    );
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(
        words(lines[3]),
        "entry id stream consumer age idle delivery count"
    );
    let ids = pending_ids(&env).await;
    for (line, id) in lines[5..].iter().zip(&ids) {
        assert!(line.starts_with(&format!("{id}  {stream}  ")), "{line}");
    }
    assert_eq!(lines.len(), 5 + ids.len());
}

#[tokio::test]
async fn pending_as_json_with_filters() {
    let env = Env::start().await;
    held_by(&env, "gate-host", 0, 2).await;
    held_by(&env, "yard-host", 2, 1).await;

    let mut shown = run_json(&env, &["pending"]).await;

    let ids = pending_ids(&env).await;
    for entry in shown["entries"].as_array_mut().unwrap() {
        assert!(entry["idle_ms"].take().is_u64());
        assert!(entry["age_ms"].take().is_u64());
    }
    for held in shown["consumers"].as_array_mut().unwrap() {
        assert!(held["oldest_age_ms"].take().is_u64());
    }
    let stream = env.stream().to_string();
    let entry = |id: &str, consumer| {
        json!({
            "stream": stream, "entry_id": id, "consumer": consumer, "age_ms": null, "idle_ms": null,
            "delivery_count": 1, "decoded": null, "is_gone": false,
        })
    };
    let entries = [
        entry(&ids[0], "gate-host"),
        entry(&ids[1], "gate-host"),
        entry(&ids[2], "yard-host"),
    ];
    assert_eq!(
        shown,
        json!({
            "total": 3,
            "undelivered": 0,
            "undelivered_is_exact": true,
            "consumers": [
                {
                    "stream": stream, "consumer": "gate-host", "n_entries": 2,
                    "oldest_entry_id": ids[0], "oldest_age_ms": null,
                },
                {
                    "stream": stream, "consumer": "yard-host", "n_entries": 1,
                    "oldest_entry_id": ids[2], "oldest_age_ms": null,
                },
            ],
            "entries": entries,
            "groups": [],
            "is_cut": false,
        })
    );
    for (filter, expected) in [
        (["--consumer", "yard-host"], &ids[2..]),
        (["--limit", "1"], &ids[..1]),
        (["--min-idle", "1h"], &[]),
    ] {
        let shown = run_json(&env, &[&["pending"], &filter[..]].concat()).await;
        assert_eq!(shown["total"], 3);
        let entries = shown["entries"].as_array().unwrap();
        let found: Vec<_> = entries
            .iter()
            .map(|e| e["entry_id"].as_str().unwrap())
            .collect();
        assert_eq!(found, expected, "{filter:?}");
    }
}

#[tokio::test]
async fn pending_of_nothing() {
    let env = Env::start().await;
    let failed = Passerby::on(&env).run(&["pending"]).await;
    failed.assert_one_error_line(&[env.stream().as_str(), "no worker has ever read this stream"]);

    env.create_group().await;
    assert_eq!(run(&env, &["pending"]).await, "0 pending\n");
}

// claim

#[tokio::test]
async fn claim_stores_what_a_dead_worker_held() {
    let env = Env::start().await;
    held_by(&env, "gone", 0, 5).await;
    let claim = ["claim", "--min-idle", "0s"];

    let counted = run(&env, &[&claim[..], &["--dry-run"]].concat()).await;
    let stream = env.stream();
    assert_eq!(
        counted,
        format!("5 entries match\n  5 with gone on {stream}\n")
    );
    assert_eq!(env.pending().await["gone"], 5);

    let report = run_json(&env, &[&claim[..], &["--yes"]].concat()).await;
    assert_eq!(
        report,
        json!({
            "matched": 5, "claimed": 5, "stored": 5, "duplicates": 0, "detections": 50,
            "dead_letters": 0,
            "from": [{ "stream": stream.as_str(), "consumer": "gone", "n_entries": 5 }],
        })
    );
    env.assert_settled_once(50).await;
    assert_eq!(env.consumers().await, ["gone"]); // the command's own has left

    let nothing = run(&env, &[&claim[..], &["--yes"]].concat()).await;
    assert_eq!(nothing, "0 entries match\n");
}

#[tokio::test]
async fn claim_dead_letters_a_refused_row_and_stores_its_neighbours() {
    let env = Env::start().await;
    env.execute("ALTER TABLE detections ADD CONSTRAINT no_fives CHECK (detection_id <> 5)")
        .await;
    held_by(&env, "gone", 0, 5).await;

    let report = run_json(&env, &["claim", "--min-idle", "0s", "--yes"]).await;

    let became = [
        "claimed",
        "stored",
        "duplicates",
        "detections",
        "dead_letters",
    ];
    assert_eq!(became.map(|what| report[what].clone()), [5, 5, 0, 49, 1]);
    assert_eq!((env.n_rows().await, env.n_pending().await), (49, 0));
    assert_eq!(env.dead_letters().await.len(), 1);
    assert_eq!(env.consumers().await, ["gone"]);
}

#[tokio::test]
async fn claim_without_a_terminal_and_without_yes_changes_nothing() {
    let env = Env::start().await;
    held_by(&env, "gone", 0, 2).await;

    // A "y" that comes through a pipe was meant for something else.
    for passerby in [Passerby::on(&env), Passerby::on(&env).stdin(b"y\n")] {
        let refused = passerby.run(&["claim", "--min-idle", "0s"]).await;
        refused.assert_usage_error(&["not confirmed", "--yes"]);
    }

    assert_eq!(env.pending().await["gone"], 2);
    assert_eq!(env.n_rows().await, 0);
}

#[tokio::test]
async fn claim_takes_what_is_named_and_nothing_else() {
    let env = Env::start().await;
    held_by(&env, "gate-host", 0, 3).await;
    held_by(&env, "yard-host", 3, 2).await;
    let ids = pending_ids(&env).await;
    let matched = async |args: &[&str]| {
        let args = [&["claim", "--dry-run"], args].concat();
        run_json(&env, &args).await["matched"].clone()
    };
    assert_eq!(matched(&[]).await, 0); // --min-idle is 30 s
    let now = ["--min-idle", "0s"];
    let with = |args: &[&'static str]| [&now, args].concat();
    assert_eq!(matched(&with(&[])).await, 5);
    assert_eq!(matched(&with(&["--consumer", "yard-host"])).await, 2);
    assert_eq!(matched(&with(&["--limit", "4"])).await, 4);
    assert_eq!(matched(&["--min-idle", "0s", &ids[4], "9-9"]).await, 1);
    // Those that are named are found behind any number of others.
    let named = ["--min-idle", "0s", "--limit", "1", &ids[4]];
    assert_eq!(matched(&named).await, 1);
    let others = ["--min-idle", "0s", "--consumer", "gate-host", &ids[4]];
    assert_eq!(matched(&others).await, 0);

    run(
        &env,
        &["claim", "--yes", "--min-idle", "0s", &ids[0], &ids[4]],
    )
    .await;

    assert_eq!(pending_ids(&env).await, ids[1..4]);
    assert_eq!(env.n_rows().await, 20);
}

#[tokio::test]
async fn claimed_entries_are_stored_once_when_their_worker_resumes_later() {
    let env = Env::start().await;
    let (proxy, database_url) = env.postgres_proxy().await;
    let slow = env
        .start_worker(WorkerConfig {
            database_url,
            ..env.worker_config()
        })
        .await;
    proxy.set(Fault::HoldBefore(b"BEGIN ISOLATION LEVEL"));
    let n = env.publish_entries(5, 10).await;
    eventually("the worker has them", async || env.n_pending().await == 5).await;

    let report = run_json(&env, &["claim", "--min-idle", "0s", "--yes"]).await;
    assert_eq!(report["detections"], 50);
    assert_eq!(env.n_rows().await, 50);
    proxy.heal();

    eventually("the worker finds them in the ledger", async || {
        slow.stats.report().duplicates == 5
    })
    .await;
    assert_eq!(slow.stop().await.entries, 0);
    env.assert_settled_once(n).await;
}

#[tokio::test]
async fn claimed_entries_that_are_just_being_committed_are_stored_once() {
    let env = Env::start().await;
    let (proxy, database_url) = env.postgres_proxy().await;
    let slow = env
        .start_worker(WorkerConfig {
            database_url,
            linger: Duration::from_millis(200),
            ..env.worker_config()
        })
        .await;
    proxy.set(Fault::HoldBefore(Fault::COMMIT));
    let n = env.publish_entries(5, 10).await;
    proxy.met().await;
    eventually("the worker has them", async || env.n_pending().await == 5).await;

    let args = ["claim", "--min-idle", "0s", "--yes", "--json"];
    let claim = Passerby::on(&env).start(&args).await;
    eventually("the claim waits for the worker", async || {
        env.value::<i64>(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .await
            > 0
    })
    .await;
    proxy.heal();

    let report = claim.finished().await.json();
    assert_eq!(report["claimed"], 5, "{report}");
    let worker = slow.stop().await;
    let stored = report["stored"].as_u64().unwrap() + worker.entries;
    assert_eq!(stored, 5, "{report} {worker:?}");
    assert!(report["duplicates"].as_u64() > Some(0), "{report}");
    env.assert_settled_once(n).await;
}

#[tokio::test]
async fn claim_to_a_worker_leaves_the_storing_to_it() {
    let env = Env::start().await;
    held_by(&env, "gone", 0, 5).await;

    // Without a database: there is nothing to store.
    let passerby = Passerby::on(&env).without("PASSERBY_DATABASE_URL");
    let args = ["claim", "--min-idle", "0s", "--yes", "--to", "successor"];
    let said = passerby.run(&args).await.ok();

    assert_eq!(said, "5 of 5 entries handed to successor\n");
    assert_eq!(env.pending().await["successor"], 5);
    assert_eq!(env.n_rows().await, 0);
    let successor = WorkerConfig {
        consumer: "successor".parse().unwrap(),
        ..env.worker_config()
    };
    env.drain_with(successor).await;
    env.assert_settled_once(50).await;
}

// dead-letters

/// A row that an operator's own constraint refuses, among good ones.
async fn with_a_refused_row() -> Env {
    let env = Env::start().await;
    env.execute("ALTER TABLE detections ADD CONSTRAINT no_fives CHECK (detection_id <> 5)")
        .await;
    env.publish(&detections(0..10)).await;
    env.run_worker_drain().await;
    assert_eq!(env.n_rows().await, 9);
    env
}

#[tokio::test]
async fn dead_letters_are_listed_with_their_reason() {
    let env = with_a_refused_row().await;
    env.publish_entry(&[("p", b"\xc1")]).await;
    env.run_worker_drain().await;

    let listed = Passerby::on(&env)
        .run(&["dead-letters", "list", "--json"])
        .await
        .json_lines();

    assert_eq!(listed.len(), 2);
    let refused = &listed[0];
    assert_eq!((&refused["id"], &refused["row"]), (&json!(1), &json!(5)));
    assert_eq!(refused["reason"], "refused");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("no_fives"), "{message}");
    assert!(refused["requeued_at"].is_null());
    assert_eq!(listed[1]["reason"], "undecodable");
    assert!(listed[1]["row"].is_null());

    for (filter, n) in [
        (["--reason", "refused"], 1),
        (["--after", "1"], 1),
        (["--limit", "1"], 1),
        (["--reason", "lost"], 0),
    ] {
        let args = [&["dead-letters", "list", "--json"], &filter[..]].concat();
        let found = Passerby::on(&env).run(&args).await.json_lines();
        assert_eq!(found.len(), n, "{filter:?}");
    }
    let table = run(&env, &["dead-letters", "list"]).await;
    assert_eq!(table.lines().count(), 2 + 2, "{table}");
    assert!(table.contains("refused"), "{table}");
}

#[tokio::test]
async fn a_refused_row_put_back_after_the_fix_is_stored_once() {
    let env = with_a_refused_row().await;
    env.execute("ALTER TABLE detections DROP CONSTRAINT no_fives")
        .await;
    let requeue = ["dead-letters", "requeue"];
    let n_entries = env.n_entries().await;

    let would = run(&env, &[&requeue[..], &["--dry-run"]].concat()).await;
    assert!(would.starts_with("1 dead letter matches\n"), "{would}");
    assert!(would.contains("refused"), "{would}");
    let refused = Passerby::on(&env).run(&requeue).await;
    refused.assert_usage_error(&["not confirmed", "--yes"]);
    assert_eq!(env.n_entries().await, n_entries);

    let put_back = [&requeue[..], &["--yes"]].concat();
    assert_eq!(
        run_json(&env, &put_back).await,
        json!({
            "matched": 1, "requeued": 1, "empty": 0, "doubtful": 0, "elsewhere": 0, "stopped": null,
            "by_reason": null,
        })
    );
    env.run_worker_drain().await;
    env.assert_settled_once(10).await;

    // Those that were put back are left alone, unless they are named.
    assert_eq!(run(&env, &put_back).await, "0 dead letters match\n");
    let named = [&put_back[..], &["1"]].concat();
    let said = run(&env, &named).await;
    assert_eq!(said, "1 of 1 dead letter put back\n");
    run(&env, &named).await;
    assert_eq!(env.run_worker_drain().await.entries, 0);
    env.assert_settled_once(10).await;
    assert_eq!(env.dead_letters().await.len(), 1);
}

#[tokio::test]
async fn a_row_put_back_without_a_fix_becomes_a_new_dead_letter() {
    let env = with_a_refused_row().await;

    run(&env, &["dead-letters", "requeue", "--yes"]).await;
    env.run_worker_drain().await;

    let letters = env.dead_letters().await;
    assert_eq!(letters.len(), 2);
    assert!(letters[0].requeued_at.is_some());
    assert!(letters[1].requeued_at.is_none());
    assert_eq!(env.n_rows().await, 9);
}

#[tokio::test]
async fn a_dead_letter_is_shown_whole() {
    let env = with_a_refused_row().await;

    let shown = run_json(&env, &["dead-letters", "show", "1"]).await;

    assert_eq!(shown["stream"], env.stream().as_str());
    assert_eq!(shown["kind"], "d");
    assert_eq!(shown["row"], 5);
    assert_eq!(shown["sqlstate"], "23514");
    assert_eq!(shown["fields"][0], json!(["v", "1"]));
    let row = &shown["rows"][0];
    assert_eq!(row["row"], 5);
    let expected = json!(detection(5));
    for field in row["fields"].as_array().unwrap() {
        let name = field["name"].as_str().unwrap();
        match (field["value"].as_f64(), expected[name].as_f64()) {
            (Some(found), Some(expected)) => assert!((found - expected).abs() < 1e-6, "{field}"),
            _ if name == "timestamp" => assert!(field["value"].is_i64(), "{field}"),
            _ => assert_eq!(field["value"], expected[name], "{name}"),
        }
    }
    assert_eq!(row["fields"].as_array().unwrap().len(), 15);

    let text = run(&env, &["dead-letters", "show", "1"]).await;
    assert!(text.contains("\n  reason         refused\n"), "{text}");
    assert!(text.contains("camera_id"), "{text}");

    let missing = Passerby::on(&env).run(&["dead-letters", "show", "9"]).await;
    missing.assert_one_error_line(&["no dead letter 9", "dead-letters list"]);
}

#[tokio::test]
async fn undecodable_bytes_are_shown_as_digits() {
    let env = Env::start().await;
    let mut cut = Vec::new();
    wire::encode_detections(&detections(0..2), &mut cut);
    cut.truncate(cut.len() / 2);
    env.publish_entry(&[("v", b"1"), ("i", key(1).as_bytes()), ("p", &cut)])
        .await;
    env.publish_entry(&[("p", b"\xc1\x00\xff"), ("caf\u{e9}", b"\x1b[2J")])
        .await;
    env.run_worker_drain().await;

    let first = run_json(&env, &["dead-letters", "show", "1"]).await;
    assert_eq!(first["reason"], "undecodable");
    let hex: String = cut.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(first["fields"][2], json!(["p", hex]));
    // Everything up to the break is shown, and the break.
    let at = first["broken"]["offset"].as_u64().unwrap();
    assert!(at <= cut.len() as u64 && at > 0, "{first}");
    assert_eq!(first["rows"][0]["fields"][0]["name"], "session_id");
    assert_eq!(first["idempotency_key"], key(1).to_string());

    let second = run_json(&env, &["dead-letters", "show", "2"]).await;
    assert_eq!(second["fields"][0], json!(["p", "c100ff"]));
    assert_eq!(second["fields"][1], json!(["caf\u{e9}", "1b5b324a"]));
    assert_eq!(second["rows"], json!([]));
    assert_eq!(
        (&second["broken"]["offset"], &second["broken"]["hex"]),
        (&json!(0), &json!("c100ff"))
    );
    let text = run(&env, &["dead-letters", "show", "2"]).await;
    assert!(!text.contains('\u{1b}'), "{text:?}");
}
