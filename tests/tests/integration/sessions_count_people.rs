use std::{sync::Arc, time::Duration};

use passerby_consumer::{
    WorkerConfig,
    batch::{Batch, BatchBuilder},
};
use passerby_shared::{Detection, Gender, IdempotencyKey, Session, SessionSummary, Track};
use passerby_tests::{
    Env, Fault, eventually,
    fixtures::{MIDNIGHT, SESSION, detection, track},
};
use tokio::{sync::Barrier, task::JoinSet};
use tokio_postgres::{Client, NoTls};

/// `n` rows of person `track_id`.
fn person(track_id: i64, n: i64, gender: Option<Gender>) -> Vec<Detection> {
    (0..n)
        .map(|id| Detection {
            track_id: Some(track_id),
            gender,
            gender_confidence: gender.map(|_| 0.9),
            ..detection(track_id * 1_000 + id)
        })
        .collect()
}

fn ended() -> Session {
    Session {
        session_id: SESSION.to_owned(),
        started_at: Some(*MIDNIGHT),
        ended_at: Some(*MIDNIGHT + chrono::TimeDelta::hours(1)),
        source: Some("gate.mp4".to_owned()),
    }
}

async fn summary(env: &Env) -> Option<SessionSummary> {
    let record = env.store().await.session(SESSION).await.unwrap();
    record.unwrap().summary
}

#[tokio::test]
async fn a_summary_counts_people_and_not_rows() {
    let env = Env::start().await;
    env.publish(&person(1, 40, Some(Gender::Male))).await;
    env.publish(&person(2, 30, Some(Gender::Female))).await;
    env.publish(&person(3, 20, None)).await;
    // Ten rows say female, and the track's own vote says male.
    env.publish(&person(4, 10, Some(Gender::Female))).await;
    let voted = Track {
        gender: Some(Gender::Male),
        ..track(4, 10)
    };
    // And one was reported as a track without any row.
    let unseen = Track {
        gender: Some(Gender::Female),
        ..track(5, 10)
    };
    env.publish_tracks(&[voted, unseen]).await;
    env.publish_session(&ended()).await;

    env.run_worker_drain().await;

    let expected = SessionSummary {
        detections: 100,
        people: 5,
        male: 2,
        female: 2,
        unknown: 1,
    };
    assert_eq!(summary(&env).await, Some(expected));
}

#[tokio::test]
async fn rows_that_come_after_the_end_correct_the_summary() {
    let env = Env::start().await;
    env.publish(&person(1, 40, Some(Gender::Male))).await;
    env.publish_session(&ended()).await;
    env.run_worker_drain().await;
    assert_eq!(summary(&env).await.unwrap().people, 1);

    env.publish(&person(2, 10, Some(Gender::Female))).await;
    env.run_worker_drain().await;

    let expected = SessionSummary {
        detections: 50,
        people: 2,
        male: 1,
        female: 1,
        unknown: 0,
    };
    assert_eq!(summary(&env).await, Some(expected));
}

#[tokio::test]
async fn a_summary_waits_for_rows_that_are_being_committed() {
    let env = Env::start().await;
    let (proxy, database_url) = env.postgres_proxy().await;
    let worker = env
        .start_worker(WorkerConfig {
            database_url,
            ..env.worker_config()
        })
        .await;
    proxy.set(Fault::HoldBefore(Fault::COMMIT));
    env.publish(&person(1, 40, Some(Gender::Male))).await;
    proxy.met().await;

    // The session exists in the transaction alone, so announce it: that waits for the commit too.
    let mut store = env.store().await;
    let summarizing = tokio::spawn(async move {
        store.announce_session(&ended()).await.unwrap();
        store.summarize_session(SESSION).await.unwrap()
    });
    eventually("somebody waits", async || {
        env.value::<bool>(
            "SELECT EXISTS (SELECT FROM pg_stat_activity
                            WHERE datname = current_database() AND wait_event_type = 'Lock')",
        )
        .await
    })
    .await;
    proxy.heal();

    let made = summarizing.await.unwrap().unwrap();
    assert_eq!((made.detections, made.people), (40, 1));

    // And again, now that the session stands in the table.
    proxy.set(Fault::HoldBefore(Fault::COMMIT));
    env.publish(&person(2, 40, Some(Gender::Female))).await;
    proxy.met().await;
    let mut store = env.store().await;
    let summarizing = tokio::spawn(async move { store.summarize_session(SESSION).await.unwrap() });
    eventually("somebody waits", async || {
        env.value::<bool>(
            "SELECT EXISTS (SELECT FROM pg_stat_activity
                            WHERE datname = current_database() AND wait_event_type = 'Lock')",
        )
        .await
    })
    .await;
    proxy.heal();

    let made = summarizing.await.unwrap().unwrap();
    assert_eq!((made.detections, made.people), (80, 2));
    worker.stop().await;
    assert_eq!(summary(&env).await, Some(made));
}

