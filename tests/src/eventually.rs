use std::{panic::Location, time::Duration};

use tokio::time::{Instant, sleep};

const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// Waits until `is_so`, and panics if that takes 30 s.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    let asked_at = Location::caller();
    async move {
        let deadline = Instant::now() + DEADLINE;
        while !is_so().await {
            assert!(
                Instant::now() < deadline,
                "{what}: not within {DEADLINE:?}, waited for at {asked_at}"
            );
            sleep(POLL).await;
        }
    }
}

/// Asserts that `is_so` stays so for a while, in which what must not happen could have happened
/// several times.
#[track_caller]
pub fn stays(
    what: &str,
    a_while: Duration,
    mut is_so: impl AsyncFnMut() -> bool,
) -> impl Future<Output = ()> {
    let asked_at = Location::caller();
    async move {
        let deadline = Instant::now() + a_while;
        while Instant::now() < deadline {
            assert!(is_so().await, "{what}: no longer, at {asked_at}");
            sleep(POLL).await;
        }
    }
}
