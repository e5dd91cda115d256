//! The books balance: what producers accepted is stored, dead-lettered, dropped, or waits somewhere, to the row.

use std::{num::NonZeroUsize, time::Duration};

use chrono::{TimeDelta, Utc};
use passerby_consumer::{
    WorkerConfig,
    ops::{self, Balance, Dropped, StatusReport, Target, Thresholds},
};
use passerby_producer::{AsyncProducer, Overflow, ProducerConfig, Recorded};
use passerby_shared::{Detection, KeyPrefix, wire};
use passerby_tests::{
    Env, Fault, FaultProxy, eventually,
    fixtures::{detection, detections, track},
    producer_config,
};

const SOON: Duration = Duration::from_secs(30);

/// Asserts that what the books say is stored is what is there, in one snapshot.
async fn assert_counted(env: &Env) {
    let differ: Option<String> = env
        .value(
            "SELECT format('%s in the books, %s there', in_books, there)
             FROM (SELECT (SELECT sum(detections) - sum(detections_dropped) FROM books) AS in_books,
                          (SELECT count(*) FROM detections) AS there) AS counts
             WHERE in_books <> there
             UNION ALL SELECT NULL LIMIT 1",
        )
        .await;
    assert_eq!(differ, None);
}

async fn balance(env: &Env) -> Balance {
    let status = env.status().await;
    status.balance.unwrap_or_else(|| panic!("{status:?}"))
}

fn producer(env: &Env) -> AsyncProducer {
    AsyncProducer::start(producer_config(env, env.redis_url())).unwrap()
}

async fn record(producer: &AsyncProducer, rows: std::ops::Range<i64>) {
    let n_rows = usize::try_from(rows.end - rows.start).unwrap();
    let recorded = producer.record_many(detections(rows)).await;
    assert_eq!(recorded.accepted, n_rows);
}

/// Has a producer publish so many rows, and closes it.
async fn produce(env: &Env, rows: std::ops::Range<i64>) {
    let producer = producer(env);
    record(&producer, rows).await;
    producer.close(SOON).await.unwrap();
}

/// A row that no worker can store.
fn invalid(id: i64) -> Detection {
    Detection {
        confidence: Some(7.0),
        ..detection(id)
    }
}

fn codes(status: &StatusReport) -> Vec<&'static str> {
    let symptoms = status.symptoms(&Thresholds::default());
    symptoms.iter().map(|symptom| symptom.code).collect()
}

#[tokio::test]
async fn what_was_accepted_is_stored() {
    let env = Env::start().await;
    let producer = producer(&env);
    let recorded = producer.record_many(detections(0..250)).await;
    assert_eq!(recorded.accepted, 250);
    assert_eq!(
        producer.track(track(1, 5)).await.unwrap(),
        Recorded::Accepted
    );
    producer.close(SOON).await.unwrap();
    let before = balance(&env).await;
    assert_eq!((before.accepted, before.in_stream), (251, 251));

    env.run_worker_drain().await;

    let expected = Balance {
        accepted: 251,
        published: 251,
        settled: 251,
        stored: 251,
        ..Balance::default()
    };
    assert_eq!(balance(&env).await, expected);
    assert_counted(&env).await;
}

