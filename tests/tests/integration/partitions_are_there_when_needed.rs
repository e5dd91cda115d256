use passerby_shared::Detection;
use passerby_tests::{
    Env,
    fixtures::{MIDNIGHT, detection, midnight_in_days},
};

async fn partition_of(env: &Env, detection_id: i64) -> String {
    env.value(&format!(
        "SELECT tableoid::regclass::text FROM detections WHERE detection_id = {detection_id}"
    ))
    .await
}

#[tokio::test]
async fn a_day_of_the_past_gets_its_partition_on_demand() {
    let env = Env::start().await;
    let times = ["2025-03-30T23:59:59.999999Z", "2025-03-31T00:00:00Z"];
    let rows: Vec<Detection> = (0..)
        .zip(times)
        .map(|(id, time)| Detection {
            timestamp: time.parse().unwrap(),
            ..detection(id)
        })
        .collect();
    env.publish(&rows).await;

    env.run_worker_drain().await;

    assert_eq!(partition_of(&env, 0).await, "detections_p20250330");
    assert_eq!(partition_of(&env, 1).await, "detections_p20250331");
    env.assert_settled_once(2).await;
}

#[tokio::test]
async fn partitions_of_a_week_are_made_ahead() {
    let env = Env::with_empty_database().await;

    env.start_worker(env.worker_config()).await.stop().await;

    for days in 0..=7 {
        let table = format!("detections_p{}", midnight_in_days(days).format("%Y%m%d"));
        let is_attached: bool = env
            .value(&format!(
                "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass('{table}'))"
            ))
            .await;
        assert!(is_attached, "{table}");
    }
}

#[tokio::test]
async fn a_wrong_clocks_rows_are_kept_in_the_default_partition() {
    let env = Env::start().await;
    let in_days = |id: i64, days: u64| Detection {
        timestamp: midnight_in_days(days),
        ..detection(id)
    };
    env.publish(&[in_days(0, 0), in_days(1, 7), in_days(2, 400)])
        .await;

    env.run_worker_drain().await;

    let day = |days: u64| format!("detections_p{}", midnight_in_days(days).format("%Y%m%d"));
    assert_eq!(partition_of(&env, 0).await, day(0));
    assert_eq!(partition_of(&env, 1).await, day(7));
    assert_eq!(partition_of(&env, 2).await, "detections_default");
    env.assert_settled_once(3).await;
}

#[tokio::test]
async fn rows_in_the_default_partition_move_into_their_days_partition() {
    let env = Env::start().await;
    let day = *MIDNIGHT - chrono::Days::new(30);
    env.execute(&format!(
        "INSERT INTO detections_default (timestamp, detection_id, frame_number, channel_id, bbox_x,
             bbox_y, bbox_width, bbox_height, degraded, camera_id, session_id)
         VALUES ('{day}', 0, 0, 0, 0, 0, 0, 0, false, 'gate-1', 'session-1')"
    ))
    .await;
    env.publish(&[Detection {
        timestamp: day,
        ..detection(1)
    }])
    .await;

    env.run_worker_drain().await;

    let partition = format!("detections_p{}", day.format("%Y%m%d"));
    assert_eq!(partition_of(&env, 0).await, partition);
    assert_eq!(partition_of(&env, 1).await, partition);
    env.assert_settled_once(2).await;
}

#[tokio::test]
async fn a_partition_made_on_demand_has_the_constraints_that_an_operator_added() {
    let env = Env::start().await;
    env.execute("ALTER TABLE detections ADD CONSTRAINT no_giants CHECK (bbox_height < 1000)")
        .await;
    let day = *MIDNIGHT - chrono::Days::new(30);
    let on = |id: i64, bbox_height: f32| Detection {
        timestamp: day,
        bbox_height,
        ..detection(id)
    };
    env.publish(&[on(0, 10.0), on(1, 5_000.0)]).await;

    let report = env.run_worker_drain().await;

    assert_eq!((report.detections, report.dead_letters), (1, 1));
    let partition = format!("detections_p{}", day.format("%Y%m%d"));
    assert_eq!(partition_of(&env, 0).await, partition);
    env.assert_settled_once(1).await;
}

#[tokio::test]
async fn a_quarantine_that_does_not_fit_a_partition_stops_nobody() {
    let env = Env::start().await;
    let day = *MIDNIGHT - chrono::Days::new(30);
    env.execute(&format!(
        "INSERT INTO detections_default (timestamp, detection_id, frame_number, channel_id, bbox_x,
             bbox_y, bbox_width, bbox_height, degraded, camera_id, session_id)
         VALUES ('{day}', 0, 0, 0, 0, 0, 0, 5000, false, 'gate-1', 'session-1');
         ALTER TABLE detections ADD CONSTRAINT no_giants CHECK (bbox_height < 1000) NOT VALID"
    ))
    .await;
    env.publish(&[Detection {
        timestamp: day,
        ..detection(1)
    }])
    .await;

    let report = env.run_worker_drain().await;

    assert_eq!((report.detections, report.dead_letters), (1, 0));
    assert_eq!(partition_of(&env, 1).await, "detections_default");
    env.assert_settled_once(2).await;
}
