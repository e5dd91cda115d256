//! Whether a worker lives, and whether it is ready.
//!
//! **Live**: its loops turn. The reader, the decoder, each committer and the acker say when they begin
//! something that must end by itself, and when they wait for one another. A loop that is at the same thing
//! for longer than all its time-outs together is stuck, in a deadlock or an endless loop of ours, and only a
//! new process helps. Waiting is not being stuck: while Postgres is away, every attempt begins anew.
//! One that never lets go of the thread, on a runtime that has no other, keeps this from being told, too:
//! probes are then not answered in time and systemd's watchdog hears nothing, which says the same.
//!
//! **Ready**: both servers answered a moment ago, the schema is this program's, and the worker is not
//! stopping. What is asked here is what the [observer](crate::WorkerConfig::observe) has seen last, so that
//! probes cost the servers nothing.

mod readiness;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

pub use self::readiness::{Part, Phase, Readiness};
use crate::WorkerStats;

/// How a worker fares, for those who watch it.
#[derive(Debug)]
pub struct Health {
    since: Instant,
    state: Mutex<State>,
    began: Notify,
}

#[derive(Debug, Default)]
struct State {
    loops: Vec<Turning>,
    /// A loop at the same thing for so long is stuck.
    stuck_after: Duration,
    /// Fired when the worker begins to stop; `None` until it runs.
    stop: Option<CancellationToken>,
    stats: Option<Arc<WorkerStats>>,
    seen: Option<Seen>,
}

/// What the observer has seen last.
#[derive(Debug, Clone)]
struct Seen {
    at: Instant,
    /// A look that is older than this says nothing any more.
    good_for: Duration,
    redis: Part,
    postgres: Part,
    schema: Part,
}

/// One loop's account of itself.
#[derive(Debug, Clone)]
pub(crate) struct Turning {
    name: &'static str,
    health_since: Instant,
    /// When it began what it is at, in milliseconds since `health_since`; [`WAITING`] while it waits.
    began_ms: Arc<AtomicU64>,
}

const WAITING: u64 = u64::MAX;

/// A loop that does not turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stuck {
    /// Which.
    pub name: &'static str,
    /// For how long it has been at the same thing.
    pub since: Duration,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, seconds) = (self.name, self.since.as_secs());
        write!(f, "the {name} has been at the same thing for {seconds} s")
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            state: Mutex::default(),
            began: Notify::new(),
        }
    }
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after each of the operations below, whoever panicked meanwhile.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker runs from now on, until `stop` fires.
    pub(crate) fn runs(
        &self,
        stop: &CancellationToken,
        stuck_after: Duration,
        stats: &Arc<WorkerStats>,
    ) {
        let mut state = self.lock();
        state.stop = Some(stop.clone());
        state.stuck_after = stuck_after;
        state.stats = Some(Arc::clone(stats));
        self.began.notify_one();
    }

    /// Waits until the worker runs, and then until it stops. For one that waits.
    pub(crate) async fn phase_changed(&self) {
        let stop = self.lock().stop.clone();
        match stop {
            None => self.began.notified().await,
            Some(stop) if !stop.is_cancelled() => stop.cancelled().await,
            Some(_) => std::future::pending().await,
        }
    }

    /// What the worker has done, once it runs.
    pub fn stats(&self) -> Option<Arc<WorkerStats>> {
        self.lock().stats.clone()
    }

    /// A loop that says when it turns. It waits, to begin with.
    pub(crate) fn watch(&self, name: &'static str) -> Turning {
        let turning = Turning {
            name,
            health_since: self.since,
            began_ms: Arc::new(AtomicU64::new(WAITING)),
        };
        self.lock().loops.push(turning.clone());
        turning
    }

    pub(crate) fn saw(&self, redis: Part, postgres: Part, schema: Part, good_for: Duration) {
        self.lock().seen = Some(Seen {
            at: Instant::now(),
            good_for,
            redis,
            postgres,
            schema,
        });
    }

    /// Says which loop is stuck; none is while the worker lives.
    ///
    /// # Errors
    ///
    /// [`Stuck`], and only a new process helps.
    pub fn check_live(&self) -> Result<(), Stuck> {
        let state = self.lock();
        let stuck = state.loops.iter().find_map(|turning| {
            let since = turning.busy_for()?;
            (since > state.stuck_after).then_some(Stuck {
                name: turning.name,
                since,
            })
        });
        stuck.map_or(Ok(()), Err)
    }

    /// Whether the worker is ready, and if not, which part of it is not.
    pub fn readiness(&self) -> Readiness {
        let state = self.lock();
        let phase = match &state.stop {
            None => Phase::Starting,
            Some(stop) if stop.is_cancelled() => Phase::Stopping,
            Some(_) => Phase::Running,
        };
        let Some(seen) = &state.seen else {
            return Readiness::unknown(phase, None);
        };
        let age = seen.at.elapsed();
        if age > seen.good_for {
            return Readiness::unknown(phase, Some(age));
        }
        Readiness {
            phase,
            redis: seen.redis.clone(),
            postgres: seen.postgres.clone(),
            schema: seen.schema.clone(),
            seen_seconds_ago: Some(age.as_secs_f64()),
        }
    }
}

