use passerby_tests::{Env, fixtures::realistic_detections};

#[tokio::test]
async fn a_detection_takes_at_most_64_bytes_of_redis() {
    let env = Env::start().await;
    let (n_entries, n_rows) = (200, 100);
    for n in 0..n_entries {
        let camera = usize::try_from(n % 16).unwrap();
        env.publish(&realistic_detections(camera, n * n_rows, n_rows))
            .await;
    }

    let mut command = redis::cmd("MEMORY");
    command.arg("USAGE").arg(env.stream()).arg("SAMPLES").arg(0);
    let n_bytes: i64 = env.redis(&command).await;

    let per_row = n_bytes / (n_entries * n_rows);
    assert!(per_row <= 64, "{per_row} bytes per detection");
    // Nothing was saved by leaving something out.
    let report = env.run_worker_drain().await;
    assert_eq!((report.detections, report.dead_letters), (20_000, 0));
}
