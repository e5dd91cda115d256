//! A session that its pipeline never ended is ended by hand, once it is quiet; what comes later is counted all
//! the same.

use chrono::{TimeDelta, Utc};
use passerby_shared::{Detection, Session};
use passerby_tests::{
    Env, Golden, Passerby, eventually,
    fixtures::{SESSION, detection, detections, track},
};
use serde_json::{Value, json};

/// `n` rows of 7 people, the last of them so long ago.
fn rows(n: i64, ago: TimeDelta) -> Vec<Detection> {
    let end = Utc::now() - ago;
    (0..n)
        .map(|id| Detection {
            timestamp: end - TimeDelta::milliseconds(40 * (n - 1 - id)),
            ..detection(id)
        })
        .collect()
}

async fn abandoned() -> Env {
    let env = Env::start().await;
    env.publish(&rows(70, TimeDelta::hours(3))).await;
    env.run_worker_drain().await;
    env
}

async fn close(env: &Env, args: &[&str]) -> Value {
    let args = [&["sessions", "close", SESSION, "--yes", "--json"], args].concat();
    Passerby::on(env).run(&args).await.json()
}

async fn list(env: &Env, args: &[&str]) -> Vec<String> {
    let args = [&["sessions", "list", "--json"], args].concat();
    let sessions = Passerby::on(env).run(&args).await.json_lines();
    let id = |session: &Value| session["session_id"].as_str().unwrap().to_owned();
    sessions.iter().map(id).collect()
}

#[tokio::test]
async fn an_abandoned_session_ends_with_its_last_row_and_has_a_summary() {
    let env = abandoned().await;
    let would = Passerby::on(&env)
        .run(&["sessions", "close", SESSION, "--dry-run", "--json"])
        .await
        .json();
    assert_eq!(would["closed"], false);
    assert_eq!(list(&env, &["--open"]).await, [SESSION]);
    let unasked = Passerby::on(&env)
        .run(&["sessions", "close", SESSION])
        .await;
    unasked.assert_usage_error(&["end 1 session"]);

    let closed = close(&env, &[]).await;

    assert_eq!(closed["ended_at"], closed["last_row_at"]);
    assert_eq!(
        (
            &closed["summary"]["people"],
            &closed["summary"]["detections"]
        ),
        (&json!(7), &json!(70))
    );
    assert_eq!(list(&env, &["--open"]).await, [] as [&str; 0]);
    assert_eq!(
        list(&env, &["--closed", "--camera-id", "gate-1"]).await,
        [SESSION]
    );
    assert_eq!(
        list(&env, &["--camera-id", "yard-2"]).await,
        [] as [&str; 0]
    );
    let again = close(&env, &[]).await;
    assert_eq!(
        (&again["closed"], &again["ended_at"]),
        (&json!(false), &closed["ended_at"])
    );
}

#[tokio::test]
async fn a_session_that_lives_is_not_ended_by_accident() {
    let env = Env::start().await;
    env.publish(&rows(70, TimeDelta::seconds(2))).await;
    env.run_worker_drain().await;

    let refused = Passerby::on(&env)
        .run(&["sessions", "close", SESSION, "--yes"])
        .await;
    refused.assert_one_error_line(&["had a row", "ago", "--force"]);
    let unknown = Passerby::on(&env)
        .run(&["sessions", "close", "none", "--yes"])
        .await;
    unknown.assert_one_error_line(&["no session `none`", "sessions list"]);
    assert_eq!(list(&env, &["--open"]).await, [SESSION]);

    assert_eq!(close(&env, &["--force"]).await["closed"], true);
}

#[tokio::test]
async fn rows_that_come_later_are_counted_and_the_pipelines_own_end_wins() {
    let env = abandoned().await;
    let closed = close(&env, &[]).await;
    let late: Vec<Detection> = (70..80)
        .map(|id| Detection {
            track_id: Some(100),
            ..detection(id)
        })
        .collect();
    env.publish(&late).await;
    env.run_worker_drain().await;
    env.execute("UPDATE sessions SET people = NULL, summarized_at = NULL")
        .await;
    assert_eq!(list(&env, &["--without-summary"]).await, [SESSION]);

    // Who asks for it need not wait for the workers.
    let counted = close(&env, &[]).await;
    assert_eq!(
        (&counted["closed"], &counted["ended_at"]),
        (&json!(false), &closed["ended_at"])
    );
    assert_eq!(counted["summary"]["people"], 8);
    let said = Session {
        session_id: SESSION.into(),
        started_at: None,
        ended_at: Some(Utc::now()),
        source: None,
    };
    env.publish_session(&said).await;
    let worker = env.start_worker(env.worker_config()).await;
    eventually("the summary is made again", async || {
        let record = env.store().await.session(SESSION).await.unwrap().unwrap();
        record.summary.is_some_and(|s| s.people == 8)
            && record.session.ended_at.map(|t| t.timestamp())
                == said.ended_at.map(|t| t.timestamp())
    })
    .await;
    worker.stop().await;
}

#[tokio::test]
async fn output_of_sessions() {
    let env = Env::start().await;
    env.publish(&detections(0..70)).await;
    env.publish_tracks(&[track(1, 5)]).await;
    let other = Detection {
        session_id: "session-2".into(),
        ..detection(100)
    };
    env.publish(&[other]).await;
    env.run_worker_drain().await;
    let mut golden = Golden::of("sessions", &env);
    golden
        .run(&["sessions", "list", "--camera-id", "none"])
        .await;
    // The fixtures' times may be those of a moment ago.
    let close = ["sessions", "close", SESSION, "--quiet", "0s"];
    golden.run(&[&close[..], &["--dry-run"]].concat()).await;
    golden.run(&close).await;
    golden.run(&[&close[..], &["--yes"]].concat()).await;
    golden.run(&[&close[..], &["--yes"]].concat()).await;
    golden
        .run(&[&close[..], &["--yes", "--json"]].concat())
        .await;
    golden
        .run(&["sessions", "close", "session-9", "--yes"])
        .await;
    golden.run(&["sessions", "list", "--closed"]).await;
    golden
        .run(&["sessions", "list", "--closed", "--json"])
        .await;
}
