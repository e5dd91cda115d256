//! A consumer leaves its group by hand only if it is gone, and nothing it holds goes with it.

use std::time::Duration;

use passerby_consumer::ops::{self, Retired, Target};
use passerby_shared::redis_connection::{RedisLink, RedisTimeouts};
use passerby_tests::{Env, GROUP, Golden, Passerby, eventually, fixtures::detections};
use serde_json::{Value, json};

async fn run_json(env: &Env, args: &[&str]) -> Value {
    let args = [args, &["--json"]].concat();
    Passerby::on(env).run(&args).await.json()
}

async fn consumer(env: &Env, name: &str) -> Value {
    let listed = run_json(env, &["consumers", "list"]).await;
    let consumers = listed["consumers"].as_array().unwrap().clone();
    consumers
        .into_iter()
        .find(|one| one["consumer"] == name)
        .unwrap_or_else(|| panic!("no {name} in {listed}"))
}

#[tokio::test]
async fn consumers_are_listed_with_what_they_hold() {
    let env = Env::start().await;
    let mut golden = Golden::of("consumers", &env);
    golden.run(&["consumers", "list"]).await;
    env.create_group().await;
    golden.note("a group without consumers");
    golden.run(&["consumers", "list"]).await;
    env.publish_entries(3, 10).await;
    env.read_as("gate-host", 2).await;
    env.read_as("yard-host", 1).await;
    golden.note("two consumers");
    golden.run(&["consumers", "list"]).await;
    golden.run(&["consumers", "retire", "gate-host"]).await;
    golden
        .run(&["consumers", "retire", "gate-host", "--gone-after", "0s"])
        .await;
    let now = [
        "consumers",
        "retire",
        "gate-host",
        "--gone-after",
        "0s",
        "--store-now",
    ];
    golden.run(&[&now[..], &["--dry-run"]].concat()).await;
    golden.run(&now).await;
    golden.run(&[&now[..], &["--yes"]].concat()).await;
    let to = [
        "consumers",
        "retire",
        "yard-host",
        "--gone-after",
        "0s",
        "--claim-to",
    ];
    golden
        .run(&[&to[..], &["roof-host", "--yes", "--json"]].concat())
        .await;
    golden
        .run(&["consumers", "retire", "gate-host", "--yes"])
        .await;

    assert_eq!(env.consumers().await, ["roof-host"]);
    assert_eq!(env.pending().await["roof-host"], 1);
    env.assert_stored_once(20).await;
}

#[tokio::test]
async fn a_living_worker_is_listed_and_never_retired() {
    let env = Env::start().await;
    let config = env.worker_config();
    let name = config.consumer.to_string();
    let worker = env.start_worker(config).await;
    env.publish(&detections(0..10)).await;
    eventually("it shows itself", async || {
        let listed = run_json(&env, &["consumers", "list"]).await;
        listed["consumers"][0]["shown"]["state"] == "reading"
    })
    .await;

    let listed = consumer(&env, &name).await;
    assert_eq!(listed["shown"]["pid"], std::process::id());
    assert!(listed["sign_of_life"].is_string(), "{listed}");
    // Not even when somebody says that nothing is a sign of life: it shows itself.
    let args = [
        "consumers",
        "retire",
        &name,
        "--gone-after",
        "0s",
        "--store-now",
        "--yes",
    ];
    let refused = Passerby::on(&env).run(&args).await;
    refused.assert_one_error_line(&["shows signs of life", "stop it first"]);

    eventually("it has stored", async || env.n_rows().await == 10).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_consumer_that_was_given_something_meanwhile_stays() {
    let env = Env::start().await;
    env.publish_entries(2, 10).await;
    env.read_as("gate-host", 1).await;
    let mut target = Target {
        link: RedisLink::new(env.redis_url(), RedisTimeouts::default()),
        key_prefix: env.key_prefix().clone(),
        streams: vec![env.stream()],
        group: GROUP.to_owned(),
    };

    let retired = ops::retire(&mut target, "gate-host", Duration::ZERO).await;

    assert_eq!(retired.unwrap(), Retired::Holds { n_entries: 1 });
    assert_eq!(env.consumers().await, ["gate-host"]);
    let unknown = ops::retire(&mut target, "nobody", Duration::ZERO).await;
    assert_eq!(unknown.unwrap(), Retired::Unknown);
    let alive = ops::retire(&mut target, "gate-host", Duration::from_secs(3_600)).await;
    assert!(matches!(alive.unwrap(), Retired::Alive { .. }));
    assert_eq!(json!(env.n_pending().await), 1);
}
