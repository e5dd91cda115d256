//! Tells systemd how the worker fares: `Type=notify` and `WatchdogSec=`.
//!
//! * `READY=1` once the worker runs, which it does when both servers have answered and the schema fits.
//! * `STATUS=` every few seconds: `systemctl status` shows it.
//! * `WATCHDOG=1` at half of its interval, only while the worker lives: systemd restarts one that is
//!   stuck. A worker whose servers are away lives.
//! * `STOPPING=1` once it is told to stop.
//! * A start that takes long, as a migration does, asks for more time.
//!
//! Without a `NOTIFY_SOCKET` in the environment there is nobody to tell.

use std::{env, sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use crate::{
    Health,
    health::{Phase, Readiness},
};

/// How often systemd is told, unless its watchdog wants more.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// What a start may take until it is heard of again.
const STARTING: Duration = Duration::from_secs(60);

/// Whether systemd, or whoever started the worker, wants to be told.
pub fn is_listening() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty())
}

/// Tells systemd how the worker fares, until `ended` fires.
pub async fn notify(health: Arc<Health>, ended: CancellationToken) {
    let every = match sd_notify::watchdog_enabled() {
        Some(watchdog) => (watchdog / 2).min(TELL_EVERY),
        None => TELL_EVERY,
    };
    let mut tick = interval(every.max(Duration::from_millis(10)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Told::default();
    loop {
        tokio::select! {
            biased;
            () = ended.cancelled() => break,
            () = health.phase_changed() => {}
            _ = tick.tick() => {}
        }
        let states = told.states(&health);
        let states: Vec<NotifyState<'_>> = states.iter().map(Tell::as_state).collect();
        if let Err(error) = sd_notify::notify(&states) {
            debug!(%error, "systemd cannot be told");
        }
    }
    if !told.stopping {
        // It is over in a moment, and so is whoever waits for it.
        drop(sd_notify::notify(&[NotifyState::Stopping]));
    }
}

/// Something to tell.
#[derive(Debug, PartialEq, Eq)]
enum Tell {
    Ready,
    Stopping,
    Alive,
    MoreTime,
    Status(String),
}

impl Tell {
    fn as_state(&self) -> NotifyState<'_> {
        match self {
            Self::Ready => NotifyState::Ready,
            Self::Stopping => NotifyState::Stopping,
            Self::Alive => NotifyState::Watchdog,
            Self::MoreTime => {
                let us = u32::try_from(STARTING.as_micros()).unwrap_or(u32::MAX);
                NotifyState::ExtendTimeoutUsec(us)
            }
            Self::Status(status) => NotifyState::Status(status),
        }
    }
}

/// What systemd has been told already.
#[derive(Debug, Default)]
struct Told {
    ready: bool,
    stopping: bool,
    stuck: bool,
}

impl Told {
    fn states(&mut self, health: &Health) -> Vec<Tell> {
        let readiness = health.readiness();
        let mut tell = Vec::new();
        if readiness.phase == Phase::Starting {
            tell.push(Tell::MoreTime);
        }
        if readiness.phase == Phase::Running && !self.ready {
            self.ready = true;
            tell.push(Tell::Ready);
        }
        if readiness.phase == Phase::Stopping && !self.stopping {
            self.stopping = true;
            tell.push(Tell::Stopping);
        }
        match health.check_live() {
            Ok(()) => {
                self.stuck = false;
                tell.push(Tell::Alive);
                tell.push(Tell::Status(status(&readiness, health)));
            }
            Err(stuck) => {
                if !self.stuck {
                    error!(%stuck, "the worker is stuck: the watchdog is left to end it");
                }
                self.stuck = true;
                tell.push(Tell::Status(stuck.to_string()));
            }
        }
        tell
    }
}

fn status(readiness: &Readiness, health: &Health) -> String {
    let Some(stats) = health.stats() else {
        return readiness.to_string();
    };
    let report = stats.report();
    format!(
        "{readiness}; stored {} detections, {} tracks and {} dead letters",
        report.detections, report.tracks, report.dead_letters
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Part;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_while_the_loops_turn_and_not_a_moment_longer() {
        let (health, stop) = (Health::default(), CancellationToken::new());
        let mut told = Told::default();
        let reader = health.watch("reader");
        assert_eq!(told.states(&health)[..2], [Tell::MoreTime, Tell::Alive]);

        health.runs(&stop, LIMIT, &Arc::default());
        reader.turns();
        // Postgres is away: no reason to be restarted.
        let away = || Part::NotReady("away".to_owned());
        health.saw(Part::Ready, away(), away(), 10 * LIMIT);
        assert_eq!(told.states(&health)[..2], [Tell::Ready, Tell::Alive]);
        assert_eq!(told.states(&health)[0], Tell::Alive);

        tokio::time::advance(LIMIT * 2).await;
        let stuck = "the reader has been at the same thing for 120 s".to_owned();
        assert_eq!(told.states(&health), [Tell::Status(stuck)]);

        reader.waits();
        stop.cancel();
        assert_eq!(told.states(&health)[..2], [Tell::Stopping, Tell::Alive]);
    }
}