#[tokio::test]
async fn rows_of_others_are_named_as_such() {
    let env = Env::start().await;
    produce(&env, 0..40).await;
    // Of strangers, without a key: 3 rows, and one that cannot be stored.
    let mut payload = Vec::new();
    wire::encode_detections(
        &[detections(40..43), vec![invalid(43)]].concat(),
        &mut payload,
    );
    env.publish_entry(&[("p", &payload)]).await;
    // Of somebody who writes keys and keeps no books.
    env.publish(&detections(50..55)).await;
    env.store()
        .await
        .insert_detections(&detections(60..67))
        .await
        .unwrap();
    env.store()
        .await
        .bulk_upsert_tracks(&[track(1, 1), track(2, 1)])
        .await
        .unwrap();
    env.run_worker_drain().await;
    // Put back without a fix, it becomes a dead letter again.
    assert_eq!(env.requeue_all().await.requeued, 1);
    env.run_worker_drain().await;

    let expected = Balance {
        accepted: 40,
        published: 40,
        settled: 45,
        surplus: 5,
        foreign: 4,
        requeued: 1,
        direct: 9,
        stored: 40 + 3 + 5 + 7 + 2,
        dead_lettered: 2,
        ..Balance::default()
    };
    assert_eq!(balance(&env).await, expected);
    assert_counted(&env).await;
    let store = env.store().await.books(env.key_prefix()).await.unwrap();
    let [invalid] = &store.dead_letters[..] else {
        panic!("{store:?}");
    };
    assert_eq!((invalid.written, invalid.waiting), (2, 1));
    env.execute("DELETE FROM dead_letters").await;
    let store = env.store().await.books(env.key_prefix()).await.unwrap();
    assert_eq!(store.dead_letters[0].waiting, 0);
}

#[tokio::test]
async fn rows_that_were_dropped_or_wait_are_where_the_producer_says() {
    let env = Env::start().await;
    let producer = AsyncProducer::start(ProducerConfig {
        buffer_rows: NonZeroUsize::new(100).unwrap(),
        overflow: Overflow::DropOldest,
        ..producer_config(&env, env.redis_url())
    })
    .unwrap();
    producer.flush(SOON).await.unwrap();
    eventually("the producer is known", async || {
        env.status().await.redis.unwrap().producers.len() == 1
    })
    .await;
    // Its way to the stream is blocked, not that of its books: as when Redis is full.
    env.redis::<()>(redis::cmd("SET").arg(env.stream()).arg("in the way"))
        .await;
    record(&producer, 0..250).await;

    eventually("books are told", async || {
        let found: std::collections::BTreeMap<String, String> = env
            .redis(redis::cmd("HGETALL").arg(env.key_prefix().producers()))
            .await;
        found
            .values()
            .any(|json| json.contains("\"dropped_oldest\":150"))
    })
    .await;
    env.redis::<()>(redis::cmd("DEL").arg(env.stream())).await;
    producer.close(SOON).await.unwrap();
    env.run_worker_drain().await;

    let balance = balance(&env).await;
    assert_eq!(balance.accepted, 250);
    assert_eq!(
        balance.dropped,
        Dropped {
            oldest: 150,
            ..Dropped::default()
        }
    );
    assert_eq!(
        (balance.stored, balance.unaccounted, balance.surplus),
        (100, 0, 0)
    );
}

#[tokio::test]
async fn books_are_exact_at_every_moment_whoever_folds_them() {
    let env = Env::start().await;
    env.publish_entries(400, 5).await;
    let config = WorkerConfig {
        committers: NonZeroUsize::new(4).unwrap(),
        batch_rows: NonZeroUsize::new(10).unwrap(),
        ..env.worker_config()
    };
    let workers = [
        env.start_worker(config.clone()).await,
        env.start_worker(WorkerConfig {
            consumer: passerby_consumer::ConsumerName::generate(),
            ..config
        })
        .await,
    ];
    let (mut target, mut store) = (env.target(), env.store().await);

    eventually("all rows are stored", async || {
        ops::fold_books(&mut target, &mut store, Duration::ZERO)
            .await
            .unwrap();
        assert_counted(&env).await;
        env.n_rows().await == 2_000
    })
    .await;

    for worker in workers {
        worker.stop().await;
    }
    assert_counted(&env).await;
    store.fold_books(Duration::ZERO).await.unwrap();
    // One of what came through this stream, and one of what came through none.
    assert_eq!(env.value::<i64>("SELECT count(*) FROM books").await, 2);
    assert_counted(&env).await;
}

