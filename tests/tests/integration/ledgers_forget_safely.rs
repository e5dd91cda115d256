use chrono::{DateTime, TimeDelta, Utc};
use passerby_shared::IdempotencyKey;
use passerby_tests::{
    Env,
    fixtures::{detections, key},
};

/// A key that a producer made at this time.
fn key_made(at: DateTime<Utc>) -> IdempotencyKey {
    let mut bytes = *IdempotencyKey::generate().as_bytes();
    let ms = at.timestamp_millis().to_be_bytes();
    bytes[..6].copy_from_slice(&ms[2..]);
    IdempotencyKey::from_field(&bytes).unwrap()
}

fn days_ago(days: i64) -> DateTime<Utc> {
    Utc::now() - TimeDelta::days(days)
}

#[tokio::test]
async fn an_entry_older_than_the_horizon_is_dead_lettered_and_never_guessed_about() {
    let env = Env::start().await;
    let old = key_made(days_ago(10));
    env.publish_as(old, &detections(0..10)).await;
    env.publish(&detections(10..20)).await;
    env.run_worker_drain().await;
    env.assert_settled_once(20).await;
    // The entry's ID is of today: pruning goes by it, too, so that the key is still known.
    let pruned = env.store().await.prune_ledger(days_ago(5)).await.unwrap();
    assert_eq!((pruned, env.n_ledger().await), (Some(0), 2));
    env.publish_as(old, &detections(0..10)).await;
    let report = env.run_worker_drain().await;
    assert_eq!((report.duplicates, report.dead_letters), (1, 0));

    // Once it is forgotten, nobody can tell.
    env.execute("DELETE FROM ledger").await;
    env.publish_as(old, &detections(0..10)).await;
    env.publish(&detections(20..30)).await;
    let report = env.run_worker_drain().await;

    assert_eq!((report.detections, report.dead_letters), (10, 1));
    let letter = &env.dead_letters().await[0];
    assert_eq!((&*letter.reason, letter.key), ("too-old", old));
    assert!(
        letter.message.contains("before the ledger's horizon"),
        "{}",
        letter.message
    );
    env.assert_settled_once(30).await;

    // Delivered once more, it is known to be dead-lettered.
    env.publish_as(old, &detections(0..10)).await;
    let report = env.run_worker_drain().await;
    assert_eq!((report.duplicates, report.dead_letters), (1, 0));
}

#[tokio::test]
async fn what_was_dead_lettered_as_too_old_can_be_put_back() {
    let env = Env::start().await;
    env.store().await.prune_ledger(days_ago(5)).await.unwrap();
    env.publish_as(key_made(days_ago(6)), &detections(0..10))
        .await;
    env.run_worker_drain().await;
    assert_eq!((env.n_rows().await, env.dead_letters().await.len()), (0, 1));

    // Nobody knows that it was never stored, so that a command for all letters leaves it alone.
    let report = env.requeue_all().await;
    assert_eq!(
        (report.matched, report.requeued, report.doubtful),
        (1, 0, 1)
    );
    env.run_worker_drain().await;
    assert_eq!(env.n_rows().await, 0);

    for _ in 0..2 {
        let report = env.requeue_reason("too-old").await;
        assert_eq!((report.requeued, report.doubtful), (1, 0));
        env.run_worker_drain().await;
    }

    env.assert_settled_once(10).await;
}

#[tokio::test]
async fn pruning_removes_what_is_older_than_the_horizon_and_nothing_else() {
    let env = Env::start().await;
    let insert = |key: IdempotencyKey, days: i64, made_at: &str| {
        format!(
            "INSERT INTO ledger (idempotency_key, stream, entry_ms, entry_seq, n_rows, committed_at, made_at)
             VALUES ('{key}', 's', {}, 0, 1, now(), {made_at})",
            days_ago(days).timestamp_millis()
        )
    };
    let row = |n: u8, days: i64| {
        insert(
            key(n.into()),
            days,
            &format!("now() - interval '{days} days'"),
        )
    };
    env.execute(&row(1, 10)).await;
    env.execute(&row(2, 8)).await;
    env.execute(&row(3, 6)).await;
    // A key that does not tell when it was made, as that of a requeued dead letter.
    env.execute(&insert(key(4), 10, "NULL")).await;

    let mut store = env.store().await;
    assert_eq!(store.prune_ledger(days_ago(7)).await.unwrap(), Some(2));
    assert_eq!(store.prune_ledger(days_ago(7)).await.unwrap(), Some(0));
    // The horizon does not go back.
    assert_eq!(store.prune_ledger(days_ago(20)).await.unwrap(), Some(0));

    assert_eq!(env.n_ledger().await, 2);
    let is_kept: bool = env
        .value("SELECT pruned_below > now() - interval '7 days 1 minute' FROM ledger_horizon")
        .await;
    assert!(is_kept);
}

#[tokio::test]
async fn a_ledger_without_its_horizon_still_works() {
    let env = Env::start().await;
    env.execute("DELETE FROM ledger_horizon").await;
    env.publish(&detections(0..10)).await;
    env.run_worker_drain().await;
    env.assert_settled_once(10).await;
    env.store().await.prune_ledger(days_ago(7)).await.unwrap();
    let n: i64 = env.value("SELECT count(*) FROM ledger_horizon").await;
    assert_eq!(n, 1);
}

#[tokio::test]
async fn an_entry_that_was_stored_before_redis_lost_it_is_not_called_lost() {
    let env = Env::start().await;
    let stored = env.publish(&detections(0..10)).await;
    env.run_worker_drain().await;
    // Its XACK never came, and then somebody deleted it, together with one that was not stored.
    let never_stored = env.publish(&detections(90..100)).await;
    env.read_as("dead", 10).await;
    let _claimed: redis::Value = env
        .redis(
            redis::cmd("XCLAIM")
                .arg(env.stream())
                .arg(&[passerby_tests::GROUP, "dead", "0"])
                .arg(stored)
                .arg(&["FORCE", "JUSTID"]),
        )
        .await;
    let _n: u64 = env
        .redis(
            redis::cmd("XDEL")
                .arg(env.stream())
                .arg(&[stored, never_stored]),
        )
        .await;

    env.run_claiming_worker_drain().await;

    let letters = env.dead_letters().await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0].entry_id, never_stored.to_string());
    assert_eq!(env.n_pending().await, 0);
}

#[tokio::test]
async fn an_old_entry_that_cannot_be_read_is_dead_lettered_whole() {
    let env = Env::start().await;
    env.store().await.prune_ledger(days_ago(5)).await.unwrap();
    let old = key_made(days_ago(6));
    env.publish_entry(&[("v", b"9"), ("i", old.as_bytes()), ("p", b"\x90")])
        .await;
    env.run_worker_drain().await;
    let letters = env.dead_letters().await;
    assert_eq!((letters.len(), &*letters[0].reason), (1, "undecodable"));
    assert_eq!(letters[0].fields.len(), 3);
}
