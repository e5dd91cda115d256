//! What is wrong ends a command of `passerby` with one line: what was tried, what came back, what to
//! do about it. Nothing is half done, and no password is told.

use passerby_tests::{Env, Passerby, fixtures::detections};

const CAMPUS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../cli/data/TUD-Campus.mot.txt"
);

const INGEST: &[&str] = &["ingest", CAMPUS, "--db-enable"];
const INGEST_THROUGH_REDIS: &[&str] = &["ingest", CAMPUS, "--db-enable", "--redis-enable"];
const CLAIM: &[&str] = &["claim", "--min-idle", "0s", "--yes"];
const REQUEUE: &[&str] = &["dead-letters", "requeue", "--yes"];

/// Commands that begin with Postgres.
const ON_POSTGRES: &[&[&str]] = &[
    INGEST,
    INGEST_THROUGH_REDIS,
    &["migrate"],
    &["migrate", "--dry-run"],
    &["query", "detections"],
    &["query", "tracks"],
    &["query", "demographics"],
    &["dead-letters", "list"],
    &["dead-letters", "show", "1"],
    REQUEUE,
];

/// Commands that begin with Redis, once Postgres is there.
const ON_REDIS: &[&[&str]] = &[INGEST_THROUGH_REDIS, &["pending"], CLAIM];

/// A port on which nobody listens.
fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn a_refused_connection_to_postgres() {
    let env = Env::start().await;
    env.publish(&detections(0..1)).await;
    env.read_as("gone", 1).await;
    let address = format!("127.0.0.1:{}", closed_port());
    let url = format!("postgresql://me:s3cr3t@{address}/passerby");
    let passerby = Passerby::on(&env).with("PASSERBY_DATABASE_URL", &url);
    for command in ON_POSTGRES.iter().chain([&CLAIM]) {
        let failed = passerby.run(command).await;
        failed.assert_one_error_line(&[
            "connect to postgresql://",
            &address,
            "refused",
            "PASSERBY_DATABASE_URL",
        ]);
        assert!(!failed.stderr.contains("s3cr3t"), "{}", failed.stderr);
        assert_eq!(failed.stdout, "", "{command:?}");
    }
    assert_eq!(env.n_pending().await, 1);
}

#[tokio::test]
async fn a_refused_connection_to_redis() {
    let env = Env::start().await;
    let address = format!("127.0.0.1:{}", closed_port());
    let url = format!("redis://me:s3cr3t@{address}");
    let passerby = Passerby::on(&env).with("PASSERBY_REDIS_URL", &url);
    for command in ON_REDIS {
        let failed = passerby.run(command).await;
        failed.assert_one_error_line(&[
            "connect to Redis",
            &address,
            "refused",
            "PASSERBY_REDIS_URL",
        ]);
        assert!(!failed.stderr.contains("s3cr3t"), "{}", failed.stderr);
    }
    assert_eq!(env.n_rows().await, 0);
    let n_sources: i64 = env.value("SELECT count(*) FROM session_sources").await;
    assert_eq!(n_sources, 0);
}

#[tokio::test]
async fn another_server_than_redis() {
    let env = Env::start().await;
    let url = format!("redis://127.0.0.1:{}", env.servers.postgres_port());
    let passerby = Passerby::on(&env).with("PASSERBY_REDIS_URL", &url);
    for command in ON_REDIS {
        let failed = passerby.run(command).await;
        failed.assert_one_error_line(&["connect to Redis", "PASSERBY_REDIS_URL"]);
    }
}

#[tokio::test]
async fn a_missing_database() {
    let env = Env::start().await;
    let url = env.servers.postgres_url("nowhere");
    let passerby = Passerby::on(&env).with("PASSERBY_DATABASE_URL", &url);
    for command in ON_POSTGRES {
        let failed = passerby.run(command).await;
        failed.assert_one_error_line(&["/nowhere", "does not exist", "createdb nowhere"]);
    }
}

#[tokio::test]
async fn an_address_that_nobody_gave_is_wrong_usage() {
    let env = Env::start().await;
    let passerby = Passerby::on(&env).without("PASSERBY_DATABASE_URL");
    for command in ON_POSTGRES {
        let refused = passerby.run(command).await;
        refused.assert_usage_error(&["--database-url", "PASSERBY_DATABASE_URL", "DATABASE_URL"]);
    }
    let passerby = Passerby::on(&env).without("PASSERBY_REDIS_URL");
    for command in ON_REDIS.iter().chain([&REQUEUE]) {
        let refused = passerby.run(command).await;
        refused.assert_usage_error(&["--redis-url", "PASSERBY_REDIS_URL", "REDIS_URL"]);
    }
}

