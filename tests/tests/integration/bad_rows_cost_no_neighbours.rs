use std::time::Duration;

use passerby_consumer::{WorkerConfig, WorkerError};
use passerby_shared::{Detection, wire};
use passerby_tests::{
    Env, WorkerBinary,
    fixtures::{detection, detections, key, track},
    project_file,
};

/// Fails if rows, ledger keys and dead letters were written by more than one transaction.
async fn assert_one_transaction(env: &Env) {
    let n_transactions: i64 = env
        .value(
            "SELECT count(*) FROM (SELECT xmin::text FROM detections
                             UNION SELECT xmin::text FROM ledger
                             UNION SELECT xmin::text FROM dead_letters) AS transactions",
        )
        .await;
    assert_eq!(n_transactions, 1);
}

/// A worker that takes all there is into one batch.
fn one_batch(env: &Env) -> WorkerConfig {
    WorkerConfig {
        linger: Duration::from_secs(1),
        ..env.worker_config()
    }
}

fn spoilt(id: i64, spoil: impl FnOnce(&mut Detection)) -> Detection {
    let mut detection = detection(id);
    spoil(&mut detection);
    detection
}

/// Ten rows, of which 3, 5 and 9 cannot be stored.
fn with_bad_rows() -> Vec<Detection> {
    let mut rows = detections(0..10);
    rows[3] = spoilt(3, |d| d.confidence = Some(1.5));
    rows[5] = spoilt(5, |d| d.bbox_width = -1.0);
    rows[9] = spoilt(9, |d| d.bbox_x = f32::NAN);
    rows
}

const BAD_ROWS: [&str; 3] = [
    "invalid-row 3: confidence: 1.5 is outside 0…1",
    "invalid-row 5: bbox_width: -1 is negative",
    "invalid-row 9: bbox_x: NaN is not a finite number",
];

#[tokio::test]
async fn bad_rows_are_dead_lettered_by_name_and_their_neighbours_stored() {
    let env = Env::start().await;
    env.publish(&with_bad_rows()).await;
    env.publish(&detections(10..20)).await;

    let report = env.run_worker_drain().await;

    assert_eq!((report.detections, report.dead_letters), (17, 3));
    assert_eq!(env.n_rows().await, 17);
    assert_eq!(env.dead_letter_texts().await, BAD_ROWS);
    assert_one_transaction(&env).await;
    assert_eq!(env.n_pending().await, 0);
}

#[tokio::test]
async fn bad_rows_of_strangers_are_named_the_same_way() {
    let env = Env::start().await;
    let mut payload = Vec::new();
    wire::encode_plain_detections(&with_bad_rows(), &mut payload);
    env.publish_entry(&[("p", &payload)]).await;

    env.run_worker_drain().await;

    assert_eq!(env.n_rows().await, 7);
    assert_eq!(env.dead_letter_texts().await, BAD_ROWS);
}

#[tokio::test]
async fn bad_rows_delivered_again_are_dead_lettered_once() {
    let env = Env::start().await;
    env.publish_as(key(1), &with_bad_rows()).await;
    env.run_worker_drain().await;
    env.publish_as(key(1), &with_bad_rows()).await;

    let report = env.run_worker_drain().await;

    assert_eq!((report.duplicates, report.dead_letters), (1, 0));
    assert_eq!(env.n_rows().await, 7);
    assert_eq!(env.dead_letters().await.len(), 3);
}

