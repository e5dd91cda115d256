//! Whatever will hurt later is found now, on the servers as they are; and what could not be looked at is
//! not called well.

mod hosts;
mod ledger;
mod postgres_server;
mod redis_server;
mod streams;
mod tables;

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

/// An entry that no producer of ours writes, under an ID of the test's own.
async fn add_entry(env: &Env, id: &str) {
    let mut add = redis::cmd("XADD");
    add.arg(env.stream()).arg(id).arg("p").arg("x");
    env.redis::<()>(&add).await;
}

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
    assert_eq!(report.worst(), Well);
    assert_eq!(report.ok, report.findings.len());
}

#[tokio::test]
async fn anything_wrong_is_exit_code_3_and_how_wrong_can_be_said() {
    let env = Env::start().await;
    let exit = async |args: &[&str]| {
        let args = [&["doctor"], args].concat();
        Passerby::on(&env).run(&args).await.code
    };
    // The shared Redis has no append-only file and no maxmemory.
    assert_eq!(exit(&["--only", "redis.aof"]).await, Some(3));
    assert_eq!(exit(&["--only", "redis.aof", "--lenient"]).await, Some(3));
    // A warning.
    assert_eq!(exit(&["--only", "redis.memory"]).await, Some(3));
    assert_eq!(
        exit(&["--only", "redis.memory", "--lenient"]).await,
        Some(0)
    );
    // Unknown: there is no file whose flushing could be looked at.
    assert_eq!(exit(&["--only", "redis.fsync"]).await, Some(0));
    assert_eq!(exit(&["--only", "redis.fsync", "--strict"]).await, Some(3));
    assert_eq!(
        exit(&["--only", "redis.aof,redis.role", "--skip", "redis.aof"]).await,
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
        assert_eq!(report.worst(), Status::Problem);
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
