//! The streams and their groups.

use super::*;

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