#[tokio::test]
async fn a_running_worker_summarizes_sessions_that_end() {
    let env = Env::start().await;
    let worker = env.start_worker(env.worker_config()).await;
    env.publish(&person(1, 5, None)).await;
    env.publish_session(&ended()).await;

    eventually("summarized", async || {
        let record = env.store().await.session(SESSION).await.unwrap();
        record.and_then(|record| record.summary).is_some()
    })
    .await;

    assert_eq!(summary(&env).await.unwrap().people, 1);
    worker.stop().await;
}

/// A connection beside the test's own, for what is to be held for a while.
async fn operator(env: &Env) -> Client {
    let url = env.servers.postgres_url(env.database());
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn n_waiting_for_locks(env: &Env) -> i64 {
    env.value(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    .await
}

#[tokio::test]
async fn rows_that_come_while_a_session_that_nobody_ended_is_counted_are_counted_in_the_end() {
    let env = Env::start().await;
    env.publish(&person(1, 40, Some(Gender::Male))).await;
    env.run_worker_drain().await;
    let (tables, rows) = (operator(&env).await, operator(&env).await);
    // The mark is made; the count then waits for the table, and its result for the row.
    tables
        .batch_execute("BEGIN; LOCK TABLE tracks IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let mut store = env.store().await;
    let summarizing = tokio::spawn(async move { store.summarize_session(SESSION).await.unwrap() });
    eventually("the count waits", async || {
        n_waiting_for_locks(&env).await == 1
    })
    .await;
    rows.batch_execute("BEGIN; SELECT FROM sessions FOR NO KEY UPDATE")
        .await
        .unwrap();
    tables.batch_execute("COMMIT").await.unwrap();
    eventually("the result waits", async || {
        env.value::<bool>(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid')",
        )
        .await
    })
    .await;

    let worker = env.start_worker(env.worker_config()).await;
    env.publish(&person(2, 30, Some(Gender::Female))).await;
    // Stored already, or waiting to say that the summary is out of date.
    eventually("rows come", async || {
        env.n_rows().await == 70 || n_waiting_for_locks(&env).await == 2
    })
    .await;
    rows.batch_execute("COMMIT").await.unwrap();
    summarizing.await.unwrap();

    eventually("all are counted", async || {
        let mut store = env.store().await;
        store
            .summarize_ended_sessions(Duration::ZERO)
            .await
            .unwrap();
        summary(&env).await.map(|made| made.detections) == Some(70)
    })
    .await;
    worker.stop().await;
}

/// A batch with rows of one new session, which says something of another one.
fn batch(rows_of: &str, announced: &str) -> Batch {
    let mut batch = BatchBuilder::default();
    let row = Detection {
        session_id: rows_of.to_owned(),
        ..detection(1)
    };
    batch.push_detection(&row.as_ref());
    batch.finish_entry(IdempotencyKey::generate(), None, Vec::new());
    batch.push_session(Session {
        session_id: announced.to_owned(),
        ..ended()
    });
    batch.finish_entry(IdempotencyKey::generate(), None, Vec::new());
    batch.build()
}

#[tokio::test]
async fn two_batches_that_announce_each_others_sessions_do_not_wait_for_each_other() {
    const ROUNDS: usize = 100;
    let env = Env::start().await;
    let together = Arc::new(Barrier::new(2));
    let mut committing = JoinSet::new();
    for (mine, theirs) in [("a", "b"), ("b", "a")] {
        let (mut store, together) = (env.store().await, Arc::clone(&together));
        committing.spawn(async move {
            for round in 0..ROUNDS {
                let batch = batch(&format!("{mine}-{round}"), &format!("{theirs}-{round}"));
                together.wait().await;
                // A deadlock would be an error: one of the two is chosen to fail.
                let (settled, _) = store.commit(&batch).await.unwrap();
                drop(settled);
            }
        });
    }
    // Of the other one, which then waits for ever, nothing more is heard.
    while let Some(committed) = committing.join_next().await {
        committed.unwrap();
    }
    let n_sessions: i64 = env
        .value("SELECT count(*) FROM sessions WHERE ended_at IS NOT NULL")
        .await;
    assert_eq!(n_sessions, i64::try_from(2 * ROUNDS).unwrap());
}
