//! What a run was like: for people a table, for programs JSON.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::Ordering::SeqCst,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    faults::{Kind, Outcome},
    round::RoundReport,
    world::{World, stream},
};

/// The sums of all rounds.
#[derive(Debug, Default)]
pub(crate) struct Report {
    seed: u64,
    n_rounds: u64,
    n_failed: u64,
    faults: BTreeMap<Kind, u64>,
    skipped: BTreeMap<Kind, (u64, &'static str)>,
    n_accepted: u64,
    n_uncertain: u64,
    n_refused: u64,
    n_dropped: u64,
    n_stored: u64,
    n_dead: u64,
    /// Entries that the stream ever had; 0 where the server does not say (Redis 6).
    n_entries: u64,
    n_trimmed: u64,
    n_duplicates: u64,
    n_claimed: u64,
    n_claimed_by_operator: u64,
    n_requeued: u64,
    n_failed_starts: u64,
    longest_drain: (Duration, u64),
    took: Duration,
    rounds: Vec<Value>,
}

impl Report {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    pub(crate) fn add(&mut self, round: &RoundReport) {
        let RoundReport {
            verdict, findings, ..
        } = round;
        self.n_rounds += 1;
        self.n_failed += u64::from(!verdict.is_good());
        for (planned, outcome) in &round.outcomes {
            let kind = planned.fault.kind();
            match outcome {
                Outcome::Happened => *self.faults.entry(kind).or_default() += 1,
                Outcome::Skipped(reason) => self.skipped.entry(kind).or_insert((0, reason)).0 += 1,
            }
        }
        self.n_accepted += verdict.n_accepted;
        self.n_uncertain += verdict.n_uncertain;
        self.n_refused += round.n_refused;
        self.n_dropped += verdict.n_dropped;
        self.n_stored += verdict.n_stored;
        self.n_dead += verdict.n_dead;
        self.n_duplicates += findings.n_duplicates;
        self.n_claimed += findings.n_claimed;
        self.n_failed_starts += findings.n_failed_starts;
        self.took += round.took;
        if round.drained_in > self.longest_drain.0 {
            self.longest_drain = (round.drained_in, round.schedule.round);
        }
        self.rounds.push(json!({
            "round": round.schedule.round,
            "faults": round.outcomes.iter().map(|(planned, outcome)| json!({
                "fault": planned.fault.to_string(),
                "from_s": planned.at.as_secs_f64(),
                "lasts_s": planned.lasts.as_secs_f64(),
                "happened": *outcome == Outcome::Happened,
            })).collect::<Vec<_>>(),
            "accepted": verdict.n_accepted,
            "stored": verdict.n_stored,
            "drained_in_s": round.drained_in.as_secs_f64(),
            "problems": verdict.summary(),
        }));
    }

    /// What was counted beside the rounds.
    pub(crate) async fn finish(&mut self, world: &World) {
        let mut xinfo = redis::cmd("XINFO");
        xinfo.arg("STREAM").arg(stream());
        let info: HashMap<String, redis::Value> = world.redis(&xinfo).await;
        let number = |name: &str| {
            let value = info.get(name).cloned().unwrap_or(redis::Value::Int(0));
            redis::from_redis_value::<u64>(value).unwrap_or(0)
        };
        self.n_entries = number("entries-added");
        self.n_trimmed = self.n_entries.saturating_sub(number("length"));
        self.n_claimed_by_operator = world.counts.claimed_by_operator.load(SeqCst);
        self.n_requeued = world.counts.requeued.load(SeqCst);
        self.n_duplicates += world.counts.duplicates.load(SeqCst);
    }

    /// Something else than a round has failed.
    pub(crate) fn fail(&mut self) {
        self.n_failed += 1;
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.n_failed > 0
    }

    fn numbers(&self) -> [(&'static str, u64); 16] {
        [
            ("rounds", self.n_rounds),
            ("rounds_failed", self.n_failed),
            ("rows_accepted", self.n_accepted),
            ("rows_uncertain", self.n_uncertain),
            ("rows_stored", self.n_stored),
            ("rows_dead_lettered", self.n_dead),
            ("rows_dropped_by_policy", self.n_dropped),
            ("rows_refused_by_producers", self.n_refused),
            ("entries_added", self.n_entries),
            ("entries_trimmed", self.n_trimmed),
            ("entries_duplicate_suppressed", self.n_duplicates),
            ("entries_claimed_by_workers", self.n_claimed),
            ("entries_claimed_by_operator", self.n_claimed_by_operator),
            ("dead_letters_requeued", self.n_requeued),
            ("workers_that_found_no_server", self.n_failed_starts),
            (
                "rounds_skipping_a_fault",
                self.skipped.values().map(|(n, _)| n).sum(),
            ),
        ]
    }

    pub(crate) fn table(&self) -> String {
        let mut lines = vec![format!("seed {}", self.seed)];
        for (kind, n) in &self.faults {
            lines.push(format!("  {:<30} {n:>9} times", kind.name()));
        }
        for (kind, (n, reason)) in &self.skipped {
            lines.push(format!(
                "  {:<30} {n:>9} times skipped: {reason}",
                kind.name()
            ));
        }
        for (name, n) in self.numbers() {
            lines.push(format!("{:<32} {n:>9}", name.replace('_', " ")));
        }
        let (longest, round) = self.longest_drain;
        lines.push(format!(
            "longest drain                    {:>9.1} s, after round {round}",
            longest.as_secs_f64()
        ));
        lines.push(format!(
            "took                             {:>9.1} s",
            self.took.as_secs_f64()
        ));
        lines.join("\n")
    }

    pub(crate) fn json(&self) -> Value {
        let faults: BTreeMap<_, _> = self
            .faults
            .iter()
            .map(|(kind, n)| (kind.name(), n))
            .collect();
        let skipped: BTreeMap<_, _> = self
            .skipped
            .iter()
            .map(|(kind, (n, reason))| (kind.name(), json!({"times": n, "reason": reason})))
            .collect();
        let mut report = json!({
            "seed": self.seed,
            "faults": faults,
            "faults_skipped": skipped,
            "longest_drain_s": self.longest_drain.0.as_secs_f64(),
            "longest_drain_round": self.longest_drain.1,
            "took_s": self.took.as_secs_f64(),
            "per_round": self.rounds,
        });
        for (name, n) in self.numbers() {
            report[name] = json!(n);
        }
        report
    }
}