#[tokio::test]
async fn an_address_of_something_else_is_wrong_usage_and_its_password_is_not_told() {
    let env = Env::start().await;
    let passerby = Passerby::on(&env);
    for (args, expected) in [
        (["--database-url", "mysql://me:s3cr3t@x/y"], "postgresql://"),
        (["--database-url", "s3cr3t"], "postgresql://"),
    ] {
        let refused = passerby.run(&[&["migrate"], &args[..]].concat()).await;
        refused.assert_usage_error(&["--database-url", expected]);
        assert!(!refused.stderr.contains("s3cr3t"), "{}", refused.stderr);
    }
    let refused = passerby
        .run(&["pending", "--redis-url", "http://me:s3cr3t@x"])
        .await;
    refused.assert_usage_error(&["--redis-url", "redis://"]);
    assert!(!refused.stderr.contains("s3cr3t"), "{}", refused.stderr);
}

#[tokio::test]
async fn fallback_variables_are_read() {
    let env = Env::start().await;
    env.create_group().await;
    let passerby = Passerby::on(&env)
        .without("PASSERBY_REDIS_URL")
        .without("PASSERBY_DATABASE_URL")
        .with("REDIS_URL", env.redis_url().expose())
        .with("DATABASE_URL", &env.servers.postgres_url(env.database()));
    assert_eq!(passerby.run(&["pending"]).await.ok(), "0 pending\n");
    assert_eq!(passerby.run(&["query", "tracks"]).await.ok(), "no rows\n");
}

#[tokio::test]
async fn a_schema_that_is_newer_than_the_program() {
    let env = Env::start().await;
    env.publish(&detections(0..1)).await;
    env.read_as("gone", 1).await;
    env.execute(
        "INSERT INTO passerby_schema_history (version, name, applied_on, checksum)
         VALUES (999, 'from_the_future', '2030-01-01T00:00:00Z', '1')",
    )
    .await;
    let dry_run: &[&str] = &["migrate", "--dry-run"];
    for command in [INGEST, INGEST_THROUGH_REDIS, &["migrate"], dry_run, CLAIM] {
        let failed = Passerby::on(&env).run(command).await;
        failed.assert_one_error_line(&["version 999", "newer than this program", "install"]);
    }
    assert_eq!(env.n_rows().await, 0);
    assert_eq!(env.pending().await["gone"], 1);
}

#[tokio::test]
async fn a_foreign_table_in_the_way() {
    let env = Env::with_empty_database().await;
    env.execute("CREATE TABLE tracks (title text); INSERT INTO tracks VALUES ('Blue in Green')")
        .await;
    let dry_run: &[&str] = &["migrate", "--dry-run"];
    for command in [INGEST, &["migrate"], dry_run] {
        let failed = Passerby::on(&env).run(command).await;
        failed.assert_one_error_line(&[
            "public.tracks",
            "1 row",
            "not made by Passerby",
            "nothing was changed",
        ]);
    }
    let tables: Vec<String> = env
        .value(
            "SELECT array_agg(relname::text) FROM pg_class
             WHERE relnamespace = 'public'::regnamespace AND relkind <> 't'",
        )
        .await;
    assert_eq!(tables, ["tracks"]);
}

#[tokio::test]
async fn a_file_that_cannot_be_read() {
    let env = Env::start().await;
    let missing = Passerby::on(&env)
        .run(&["ingest", "/nowhere/gate.txt", "--db-enable"])
        .await;
    missing.assert_one_error_line(&["open `/nowhere/gate.txt`", "No such file"]);
    let directory = Passerby::on(&env)
        .run(&["ingest", env!("CARGO_MANIFEST_DIR"), "--db-enable"])
        .await;
    directory.assert_one_error_line(&["is a directory", "name the files in it"]);
    let n_sources: i64 = env.value("SELECT count(*) FROM session_sources").await;
    assert_eq!(n_sources, 0);
}

#[tokio::test]
async fn values_that_make_no_sense_are_wrong_usage() {
    for (args, expected) in [
        (&["ingest"][..], "FILE"),
        (&["ingest", CAMPUS, "--fps", "0"], "frame rate"),
        (&["ingest", CAMPUS, "--speed=-1"], "--speed"),
        (
            &["ingest", CAMPUS, "--db-batch-size", "0"],
            "--db-batch-size",
        ),
        (&["ingest", CAMPUS, "--start-time", "now"], "--start-time"),
        (&["ingest", CAMPUS, "--wait", "30"], "--wait"),
        (
            &[
                "ingest",
                CAMPUS,
                CAMPUS,
                "--session-id",
                "s",
                "--camera-id",
                "c",
            ],
            "leave out --camera-id or --session-id",
        ),
        (&["query", "demographics", "--per", "week"], "--per"),
        (&["query", "tracks", "--json", "--csv"], "--csv"),
        (&["claim", "yesterday"], "ENTRY_ID"),
        (&["claim", "--to", "two words"], "--to"),
        (&["dead-letters", "show"], "<ID>"),
        (&["migrate", "--log", "a=b=c"], "--log"),
        (&["polka"], "polka"),
        (&[], "Usage"),
    ] {
        let refused = Passerby::alone().run(args).await;
        refused.assert_usage_error(&[expected]);
        assert_eq!(refused.stdout, "", "{args:?}");
    }
}
