use std::{num::NonZeroUsize, time::Duration};

use passerby_producer::{
    Degradation, Embedding, Producer, ProducerConfig, Recorded, SaturationConfig,
};
use passerby_tests::{
    Env, eventually,
    fixtures::{detection, track},
    producer_config,
};

fn config(env: &Env) -> ProducerConfig {
    ProducerConfig {
        max_rows: NonZeroUsize::new(1).unwrap(), // each row an entry of its own
        saturation: Some(SaturationConfig {
            check_every: Duration::from_millis(50),
            high_water: 40,
            low_water: 5,
            step: Duration::from_millis(100),
            ..SaturationConfig::default()
        }),
        ..producer_config(env, env.redis_url())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saturated_store_is_felt_and_what_is_left_out_is_marked() {
    let env = Env::start().await;
    let producer = Producer::start(config(&env)).unwrap();
    let record = |id: i64| {
        assert_eq!(producer.record(detection(id)).unwrap(), Recorded::Accepted);
        let snapshot = track(id, id + 1);
        assert!(!snapshot.trajectory.is_empty());
        assert_eq!(producer.track(snapshot).unwrap(), Recorded::Accepted);
    };
    let flushed = || producer.flush(Duration::from_secs(30)).unwrap();
    let left_out = || producer.stats().saturation.left_out;

    for id in 0..10 {
        record(id);
    }
    flushed();
    // 20 entries that nobody has settled, of 40.
    eventually("half of the pressure", async || {
        (producer.pressure() - 0.5).abs() < 0.01
    })
    .await;
    assert_eq!(left_out(), Degradation::None);
    for id in 10..20 {
        record(id);
    }
    flushed();
    eventually("saturated", async || left_out() == Degradation::Genders).await;
    assert!(producer.pressure() >= 1.0);
    for id in 20..30 {
        record(id);
    }
    let embedding = Embedding::new(vec![0.5; 4]).unwrap();
    let minute = Duration::from_secs(60);
    producer
        .cache()
        .cache_embedding("session-1", 1, &embedding, minute)
        .unwrap();
    flushed();

    env.run_worker_drain().await;
    eventually("relieved", async || left_out() == Degradation::None).await;
    assert!(producer.pressure() < 0.2);
    for id in 30..40 {
        record(id);
    }
    let stats = producer.close(Duration::from_secs(30)).unwrap();
    env.run_worker_drain().await;

    // Nothing is lost, and what lost something says so.
    env.assert_settled_once(40).await;
    let degraded: Vec<i64> = env
        .value(
            "SELECT array_agg(detection_id ORDER BY detection_id) FROM detections WHERE degraded",
        )
        .await;
    // Every third person of the fixtures is not classified: there was nothing to leave out.
    let classified = |id: &i64| detection(*id).gender.is_some();
    let expected: Vec<i64> = (20..30).filter(classified).collect();
    assert_eq!(degraded, expected);
    let genders: i64 = env
        .value("SELECT count(*) FROM detections WHERE degraded AND gender IS NOT NULL")
        .await;
    assert_eq!(genders, 0);
    let tracks: String = env
        .value(
            "SELECT string_agg(track_id::text, ' ' ORDER BY track_id) FROM tracks
             WHERE degraded AND trajectory = '[]' AND gender IS NULL",
        )
        .await;
    assert_eq!(tracks, "20 21 22 23 24 25 26 27 28 29");
    let whole: i64 = env
        .value("SELECT count(*) FROM tracks WHERE NOT degraded AND trajectory <> '[]'")
        .await;
    assert_eq!(whole, 30);
    assert_eq!(stats.saturation.detections_degraded, expected.len() as u64);
    assert_eq!(stats.saturation.tracks_degraded, 10);
    assert_eq!(stats.saturation.embeddings_left_out, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn degradation_can_be_refused_and_pressure_is_told_all_the_same() {
    let env = Env::start().await;
    let mut config = config(&env);
    config.saturation.as_mut().unwrap().degrade = false;
    let producer = Producer::start(config).unwrap();
    for id in 0..50 {
        assert_eq!(producer.record(detection(id)).unwrap(), Recorded::Accepted);
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    eventually("pressure", async || producer.pressure() >= 1.0).await;
    assert_eq!(producer.stats().saturation.left_out, Degradation::None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_buffer_is_pressure_too() {
    let env = Env::start().await;
    let mut config = config(&env);
    config.redis_url = "redis://127.0.0.1:1".parse().unwrap(); // nobody listens there
    config.buffer_rows = NonZeroUsize::new(10).unwrap();
    let producer = Producer::start(config).unwrap();
    assert!(producer.pressure() < 0.01);
    for id in 0..5 {
        assert_eq!(producer.record(detection(id)).unwrap(), Recorded::Accepted);
    }
    assert!((producer.pressure() - 0.5).abs() < 0.01);
    for id in 5..10 {
        assert_eq!(producer.record(detection(id)).unwrap(), Recorded::Accepted);
    }
    assert!(producer.pressure() >= 1.0);
}