#[tokio::test]
async fn producers_that_are_gone_are_folded_and_no_number_changes() {
    let env = Env::start().await;
    for n in 0..3 {
        produce(&env, 100 * n..100 * n + 100).await;
    }
    env.run_worker_drain().await;
    let before = balance(&env).await;
    assert_eq!((before.accepted, before.stored), (300, 300));

    let (mut target, mut store) = (env.target(), env.store().await);
    ops::fold_books(&mut target, &mut store, Duration::ZERO)
        .await
        .unwrap();

    let redis = env.status().await.redis.unwrap();
    assert_eq!(
        (redis.producers.len(), redis.producers_gone.producers),
        (0, 3)
    );
    assert_eq!(balance(&env).await, before);
}

#[tokio::test]
async fn a_redis_that_forgot_the_books_of_the_living_is_told_again() {
    let env = Env::start().await;
    let producer = producer(&env);
    record(&producer, 0..30).await;
    producer.flush(SOON).await.unwrap();
    eventually("told", async || balance(&env).await.accepted == 30).await;

    env.redis::<()>(redis::cmd("DEL").arg(env.key_prefix().producers()))
        .await;

    eventually("told again", async || balance(&env).await.accepted == 30).await;
    producer.close(SOON).await.unwrap();
}

#[tokio::test]
async fn rows_that_somebody_trimmed_unread_are_unaccounted_for() {
    let env = Env::start().await;
    produce(&env, 0..200).await;
    env.redis::<()>(redis::cmd("XTRIM").arg(env.stream()).arg("MAXLEN").arg(0))
        .await;

    let status = env.status().await;

    let balance = status.balance.unwrap();
    assert_eq!((balance.unaccounted, balance.in_stream), (200, 0));
    assert!(codes(&status).contains(&"unaccounted"), "{status:?}");
}

#[tokio::test]
async fn detections_that_retention_dropped_are_in_the_books() {
    let env = Env::start().await;
    let mut store = env.store().await;
    for days in [0, 5] {
        let mut rows = detections(days * 10..days * 10 + 10);
        for row in &mut rows {
            row.timestamp -= TimeDelta::days(days);
        }
        store.insert_detections(&rows).await.unwrap();
    }
    store
        .drop_detections_before(Utc::now() - TimeDelta::days(2))
        .await
        .unwrap();

    let books = store.books(env.key_prefix()).await.unwrap();

    assert_eq!((books.detections, books.detections_dropped), (20, 10));
    assert_counted(&env).await;
}

#[tokio::test]
async fn the_half_that_can_be_asked_is_shown() {
    let env = Env::start().await;
    produce(&env, 0..10).await;
    env.run_worker_drain().await;
    let (proxy, redis_url): (FaultProxy, _) = env.redis_proxy().await;
    proxy.set(Fault::Refuse);
    let mut target = env.target();
    target.link = passerby_shared::redis_connection::RedisLink::new(
        redis_url,
        passerby_shared::redis_connection::RedisTimeouts::default(),
    );

    let status = ops::status(&mut target, &mut env.store().await).await;

    assert!(status.redis.is_none() && status.balance.is_none() && status.flow.is_none());
    assert!(status.redis_error.is_some());
    assert_eq!(status.store.as_ref().unwrap().detections, 10);
    assert_eq!(codes(&status), ["redis-unknown"]);
}

#[tokio::test]
async fn the_backlog_is_right_where_lag_is_null() {
    let env = Env::start().await;
    env.create_group().await;
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(env.publish(&detections(n..n + 1)).await);
    }
    env.read_as("gone", 5).await;
    env.redis::<()>(redis::cmd("XDEL").arg(env.stream()).arg(ids[10]))
        .await;

    let redis = env.status().await.redis.unwrap();

    assert_eq!((redis.pending(), redis.undelivered()), (5, 14));
    assert!(redis.undelivered_is_exact());
    let [worker] = &redis.workers[..] else {
        panic!("{redis:?}");
    };
    assert_eq!((worker.pending, worker.is_alive), (5, false));
    assert!(worker.oldest_pending_seconds.is_some());
}

