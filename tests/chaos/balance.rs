//! Holds what `passerby status` and `/metrics` say against a count by hand: at every moment of a round, and to the row
//! when it is over.

use std::{collections::HashMap, sync::Arc, time::Duration};

use passerby_consumer::{
    ops::{self, StatusReport, Target},
    store::{Store, StoreTimeouts},
};
use passerby_shared::{
    KeyPrefix,
    redis_connection::{RedisLink, RedisTimeouts},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    exported::{self, Looked},
    world::{GROUP, World, stream},
};

const EVERY: Duration = Duration::from_millis(300);
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// Producers tell their books once a second, and may have to connect before that.
const BOOKS_ARE_TOLD: Duration = Duration::from_secs(20);

/// The books and a count by hand, in one snapshot: what differs.
const DIFFER: &str = "
WITH counted AS (
    SELECT 'detections' AS what,
           (SELECT sum(detections) - sum(detections_dropped) FROM books)::bigint AS booked,
           (SELECT count(*) FROM detections) AS there
    UNION ALL
    SELECT 'dead letters written', (SELECT coalesce(sum(written), 0) FROM dead_letter_counts)::bigint,
           (SELECT count(*) FROM dead_letters)
    UNION ALL
    SELECT 'dead letters waiting', (SELECT coalesce(sum(waiting), 0) FROM dead_letter_counts)::bigint,
           (SELECT count(*) FROM dead_letters WHERE requeued_at IS NULL AND discarded_at IS NULL)
)
SELECT what, booked, there FROM counted";

/// What producers accepted and dropped, by their own account.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Accepted {
    /// Rows certainly accepted.
    pub(crate) certain: u64,
    /// Rows that may have been: their process was killed while it recorded them.
    pub(crate) uncertain: u64,
    /// Of these, rows dropped since.
    pub(crate) dropped: u64,
}

/// Who asks.
struct Asking {
    target: Target,
    store: Store,
}

impl Asking {
    fn new(world: &World) -> Self {
        let timeouts = RedisTimeouts {
            connect: PATIENCE,
            response: PATIENCE,
        };
        Self {
            target: Target {
                link: RedisLink::new(world.redis_url(), timeouts),
                key_prefix: KeyPrefix::default(),
                streams: world.streams(),
                group: GROUP.to_owned(),
            },
            store: Store::new(
                world.database_url(),
                StoreTimeouts {
                    connect: PATIENCE,
                    silence: PATIENCE,
                    operation: PATIENCE,
                },
            ),
        }
    }

    async fn status(&mut self) -> StatusReport {
        ops::status(&mut self.target, &mut self.store).await
    }
}

/// Looks until it is aborted, and returns at the first thing that is wrong.
pub(crate) async fn watch(world: Arc<World>) -> String {
    let mut asking = Asking::new(&world);
    let mut accepted = 0;
    loop {
        match look(&world, &mut asking, &mut accepted).await {
            Ok(()) => sleep(EVERY).await,
            Err(wrong) => return wrong,
        }
    }
}

async fn look(world: &World, asking: &mut Asking, accepted: &mut u64) -> Result<(), String> {
    let before = (added(world).await, counted(world).await?);
    let exported = Looked::at(world).await;
    let status = asking.status().await;
    let after = (added(world).await, counted(world).await?);
    if let Some(redis) = &status.redis {
        let told: Option<u64> = redis.streams.iter().map(|s| s.entries_added).sum();
        between("entries added", before.0, told, after.0)?;
    }
    if let Some(store) = &status.store {
        let there = store.detections - store.detections_dropped;
        between("detections", before.1, Some(there), after.1)?;
    }
    if let Some(balance) = &status.balance {
        if balance.unaccounted > 0 {
            return Err(format!("rows unaccounted for: {balance:?}"));
        }
        if balance.accepted < *accepted {
            return Err(format!(
                "{} accepted, and {accepted} before",
                balance.accepted
            ));
        }
        *accepted = balance.accepted;
        exported.compare(balance)?;
    }
    Ok(())
}

fn between(
    what: &str,
    before: Option<u64>,
    told: Option<u64>,
    after: Option<u64>,
) -> Result<(), String> {
    let (Some(before), Some(told), Some(after)) = (before, told, after) else {
        return Ok(());
    };
    if (before..=after).contains(&told) {
        return Ok(());
    }
    Err(format!(
        "status says {told} {what}, counted {before} before and {after} after"
    ))
}

/// Entries ever added; `None` when Redis does not say.
async fn added(world: &World) -> Option<u64> {
    let mut xinfo = redis::cmd("XINFO");
    xinfo.arg("STREAM").arg(stream());
    let info: HashMap<String, redis::Value> = world.try_redis(&xinfo).await?;
    redis::from_redis_value(info.get("entries-added")?.clone()).ok()
}

/// Detections there, which must be what the books say; `None` when Postgres does not.
async fn counted(world: &World) -> Result<Option<u64>, String> {
    let Some(rows) = world.try_query(DIFFER, PATIENCE).await else {
        return Ok(None);
    };
    let mut n_detections = None;
    for row in &rows {
        let (what, booked, there): (&str, i64, i64) = (row.get(0), row.get(1), row.get(2));
        if booked != there {
            return Err(format!("{booked} {what} in the books, {there} there"));
        }
        if what == "detections" {
            n_detections = u64::try_from(there).ok();
        }
    }
    Ok(n_detections)
}

/// Waits until everything has been told and is settled; says what does not balance then.
pub(crate) async fn settled(world: &World, by_hand: Accepted) -> Option<String> {
    let mut asking = Asking::new(world);
    let deadline = Instant::now() + BOOKS_ARE_TOLD;
    loop {
        let wrong = match timeout(PATIENCE * 4, asking.status()).await {
            Ok(status) => match unbalanced(&status, by_hand) {
                None => exported::differs(world, by_hand).await,
                wrong => wrong,
            },
            Err(_) => Some("status takes too long".to_owned()),
        };
        if wrong.is_none() || Instant::now() >= deadline {
            return wrong;
        }
        sleep(EVERY).await;
    }
}

fn unbalanced(status: &StatusReport, by_hand: Accepted) -> Option<String> {
    let Some(balance) = &status.balance else {
        return Some(format!("{:?} {:?}", status.redis_error, status.store_error));
    };
    let accepted = balance.accepted + balance.accepted_before;
    let may_be = by_hand.certain..=by_hand.certain + by_hand.uncertain;
    let rest = balance.buffered + balance.spooled + balance.unheard + balance.in_stream;
    let is_even = accepted == balance.settled + balance.dropped.accepted() + rest;
    let is_good = is_even
        && rest == 0
        && balance.unaccounted == 0
        && balance.surplus == 0
        && may_be.contains(&accepted)
        && balance.dropped.accepted() == by_hand.dropped;
    (!is_good).then(|| format!("{balance:?}, by hand {by_hand:?}"))
}
