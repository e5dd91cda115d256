//! What will hurt later, looked for now, on the servers as they are.
//!
//! Each check has an ID that stays, a time of its own to answer in, and one of four verdicts. A check that
//! could not look says [`Status::Unknown`] and why: it is never called well.
//!
//! Nothing is changed on either server, and nothing scans a stream or a table of any size.

mod check;
mod clients;
mod clocks;
mod dead_letters;
mod disk;
mod durability;
mod groups;
mod guards;
mod known_bugs;
mod ledger;
mod partitions;
mod patient;
mod persistence;
mod postgres_server;
mod privileges;
mod redis_memory;
mod redis_server;
mod replication;
mod schema;
mod sessions;
mod streams;
mod vacuum;

use std::{num::NonZeroU16, path::PathBuf, time::Duration};

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use passerby_shared::{KeyPrefix, redis_connection::RedisUrl};

use self::check::{CHECKS, Check, Unknown};
pub(in crate::ops) use self::patient::{Patient, Redis};
use crate::store::DatabaseUrl;

/// What to look at, and what workers are configured to do there.
#[derive(Debug, Clone)]
pub struct DoctorConfig {
    /// Redis; `None` when no check asks for it.
    pub redis_url: Option<RedisUrl>,
    /// Postgres; `None` when no check asks for it.
    pub database_url: Option<DatabaseUrl>,
    /// What the keys in Redis begin with.
    pub key_prefix: KeyPrefix,
    /// How many streams workers read.
    pub shards: NonZeroU16,
    /// The consumer group of the workers.
    pub group: String,
    /// As of the workers.
    pub min_idle: Duration,
    /// As of the workers.
    pub trim_grace: Duration,
    /// As of the workers.
    pub ledger_retention: Duration,
    /// Connections to Postgres of one worker.
    pub committers: usize,
    /// The role whose privileges matter; `None` for the one that connects.
    pub role: Option<String>,
    /// Directories of spools on this host.
    pub spools: Vec<PathBuf>,
    /// Which checks.
    pub selection: Selection,
    /// Longest time for each check, and for each connection.
    pub timeout: Duration,
    /// A transaction that is open for so long is warned of.
    pub long_transaction: Duration,
    /// A disk with fewer bytes free is a problem, whatever its size.
    pub least_free: u64,
    /// The clock of this host.
    pub clock: fn() -> DateTime<Utc>,
}

impl DoctorConfig {
    /// The defaults for two servers.
    pub fn new(redis_url: RedisUrl, database_url: DatabaseUrl) -> Self {
        let worker = crate::WorkerConfig::new(redis_url, database_url);
        Self {
            redis_url: Some(worker.redis_url),
            database_url: Some(worker.database_url),
            key_prefix: worker.key_prefix,
            shards: worker.shards,
            group: worker.group,
            min_idle: worker.min_idle,
            trim_grace: worker.trim_grace.unwrap_or_default(),
            ledger_retention: worker.ledger_retention.unwrap_or(Duration::MAX),
            committers: worker.committers.get(),
            role: None,
            spools: Vec::new(),
            selection: Selection::default(),
            timeout: Duration::from_secs(5),
            long_transaction: Duration::from_secs(600),
            least_free: 256 << 20,
            clock: Utc::now,
        }
    }
}

/// Which checks to make. A name is an ID, as `redis.eviction`, or a topic, as `redis`.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only these; all, when empty.
    pub only: Vec<String>,
    /// Not these.
    pub skip: Vec<String>,
}

