//! Whether all is well.

use std::time::Duration;

use serde::Serialize;

use super::{RedisStatus, StatusReport};
use crate::presence::WorkerState;

/// From where on something is not well.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// The oldest entry that is not acknowledged may be so old.
    pub backlog: Duration,
    /// The oldest entry that a worker holds may be so old.
    pub pending: Duration,
    /// Redis must have so much time left at the present rates.
    pub full_in: Duration,
    /// Dead letters may be so many percent of the entries settled lately.
    pub dead_letters_percent: f64,
    /// So many rows are known to be lost, of an accident that is over.
    pub known_lost: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            backlog: Duration::from_secs(60),
            pending: Duration::from_secs(120),
            full_in: Duration::from_secs(3_600),
            dead_letters_percent: 1.0,
            known_lost: 0,
        }
    }
}

/// That a worker failed is bad for so long, and longer only while no other is there.
const FAILURE_MATTERS: Duration = Duration::from_secs(60);

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// `passerby status --check` fails.
    Unhealthy,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Symptom {
    /// What it is, for programs: one of a small closed set.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it is, for people: one sentence, without values of rows.
    pub text: String,
}

impl StatusReport {
    /// What is not as it should be, the worst first.
    pub fn symptoms(&self, thresholds: &Thresholds) -> Vec<Symptom> {
        let mut symptoms = Symptoms(Vec::new());
        if let Some(error) = &self.redis_error {
            symptoms.unhealthy("redis-unknown", format!("Redis cannot be asked: {error}"));
        }
        if let Some(error) = &self.store_error {
            symptoms.unhealthy(
                "store-unknown",
                format!("Postgres cannot be asked: {error}"),
            );
        }
        self.judge_group(&mut symptoms);
        self.judge_backlog(&mut symptoms, thresholds);
        self.judge_flow(&mut symptoms, thresholds);
        self.judge_books(&mut symptoms, thresholds);
        symptoms
            .0
            .sort_by_key(|symptom| std::cmp::Reverse(symptom.severity));
        symptoms.0
    }

    fn judge_group(&self, symptoms: &mut Symptoms) {
        let Some(redis) = &self.redis else { return };
        if let Some(paused) = &redis.paused {
            let by = &paused.told.by;
            let by = if by.is_empty() {
                String::new()
            } else {
                format!(" by {by}")
            };
            let reason = paused.told.reason.as_ref();
            let reason = reason.map(|r| format!(": {r}")).unwrap_or_default();
            symptoms.unhealthy("paused", format!("paused{by}{reason}"));
        }
        // A full Redis takes no word from workers, however alive they are.
        let has_live_worker = redis.workers.iter().any(|worker| worker.is_alive);
        if !has_live_worker && !redis.is_full() {
            symptoms.unhealthy("no-worker", "no worker is running".to_owned());
        }
        for worker in &redis.workers {
            let Some(presence) = &worker.presence else {
                if worker.idle_seconds.is_some_and(|idle| idle < 10.0) {
                    symptoms.note(
                        "worker-unseen",
                        format!(
                            "{} reads and does not show itself: a worker of an earlier release keeps no books",
                            worker.consumer
                        ),
                    );
                }
                continue;
            };
            match presence.told.state {
                WorkerState::StoringNothing if worker.is_alive => symptoms.unhealthy(
                    "storing-nothing",
                    format!(
                        "{} has stored nothing for {:.0} s",
                        worker.consumer, presence.told.storing_nothing_for
                    ),
                ),
                WorkerState::Failed => {
                    let age_ms = redis.now_ms.saturating_sub(presence.updated_ms);
                    // Whoever is there in its place does not take its record away: it has another name.
                    let is_replaced =
                        has_live_worker && Duration::from_millis(age_ms) >= FAILURE_MATTERS;
                    symptoms.add(
                        if is_replaced {
                            Severity::Note
                        } else {
                            Severity::Unhealthy
                        },
                        "worker-failed",
                        format!(
                            "{} ended {} s ago because an operator must act",
                            worker.consumer,
                            age_ms / 1_000
                        ),
                    );
                }
                _ => {}
            }
        }
        for stream in &redis.streams {
            if stream.exists && !stream.has_group && stream.length > 0 {
                symptoms.unhealthy(
                    "no-group",
                    format!(
                        "{} has entries and no group: no worker has ever read it",
                        stream.stream
                    ),
                );
            }
        }
    }