impl Turning {
    /// The loop begins something that must end by itself.
    pub(crate) fn turns(&self) {
        let ms = self.health_since.elapsed().as_millis();
        let ms = u64::try_from(ms).unwrap_or(WAITING - 1);
        self.began_ms.store(ms, Relaxed);
    }

    /// The loop waits for others, however long that takes.
    pub(crate) fn waits(&self) {
        self.began_ms.store(WAITING, Relaxed);
    }

    fn busy_for(&self) -> Option<Duration> {
        match self.began_ms.load(Relaxed) {
            WAITING => None,
            ms => Some(
                self.health_since
                    .elapsed()
                    .saturating_sub(Duration::from_millis(ms)),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(120);

    fn running() -> (Health, CancellationToken) {
        let (health, stop) = (Health::default(), CancellationToken::new());
        health.runs(&stop, LIMIT, &Arc::default());
        (health, stop)
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_is_stuck_that_is_at_one_thing_for_too_long_and_no_other() {
        let (health, _stop) = running();
        let (reader, committer) = (health.watch("reader"), health.watch("committer"));
        reader.turns();
        committer.turns();
        tokio::time::advance(LIMIT).await;
        assert_eq!(health.check_live(), Ok(()));

        reader.turns();
        tokio::time::advance(Duration::from_secs(1)).await;
        let stuck = health.check_live().unwrap_err();
        assert_eq!(
            stuck.to_string(),
            "the committer has been at the same thing for 121 s"
        );

        committer.waits();
        tokio::time::advance(LIMIT / 2).await;
        assert_eq!(health.check_live(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_waits_lives_however_long_that_takes() {
        let (health, _stop) = running();
        let reader = health.watch("reader");
        reader.turns();
        reader.waits();
        tokio::time::advance(1_000 * LIMIT).await;
        assert_eq!(health.check_live(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_seen_long_ago_is_not_known() {
        let (health, _stop) = running();
        assert!(!health.readiness().is_ready());
        let good_for = Duration::from_secs(10);
        health.saw(Part::Ready, Part::Ready, Part::Ready, good_for);
        assert!(health.readiness().is_ready());
        tokio::time::advance(good_for * 2).await;
        let readiness = health.readiness();
        assert!(!readiness.is_ready());
        assert_eq!(
            readiness.to_string(),
            "not ready: redis: not asked for 20 s; postgres: not asked for 20 s; schema: not asked \
             for 20 s"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_is_ready_neither_before_it_runs_nor_once_it_is_told_to_stop() {
        let health = Health::default();
        let all = [Part::Ready, Part::Ready, Part::Ready];
        let [redis, postgres, schema] = all;
        health.saw(redis, postgres, schema, LIMIT);
        assert_eq!(health.readiness().to_string(), "not ready: starting");
        let stop = CancellationToken::new();
        health.runs(&stop, LIMIT, &Arc::default());
        assert_eq!(health.readiness().to_string(), "ready");
        stop.cancel();
        assert_eq!(health.readiness().to_string(), "not ready: stopping");
    }
}
