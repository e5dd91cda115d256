use passerby_consumer::WorkerConfig;
use passerby_shared::{Detection, Gender, Session, SessionSummary, Track};
use passerby_tests::{
    Env, Fault, eventually,
    fixtures::{MIDNIGHT, SESSION, detection, track},
};

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
