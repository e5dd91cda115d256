use passerby_consumer::store::TrackFilter;
use passerby_shared::Track;
use passerby_tests::{
    Env,
    fixtures::{SESSION, track},
};

/// All orders in which three snapshots of a track can arrive.
const ORDERS: [[i64; 3]; 6] = [
    [10, 20, 30],
    [10, 30, 20],
    [20, 10, 30],
    [20, 30, 10],
    [30, 10, 20],
    [30, 20, 10],
];

async fn stored(env: &Env) -> Vec<Track> {
    let filter = TrackFilter {
        session_id: Some(SESSION.to_owned()),
        ..TrackFilter::default()
    };
    let mut tracks = env.store().await.query_tracks(&filter).await.unwrap();
    tracks.sort_by_key(|track| track.track_id);
    tracks
}

#[tokio::test]
async fn the_newest_snapshot_wins_in_any_order_of_delivery() {
    let env = Env::start().await;
    let newest: Vec<Track> = (0..6).map(|track_id| track(track_id, 30)).collect();
    for nth in 0..3 {
        let snapshots: Vec<Track> = (0..6)
            .zip(ORDERS)
            .map(|(track_id, order)| track(track_id, order[nth]))
            .collect();
        env.publish_tracks(&snapshots).await;
        env.run_worker_drain().await;
    }
    assert_eq!(stored(&env).await, newest);

    // Once more, within one batch.
    let all: Vec<Track> = (0..6)
        .zip(ORDERS)
        .flat_map(|(track_id, order)| order.map(|n| track(track_id + 6, n)))
        .collect();
    let (some, rest) = all.split_at(7);
    env.publish_tracks(some).await;
    env.publish_tracks(rest).await;
    env.run_worker_drain().await;

    let newest: Vec<Track> = (0..12).map(|track_id| track(track_id, 30)).collect();
    assert_eq!(stored(&env).await, newest);
}

#[tokio::test]
async fn an_old_snapshot_changes_nothing() {
    let env = Env::start().await;
    env.publish_tracks(&[track(1, 30)]).await;
    env.run_worker_drain().await;
    env.publish_tracks(&[track(1, 20)]).await;
    env.publish_tracks(&[track(1, 30)]).await;

    let report = env.run_worker_drain().await;

    assert_eq!(report.tracks, 0);
    assert_eq!(stored(&env).await, [track(1, 30)]);
    assert_eq!(env.n_pending().await, 0);
}

#[tokio::test]
async fn a_bad_track_costs_no_neighbour() {
    let env = Env::start().await;
    let bad = Track {
        detection_count: -1,
        ..track(2, 10)
    };
    env.publish_tracks(&[track(1, 10), bad, track(3, 10)]).await;

    env.run_worker_drain().await;

    assert_eq!(stored(&env).await, [track(1, 10), track(3, 10)]);
    assert_eq!(
        env.dead_letter_texts().await,
        ["invalid-row 1: detection_count: -1 is negative"]
    );
}
