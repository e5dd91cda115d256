use std::time::Duration;

use passerby_consumer::WorkerConfig;
use passerby_shared::Detection;
use passerby_tests::{Env, fixtures::detections};

/// Rows of everybody in each frame, as a camera sees them, of this session.
fn of_session(session_id: &str, ids: std::ops::Range<i64>) -> Vec<Detection> {
    let mut rows = detections(ids);
    for row in &mut rows {
        row.session_id = session_id.to_owned();
        if row.track_id == Some(3) {
            row.track_id = None;
        }
    }
    rows
}

#[tokio::test]
async fn rows_of_a_batch_lie_together_by_session_and_in_each_by_track() {
    let env = Env::start().await;
    for n in 0..4 {
        let session_id = ["morning", "evening"][usize::from(n % 2 == 1)];
        env.publish(&of_session(session_id, n * 50..(n + 1) * 50))
            .await;
    }

    env.drain_with(WorkerConfig {
        linger: Duration::from_secs(1),
        ..env.worker_config()
    })
    .await;

    assert_eq!(env.n_rows().await, 200);
    // Each session's rows together, its tracks one after the other, those without one last; and each track's in
    // the order of their time.
    let n_out_of_order: i64 = env
        .value(
            "SELECT count(*)
             FROM (SELECT row_number() OVER (ORDER BY ctid) AS lies,
                          row_number() OVER (
                              ORDER BY min_id, track_id NULLS LAST, timestamp
                          ) AS belongs
                   FROM (SELECT ctid, track_id, timestamp,
                                min(detection_id) OVER (PARTITION BY session_id) AS min_id
                         FROM detections) AS rows) AS places
             WHERE lies <> belongs",
        )
        .await;
    assert_eq!(n_out_of_order, 0);
    let n_transactions: i64 = env
        .value("SELECT count(DISTINCT xmin::text) FROM detections")
        .await;
    assert_eq!(n_transactions, 1);
}
