//! The tables, and what Postgres allows those who write them.

use super::*;

#[tokio::test]
async fn what_promises_rest_on_is_watched() {
    let env = Env::start().await;
    check(&config(&env), "postgres.guards", Well, &[]).await;
    let is = async |change: &str, status, words: &[&str], back: &str| {
        env.execute(change).await;
        check(&config(&env), "postgres.guards", status, words).await;
        env.execute(back).await;
        check(&config(&env), "postgres.guards", Well, &[]).await;
    };
    is(
        "ALTER TABLE ledger DROP CONSTRAINT ledger_pkey",
        Problem,
        &["idempotency_key", "stored twice"],
        "ALTER TABLE ledger ADD CONSTRAINT ledger_pkey PRIMARY KEY (idempotency_key)",
    )
    .await;
    is(
        "ALTER TABLE tracks DROP CONSTRAINT tracks_pkey",
        Problem,
        &["tracks has no primary key"],
        "ALTER TABLE tracks ADD CONSTRAINT tracks_pkey PRIMARY KEY (session_id, camera_id, track_id)",
    )
    .await;
    is(
        "ALTER TABLE ledger SET UNLOGGED",
        Problem,
        &["ALTER TABLE ledger SET LOGGED"],
        "ALTER TABLE ledger SET LOGGED",
    )
    .await;
    is(
        "ALTER TABLE detections ALTER channel_id SET DEFAULT (random() * 10)::integer",
        Warning,
        &["the default of channel_id", "row by row"],
        "ALTER TABLE detections ALTER channel_id DROP DEFAULT",
    )
    .await;
}

#[tokio::test]
async fn privileges_that_a_worker_lacks_are_granted_by_the_advice() {
    let env = Env::start().await;
    let role = format!("{}_worker", env.database());
    env.execute(&format!("CREATE ROLE {role}")).await;
    let config = DoctorConfig {
        role: Some(role.clone()),
        ..config(&env)
    };
    let id = "postgres.privileges";
    check(
        &config,
        id,
        Problem,
        &[
            "may not SELECT on passerby_schema_history",
            "UPDATE on books",
        ],
    )
    .await;
    let advice = find(&config, id).await.fix.unwrap();
    env.execute(&advice).await;
    check(&config, id, Warning, &["DELETE on ledger"]).await;
    let advice = find(&config, id).await.fix.unwrap();
    env.execute(&advice).await;
    check(&config, id, Well, &["by the owner"]).await;
    env.execute(&format!("REVOKE INSERT ON detections FROM {role}"))
        .await;
    check(&config, id, Problem, &["may not INSERT on detections"]).await;
    let nobody = DoctorConfig {
        role: Some("nobody_of_this_name".to_owned()),
        ..config
    };
    check(&nobody, id, Unknown, &["nobody_of_this_name"]).await;
}

#[tokio::test]
async fn limits_that_end_sound_work_are_found() {
    let env = Env::start().await;
    check(&config(&env), "postgres.timeouts", Well, &[]).await;
    let role = format!("{}_hasty", env.database());
    env.execute(&format!(
        "CREATE ROLE {role}; ALTER ROLE {role} SET statement_timeout = '5s'"
    ))
    .await;
    let of_role = DoctorConfig {
        role: Some(role),
        ..config(&env)
    };
    check(
        &of_role,
        "postgres.timeouts",
        Warning,
        &["statement_timeout is 5 s", "ALTER ROLE"],
    )
    .await;
    let has_limit: bool = env
        .value("SELECT current_setting('transaction_timeout', true) IS NOT NULL")
        .await;
    if has_limit {
        let database = env.database();
        env.execute(&format!(
            "ALTER DATABASE {database} SET transaction_timeout = '10s'"
        ))
        .await;
        check(
            &config(&env),
            "postgres.timeouts",
            Problem,
            &["transaction_timeout is 10 s"],
        )
        .await;
    }
}

#[tokio::test]
async fn a_server_with_hardly_a_connection_left_is_a_problem() {
    let env = Env::start().await;
    let database = env.database();
    env.execute(&format!("ALTER DATABASE {database} CONNECTION LIMIT 4"))
        .await;
    let words = ["CONNECTION LIMIT of database", "a worker needs 4"];
    check(&config(&env), "postgres.connections", Problem, &words).await;
    env.execute(&format!("ALTER DATABASE {database} CONNECTION LIMIT 8"))
        .await;
    check(&config(&env), "postgres.connections", Well, &[]).await;
}

