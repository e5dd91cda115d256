//! Postgres itself, and what is between.

use super::*;

#[tokio::test]
async fn a_database_without_schema_is_a_problem() {
    let env = Env::with_empty_database().await;
    check(
        &config(&env),
        "postgres.schema",
        Problem,
        &["passerby migrate"],
    )
    .await;
    env.store().await.migrate().await.unwrap();
    check(&config(&env), "postgres.schema", Well, &[]).await;
    env.execute("DELETE FROM passerby_schema_history WHERE version > 1")
        .await;
    check(
        &config(&env),
        "postgres.schema",
        Problem,
        &["version 1", "passerby migrate"],
    )
    .await;
    env.execute("UPDATE passerby_schema_history SET version = 9999")
        .await;
    check(&config(&env), "postgres.schema", Problem, &["newer"]).await;
}

#[tokio::test]
async fn a_role_that_may_only_read_is_a_problem() {
    let env = Env::start().await;
    check(&config(&env), "postgres.reachable", Well, &[]).await;
    let database = env.database();
    env.execute(&format!(
        "ALTER DATABASE {database} SET default_transaction_read_only = on"
    ))
    .await;
    check(&config(&env), "postgres.reachable", Problem, &["read-only"]).await;
}

#[tokio::test]
async fn a_database_that_cannot_hold_all_text_is_a_problem() {
    let env = Env::start().await;
    check(&config(&env), "postgres.encoding", Well, &[]).await;
    let name = format!("{}_ascii", env.database());
    env.servers
        .admin(&format!(
            "CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
        ))
        .await;
    let ascii = DoctorConfig {
        database_url: Some(env.servers.database_url(&name)),
        ..config(&env)
    };
    check(&ascii, "postgres.encoding", Problem, &["SQL_ASCII"]).await;
}

#[tokio::test]
async fn a_pooler_that_changes_backends_is_a_problem() {
    let Some(pooler) = PgBouncer::find() else {
        eprintln!("skipped: there is no pgbouncer on this machine");
        return;
    };
    let env = Env::start().await;
    check(
        &config(&env),
        "postgres.pooler",
        Well,
        &["keeps its backend"],
    )
    .await;
    for (mode, expected) in [("session", Well), ("transaction", Problem)] {
        let running = pooler.start(&env, mode).await;
        let through = DoctorConfig {
            database_url: Some(running.url(&env).parse().unwrap()),
            ..config(&env)
        };
        check(&through, "postgres.pooler", expected, &[]).await;
        // All the others work through it, too.
        check(&through, "postgres.privileges", Well, &[]).await;
    }
}