#[tokio::test]
async fn entries_that_cannot_be_read_are_dead_lettered_and_the_stream_goes_on() {
    let env = Env::start().await;
    let mut payload = Vec::new();
    wire::encode_detections(&detections(0..10), &mut payload);
    env.publish(&detections(0..10)).await;
    env.publish_entry(&[("v", b"3"), ("k", b"d"), ("p", &payload)])
        .await;
    env.publish_entry(&[("v", b"one"), ("p", &payload)]).await;
    env.publish_entry(&[("v", b"1"), ("k", b"x"), ("p", &payload)])
        .await;
    env.publish_entry(&[("v", b"1"), ("i", b"short"), ("p", &payload)])
        .await;
    env.publish_entry(&[("v", b"1"), ("k", b"d")]).await;
    env.publish_entry(&[("p", b"\xc1\xff\0garbage")]).await;
    env.publish_entry(&[("p", &payload[..payload.len() / 2])])
        .await;
    env.publish_entry(&[("p", b"\x83")]).await;
    env.publish_entry(&[("hello", b"world")]).await;
    env.publish(&detections(10..20)).await;

    let report = env.run_worker_drain().await;

    assert_eq!((report.detections, report.dead_letters), (20, 9));
    let texts = env.dead_letter_texts().await;
    let expected = [
        "wire version 3 is newer than this worker",
        "`one` is no wire version",
        "kind `x` is none of d, t, s",
        "the idempotency key has 5 bytes",
        "the entry has no payload: field `p` is missing",
        "", // whatever garbage is called
        "", // and a payload cut in half
        "",
        "the entry has no payload: field `p` is missing",
    ];
    for (text, expected) in texts.iter().zip(expected) {
        let message = text
            .strip_prefix("undecodable: ")
            .unwrap_or_else(|| panic!("{text}"));
        assert!(message.starts_with(expected), "{message}");
        assert!(!message.is_empty());
    }
    let kept = &env.dead_letters().await[8].fields;
    assert_eq!(kept, &[("hello".into(), "world".into())]);
    assert_one_transaction(&env).await;
    env.assert_settled_once(20).await;
}

#[tokio::test]
async fn a_row_that_only_postgres_refuses_is_dead_lettered_alone() {
    let env = Env::start().await;
    env.execute("ALTER TABLE detections ADD CONSTRAINT no_giants CHECK (bbox_height < 1000)")
        .await;
    env.publish(&detections(0..10)).await;
    let mut rows = with_bad_rows(); // 3, 5 and 9 are bad in themselves
    for id in [0, 4, 8] {
        rows[id].bbox_height = 5_000.0;
    }
    env.publish(&rows).await;
    env.publish(&[spoilt(20, |d| d.bbox_height = 5_000.0)])
        .await;
    env.publish(&detections(21..30)).await;

    let report = env.run_worker_drain().await;

    assert_eq!((report.detections, report.dead_letters), (23, 7));
    let letters = env.dead_letter_texts().await;
    let refused = |row_idx: usize| {
        format!(
            "refused {row_idx}: new row for relation \"detections_p{}\" violates check constraint \
             \"no_giants\"",
            passerby_tests::fixtures::MIDNIGHT.format("%Y%m%d")
        )
    };
    let expected = [
        refused(0),
        BAD_ROWS[0].to_owned(),
        refused(4),
        BAD_ROWS[1].to_owned(),
        refused(8),
        BAD_ROWS[2].to_owned(),
        refused(0),
    ];
    assert_eq!(letters, expected);
    for letter in env.dead_letters().await {
        let sqlstate = (letter.reason == "refused").then_some("23514");
        assert_eq!(letter.sqlstate.as_deref(), sqlstate);
    }
    assert_eq!(env.n_pending().await, 0);
    assert_one_transaction(&env).await;
}

