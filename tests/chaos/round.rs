//! One round: load, faults, healing, and the count.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use chrono::TimeDelta;
use redis::{Value, streams::StreamInfoGroupsReply};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    balance::{self, Accepted},
    books::Account,
    faults::{self, Fault, Kind, Outcome, put_all_back},
    producers,
    producers::Producers,
    rows::{ClockStep, Source},
    schedule::{Planned, Schedule},
    strangers,
    verdict::{self, Verdict},
    watch,
    workers::Findings,
    world::{GROUP, World, stream},
};

/// Sessions that ended and have no summary, or one that counts something else than what is stored.
const SUMMARIES: &str = "
WITH seen AS (
    SELECT session_id, count(*) AS detections, count(DISTINCT track_id) AS people
    FROM detections
    GROUP BY session_id
)
SELECT format('%s: %s detections of %s, %s people of %s', session_id,
              sessions.detections, seen.detections, sessions.people, seen.people)
FROM sessions
JOIN seen USING (session_id)
WHERE ended_at IS NOT NULL
  AND (sessions.detections IS DISTINCT FROM seen.detections
       OR sessions.people IS DISTINCT FROM seen.people)
ORDER BY session_id";

const UNSUMMARIZED: &str =
    "SELECT FROM sessions WHERE ended_at IS NOT NULL AND people IS NULL LIMIT 1";

/// As long as a worker's mark on a session that it counts is believed.
const STALE_MARK: Duration = Duration::from_secs(120);

const POLL: Duration = Duration::from_millis(25);
/// Nothing comes late any more after the stream was found empty so often in a row.
const N_LOOKS: usize = 4;

/// What stays from round to round.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) length: Duration,
    /// Longest wait for an empty stream.
    pub(crate) drain_limit: Duration,
    pub(crate) world: Arc<World>,
    pub(crate) producers: Producers,
    /// What the pipeline's processes have accepted, in all rounds.
    pub(crate) piped: Accepted,
    /// Sessions with rows that Postgres refuses until that is mended.
    pub(crate) open: Vec<Account>,
    /// Rows of each session when last looked at.
    pub(crate) stored: BTreeMap<String, i64>,
}

/// What a round was like.
#[derive(Debug)]
pub(crate) struct RoundReport {
    pub(crate) schedule: Schedule,
    pub(crate) outcomes: Vec<(Planned, Outcome)>,
    pub(crate) verdict: Verdict,
    pub(crate) findings: Findings,
    /// Rows that producers did not accept.
    pub(crate) n_refused: u64,
    /// From the end of the faults to the empty stream.
    pub(crate) drained_in: Duration,
    pub(crate) took: Duration,
}

impl Run {
    pub(crate) async fn round(&mut self, schedule: Schedule, without: &[Kind]) -> RoundReport {
        let world = Arc::clone(&self.world);
        let begun_at = Instant::now();
        let before = self.producers.stats();
        let name = |who: &str| format!("{:x}-{}-{who}", self.seed, schedule.round);
        let sources = self.sources(&schedule, without);
        let stranger = Source::new(name("s"), strangers::ROWS_PER_SECOND);
        world
            .pipeline
            .start(name("x"), world.spool.dir().to_owned());

        let mut planned = schedule.faults.clone();
        planned.retain(|planned| !without.contains(&planned.fault.kind()));
        let mut inflicting = JoinSet::new();
        for one in &planned {
            let (one, world) = (one.clone(), Arc::clone(&world));
            inflicting.spawn(async move {
                let fault = one.fault.clone();
                let outcome = faults::inflict(fault, begun_at + one.at, one.lasts, world).await;
                (one, outcome)
            });
        }
        let watching = tokio::spawn(watch::trimming(Arc::clone(&world)));
        let balancing = tokio::spawn(balance::watch(Arc::clone(&world)));
        let (mut recording, stranger) = tokio::join!(
            self.producers.record(sources, self.length),
            strangers::write(Arc::clone(&world), stranger, self.length),
        );
        let mut outcomes = inflicting.join_all().await;
        outcomes.sort_by_key(|(planned, _)| planned.at);
        world.heal().await;
        let healed_at = Instant::now();

        let mut verdict = Verdict::default();
        let mut accounts = vec![stranger];
        let (account, piped, errors) = world.pipeline.finish().await;
        accounts.push(account);
        self.piped.certain += piped.certain;
        self.piped.uncertain += piped.uncertain;
        recording.errors.extend(errors);
        self.producers.flush(&before, &mut recording).await;
        accounts.append(&mut recording.accounts);
        let mut late = self.drain().await;
        let drained_in = healed_at.elapsed();

        if late.is_none() && world.is_requeue_unfinished.swap(false, SeqCst) {
            put_all_back(&world, None).await;
            late = self.drain().await;
        }
        if late.is_none() && schedule.is_mended {
            world.refuse_rows(false).await;
            put_all_back(&world, Some("refused")).await;
            late = self.drain().await;
            world.refuse_rows(true).await;
        }
        if late.is_none() {
            verdict = self.judge(accounts, schedule.is_mended).await;
        }
        for error in late.into_iter().chain(recording.errors) {
            verdict.problem("promises of producers and workers broken", error);
        }
        if balancing.is_finished() {
            verdict.problem(
                "status and a count by hand differ",
                balancing.await.unwrap(),
            );
        } else {
            balancing.abort();
        }
        if verdict.is_good()
            && let Some(wrong) = balance::settled(&world, self.accepted()).await
        {
            verdict.problem("books that do not balance", wrong);
        }
        if watching.is_finished() {
            verdict.problem("trimmed too early", watching.await.unwrap());
        } else {
            watching.abort();
        }
        let findings = world.workers.findings();
        for said in &findings.gave_up {
            verdict.problem("workers that gave up", said.clone());
        }
        RoundReport {
            schedule,
            outcomes,
            verdict,
            findings,
            n_refused: recording.n_refused,
            drained_in,
            took: begun_at.elapsed(),
        }
    }

