//! The books balance: what producers accepted is stored, dead-lettered, dropped, or waits somewhere, to the row.

use std::time::Duration;

use passerby_consumer::ops::Balance;
use passerby_producer::{AsyncProducer, Recorded};
use passerby_tests::{
    Env,
    fixtures::{detections, track},
    producer_config,
};

const SOON: Duration = Duration::from_secs(30);

/// What the books say is stored, and a count by hand, in one snapshot.
async fn assert_counted(env: &Env) {
    let differ: Option<String> = env
        .value(
            "SELECT format('%s in the books, %s there', in_books, there)
             FROM (SELECT (SELECT sum(detections) - sum(detections_dropped) FROM books) AS in_books,
                          (SELECT count(*) FROM detections) AS there) AS counts
             WHERE in_books <> there
             UNION ALL SELECT NULL LIMIT 1",
        )
        .await;
    assert_eq!(differ, None);
}

async fn balance(env: &Env) -> Balance {
    let status = env.status().await;
    status.balance.unwrap_or_else(|| panic!("{status:?}"))
}

#[tokio::test]
async fn what_was_accepted_is_stored() {
    let env = Env::start().await;
    let producer = AsyncProducer::start(producer_config(&env, env.redis_url())).unwrap();
    let recorded = producer.record_many(detections(0..250)).await;
    assert_eq!(recorded.accepted, 250);
    assert_eq!(
        producer.track(track(1, 5)).await.unwrap(),
        Recorded::Accepted
    );
    producer.close(SOON).await.unwrap();

    env.run_worker_drain().await;

    let balance = balance(&env).await;
    assert_eq!(
        balance,
        Balance {
            accepted: 251,
            published: 251,
            settled: 251,
            stored: 251,
            ..Balance::default()
        }
    );
    assert_counted(&env).await;
}
