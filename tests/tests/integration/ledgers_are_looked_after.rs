//! The ledger says what it remembers and what keeps it from forgetting, and forgets by hand what workers would
//! forget, and nothing else.

use chrono::{DateTime, TimeDelta, Utc};
use passerby_shared::{IdempotencyKey, wire};
use passerby_tests::{Env, GROUP, Golden, Passerby, fixtures::detections};
use serde_json::{Value, json};

fn days_ago(days: i64) -> DateTime<Utc> {
    Utc::now() - TimeDelta::days(days)
}

/// A key that a producer made at this time.
fn key_made(at: DateTime<Utc>) -> IdempotencyKey {
    let mut bytes = *IdempotencyKey::generate().as_bytes();
    let ms = at.timestamp_millis().to_be_bytes();
    bytes[..6].copy_from_slice(&ms[2..]);
    IdempotencyKey::from_field(&bytes).unwrap()
}

/// An entry that was added so long ago, with a key that is as old.
async fn published_days_ago(env: &Env, days: i64, first: i64) {
    let at = days_ago(days);
    let mut payload = Vec::new();
    wire::encode_detections(&detections(first..first + 10), &mut payload);
    let mut add = redis::cmd("XADD");
    add.arg(env.stream())
        .arg(format!("{}-0", at.timestamp_millis()))
        .arg("i")
        .arg(key_made(at).as_bytes())
        .arg("p")
        .arg(payload);
    env.redis::<String>(&add).await;
}

/// Entries of 20, 10 and 3 days ago, and of now; all stored.
async fn with_old_keys() -> Env {
    let env = Env::start().await;
    for (n, days) in [20, 10, 3].into_iter().enumerate() {
        published_days_ago(&env, days, 10 * i64::try_from(n).unwrap()).await;
    }
    env.publish(&detections(30..40)).await;
    env.run_worker_drain().await;
    env.assert_settled_once(40).await;
    env
}

async fn ledger(env: &Env, args: &[&str]) -> Value {
    let args = [&["ledger"], args, &["--json"]].concat();
    Passerby::on(env).run(&args).await.json()
}

#[tokio::test]
async fn what_cannot_come_back_is_forgotten_and_nothing_else() {
    let env = with_old_keys().await;
    let stats = ledger(&env, &["stats"]).await;
    assert_eq!(
        (&stats["keys"], &stats["horizon"]),
        (&json!(4), &Value::Null)
    );
    assert_eq!(stats["pruning"]["held_by"], json!([]));
    let would = ledger(&env, &["prune", "--dry-run"]).await;
    assert_eq!(would["keys"], 2);
    assert_eq!(env.n_ledger().await, 4);
    let unasked = Passerby::on(&env).run(&["ledger", "prune"]).await;
    unasked.assert_usage_error(&["forget 2 keys made before"]);

    let pruned = ledger(&env, &["prune", "--yes"]).await;

    assert_eq!(pruned["keys"], 2);
    assert_eq!(env.n_ledger().await, 2);
    let stats = ledger(&env, &["stats", "--count"]).await;
    assert_eq!(
        (&stats["keys"], &stats["is_exact"]),
        (&json!(2), &json!(true))
    );
    assert_eq!(stats["horizon"], pruned["below"]);
    let again = ledger(&env, &["prune", "--yes", "--ledger-retention", "8d"]).await;
    assert_eq!(again["keys"], 0);
    let short = Passerby::on(&env)
        .run(&["ledger", "prune", "--ledger-retention", "1h"])
        .await;
    short.assert_usage_error(&["less than two hours"]);
}