    /// What all producers have accepted and dropped since the run began.
    fn accepted(&self) -> Accepted {
        let rows = self.producers.stats().into_iter().map(|stats| stats.rows());
        rows.fold(self.piped, |all, rows| Accepted {
            certain: all.certain + rows.accepted,
            dropped: all.dropped + rows.dropped_oldest,
            ..all
        })
    }

    /// Waits for the summaries of all sessions that ended; says which is missing or wrong.
    pub(crate) async fn check_summaries(&self) -> Vec<String> {
        let client = self.world.client().await;
        // Counting all rows takes longer than making the last summaries: wait for these first. That of a
        // worker which died of it, or lost its connection, is made by another when its mark is stale.
        let deadline = Instant::now() + self.drain_limit + STALE_MARK;
        while !client.query(UNSUMMARIZED, &[]).await.unwrap().is_empty()
            && Instant::now() < deadline
        {
            sleep(POLL * 10).await;
        }
        let rows = client.query(SUMMARIES, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// What the producers record, by clocks that may be wrong.
    fn sources(&self, schedule: &Schedule, without: &[Kind]) -> Vec<Source> {
        let mut sources: Vec<Source> = (0..producers::N_PRODUCERS)
            .map(|number| {
                let session_id = format!("{:x}-{}-p{number}", self.seed, schedule.round);
                Source::new(session_id, producers::ROWS_PER_SECOND)
            })
            .collect();
        for Planned { fault, at, lasts } in &schedule.faults {
            if let Fault::ClockStep { producer, minutes } = fault
                && !without.contains(&Kind::ClockStep)
            {
                let source = &mut sources[*producer];
                source.steps.push(ClockStep {
                    first: producers::n_rows(source, *at),
                    last: producers::n_rows(source, *at + *lasts),
                    by: TimeDelta::minutes(*minutes),
                });
            }
        }
        sources
    }

    /// Waits until nothing is undelivered or pending; says what is left when that takes too long.
    async fn drain(&self) -> Option<String> {
        let deadline = Instant::now() + self.drain_limit;
        let mut n_looks = 0;
        loop {
            let group = self.group().await;
            n_looks = if group.is_empty() { n_looks + 1 } else { 0 };
            if n_looks == N_LOOKS {
                return None;
            }
            if Instant::now() >= deadline {
                return Some(format!(
                    "not drained within {:?}: {group}",
                    self.drain_limit
                ));
            }
            sleep(POLL).await;
        }
    }

    async fn group(&self) -> Group {
        let world = &self.world;
        let mut xinfo = redis::cmd("XINFO");
        xinfo.arg("STREAM").arg(stream());
        let info: HashMap<String, Value> = world.redis(&xinfo).await;
        let last = redis::from_redis_value(info["last-generated-id"].clone()).unwrap();
        let mut xinfo = redis::cmd("XINFO");
        xinfo.arg("GROUPS").arg(stream());
        let groups: StreamInfoGroupsReply = world.redis(&xinfo).await;
        let group = groups.groups.into_iter().find(|group| group.name == GROUP);
        let (last_delivered, n_pending, n_consumers) = group
            .map_or_else(Default::default, |group| {
                (group.last_delivered_id, group.pending, group.consumers)
            });
        Group {
            last,
            last_delivered,
            n_pending,
            n_consumers,
        }
    }

    async fn judge(&mut self, accounts: Vec<Account>, is_mended: bool) -> Verdict {
        let all: Vec<&Account> = accounts.iter().chain(&self.open).collect();
        let mut verdict = verdict::judge(&self.world, &accounts, &self.open).await;
        let client = self.world.client().await;
        let count = "SELECT session_id, count(*) FROM detections GROUP BY session_id";
        let rows = client.query(count, &[]).await.unwrap();
        let now: BTreeMap<String, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let is_judged = |id: &String| all.iter().any(|account| account.source.session_id == *id);
        let others = |counts: &BTreeMap<String, i64>| -> BTreeMap<String, i64> {
            let others = counts.iter().filter(|(id, _)| !is_judged(id));
            others.map(|(id, n)| (id.clone(), *n)).collect()
        };
        let (was, is) = (others(&self.stored), others(&now));
        if was != is {
            let changed = is.iter().filter(|(id, n)| was.get(*id) != Some(*n));
            let gone = was.iter().filter(|(id, _)| !is.contains_key(*id));
            verdict.problem(
                "changes in sessions that were over",
                format!(
                    "{:?} of once {:?}",
                    changed.collect::<Vec<_>>(),
                    gone.collect::<Vec<_>>()
                ),
            );
        }
        self.stored = now;
        let mut open = std::mem::take(&mut self.open);
        open.extend(accounts);
        open.retain(|account| !is_mended && account.has_refused_rows());
        self.open = open;
        verdict
    }
}

/// How far the workers are.
#[derive(Debug)]
struct Group {
    last: String,
    last_delivered: String,
    n_pending: usize,
    n_consumers: usize,
}

impl Group {
    fn is_empty(&self) -> bool {
        self.n_pending == 0 && self.last == self.last_delivered
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} entries pending with {} consumers, delivered up to {} of {}",
            self.n_pending, self.n_consumers, self.last_delivered, self.last
        )
    }
}
