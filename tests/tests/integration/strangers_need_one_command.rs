//! A program that knows nothing of Passerby but `docs/wire-format.md` writes one field with one
//! command.

use passerby_tests::Env;
use serde_json::json;

#[tokio::test]
async fn an_entry_with_nothing_but_a_payload_is_stored() {
    let env = Env::start().await;
    let payload = rmp_serde::to_vec(&json!([
        {
            "timestamp": 1_790_000_000_123_456_i64, "camera_id": "yard",
            "bbox_x": 1.5, "bbox_y": 2, "bbox_width": 3, "bbox_height": 4,
        },
        {
            "timestamp": "2026-09-21T14:13:21Z", "camera_id": 7, "track_id": 5,
            "bbox_x": 0, "bbox_y": 0, "bbox_width": 1, "bbox_height": 1, "hat": ["red"],
        },
    ]))
    .unwrap();
    let mut xadd = redis::cmd("XADD");
    xadd.arg(env.stream()).arg("*").arg("p").arg(&payload);
    let _id: String = env.redis(&xadd).await;

    let report = env.run_worker_drain().await;

    assert_eq!((report.detections, report.dead_letters), (2, 0));
    let stored: Vec<String> = env
        .value(
            "SELECT array_agg(format('%s %s %s %s %s %s %s %s', session_id, camera_id, channel_id,
                 detection_id, track_id, bbox_x, frame_number,
                 to_char(timestamp AT TIME ZONE 'UTC', 'HH24:MI:SS.US')) ORDER BY detection_id)
             FROM detections",
        )
        .await;
    assert_eq!(
        stored,
        [
            "default yard 0 0  1.5 0 14:13:20.123456",
            "default 7 0 1 5 0 0 14:13:21.000000"
        ]
    );
}

#[tokio::test]
async fn the_same_command_again_is_another_entry() {
    // Without an idempotency key two entries cannot be known to be one.
    let env = Env::start().await;
    let payload = rmp_serde::to_vec(&json!([{
        "timestamp": 1_790_000_000_000_000_i64, "camera_id": "yard",
        "bbox_x": 0, "bbox_y": 0, "bbox_width": 1, "bbox_height": 1,
    }]))
    .unwrap();
    env.publish_entry(&[("p", &payload)]).await;
    env.publish_entry(&[("p", &payload)]).await;

    let report = env.run_worker_drain().await;

    assert_eq!((report.detections, report.duplicates), (2, 0));
}
