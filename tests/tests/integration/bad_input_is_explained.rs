//! What is wrong at the start ends the worker with one line: what was tried, what came back, what to
//! do about it. Nothing is half done.

use passerby_servers::{RedisOptions, RedisServer};
use passerby_tests::{Env, Finished, WorkerBinary};

async fn run_on(env: &Env, args: &[&str]) -> Finished {
    WorkerBinary::start_on(env, args).await.finished().await
}

/// Asserts that the program ended with code 1 and one line with all of these words in this order.
#[track_caller]
fn assert_one_line(finished: &Finished, words: &[&str]) {
    let Finished { code, stderr } = finished;
    assert_eq!(*code, Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let mut rest = stderr.strip_prefix("error: ").expect(stderr);
    for word in words {
        let at = rest
            .find(word)
            .unwrap_or_else(|| panic!("no `{word}` in: {stderr}"));
        rest = &rest[at + word.len()..];
    }
}

/// A port on which nobody listens.
fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn wrong_usage_ends_with_code_2_and_tells_no_password() {
    let env = Env::start().await;
    for (args, words) in [
        (["--redis-url", "http://me:s3cr3t@x"], "redis://"),
        (["--redis-url", "nonsense s3cr3t"], "redis://"),
        (["--database-url", "mysql://me:s3cr3t@x/y"], "postgresql://"),
        (["--batch-rows", "0"], "--batch-rows"),
        (["--block", "soon"], "--block"),
        (["--observe-every", "99ms"], "at least 100ms"),
        (["--min-idle", "1ms"], "min-idle"),
        (["--consumer", "two words"], "--consumer"),
        (["--key-prefix", "{x}"], "--key-prefix"),
        (["--log", "a=b=c"], "--log"),
    ] {
        let Finished { code, stderr } = run_on(&env, &args).await;
        assert_eq!(code, Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
        assert!(!stderr.contains("s3cr3t"), "{args:?}: {stderr}");
    }
    let nothing = WorkerBinary::start(&[]).await.finished().await;
    assert_eq!(nothing.code, Some(2));
    assert!(nothing.stderr.contains("--redis-url"), "{}", nothing.stderr);
}

#[tokio::test]
async fn a_refused_connection() {
    let env = Env::start().await;
    let port = closed_port();

    let redis = format!("redis://me:s3cr3t@127.0.0.1:{port}");
    let finished = run_on(&env, &["--redis-url", &redis]).await;
    let address = format!("127.0.0.1:{port}");
    assert_one_line(
        &finished,
        &[
            "connect to Redis",
            &address,
            "refused",
            "PASSERBY_REDIS_URL",
        ],
    );
    assert!(!finished.stderr.contains("s3cr3t"), "{}", finished.stderr);

    let postgres = format!("postgresql://me:s3cr3t@127.0.0.1:{port}/passerby");
    let finished = run_on(&env, &["--database-url", &postgres]).await;
    assert_one_line(
        &finished,
        &[
            "connect to postgresql://",
            &address,
            "refused",
            "PASSERBY_DATABASE_URL",
        ],
    );
    assert!(!finished.stderr.contains("s3cr3t"), "{}", finished.stderr);
}

#[tokio::test]
async fn another_server_than_redis() {
    let env = Env::start().await;
    let url = format!("redis://127.0.0.1:{}", env.servers.postgres_port());
    let finished = run_on(&env, &["--redis-url", &url]).await;
    assert_one_line(&finished, &["connect to Redis", "PASSERBY_REDIS_URL"]);
}

#[tokio::test]
async fn a_missing_database() {
    let env = Env::start().await;
    let url = env.servers.postgres_url("nowhere");
    let finished = run_on(&env, &["--database-url", &url]).await;
    assert_one_line(
        &finished,
        &[
            "connect to",
            "/nowhere",
            "does not exist",
            "createdb nowhere",
        ],
    );
}

#[tokio::test]
async fn a_role_without_rights() {
    let env = Env::start().await;
    let role = format!("nobody_{}", env.database());
    env.execute(&format!("CREATE ROLE {role} LOGIN")).await;
    let url = env
        .servers
        .postgres_url(env.database())
        .replace("postgres@", &format!("{role}@"));
    let finished = run_on(&env, &["--database-url", &url]).await;
    assert_one_line(&finished, &["permission denied", "grant"]);

    let empty = Env::with_empty_database().await;
    empty
        .execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        .await;
    let url = empty
        .servers
        .postgres_url(empty.database())
        .replace("postgres@", &format!("{role}@"));
    let finished = run_on(&empty, &["--database-url", &url]).await;
    assert_one_line(&finished, &["migrate", "permission denied", "grant"]);
    let n_tables: i64 = empty
        .value("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        .await;
    assert_eq!(n_tables, 0);
    env.execute(&format!("DROP ROLE {role}")).await;
}

#[tokio::test]
async fn a_redis_without_streams() {
    let env = Env::start().await;
    let ancient = ["XADD", "XGROUP", "XREADGROUP", "XACK", "XAUTOCLAIM"];
    for commands in [&ancient[..], &["XREADGROUP"], &["XAUTOCLAIM"]] {
        let config = commands
            .iter()
            .map(|name| ("rename-command".to_owned(), format!("{name} \"\"")))
            .collect();
        let server = tokio::task::spawn_blocking(|| {
            RedisServer::start(RedisOptions {
                config,
                ..RedisOptions::default()
            })
        });
        let server = server.await.unwrap().unwrap();
        let url = server.url();
        let finished = run_on(&env, &["--redis-url", &url, "--log", "error"]).await;
        assert_one_line(&finished, &["unknown command", "Redis 6.2"]);
    }
}

#[tokio::test]
async fn a_wrong_redis_password() {
    let env = Env::start().await;
    let url = env.redis_url().expose().replace("127", "me:s3cr3t@127");
    let finished = run_on(&env, &["--redis-url", &url]).await;
    assert_one_line(
        &finished,
        &["connect to Redis", "password", "PASSERBY_REDIS_URL"],
    );
    assert!(!finished.stderr.contains("s3cr3t"), "{}", finished.stderr);
}

#[tokio::test]
async fn a_key_of_another_type_in_the_way() {
    let env = Env::start().await;
    let _: () = env
        .redis(redis::cmd("SET").arg(env.stream()).arg("mine"))
        .await;
    let finished = run_on(&env, &[]).await;
    assert_one_line(&finished, &[env.stream().as_str(), "--key-prefix"]);
    let kept: String = env.redis(redis::cmd("GET").arg(env.stream())).await;
    assert_eq!(kept, "mine");
}

#[tokio::test]
async fn a_schema_that_is_newer_than_the_program() {
    let env = Env::start().await;
    env.execute(
        "INSERT INTO passerby_schema_history (version, name, applied_on, checksum)
         VALUES (999, 'from_the_future', '2030-01-01T00:00:00Z', '1')",
    )
    .await;
    for args in [&[][..], &["--no-migrate"]] {
        let finished = run_on(&env, args).await;
        assert_one_line(
            &finished,
            &["version 999", "newer than this program", "install"],
        );
    }
}

#[tokio::test]
async fn a_schema_that_is_older_than_the_program_and_may_not_be_migrated() {
    let env = Env::with_empty_database().await;
    let finished = run_on(&env, &["--no-migrate"]).await;
    assert_one_line(&finished, &["this program needs", "passerby migrate"]);
}

#[tokio::test]
async fn a_foreign_table_in_the_way() {
    let env = Env::with_empty_database().await;
    env.execute("CREATE TABLE tracks (title text); INSERT INTO tracks VALUES ('Blue in Green')")
        .await;
    let finished = run_on(&env, &[]).await;
    assert_one_line(
        &finished,
        &[
            "public.tracks",
            "1 row",
            "not made by Passerby",
            "nothing was changed",
        ],
    );
    let tables: Vec<String> = env
        .value(
            "SELECT array_agg(relname::text) FROM pg_class
             WHERE relnamespace = 'public'::regnamespace AND relkind <> 't'",
        )
        .await;
    assert_eq!(tables, ["tracks"]);
    let title: String = env.value("SELECT title FROM tracks").await;
    assert_eq!(title, "Blue in Green");
}
