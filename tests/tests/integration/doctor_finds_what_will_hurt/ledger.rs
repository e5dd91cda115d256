//! What the ledger remembers, and what was never stored.

use super::*;

#[tokio::test]
async fn what_the_ledger_has_forgotten_and_is_still_to_come_is_a_problem() {
    let env = Env::start().await;
    check(
        &config(&env),
        "ledger.retention",
        Well,
        &["every entry is stored"],
    )
    .await;
    add_entry(&env, "1600000000000-1").await; // September 2020
    check(&config(&env), "ledger.retention", Well, &["2020"]).await;
    env.execute("UPDATE ledger_horizon SET pruned_below = '2021-01-01 00:00:00+00'")
        .await;
    check(
        &config(&env),
        "ledger.retention",
        Problem,
        &["2020", "2021"],
    )
    .await;
    let short = DoctorConfig {
        ledger_retention: Duration::from_secs(3_600),
        ..config(&env)
    };
    check(&short, "ledger.retention", Problem, &["trim-grace"]).await;
}

#[tokio::test]
async fn a_spool_that_is_given_up_soon_is_warned_of() {
    let env = Env::start().await;
    check(&config(&env), "ledger.spools", Well, &["no producer"]).await;
    let spooled = async |days: i64| {
        let since = chrono::Utc::now() - chrono::TimeDelta::days(days);
        let mut note = redis::cmd("HSET");
        note.arg(env.key_prefix().spools())
            .arg("gate")
            .arg(since.timestamp_millis());
        env.redis::<()>(&note).await;
    };
    for (days, status) in [(1, Well), (25, Warning), (31, Problem)] {
        spooled(days).await;
        check(&config(&env), "ledger.spools", status, &["spool gate"]).await;
    }
}

#[tokio::test]
async fn a_ledger_that_is_not_pruned_is_warned_of() {
    let env = Env::start().await;
    check(&config(&env), "ledger.pruning", Well, &[]).await;
    env.execute(
        "INSERT INTO ledger (idempotency_key, n_rows, committed_at, made_at)
         VALUES (gen_random_uuid(), 1, now(), now() - interval '30 days')",
    )
    .await;
    check(
        &config(&env),
        "ledger.pruning",
        Warning,
        &["30 d old", "GRANT DELETE ON ledger"],
    )
    .await;
    add_entry(&env, "1600000000000-1").await;
    check(
        &config(&env),
        "ledger.pruning",
        Warning,
        &["passerby pending"],
    )
    .await;
}

#[tokio::test]
async fn dead_letters_that_wait_are_counted_by_reason() {
    let env = Env::start().await;
    check(&config(&env), "dead_letters.waiting", Well, &[]).await;
    env.publish_entry(&[("p", b"\xc1")]).await;
    env.run_worker_drain().await;
    check(
        &config(&env),
        "dead_letters.waiting",
        Warning,
        &["1 undecodable"],
    )
    .await;
}
