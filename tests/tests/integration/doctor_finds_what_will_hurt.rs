//! Whatever will hurt later is found now, on the servers as they are; and what could not be looked at is
//! not called well.

use std::time::Duration;

use passerby_consumer::ops::{self, DoctorConfig, Finding, Selection, Status};
use passerby_shared::redis_connection::RedisUrl;
use passerby_tests::{Env, OwnRedis, Passerby};
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
            // The private Postgres is told not to wait for its disk.
            skip: vec!["postgres.fsync".to_owned()],
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
        (without_redis, &["redis", "stream"][..], "redis.reachable"),
        (without_postgres, &["postgres"][..], "postgres.reachable"),
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
