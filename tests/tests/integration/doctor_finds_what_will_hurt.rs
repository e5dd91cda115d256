//! Whatever will hurt later is found now, on the servers as they are; and what could not be looked at is
//! not called well.

use std::time::Duration;

use passerby_consumer::ops::{self, DoctorConfig, Finding, Selection, Status};
use passerby_shared::redis_connection::RedisUrl;
use passerby_tests::{Env, OwnRedis, Passerby, PgBouncer};
use serde_json::Value;

use Status::{Ok as Well, Problem, Unknown, Warning};

/// What a doctor of a test's servers is told.
fn config(env: &Env) -> DoctorConfig {
    DoctorConfig {
        key_prefix: env.key_prefix().clone(),
        ..DoctorConfig::new(env.redis_url(), env.database_url())
    }
}

/// What one check finds.
async fn find(config: &DoctorConfig, id: &str) -> Finding {
    let config = DoctorConfig {
        selection: Selection {
            only: vec![id.to_owned()],
            skip: Vec::new(),
        },
        ..config.clone()
    };
    let report = ops::doctor(&config).await;
    report.findings.into_iter().next().unwrap()
}

/// Asserts what one check finds, in these words; and that what is not well says what to do.
#[track_caller]
fn assert_found(finding: &Finding, status: Status, words: &[&str]) {
    assert_eq!(finding.status, status, "{finding:?}");
    for word in words {
        let says = |text: &str| text.contains(word);
        assert!(
            says(&finding.what) || says(&finding.why) || finding.fix.as_deref().is_some_and(says),
            "no `{word}` in {finding:?}"
        );
    }
    if matches!(status, Warning | Problem) {
        assert!(finding.fix.is_some(), "{finding:?}");
    }
}

async fn check(config: &DoctorConfig, id: &str, status: Status, words: &[&str]) {
    assert_found(&find(config, id).await, status, words);
}

/// A Redis of the test's own, and a doctor of it.
async fn with_own_redis(
    directives: &'static [(&'static str, &'static str)],
) -> (OwnRedis, DoctorConfig) {
    let env = Env::start().await;
    let redis = OwnRedis::start(directives).await;
    let config = DoctorConfig {
        redis_url: Some(redis.url()),
        ..config(&env)
    };
    (redis, config)
}

// The report

#[tokio::test]
async fn sound_servers_get_a_clean_bill() {
    let env = Env::start().await;
    let redis = OwnRedis::start(&[("maxmemory", "100mb")]).await;
    let config = DoctorConfig {
        redis_url: Some(redis.url()),
        selection: Selection {
            only: Vec::new(),
            // The private Postgres is told not to wait for its disk, and other tests have transactions and
            // slots of their own there; how full this machine is, is another matter.
            skip: ["postgres.fsync", "postgres.connections", "disk"]
                .map(str::to_owned)
                .into(),
        },
        ..config(&env)
    };

    let report = ops::doctor(&config).await;

    let unwell: Vec<_> = report
        .findings
        .iter()
        .filter(|f| f.status != Well)
        .collect();
    assert!(unwell.is_empty(), "{unwell:#?}");
    assert!(report.is_healthy(true));
    assert_eq!(report.ok, report.findings.len());
}

#[tokio::test]
async fn a_problem_is_exit_code_3_and_a_warning_is_not_unless_strict() {
    let env = Env::start().await;
    let exit = async |args: &[&str]| {
        let args = [&["doctor"], args].concat();
        Passerby::on(&env).run(&args).await.code
    };
    // The shared Redis has no append-only file and no maxmemory.
    assert_eq!(exit(&["--only", "redis.aof"]).await, Some(3));
    assert_eq!(exit(&["--only", "redis.memory"]).await, Some(0));
    assert_eq!(exit(&["--only", "redis.memory", "--strict"]).await, Some(3));
    assert_eq!(exit(&["--only", "redis.fsync"]).await, Some(0));
    assert_eq!(exit(&["--only", "redis.fsync", "--strict"]).await, Some(3));
    assert_eq!(
        exit(&["--only", "redis", "--skip", "redis.aof"]).await,
        Some(0)
    );
    assert_eq!(
        exit(&["--only", "redis.eviction", "--strict"]).await,
        Some(0)
    );
}

