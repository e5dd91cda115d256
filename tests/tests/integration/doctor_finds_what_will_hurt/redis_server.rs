//! Redis: what it does when it is full, what survives, whom it lets in.

use super::*;

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