    fn judge_backlog(&self, symptoms: &mut Symptoms, thresholds: &Thresholds) {
        let Some(redis) = &self.redis else { return };
        let age = redis.backlog_seconds();
        if age > thresholds.backlog.as_secs_f64() {
            symptoms.unhealthy(
                "backlog",
                format!("the oldest entry has waited for {age:.0} s to be stored"),
            );
        }
        let pending = redis.oldest_pending_seconds();
        if pending > thresholds.pending.as_secs_f64() {
            symptoms.unhealthy(
                "pending",
                format!("an entry that a worker was given {pending:.0} s ago is not acknowledged"),
            );
        }
    }

    fn judge_flow(&self, symptoms: &mut Symptoms, thresholds: &Thresholds) {
        if self.redis.as_ref().is_some_and(RedisStatus::is_full) {
            symptoms.unhealthy(
                "redis-full",
                "Redis is full: producers keep what they accept, and what they and workers tell of \
                 themselves is old"
                    .to_owned(),
            );
            return;
        }
        let Some(flow) = &self.flow else { return };
        if let Some(seconds) = flow.full_in_seconds
            && seconds < thresholds.full_in.as_secs_f64()
        {
            symptoms.unhealthy(
                "redis-full",
                format!("Redis is full in {seconds:.0} s at this rate"),
            );
        }
        let share = 100.0 * flow.dead_letters / flow.settled_entries.max(f64::MIN_POSITIVE);
        if flow.dead_letters > 0.0 && share > thresholds.dead_letters_percent {
            symptoms.unhealthy(
                "dead-letters",
                format!("{share:.0} % of what workers settle become dead letters"),
            );
        }
        if flow.accepted_rows > 0.0
            && flow.settled_entries <= 0.0
            && self.backlog_seconds() > Some(5.0)
        {
            symptoms.unhealthy(
                "nothing-stored",
                "rows are accepted and nothing is stored".to_owned(),
            );
        }
    }

    fn judge_books(&self, symptoms: &mut Symptoms, thresholds: &Thresholds) {
        let Some(balance) = &self.balance else { return };
        if balance.unaccounted > 0 {
            let is_known = balance.unaccounted <= thresholds.known_lost;
            symptoms.add(
                if is_known {
                    Severity::Note
                } else {
                    Severity::Unhealthy
                },
                "unaccounted",
                format!(
                    "{} rows that producers published are nowhere",
                    balance.unaccounted
                ),
            );
        }
        let is_full = self.redis.as_ref().is_some_and(RedisStatus::is_full);
        if balance.unheard > 0 && !is_full {
            symptoms.note(
                "unheard",
                format!(
                    "producers ended without a last word, with {} rows in memory",
                    balance.unheard
                ),
            );
        }
        if let Some(store) = &self.store
            && store.dead_letters_waiting() > 0
        {
            symptoms.note(
                "dead-letters-waiting",
                format!(
                    "{} dead letters wait to be looked at",
                    store.dead_letters_waiting()
                ),
            );
        }
    }
}

struct Symptoms(Vec<Symptom>);

impl Symptoms {
    fn add(&mut self, severity: Severity, code: &'static str, text: String) {
        self.0.push(Symptom {
            code,
            severity,
            text,
        });
    }

    fn unhealthy(&mut self, code: &'static str, text: String) {
        self.add(Severity::Unhealthy, code, text);
    }

    fn note(&mut self, code: &'static str, text: String) {
        self.add(Severity::Note, code, text);
    }
}
