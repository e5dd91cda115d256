//! Decides how far the ledger may forget.
//!
//! A key is forgotten when no entry with it can come back. An entry comes back from Redis while it is not
//! acknowledged, and from the spool of a producer that was cut off. So nothing younger than the retention is
//! forgotten; nothing at all while the oldest entry that is not acknowledged has waited for longer than
//! [`SETTLING`]; and nothing that a spool may still hold. What leaves a spool needs a while to be stored: a
//! horizon is therefore used only when it has been found good [`SETTLING`] before.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use passerby_shared::{
    Backlog, KeyPrefix, StreamKey, backlog,
    redis_connection::{RedisLink, RedisRecovery},
};
use redis::{RedisError, aio::MultiplexedConnection};
use std::{collections::HashMap, sync::Arc};
use tokio::time::Instant;
use tracing::warn;

/// Entries are stored within this time, or nothing is forgotten.
pub(crate) const SETTLING: Duration = Duration::from_secs(3_600);
/// A spool not heard of for so long no longer holds up anything: should it come back, its entries are
/// dead-lettered as `too-old`, and nothing of them is lost.
pub(crate) const SPOOL_EXPIRY: Duration = Duration::from_secs(30 * 86_400);

#[derive(Debug)]
pub(crate) struct LedgerKeeper {
    retention: Duration,
    /// A horizon, and when it was found good.
    found: Option<(Instant, DateTime<Utc>)>,
}

/// What Redis tells of entries that may come back.
#[derive(Debug, Clone, Copy)]
struct Outlook {
    now: DateTime<Utc>,
    backlog: Backlog,
    /// The oldest entry in any spool.
    oldest_spooled: Option<DateTime<Utc>>,
}

impl LedgerKeeper {
    pub(crate) fn new(retention: Duration) -> Self {
        Self {
            retention,
            found: None,
        }
    }

    /// The time before which keys may be forgotten now, if there is one.
    pub(crate) async fn horizon(
        &mut self,
        link: &mut RedisLink,
        prefix: &KeyPrefix,
        streams: &[Arc<StreamKey>],
        group: &str,
    ) -> Option<DateTime<Utc>> {
        match look(link, prefix, streams, group).await {
            Ok(outlook) => self.judge(&outlook),
            // Not knowing is a reason to wait.
            Err(()) => {
                self.found = None;
                None
            }
        }
    }

    fn judge(&mut self, outlook: &Outlook) -> Option<DateTime<Utc>> {
        if outlook.backlog.age() > SETTLING {
            self.found = None;
            return None;
        }
        let by_age = outlook.now - TimeDelta::from_std(self.retention).ok()?;
        let good = outlook.oldest_spooled.map_or(by_age, |s| s.min(by_age));
        match self.found {
            Some((since, horizon)) if since.elapsed() >= SETTLING => {
                self.found = Some((Instant::now(), good));
                Some(horizon)
            }
            Some(_) => None,
            None => {
                self.found = Some((Instant::now(), good));
                None
            }
        }
    }
}

async fn look(
    link: &mut RedisLink,
    prefix: &KeyPrefix,
    streams: &[Arc<StreamKey>],
    group: &str,
) -> Result<Outlook, ()> {
    let connection = link.get().await.map_err(drop)?;
    let looked = async {
        let mut all = Backlog::default();
        for stream in streams {
            all = all.and(backlog::measure(connection, stream, group).await?);
        }
        let now = DateTime::from_timestamp_millis(all.now_ms.cast_signed()).unwrap_or_default();
        Ok::<_, RedisError>(Outlook {
            now,
            backlog: all,
            oldest_spooled: oldest_spooled(connection, prefix, now).await?,
        })
    };
    match looked.await {
        Ok(outlook) => Ok(outlook),
        Err(error) => {
            if link.judge(&error) == RedisRecovery::Stop {
                warn!(%error, "the ledger cannot be pruned: Redis does not tell what may come back");
            }
            Err(())
        }
    }
}

/// When the oldest entry in any spool was made, as far as producers have told.
pub(crate) async fn oldest_spooled(
    connection: &mut MultiplexedConnection,
    prefix: &KeyPrefix,
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, RedisError> {
    let spools: HashMap<String, i64> = redis::cmd("HGETALL")
        .arg(prefix.spools())
        .query_async(connection)
        .await?;
    let expired = now - SPOOL_EXPIRY;
    let times = spools
        .values()
        .filter_map(|ms| DateTime::from_timestamp_millis(*ms));
    Ok(times.filter(|time| *time > expired).min())
}

#[cfg(test)]
mod tests {
    use passerby_shared::EntryId;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(day: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000 + day * 86_400, 0).unwrap()
    }

    fn outlook(day: i64) -> Outlook {
        let now = at(day);
        Outlook {
            now,
            backlog: Backlog {
                now_ms: now.timestamp_millis().cast_unsigned(),
                ..Backlog::default()
            },
            oldest_spooled: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_horizon_is_used_when_it_has_been_good_for_a_while() {
        let mut keeper = LedgerKeeper::new(7 * DAY);
        assert_eq!(keeper.judge(&outlook(30)), None);
        tokio::time::advance(SETTLING / 2).await;
        assert_eq!(keeper.judge(&outlook(31)), None);
        tokio::time::advance(SETTLING / 2).await;
        assert_eq!(keeper.judge(&outlook(32)), Some(at(23)));
        assert_eq!(keeper.judge(&outlook(33)), None);
        tokio::time::advance(SETTLING).await;
        assert_eq!(keeper.judge(&outlook(34)), Some(at(25)));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_forgotten_while_an_old_entry_is_not_acknowledged() {
        let mut keeper = LedgerKeeper::new(7 * DAY);
        keeper.judge(&outlook(30));
        tokio::time::advance(SETTLING).await;
        let mut waiting = outlook(31);
        waiting.backlog.oldest = Some(EntryId {
            ms: waiting.backlog.now_ms - 3_600_001,
            seq: 0,
        });
        assert_eq!(keeper.judge(&waiting), None);
        // What was found good before that must prove itself again.
        assert_eq!(keeper.judge(&outlook(32)), None);
        tokio::time::advance(SETTLING).await;
        assert_eq!(keeper.judge(&outlook(33)), Some(at(25)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_spool_holds_is_remembered_until_it_has_been_stored() {
        let mut keeper = LedgerKeeper::new(7 * DAY);
        let mut spooled = outlook(30);
        spooled.oldest_spooled = Some(at(10));
        keeper.judge(&spooled);
        tokio::time::advance(SETTLING).await;
        // It has just been published: the horizon is still the old one.
        assert_eq!(keeper.judge(&outlook(30)), Some(at(10)));
        tokio::time::advance(SETTLING).await;
        assert_eq!(keeper.judge(&outlook(30)), Some(at(23)));
    }
}