impl Selection {
    fn takes(&self, id: &str) -> bool {
        let names = |list: &[String]| {
            list.iter().any(|name| {
                id.strip_prefix(name.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        (self.only.is_empty() || names(&self.only)) && !names(&self.skip)
    }

    /// Whether any of the checks looks at Redis.
    pub fn needs_redis(&self) -> bool {
        CHECKS
            .iter()
            .any(|check| check.needs.redis() && self.takes(check.id))
    }

    /// Whether any of the checks looks at Postgres.
    pub fn needs_postgres(&self) -> bool {
        CHECKS
            .iter()
            .any(|check| check.needs.postgres() && self.takes(check.id))
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Looked at, and well.
    Ok,
    /// It could not be looked at.
    Unknown,
    /// It will hurt under circumstances that may come.
    Warning,
    /// It hurts, or data is at risk.
    Problem,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Finding {
    /// The check's ID, which stays the same from release to release.
    pub id: &'static str,
    /// How it ended.
    pub status: Status,
    /// What was found.
    pub what: String,
    /// Why it matters; also where all is well.
    pub why: String,
    /// What to do, unless all is well.
    pub fix: Option<String>,
}

/// What all checks found, in an order that stays.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DoctorReport {
    /// How many checks found all well,
    pub ok: usize,
    /// could not look,
    pub unknown: usize,
    /// warn,
    pub warnings: usize,
    /// found a problem.
    pub problems: usize,
    /// What each found.
    pub findings: Vec<Finding>,
}

impl DoctorReport {
    fn new(findings: Vec<Finding>) -> Self {
        let n = |status| findings.iter().filter(|f| f.status == status).count();
        Self {
            ok: n(Status::Ok),
            unknown: n(Status::Unknown),
            warnings: n(Status::Warning),
            problems: n(Status::Problem),
            findings,
        }
    }

    /// The worst that any check found; [`Status::Ok`] when none was made.
    pub fn worst(&self) -> Status {
        let found = self.findings.iter().map(|finding| finding.status);
        found.max().unwrap_or(Status::Ok)
    }
}

/// A check, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckInfo {
    /// Its ID.
    pub id: &'static str,
    /// Why it matters.
    pub why: &'static str,
}

/// All checks there are, in the order of the report.
pub fn doctor_checks() -> impl Iterator<Item = CheckInfo> {
    CHECKS.iter().map(|check| CheckInfo {
        id: check.id,
        why: check.why,
    })
}

/// Makes the checks, all at the same time.
///
/// Nothing makes it fail: a server that cannot be reached is a finding.
///
/// # Cancel safety
///
/// Cancel safe: nothing is changed.
pub async fn doctor(config: &DoctorConfig) -> DoctorReport {
    let patient = Patient::admit(config).await;
    let checks = CHECKS
        .iter()
        .filter(|check| config.selection.takes(check.id))
        .map(|check| examine(check, &patient));
    DoctorReport::new(join_all(checks).await.into_iter().flatten().collect())
}

/// `None` where there is nothing to look at.
async fn examine(check: &Check, patient: &Patient<'_>) -> Option<Finding> {
    let limit = patient.config.timeout;
    let outcome = match tokio::time::timeout(limit, (check.run)(patient)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Unknown::new(format!(
            "no answer within {} s",
            limit.as_secs_f32()
        ))),
    };
    let (status, what, why, fix) = match outcome {
        Err(unknown) if unknown.is_moot => return None,
        Ok(verdict) => (verdict.status, verdict.what, verdict.why, verdict.fix),
        Err(unknown) => (Status::Unknown, unknown.reason, None, unknown.fix),
    };
    Some(Finding {
        id: check.id,
        status,
        what,
        why: why.unwrap_or_else(|| check.why.to_owned()),
        fix,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_name_takes_a_check_or_a_topic() {
        let check = |only: &[&str], skip: &[&str], id, expected| {
            let owned = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
            let selection = Selection {
                only: owned(only),
                skip: owned(skip),
            };
            assert_eq!(selection.takes(id), expected, "{only:?} {skip:?} {id}");
        };
        check(&[], &[], "redis.aof", true);
        check(&["redis"], &[], "redis.aof", true);
        check(&["redis.aof"], &[], "redis.aof", true);
        check(&["redis.a"], &[], "redis.aof", false);
        check(&["redis"], &["redis.aof"], "redis.aof", false);
        check(&["postgres"], &[], "redis.aof", false);
    }

    #[test]
    fn ids_are_unique_and_of_a_topic() {
        let ids: BTreeSet<_> = CHECKS.iter().map(|check| check.id).collect();
        assert_eq!(ids.len(), CHECKS.len());
        for check in CHECKS {
            assert!(check.id.contains('.'), "{}", check.id);
            assert!(
                !check.why.ends_with('.') && check.why.len() > 20,
                "{}",
                check.id
            );
        }
    }

    #[test]
    fn the_documentation_lists_every_check() {
        let doc = include_str!("../../../../docs/doctor.md");
        let rows = doc.lines().filter(|line| line.starts_with("| `"));
        let documented: Vec<&str> = rows.collect();
        let expected: Vec<String> = CHECKS
            .iter()
            .map(|check| format!("| `{}` | {} |", check.id, check.why))
            .collect();
        assert_eq!(documented, expected);
    }
}
