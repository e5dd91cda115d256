//! What operators do at the same time.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use passerby_consumer::{
    ops::{self, ClaimFilter, OpsError, RequeueLimits, RequeueReport, Target},
    store::{DeadLetterFilter, LetterState, Store, StoreTimeouts},
};
use passerby_shared::{
    KeyPrefix,
    redis_connection::{RedisLink, RedisTimeouts},
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::End;
use crate::world::{GROUP, World};

const PAUSE: Duration = Duration::from_millis(300);

fn target(world: &World) -> Target {
    let timeouts = RedisTimeouts {
        connect: Duration::from_millis(500),
        response: Duration::from_secs(2),
    };
    Target {
        link: RedisLink::new(world.redis_url(), timeouts),
        key_prefix: KeyPrefix::default(),
        streams: world.streams(),
        group: GROUP.to_owned(),
    }
}

fn store(world: &World) -> Store {
    Store::new(
        world.database_url(),
        StoreTimeouts {
            connect: Duration::from_secs(2),
            silence: Duration::from_secs(5),
            operation: Duration::from_secs(10),
        },
    )
}

/// Takes everything that is pending, from the living as well.
pub(super) async fn claim(world: &World, end: End) {
    let filter = ClaimFilter {
        limit: 200,
        ..ClaimFilter::default()
    };
    while !end.left().is_zero() {
        let (mut target, mut store) = (target(world), store(world));
        let claiming = ops::claim(&mut target, &mut store, &filter);
        // An operator without a connection gives up, and one without patience presses Ctrl-C.
        if let Ok(Ok(report)) = timeout(end.left().max(PAUSE), claiming).await {
            let counts = &world.counts;
            counts
                .claimed_by_operator
                .fetch_add(report.claimed as u64, SeqCst);
            counts
                .duplicates
                .fetch_add(report.duplicates as u64, SeqCst);
        }
        sleep(PAUSE.min(end.left())).await;
    }
}

/// Gives everything that is pending to the first worker, who has most of it not in hand.
pub(super) async fn hand_over(world: &World, end: End) {
    let filter = ClaimFilter {
        limit: 200,
        ..ClaimFilter::default()
    };
    let to = "w0".parse().unwrap();
    while !end.left().is_zero() {
        let mut target = target(world);
        let handing = ops::hand_over(&mut target, &to, &filter);
        if let Ok(Ok(report)) = timeout(end.left().max(PAUSE), handing).await {
            world
                .counts
                .claimed_by_operator
                .fetch_add(report.claimed as u64, SeqCst);
        }
        sleep(PAUSE.min(end.left())).await;
    }
}

/// Puts all dead letters back; most come again, as new ones.
pub(super) async fn requeue(world: &World, end: End) {
    let (mut target, mut store) = (target(world), store(world));
    let filter = filter(None);
    let requeueing = requeue_with(&mut target, &mut store, &filter);
    match timeout(end.left().max(PAUSE), requeueing).await {
        Ok(Ok(report)) => {
            world
                .counts
                .requeued
                .fetch_add(report.requeued as u64, SeqCst);
        }
        // A letter may be in the stream and not be marked.
        _ => world.is_requeue_unfinished.store(true, SeqCst),
    }
}

/// Puts dead letters back when nothing is in the way.
pub(crate) async fn put_all_back(world: &World, reason: Option<&str>) {
    let (mut target, mut store) = (target(world), store(world));
    let report = requeue_with(&mut target, &mut store, &filter(reason)).await;
    let report = report.unwrap_or_else(|error| {
        panic!(
            "requeue without a fault: {}",
            passerby_shared::ErrorChain(&error)
        )
    });
    world
        .counts
        .requeued
        .fetch_add(report.requeued as u64, SeqCst);
}

fn filter(reason: Option<&str>) -> DeadLetterFilter {
    DeadLetterFilter {
        state: Some(LetterState::Waiting),
        reason: reason.map(str::to_owned),
        limit: 100_000,
        ..DeadLetterFilter::default()
    }
}

/// As an operator who does not care what it does to Redis.
async fn requeue_with(
    target: &mut Target,
    store: &mut Store,
    filter: &DeadLetterFilter,
) -> Result<RequeueReport, OpsError> {
    let limits = RequeueLimits {
        max_backlog: u64::MAX,
        max_memory_percent: u64::MAX,
        ..RequeueLimits::default()
    };
    let stop = CancellationToken::new();
    ops::requeue(target, store, filter, &limits, &stop, |_| {}).await
}