#[tokio::test]
async fn what_may_come_back_is_named_and_remembered() {
    let env = with_old_keys().await;
    // A spool that was cut off two weeks ago.
    let mut spool = redis::cmd("HSET");
    spool
        .arg(env.key_prefix().spools())
        .arg("gate-1-spool")
        .arg(days_ago(14).timestamp_millis());
    env.redis::<()>(&spool).await;
    let outlook = ledger(&env, &["stats"]).await["pruning"].clone();
    assert_eq!(outlook["held_by"][0]["what"], "spool");
    assert_eq!(outlook["held_by"][0]["spool"], "gate-1-spool");
    assert_eq!(ledger(&env, &["prune", "--dry-run"]).await["keys"], 1);

    // An entry that has left a spool just now, and is with a worker.
    env.publish_as(key_made(days_ago(25)), &detections(40..50))
        .await;
    env.read_as("slow", 1).await;
    let outlook = ledger(&env, &["prune", "--dry-run"]).await;
    assert_eq!(outlook["keys"], 0);
    let held_by = outlook["held_by"].as_array().unwrap();
    let pending = held_by.iter().find(|h| h["what"] == "pending").unwrap();
    assert_eq!(pending["consumer"], "slow");
    // And one that nobody has read yet.
    env.publish_as(key_made(days_ago(26)), &detections(50..60))
        .await;
    let outlook = ledger(&env, &["prune", "--dry-run"]).await;
    assert!(outlook.to_string().contains("undelivered"), "{outlook}");

    assert_eq!(ledger(&env, &["prune", "--yes"]).await["keys"], 0);
    assert_eq!(env.n_ledger().await, 4);
    env.run_claiming_worker_drain().await;
    env.assert_settled_once(60).await;
}

#[tokio::test]
async fn nothing_is_forgotten_while_something_waits_or_is_overlooked() {
    let env = with_old_keys().await;
    // A stream of another shard.
    let mut other = redis::cmd("XADD");
    other
        .arg(env.key_prefix().stream(2))
        .arg("*")
        .arg("p")
        .arg("x");
    env.redis::<String>(&other).await;
    let refused = Passerby::on(&env).run(&["ledger", "prune", "--yes"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stdout.contains("which --shards does not name"),
        "{}",
        refused.stdout
    );
    env.redis::<()>(redis::cmd("DEL").arg(env.key_prefix().stream(2)))
        .await;

    // An entry that was delivered more than an hour ago, by its ID, and is with somebody.
    env.execute("DELETE FROM ledger WHERE made_at > now() - interval '4 days' AND made_at < now() - interval '2 days'")
        .await;
    let mut back = redis::cmd("XCLAIM");
    let old: Vec<(String, Vec<Vec<u8>>)> = env
        .redis(redis::cmd("XRANGE").arg(env.stream()).arg("-").arg("+"))
        .await;
    back.arg(env.stream())
        .arg(GROUP)
        .arg("slow")
        .arg(0)
        .arg(&old[2].0)
        .arg("FORCE");
    env.redis::<Vec<redis::Value>>(&back).await;
    let refused = Passerby::on(&env).run(&["ledger", "prune", "--yes"]).await;

    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stdout.contains("pending with slow"),
        "{}",
        refused.stdout
    );
    assert_eq!(env.n_ledger().await, 3);
}

#[tokio::test]
async fn without_a_group_nobody_knows_what_was_stored() {
    let env = Env::start().await;
    for args in [["ledger", "stats"], ["ledger", "prune"]] {
        let failed = Passerby::on(&env).run(&args).await;
        failed
            .assert_one_error_line(&[env.stream().as_str(), "no worker has ever read this stream"]);
    }
}

#[tokio::test]
async fn output_of_ledger() {
    let env = with_old_keys().await;
    let mut golden = Golden::of("ledger", &env);
    golden.run(&["ledger", "prune", "--dry-run"]).await;
    golden.run(&["ledger", "prune"]).await;
    let mut spool = redis::cmd("HSET");
    spool
        .arg(env.key_prefix().spools())
        .arg("gate-1-spool")
        .arg(days_ago(14).timestamp_millis());
    env.redis::<()>(&spool).await;
    golden.note("a spool was cut off two weeks ago");
    golden.run(&["ledger", "prune", "--yes"]).await;
    golden.run(&["ledger", "prune", "--yes", "--json"]).await;
    golden.run(&["ledger", "stats"]).await;
    golden.run(&["ledger", "stats", "--json"]).await;
}