#[tokio::test]
async fn each_finding_says_what_why_and_how_to_mend_it() {
    let env = Env::start().await;
    let only = ["doctor", "--only", "redis.aof,redis.eviction"];

    let shown = Passerby::on(&env).run(&only).await;
    assert_eq!(shown.code, Some(3));
    let lines: Vec<&str> = shown.stdout.lines().collect();
    assert_eq!(
        lines[0],
        "✓ ok         redis.eviction  maxmemory-policy is noeviction"
    );
    assert!(
        lines[1].starts_with("✗ problem    redis.aof       appendonly is no"),
        "{}",
        lines[1]
    );
    assert!(
        lines[2].starts_with("             why  without the append-only file"),
        "{}",
        lines[2]
    );
    assert!(
        lines[3].starts_with("             fix  redis-cli CONFIG SET appendonly yes"),
        "{}",
        lines[3]
    );
    assert_eq!(lines[4..], ["", "1 ok, 1 problem"]);

    let json = Passerby::on(&env)
        .run(&[&only[..], &["--json"]].concat())
        .await;
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json["ok"], &json["problems"]), (&1.into(), &1.into()));
    let findings = json["findings"].as_array().unwrap();
    assert_eq!(findings[0]["id"], "redis.eviction"); // always in the same order
    assert_eq!(findings[1]["status"], "problem");
}

#[tokio::test]
async fn a_name_that_is_no_check_is_refused_with_the_nearest() {
    let refused = Passerby::alone()
        .run(&["doctor", "--only", "redis.evicton"])
        .await;
    refused.assert_usage_error(&["redis.evicton", "redis.eviction"]);

    let listed = Passerby::alone().run(&["doctor", "--list"]).await.ok();
    for check in ops::doctor_checks() {
        assert!(listed.contains(check.id), "{}", check.id);
    }
}

