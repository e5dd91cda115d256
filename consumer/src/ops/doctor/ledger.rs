//! Whether the ledger remembers long enough, and not for too long.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use passerby_shared::{Backlog, backlog};

use super::{
    check::{Outcome, Unknown, Verdict},
    patient::Patient,
};
use crate::ledger_keeper::{SETTLING, SPOOL_EXPIRY};

fn span(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

fn days(span: TimeDelta) -> String {
    match span.num_hours() {
        0 => format!("{} min", span.num_minutes()),
        1..48 => format!("{} h", span.num_hours()),
        _ => format!("{} d", span.num_days()),
    }
}

/// Since when the oldest entry is not acknowledged.
async fn oldest_entry(patient: &Patient<'_>) -> Result<Option<DateTime<Utc>>, Unknown> {
    let redis = patient.redis()?;
    let mut all = Backlog::default();
    for stream in patient.config.key_prefix.streams(patient.config.shards) {
        let one = backlog::measure(&mut redis.connection(), &stream, &patient.config.group)
            .await
            .map_err(|error| Unknown::redis("EVAL", &error))?;
        all = all.and(one);
    }
    Ok(all
        .oldest
        .and_then(|id| DateTime::from_timestamp_millis(i64::try_from(id.ms).ok()?)))
}

/// What producers note of their spools: ID, and since when something waits there.
async fn spools_noted(patient: &Patient<'_>) -> Result<Option<(String, DateTime<Utc>)>, Unknown> {
    let redis = patient.redis()?;
    let mut command = redis::cmd("HGETALL");
    let spools: HashMap<String, i64> = redis
        .query(command.arg(patient.config.key_prefix.spools()))
        .await
        .map_err(|error| Unknown::redis("HGETALL", &error))?;
    let times = spools
        .into_iter()
        .filter_map(|(id, ms)| Some((id, DateTime::from_timestamp_millis(ms)?)));
    Ok(times.min_by_key(|(_, time)| *time))
}

async fn pruned_below(patient: &Patient<'_>) -> Result<DateTime<Utc>, Unknown> {
    let postgres = patient.postgres()?;
    postgres.has_schema().await?;
    let row = postgres
        .one(
            "SELECT coalesce(max(pruned_below), '1970-01-01 00:00:00+00') FROM ledger_horizon",
            &[],
        )
        .await?;
    Ok(row.get(0))
}

pub(super) async fn retention(patient: &Patient<'_>) -> Outcome {
    let config = patient.config;
    let least = config.trim_grace + 2 * SETTLING;
    if config.ledger_retention < least {
        return Ok(Verdict::problem(
            format!(
                "ledger-retention ({}) is not two hours longer than trim-grace ({})",
                days(span(config.ledger_retention)),
                days(span(config.trim_grace))
            ),
            "set PASSERBY_LEDGER_RETENTION and PASSERBY_TRIM_GRACE as the workers have them, or lengthen the first",
        ));
    }
    let horizon = pruned_below(patient).await?;
    let oldest = oldest_entry(patient).await?;
    if let Some(oldest) = oldest.filter(|oldest| *oldest < horizon) {
        return Ok(Verdict::problem(
            format!(
                "entries since {oldest} are not stored, and the ledger has forgotten what came before {horizon}"
            ),
            "look for their rows, then store them: passerby dead-letters requeue --reason too-old",
        ));
    }
    Ok(Verdict::ok(match oldest {
        Some(oldest) => format!("the oldest entry that is not stored, of {oldest}, is remembered"),
        None => "every entry is stored".to_owned(),
    }))
}

/// Before a spool is given up, somebody should have looked.
const WARN_BEFORE: Duration = Duration::from_secs(7 * 86_400);

pub(super) async fn spools(patient: &Patient<'_>) -> Outcome {
    let now = (patient.config.clock)();
    let horizon = pruned_below(patient).await?;
    let Some((id, since)) = spools_noted(patient).await? else {
        return Ok(Verdict::ok("no producer holds anything back in a spool"));
    };
    let what = format!(
        "spool {id} holds entries since {since}, for {}",
        days(now - since)
    );
    let fix = "start its producer again, or on its host: passerby spool drain DIR";
    Ok(if since < horizon || now - since > span(SPOOL_EXPIRY) {
        Verdict::problem(what, fix)
            .because("the ledger has forgotten that time: what comes is dead-lettered as too-old")
    } else if now - since > span(SPOOL_EXPIRY - WARN_BEFORE) {
        Verdict::warning(what, fix).because(
            "after 30 days the ledger no longer waits for it, and what comes then is dead-lettered",
        )
    } else {
        Verdict::ok(what)
    })
}

/// One of the oldest keys: they stand at the table's beginning until they are pruned.
const OLD_KEY: &str = "
SELECT min(made_at) FROM (SELECT made_at FROM ledger WHERE made_at IS NOT NULL LIMIT 100) AS first";

/// Workers prune every ten minutes, and only what was found good for an hour.
const SLACK: Duration = Duration::from_secs(86_400);

pub(super) async fn pruning(patient: &Patient<'_>) -> Outcome {
    let postgres = patient.postgres()?;
    postgres.has_schema().await?;
    let now = (patient.config.clock)();
    let oldest: Option<DateTime<Utc>> = postgres.one(OLD_KEY, &[]).await?.get(0);
    let limit = span(patient.config.ledger_retention.saturating_add(SLACK));
    let Some(old) = oldest.filter(|old| now - *old > limit) else {
        return Ok(Verdict::ok(format!(
            "no key older than {} was found",
            days(span(patient.config.ledger_retention))
        )));
    };
    let what = format!("the ledger holds keys of {old}, {} old", days(now - old));
    let since = oldest_entry(patient).await?;
    if let Some(since) = since.filter(|since| now - *since > span(SETTLING)) {
        return Ok(Verdict::warning(
            what,
            format!("have what waits since {since} stored: passerby pending"),
        )
        .because("nothing is forgotten while an entry waits for longer than an hour"));
    }
    Ok(Verdict::warning(
        what,
        "run a worker for longer than two hours, with a role that may: GRANT DELETE ON ledger TO worker; \
         GRANT INSERT, UPDATE ON ledger_horizon TO worker",
    ))
}