#[tokio::test]
async fn a_transaction_that_stays_open_is_warned_of() {
    let env = Env::start().await;
    check(&config(&env), "postgres.long_transactions", Well, &[]).await;
    let url = env.servers.postgres_url(env.database());
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    let driven = tokio::spawn(connection);
    client.batch_execute("BEGIN; SELECT 1").await.unwrap();
    let impatient = DoctorConfig {
        long_transaction: Duration::ZERO,
        ..config(&env)
    };
    let words = ["idle in transaction", "pg_terminate_backend"];
    check(&impatient, "postgres.long_transactions", Warning, &words).await;
    drop(client);
    driven.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_day_without_partition_is_found_before_it_comes() {
    let env = Env::start().await;
    check(&config(&env), "postgres.partitions", Well, &[]).await;
    let partition = async |days: i32| -> String {
        let day = format!("(now() AT TIME ZONE 'UTC')::date + {days}");
        env.value(&format!(
            "SELECT 'detections_p' || to_char({day}, 'YYYYMMDD')"
        ))
        .await
    };
    for (days, status) in [(7, Well), (4, Warning), (1, Problem), (0, Problem)] {
        env.execute(&format!("DROP TABLE {}", partition(days).await))
            .await;
        check(&config(&env), "postgres.partitions", status, &[]).await;
    }
    env.store().await.ensure_partitions_ahead().await.unwrap();
    check(&config(&env), "postgres.partitions", Well, &[]).await;
}

#[tokio::test]
async fn rows_in_the_default_partition_are_warned_of() {
    let env = Env::start().await;
    check(&config(&env), "postgres.default_partition", Well, &[]).await;
    let mut late = passerby_tests::fixtures::detection(1);
    late.timestamp += chrono::TimeDelta::days(20_000);
    env.publish(&[late]).await;
    env.run_worker_drain().await;
    let words = ["holds 1 rows", "passerby partitions repair"];
    check(&config(&env), "postgres.default_partition", Warning, &words).await;
}

#[tokio::test]
async fn tables_that_nobody_tidies_are_found() {
    let env = Env::start().await;
    let database = env.database();
    check(&config(&env), "postgres.autovacuum", Well, &[]).await;
    env.execute("ALTER TABLE ledger SET (autovacuum_enabled = off)")
        .await;
    check(
        &config(&env),
        "postgres.autovacuum",
        Warning,
        &["off for ledger"],
    )
    .await;
    check(&config(&env), "postgres.bloat", Well, &[]).await;
    env.execute(
        "INSERT INTO ledger (idempotency_key, n_rows, committed_at)
         SELECT gen_random_uuid(), 1, now() FROM generate_series(1, 120000);
         DELETE FROM ledger",
    )
    .await;
    passerby_tests::eventually("Postgres counts the dead", async || {
        find(&config(&env), "postgres.bloat").await.status == Warning
    })
    .await;
    check(
        &config(&env),
        "postgres.bloat",
        Warning,
        &["ledger has 120000 dead rows"],
    )
    .await;
    env.execute(&format!("ALTER DATABASE {database} SET track_counts = off"))
        .await;
    check(
        &config(&env),
        "postgres.autovacuum",
        Problem,
        &["track_counts is off"],
    )
    .await;
}

#[tokio::test]
async fn an_index_that_does_not_summarize_is_warned_of() {
    let env = Env::start().await;
    check(&config(&env), "postgres.brin", Well, &[]).await;
    env.execute("ALTER INDEX idx_ledger_entry_ms SET (autosummarize = off)")
        .await;
    check(
        &config(&env),
        "postgres.brin",
        Warning,
        &["idx_ledger_entry_ms"],
    )
    .await;
}

#[tokio::test]
async fn a_server_that_may_forget_or_never_answers_is_a_problem() {
    let env = Env::dedicated().await;
    // As private servers are.
    check(&config(&env), "postgres.fsync", Problem, &["fsync is off"]).await;
    let set = async |settings: &[&str]| {
        for setting in settings {
            env.execute(&format!("ALTER SYSTEM SET {setting}")).await;
        }
        env.execute("SELECT pg_reload_conf()").await;
    };
    let becomes = async |id: &str, status, words: &[&str]| {
        passerby_tests::eventually("the setting holds", async || {
            find(&config(&env), id).await.status == status
        })
        .await;
        check(&config(&env), id, status, words).await;
    };
    set(&["fsync = on"]).await;
    becomes("postgres.fsync", Warning, &["full_page_writes"]).await;
    set(&["full_page_writes = on"]).await;
    becomes("postgres.fsync", Well, &[]).await;

    check(&config(&env), "postgres.slots", Well, &[]).await;
    env.execute("SELECT pg_create_physical_replication_slot('standby', true)")
        .await;
    check(
        &config(&env),
        "postgres.slots",
        Warning,
        &["pg_drop_replication_slot('standby')"],
    )
    .await;

    check(&config(&env), "postgres.synchronous_commit", Well, &[]).await;
    set(&["synchronous_standby_names = 'standby'"]).await;
    becomes("postgres.synchronous_commit", Problem, &["no such standby"]).await;
}