#[tokio::test]
async fn a_producer_that_was_taken_for_gone_is_not_counted_twice() {
    let env = Env::start().await;
    let (proxy, redis_url) = env.redis_proxy().await;
    let producer = AsyncProducer::start(producer_config(&env, redis_url)).unwrap();
    let (mut target, mut store) = (env.target(), env.store().await);
    let mut n_rows = 0;
    for _ in 0..2 {
        record(&producer, n_rows..n_rows + 30).await;
        n_rows += 30;
        producer.flush(SOON).await.unwrap();
        let accepted = n_rows.unsigned_abs();
        eventually("told", async || balance(&env).await.accepted == accepted).await;
        proxy.set(Fault::Refuse);
        eventually("folded", async || {
            ops::fold_books(&mut target, &mut store, Duration::ZERO)
                .await
                .unwrap();
            env.status().await.redis.unwrap().producers.is_empty()
        })
        .await;
        assert_eq!(balance(&env).await.accepted, accepted);

        proxy.heal();

        eventually("it is back", async || {
            env.status().await.redis.unwrap().producers.len() == 1
        })
        .await;
        assert_eq!(balance(&env).await.accepted, accepted);
    }
    record(&producer, n_rows..n_rows + 5).await;
    producer.close(SOON).await.unwrap();
    ops::fold_books(&mut target, &mut store, Duration::ZERO)
        .await
        .unwrap();
    let gone = env.status().await.redis.unwrap().producers_gone;
    assert_eq!((gone.producers, gone.rows().accepted), (1, 65));
    env.run_worker_drain().await;
    let balance = balance(&env).await;
    assert_eq!(
        (
            balance.accepted,
            balance.stored,
            balance.unaccounted,
            balance.surplus
        ),
        (65, 65, 0, 0)
    );
}

#[tokio::test]
async fn a_worker_that_failed_long_ago_is_a_note_once_another_is_there() {
    let env = Env::start().await;
    let failed = r#"{"updated_ms":1,"group":"passerby","state":"failed"}"#;
    env.redis::<()>(
        redis::cmd("HSET")
            .arg(env.key_prefix().workers())
            .arg("gone")
            .arg(failed),
    )
    .await;
    let severity = async || {
        let symptoms = env.status().await.symptoms(&Thresholds::default());
        let failed = symptoms
            .iter()
            .find(|symptom| symptom.code == "worker-failed");
        failed.unwrap().severity
    };
    assert_eq!(severity().await, ops::Severity::Unhealthy);

    let worker = env.start_worker(env.worker_config()).await;

    eventually("it is replaced", async || {
        severity().await == ops::Severity::Note
    })
    .await;
    worker.stop().await;
}

#[tokio::test]
async fn two_redis_that_feed_one_database_have_books_of_their_own() {
    let env = Env::start().await;
    let other: KeyPrefix = format!("{}-yard", env.key_prefix()).parse().unwrap();
    let feeds = [(env.key_prefix().clone(), 0..10), (other, 10..40)];
    for (key_prefix, rows) in feeds.clone() {
        let producer = AsyncProducer::start(ProducerConfig {
            key_prefix: key_prefix.clone(),
            ..producer_config(&env, env.redis_url())
        })
        .unwrap();
        record(&producer, rows).await;
        producer.close(SOON).await.unwrap();
        env.drain_with(WorkerConfig {
            key_prefix,
            ..env.worker_config()
        })
        .await;
    }
    let mut store = env.store().await;
    for is_folded in [false, true] {
        for (key_prefix, rows) in feeds.clone() {
            let mut target = Target {
                streams: vec![key_prefix.stream(0)],
                key_prefix,
                ..env.target()
            };
            if is_folded {
                ops::fold_books(&mut target, &mut store, Duration::ZERO)
                    .await
                    .unwrap();
            }
            let n_rows = u64::try_from(rows.end - rows.start).unwrap();
            let status = ops::status(&mut target, &mut store).await;
            let expected = Balance {
                accepted: n_rows,
                published: n_rows,
                settled: n_rows,
                stored: n_rows,
                ..Balance::default()
            };
            assert_eq!(status.balance, Some(expected));
        }
    }
    assert_counted(&env).await;
}