#[tokio::test]
async fn a_row_that_postgres_refuses_without_naming_it_is_dead_lettered_alone() {
    let env = Env::start().await;
    env.execute("ALTER TABLE tracks ADD CONSTRAINT no_loiterers CHECK (detection_count < 100)")
        .await;
    env.publish(&detections(0..10)).await;
    env.publish_tracks(&[track(1, 5)]).await;
    env.publish_tracks(&[track(2, 5), track(3, 500), track(4, 5), track(5, 600)])
        .await;
    env.publish_tracks(&[track(6, 5)]).await;
    env.publish_tracks(&[track(7, 700)]).await;
    env.publish(&detections(10..20)).await;

    let report = env.run_worker_drain().await;

    assert_eq!((report.detections, report.dead_letters), (20, 3));
    let letters = env.dead_letters().await;
    let mut rows: Vec<_> = letters.iter().map(|letter| letter.row_idx).collect();
    rows.sort();
    assert_eq!(rows, [None, Some(1), Some(3)]);
    for letter in &letters {
        assert_eq!(letter.sqlstate.as_deref(), Some("23514"));
    }
    let stored: Vec<i64> = env
        .value("SELECT array_agg(track_id ORDER BY track_id) FROM tracks")
        .await;
    assert_eq!(stored, [1, 2, 4, 6]);
    env.assert_settled_once(20).await;

    // What is dead-lettered is whole: put back after the constraint is gone, it is stored.
    env.execute("ALTER TABLE tracks DROP CONSTRAINT no_loiterers")
        .await;
    env.requeue_all().await;
    env.run_worker_drain().await;
    let stored: Vec<i64> = env
        .value("SELECT array_agg(track_id ORDER BY track_id) FROM tracks")
        .await;
    assert_eq!(stored, [1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn rows_that_a_deferred_constraint_refuses_are_found_by_halving() {
    let env = Env::start().await;
    env.execute(
        "CREATE FUNCTION refuse_giants() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF NEW.bbox_height > 1000 THEN
                 RAISE EXCEPTION 'a giant' USING ERRCODE = '23514', CONSTRAINT = 'no_giants';
             END IF;
             RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER no_giants AFTER INSERT ON detections
         DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_giants()",
    )
    .await;
    env.publish(&detections(0..10)).await;
    let mut rows = with_bad_rows(); // 3, 5 and 9 are bad in themselves
    for id in [4, 8] {
        rows[id].bbox_height = 5_000.0;
    }
    env.publish(&rows).await;
    env.publish(&detections(20..30)).await;

    let report = env.run_worker_drain().await;

    assert_eq!((report.detections, report.dead_letters), (25, 5));
    let expected = [
        BAD_ROWS[0],
        "refused 4: a giant",
        BAD_ROWS[1],
        "refused 8: a giant",
        BAD_ROWS[2],
    ];
    assert_eq!(env.dead_letter_texts().await, expected);
    assert_eq!(env.n_pending().await, 0);
}

#[tokio::test]
async fn more_refused_rows_than_one_search_finds_are_all_found() {
    let env = Env::start().await;
    env.execute("ALTER TABLE detections ADD CONSTRAINT no_giants CHECK (bbox_height < 1000)")
        .await;
    for entry in 0..10 {
        let mut rows = detections(entry * 50..entry * 50 + 50);
        for row in rows.iter_mut().step_by(4) {
            row.bbox_height = 5_000.0;
        }
        env.publish(&rows).await;
    }

    let report = env.run_worker_drain().await;

    assert_eq!((report.detections, report.dead_letters), (370, 130));
    assert_eq!(env.n_pending().await, 0);
}

#[tokio::test]
async fn a_worker_that_would_dead_letter_most_rows_stops_and_dead_letters_none() {
    let env = Env::start().await;
    env.execute("ALTER TABLE detections ADD CONSTRAINT no_one CHECK (bbox_height < 0)")
        .await;
    env.publish_entries(10, 50).await;

    let worker = env.start_worker(one_batch(&env)).await;
    let error = worker.ended().await.unwrap_err();

    assert!(matches!(error, WorkerError::Store(_)), "{error:?}");
    assert_eq!(env.n_pending().await, 10);
    assert_eq!(env.dead_letters().await.len(), 0);
}

#[tokio::test]
async fn a_worker_that_can_read_hardly_anything_stops_and_dead_letters_none() {
    let env = Env::start().await;
    env.publish(&detections(0..10)).await;
    for _ in 0..100 {
        env.publish_entry(&[("v", b"9"), ("p", b"\x90")]).await;
    }

    let worker = env.start_worker(one_batch(&env)).await;
    let error = worker.ended().await.unwrap_err();

    assert!(matches!(error, WorkerError::MostlyBad(_)), "{error:?}");
    assert!(
        error
            .advice()
            .is_some_and(|a| a.contains("--dead-letter-limit 100"))
    );
    assert_eq!(env.n_pending().await, 101);
    assert_eq!(env.dead_letters().await.len(), 0);

    // An operator may decide otherwise.
    env.drain_with(WorkerConfig {
        dead_letter_limit: 100,
        ..env.claiming_config(Duration::from_millis(100))
    })
    .await;
    assert_eq!(env.dead_letters().await.len(), 100);
    env.assert_settled_once(10).await;
}

#[tokio::test]
async fn a_supervisor_can_tell_a_worker_that_is_not_to_be_started_again() {
    let env = Env::start().await;
    for _ in 0..100 {
        env.publish_entry(&[("v", b"9"), ("p", b"\x90")]).await;
    }
    let worker = WorkerBinary::start_on(&env, &["--linger", "1s"]).await;

    let finished = worker.finished().await;

    assert_eq!(finished.code, Some(3), "{}", finished.stderr);
    let unit = project_file("deploy/systemd/passerby-worker@.service");
    assert!(unit.contains("\nRestartPreventExitStatus=2 3\n"), "{unit}");
    assert_eq!(env.dead_letters().await.len(), 0);
}

#[tokio::test]
async fn a_batch_of_which_most_is_refused_stops_the_worker_and_stays_pending() {
    let env = Env::start().await;
    env.execute("ALTER TABLE tracks ADD CONSTRAINT no_tracks CHECK (detection_count < 0)")
        .await;
    for id in 0..30 {
        env.publish_tracks(&[track(id, 5)]).await;
    }

    let worker = env.start_worker(one_batch(&env)).await;
    let ended = worker.ended().await;

    let error = ended.unwrap_err();
    assert!(matches!(error, WorkerError::Store(_)), "{error:?}");
    assert_eq!(env.n_pending().await, 30);
    assert_eq!(env.dead_letters().await.len(), 0);
}

#[tokio::test]
async fn a_dead_letter_put_back_twice_is_stored_once() {
    let env = Env::start().await;
    env.execute("ALTER TABLE detections ADD CONSTRAINT no_giants CHECK (bbox_height < 1000)")
        .await;
    let mut rows = detections(0..10);
    rows[6].bbox_height = 5_000.0;
    env.publish(&rows).await;
    env.run_worker_drain().await;
    assert_eq!(env.n_rows().await, 9);
    env.execute("ALTER TABLE detections DROP CONSTRAINT no_giants")
        .await;

    for _ in 0..2 {
        let report = env.requeue_all().await;
        assert_eq!((report.matched, report.requeued), (1, 1));
        env.run_worker_drain().await;
    }

    let height: f32 = env
        .value("SELECT bbox_height FROM detections WHERE detection_id = 6")
        .await;
    assert!((height - 5_000.0).abs() < f32::EPSILON);
    env.assert_settled_once(10).await;
}

#[tokio::test]
async fn letters_put_back_without_a_fix_do_not_stop_the_worker() {
    let env = Env::start().await;
    env.execute("ALTER TABLE detections ADD CONSTRAINT no_giants CHECK (bbox_height < 1000)")
        .await;
    let mut rows = detections(0..400);
    for row in rows.iter_mut().step_by(2) {
        row.bbox_height = 5_000.0;
    }
    env.publish(&rows).await;
    for _ in 0..20 {
        env.publish_entry(&[("v", b"9"), ("p", b"\x90")]).await;
    }
    env.run_worker_drain().await;
    assert_eq!(env.dead_letters().await.len(), 220);

    for _ in 0..3 {
        env.requeue_reason("undecodable").await;
    }
    env.requeue_reason("refused").await;
    env.drain_with(one_batch(&env)).await;

    assert_eq!(env.dead_letters().await.len(), 440);
    assert_eq!((env.n_rows().await, env.n_pending().await), (200, 0));
}
