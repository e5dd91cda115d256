use passerby_shared::{
    Backlog, backlog,
    redis_connection::{RedisLink, RedisTimeouts},
};
use passerby_tests::{Env, GROUP, fixtures::detections};

async fn measure(env: &Env) -> Backlog {
    let mut link = RedisLink::new(env.redis_url(), RedisTimeouts::default());
    let connection = link.get().await.unwrap();
    backlog::measure(connection, &env.stream(), GROUP)
        .await
        .unwrap()
}

async fn check(env: &Env, pending: u64, undelivered: u64) {
    let found = measure(env).await;
    assert_eq!(
        (found.pending, found.undelivered, found.is_exact),
        (pending, undelivered, true),
        "{found:?}"
    );
}

#[tokio::test]
async fn what_is_not_there_is_an_empty_backlog() {
    let env = Env::start().await;
    check(&env, 0, 0).await;
    assert_eq!(measure(&env).await.oldest, None);
}

#[tokio::test]
async fn undelivered_and_pending_entries_are_counted_and_the_oldest_found() {
    let env = Env::start().await;
    let first = env.publish(&detections(0..1)).await;
    env.publish_entries(9, 1).await;
    // Nobody has made the group yet.
    check(&env, 0, 10).await;
    env.read_as("slow", 4).await;
    check(&env, 4, 6).await;
    assert_eq!(measure(&env).await.oldest, Some(first));
    env.run_claiming_worker_drain().await;
    check(&env, 0, 0).await;
    assert_eq!(measure(&env).await.age(), std::time::Duration::ZERO);
}

#[tokio::test]
async fn the_backlog_is_right_where_lag_is_null() {
    let env = Env::start().await;
    env.publish_entries(5, 1).await;
    env.read_as("slow", 5).await;
    let deleted = env.publish(&detections(5..6)).await;
    env.publish_entries(7, 1).await;
    // Deleting an entry behind what was delivered makes `lag` NULL.
    let _n: u64 = env
        .redis(redis::cmd("XDEL").arg(env.stream()).arg(deleted))
        .await;
    check(&env, 5, 7).await;
}

#[tokio::test]
async fn the_backlog_is_right_where_entries_nobody_read_were_trimmed() {
    let env = Env::start().await;
    env.publish_entries(3, 1).await;
    env.read_as("slow", 3).await;
    env.publish_entries(8, 1).await;
    // Somebody's MAXLEN: Redis 7.0 and Valkey 9.1 still report a lag of 8.
    let trimmed: u64 = env
        .redis(
            redis::cmd("XTRIM")
                .arg(env.stream())
                .arg(&["MAXLEN", "=", "5"]),
        )
        .await;
    assert_eq!(trimmed, 6);
    check(&env, 3, 5).await;
    // And when some of the rest was read.
    env.read_as("slow", 2).await;
    check(&env, 5, 3).await;
}

#[tokio::test]
async fn a_large_backlog_is_never_said_to_be_more_than_the_stream_holds() {
    let env = Env::start().await;
    env.publish_entries(10, 1).await;
    env.read_as("slow", 10).await;
    let deleted = env.publish(&detections(10..11)).await;
    env.publish_entries(500, 1).await;
    let _n: u64 = env
        .redis(redis::cmd("XDEL").arg(env.stream()).arg(deleted))
        .await;
    let found = measure(&env).await;
    assert!(!found.is_exact);
    assert!((65..=510).contains(&found.undelivered), "{found:?}");
}