#[tokio::test]
async fn a_server_that_is_down_is_one_problem_and_nothing_else_is_called_well() {
    let env = Env::start().await;
    let nowhere: RedisUrl = "redis://127.0.0.1:1/0".parse().unwrap();
    let without_redis = DoctorConfig {
        redis_url: Some(nowhere),
        ..config(&env)
    };
    let without_postgres = DoctorConfig {
        database_url: Some("postgresql://127.0.0.1:1/passerby".parse().unwrap()),
        ..config(&env)
    };
    for (config, topics, problem) in [
        (
            without_redis,
            &["redis", "stream", "clocks"][..],
            "redis.reachable",
        ),
        (
            without_postgres,
            &["postgres", "ledger", "clocks"][..],
            "postgres.reachable",
        ),
    ] {
        let report = ops::doctor(&config).await;
        for finding in &report.findings {
            let is_of_the_dead = topics.contains(&finding.id.split('.').next().unwrap());
            if finding.id == problem {
                assert_found(finding, Problem, &["check that"]);
            } else if is_of_the_dead {
                assert_found(finding, Unknown, &["cannot be reached"]);
            }
        }
        assert!(!report.is_healthy(false));
        let well = report.findings.iter().filter(|f| f.status == Well);
        assert!(
            well.count() > 0,
            "the other server is examined all the same"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_silent_is_not_waited_for() {
    let (redis, config) = with_own_redis(&[]).await;
    redis.freeze().await;
    let config = DoctorConfig {
        timeout: Duration::from_millis(200),
        ..config
    };
    check(&config, "redis.reachable", Problem, &["Redis"]).await;
    check(&config, "redis.eviction", Unknown, &["cannot be reached"]).await;
    redis.thaw().await;
}

#[tokio::test]
async fn only_the_servers_that_are_looked_at_need_a_name() {
    let env = Env::start().await;
    let without = |variable| Passerby::on(&env).without(variable);
    let redis = ["doctor", "--only", "redis.eviction"];
    without("PASSERBY_DATABASE_URL").run(&redis).await.ok();
    let missing = without("PASSERBY_REDIS_URL").run(&redis).await;
    missing.assert_usage_error(&["--redis-url"]);
}

// Redis

#[tokio::test]
async fn redis_that_evicts_streams_is_a_problem() {
    let (redis, config) = with_own_redis(&[("maxmemory", "100mb")]).await;
    check(&config, "redis.eviction", Well, &["noeviction"]).await;
    redis.configure("maxmemory-policy", "volatile-ttl").await;
    check(&config, "redis.eviction", Well, &["volatile-ttl"]).await;
    redis.configure("maxmemory-policy", "allkeys-lru").await;
    check(
        &config,
        "redis.eviction",
        Problem,
        &["allkeys-lru", "CONFIG SET maxmemory-policy"],
    )
    .await;
}

#[tokio::test]
async fn redis_that_is_nearly_full_is_a_problem() {
    let (redis, config) = with_own_redis(&[]).await;
    check(&config, "redis.memory", Warning, &["no maxmemory"]).await;
    redis.configure("maxmemory", "100mb").await;
    check(&config, "redis.memory", Well, &["of 100 MiB"]).await;
    redis.configure("maxmemory", "1mb").await;
    check(&config, "redis.memory", Problem, &["%"]).await;
}

#[tokio::test]
async fn redis_that_forgets_at_a_crash_is_a_problem() {
    let (redis, config) = with_own_redis(&[]).await;
    check(&config, "redis.aof", Well, &[]).await;
    check(&config, "redis.fsync", Well, &["always"]).await;
    redis.configure("no-appendfsync-on-rewrite", "yes").await;
    check(
        &config,
        "redis.fsync",
        Warning,
        &["no-appendfsync-on-rewrite"],
    )
    .await;
    redis.configure("appendfsync", "no").await;
    check(&config, "redis.fsync", Warning, &["appendfsync is no"]).await;
    redis.configure("appendonly", "no").await;
    check(
        &config,
        "redis.aof",
        Problem,
        &["CONFIG SET appendonly yes"],
    )
    .await;
    check(&config, "redis.fsync", Unknown, &["off"]).await;
}

#[tokio::test]
async fn redis_that_cannot_write_to_its_disk_is_a_problem() {
    let (redis, config) = with_own_redis(&[]).await;
    check(&config, "redis.disk_writes", Well, &[]).await;
    std::fs::create_dir(redis.dir().join("dump.rdb")).unwrap();
    redis.redis::<()>(&redis::cmd("BGSAVE")).await;
    let failed = async || find(&config, "redis.disk_writes").await.status == Warning;
    passerby_tests::eventually("the snapshot fails", failed).await;
    // Where Redis makes snapshots by itself, it refuses writes after one that failed.
    redis.configure("save", "3600 1").await;
    check(&config, "redis.disk_writes", Problem, &["MISCONF"]).await;
}

#[tokio::test]
async fn a_limit_that_disconnects_workers_is_a_problem() {
    let (redis, config) = with_own_redis(&[]).await;
    check(&config, "redis.output_limits", Well, &["no limit"]).await;
    redis
        .configure("client-output-buffer-limit", "normal 1mb 0 0")
        .await;
    check(
        &config,
        "redis.output_limits",
        Problem,
        &["1048576 bytes", "normal 0 0 0"],
    )
    .await;
}

#[tokio::test]
async fn redis_with_hardly_a_connection_left_is_a_problem() {
    let (redis, config) = with_own_redis(&[]).await;
    check(&config, "redis.clients", Well, &[]).await;
    redis.configure("maxclients", "8").await;
    check(&config, "redis.clients", Problem, &["of 8"]).await;
}

#[tokio::test]
async fn connections_that_end_too_soon_or_never_are_warned_of() {
    let (redis, config) = with_own_redis(&[]).await;
    check(&config, "redis.idle_clients", Well, &[]).await;
    redis.configure("timeout", "5").await;
    check(&config, "redis.idle_clients", Warning, &["timeout is 5 s"]).await;
    redis.configure("timeout", "0").await;
    redis.configure("tcp-keepalive", "0").await;
    check(
        &config,
        "redis.idle_clients",
        Warning,
        &["tcp-keepalive is 0"],
    )
    .await;
}

#[tokio::test]
async fn a_replica_is_a_problem() {
    let (redis, config) = with_own_redis(&[]).await;
    check(&config, "redis.role", Well, &["a primary"]).await;
    redis.configure("min-replicas-to-write", "1").await;
    check(&config, "redis.role", Problem, &["NOREPLICAS"]).await;
    let mut replicate = redis::cmd("REPLICAOF");
    redis.redis::<()>(replicate.arg("127.0.0.1").arg(1)).await;
    check(
        &config,
        "redis.role",
        Problem,
        &["replica", "name the primary"],
    )
    .await;
}

#[tokio::test]
async fn a_node_of_a_cluster_that_does_not_serve_the_streams_is_a_problem() {
    let (_redis, config) = with_own_redis(&[("cluster-enabled", "yes")]).await;
    check(&config, "redis.role", Problem, &["cluster"]).await;
}

#[tokio::test]
async fn commands_that_the_user_may_not_run_are_named() {
    let (redis, config) = with_own_redis(&[]).await;
    check(&config, "redis.privileges", Well, &[]).await;
    let prefix = config.key_prefix.to_string();
    let mut grant = redis::cmd("ACL");
    grant
        .arg("SETUSER")
        .arg("worker")
        .arg("on")
        .arg(">secret")
        .arg(format!("~{prefix}:*"))
        .arg("+@all")
        .arg("-xautoclaim")
        .arg("-eval")
        .arg("-config");
    redis.redis::<()>(&grant).await;
    let url = redis
        .url()
        .expose()
        .replace("redis://", "redis://worker:secret@");
    let config = DoctorConfig {
        redis_url: Some(url.parse().unwrap()),
        ..config
    };
    check(
        &config,
        "redis.privileges",
        Problem,
        &["xautoclaim, eval", "ACL SETUSER"],
    )
    .await;
    // A setting that the user may not read is not called well.
    check(
        &config,
        "redis.output_limits",
        Unknown,
        &["no permissions", "+config|get"],
    )
    .await;
    check(&config, "redis.eviction", Well, &[]).await;
    // Nothing was left behind.
    let keys: Vec<String> = redis.redis(redis::cmd("KEYS").arg("*")).await;
    assert!(keys.is_empty(), "{keys:?}");

    let wrong = url_with(&redis, "worker:wrong");
    let config = DoctorConfig {
        redis_url: Some(wrong),
        ..config
    };
    check(
        &config,
        "redis.reachable",
        Problem,
        &["correct the user or password"],
    )
    .await;
}

fn url_with(redis: &OwnRedis, user: &str) -> RedisUrl {
    let url = redis
        .url()
        .expose()
        .replace("redis://", &format!("redis://{user}@"));
    url.parse().unwrap()
}

// Streams

#[tokio::test]
async fn a_key_in_the_streams_place_is_a_problem() {
    let env = Env::start().await;
    check(&config(&env), "stream.type", Well, &["not there yet"]).await;
    env.redis::<()>(redis::cmd("SET").arg(env.stream()).arg("mine"))
        .await;
    check(&config(&env), "stream.type", Problem, &["is a string"]).await;
}

#[tokio::test]
async fn streams_that_no_worker_reads_are_a_problem() {
    let env = Env::start().await;
    check(&config(&env), "stream.shards", Well, &[]).await;
    for shard in [1, 3] {
        let mut add = redis::cmd("XADD");
        add.arg(env.key_prefix().stream(shard))
            .arg("*")
            .arg("p")
            .arg("x");
        env.redis::<()>(&add).await;
    }
    check(
        &config(&env),
        "stream.shards",
        Problem,
        &["2 entries", "--shards 4"],
    )
    .await;
    let wider = DoctorConfig {
        shards: 4.try_into().unwrap(),
        ..config(&env)
    };
    check(&wider, "stream.shards", Well, &[]).await;
}

#[tokio::test]
async fn nodes_of_any_size_are_warned_of() {
    let (redis, config) = with_own_redis(&[]).await;
    check(&config, "stream.nodes", Well, &["4096"]).await;
    redis.configure("stream-node-max-bytes", "0").await;
    check(&config, "stream.nodes", Warning, &["stream-node-max-bytes"]).await;
}

// Postgres

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

// Groups

async fn add_entry(env: &Env, id: &str) {
    let mut add = redis::cmd("XADD");
    add.arg(env.stream()).arg(id).arg("p").arg("x");
    env.redis::<()>(&add).await;
}

#[tokio::test]
async fn a_stream_that_nobody_reads_is_warned_of() {
    let env = Env::start().await;
    check(&config(&env), "stream.group", Well, &["no stream"]).await;
    add_entry(&env, "*").await;
    check(
        &config(&env),
        "stream.group",
        Warning,
        &["1 entries", "start a worker"],
    )
    .await;
    env.create_group().await;
    check(&config(&env), "stream.group", Well, &[]).await;
}

#[tokio::test]
async fn a_group_that_holds_the_stream_is_named() {
    let env = Env::start().await;
    add_entry(&env, "1-1").await;
    add_entry(&env, "*").await;
    env.create_group().await;
    check(
        &config(&env),
        "stream.other_groups",
        Well,
        &["no other group"],
    )
    .await;
    let stream = env.stream();
    let mut create = redis::cmd("XGROUP");
    create.arg("CREATE").arg(&stream).arg("audit").arg("0");
    env.redis::<()>(&create).await;
    let destroy = format!("XGROUP DESTROY '{stream}' 'audit'");
    check(
        &config(&env),
        "stream.other_groups",
        Warning,
        &["`audit`", "1-1", &destroy],
    )
    .await;

    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP")
        .arg("audit")
        .arg("a")
        .arg("STREAMS")
        .arg(&stream)
        .arg(">");
    env.redis::<redis::Value>(&read).await;
    check(&config(&env), "stream.other_groups", Warning, &["1-1"]).await; // pending now
    let mut ack = redis::cmd("XACK");
    ack.arg(&stream).arg("audit").arg("1-1");
    env.redis::<()>(&ack).await;
    check(
        &config(&env),
        "stream.other_groups",
        Well,
        &["1 other group"],
    )
    .await;
}

#[tokio::test]
async fn entries_of_the_dead_that_nobody_takes_over_are_a_problem() {
    let env = Env::start().await;
    env.publish_entries(3, 1).await;
    env.read_as("gone", 3).await;
    check(&config(&env), "stream.consumers", Well, &[]).await;
    let hasty = DoctorConfig {
        min_idle: Duration::ZERO,
        ..config(&env)
    };
    let is_found = async || find(&hasty, "stream.consumers").await.status == Problem;
    passerby_tests::eventually("it has been gone for a millisecond", is_found).await;
    check(
        &hasty,
        "stream.consumers",
        Problem,
        &["3 entries", "`gone`", "passerby claim"],
    )
    .await;
}

// The ledger

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

// Hosts

fn an_hour_ahead() -> chrono::DateTime<chrono::Utc> {
    chrono::Utc::now() + chrono::TimeDelta::hours(1)
}

#[tokio::test]
async fn clocks_that_differ_are_a_problem() {
    let env = Env::start().await;
    check(&config(&env), "clocks.agree", Well, &[]).await;
    let skewed = DoctorConfig {
        clock: an_hour_ahead,
        ..config(&env)
    };
    check(
        &skewed,
        "clocks.agree",
        Problem,
        &["behind that of this host", "set-ntp"],
    )
    .await;
}

#[tokio::test]
async fn a_disk_without_room_is_a_problem() {
    let env = Env::start().await;
    let spool = tempfile::tempdir().unwrap();
    let greedy = DoctorConfig {
        spools: vec![spool.path().to_owned()],
        least_free: u64::MAX,
        ..config(&env)
    };
    for id in ["disk.redis", "disk.postgres", "disk.spools"] {
        check(&greedy, id, Problem, &["GiB are free"]).await;
    }
    let missing = DoctorConfig {
        spools: vec!["/nowhere/spool".into()],
        ..config(&env)
    };
    check(&missing, "disk.spools", Unknown, &["/nowhere/spool"]).await;
    // Without a spool there is nothing to look at.
    let only_spools = Selection {
        only: vec!["disk.spools".to_owned()],
        skip: Vec::new(),
    };
    let config = DoctorConfig {
        selection: only_spools,
        ..config(&env)
    };
    assert!(ops::doctor(&config).await.findings.is_empty());
}
