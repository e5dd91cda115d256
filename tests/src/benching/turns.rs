//! Sides of a comparison that take turns many times within one run.
//!
//! A machine that others use, too, is now and then half as fast for some seconds: whoever has run then has lost.
//! With turns of a fraction of a second, every side has its share of that.

use std::{
    fs,
    pin::Pin,
    sync::{Arc, Condvar, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::runtime;

/// What a side does when it is prepared.
pub type Work = Pin<Box<dyn Future<Output = ()>>>;

/// A side at work on a thread of its own, as on a runtime of one thread, which stands still while others have
/// their turns.
#[derive(Debug)]
pub struct Side {
    gate: Arc<Gate>,
    thread: Option<JoinHandle<()>>,
    /// How long it has had its turn, until its servers had nothing left to do.
    pub elapsed: Duration,
}

/// How long a turn is: many batches long, and short beside the moods of a machine.
const TURN: Duration = Duration::from_millis(400);
/// How often a side asks whether its turn is over, and the servers are asked whether they are done.
const ASKING: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Preparing,
    /// Prepared, or frozen.
    Still,
    AtWork,
    /// At work, and asked to stand still.
    Stopping,
    Done,
}

#[derive(Debug)]
struct Gate {
    phase: Mutex<Phase>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, phase: Phase) {
        *self.phase.lock().unwrap() = phase;
        self.changed.notify_all();
    }

    /// Waits as long as the phase is this one.
    fn wait_while(&self, phase: Phase) -> Phase {
        let now = self.phase.lock().unwrap();
        *self.changed.wait_while(now, |now| *now == phase).unwrap()
    }

    fn stand_still(&self) {
        self.set(Phase::Still);
        self.wait_while(Phase::Still);
    }
}

/// Also when the thread panics: whoever waits for it is to hear of that.
struct Done(Arc<Gate>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.set(Phase::Done);
    }
}

impl Side {
    /// Prepares work, which begins with the first turn.
    pub fn prepare<F: Future<Output = Work>>(
        preparing: impl FnOnce() -> F + Send + 'static,
    ) -> Self {
        let gate = Arc::new(Gate {
            phase: Mutex::new(Phase::Preparing),
            changed: Condvar::new(),
        });
        let done = Done(Arc::clone(&gate));
        let at_work = move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let work = preparing().await;
                done.0.stand_still();
                let freezing = async {
                    loop {
                        if *done.0.phase.lock().unwrap() == Phase::Stopping {
                            done.0.stand_still();
                        }
                        tokio::time::sleep(ASKING).await;
                    }
                };
                tokio::select! {
                    () = work => {}
                    () = freezing => unreachable!("it goes on for ever"),
                }
            });
        };
        let side = Self {
            gate,
            thread: Some(thread::spawn(at_work)),
            elapsed: Duration::ZERO,
        };
        side.gate.wait_while(Phase::Preparing);
        side
    }

    /// Gives it a turn, which ends when the processes of these servers and their children have nothing to do any
    /// more. Returns `false` when it has done its work.
    ///
    /// # Panics
    ///
    /// When its work did.
    pub fn take_turn(&mut self, servers: &[u32]) -> bool {
        if self.thread.is_none() {
            return false;
        }
        let began = Instant::now();
        self.gate.set(Phase::AtWork);
        let phase = self.gate.phase.lock().unwrap();
        let (mut phase, _) = self
            .gate
            .changed
            .wait_timeout_while(phase, TURN, |phase| *phase == Phase::AtWork)
            .unwrap();
        if *phase == Phase::AtWork {
            *phase = Phase::Stopping;
        }
        drop(phase);
        let phase = self.gate.wait_while(Phase::Stopping);
        // What is in sockets already is done all the same.
        if phase != Phase::Done {
            wait_until_quiet(servers);
        }
        self.elapsed += began.elapsed();
        if phase == Phase::Done {
            self.thread.take().unwrap().join().unwrap();
        }
        phase != Phase::Done
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "nobody tells when a process has nothing to do"
)]
fn wait_until_quiet(servers: &[u32]) {
    let mut n_quiet = 0;
    while n_quiet < 2 {
        thread::sleep(ASKING);
        let is_busy = servers.iter().any(|&pid| is_busy(pid));
        n_quiet = if is_busy { 0 } else { n_quiet + 1 };
    }
}

/// Whether a process or a child of it runs, would run, or waits for a disk.
fn is_busy(pid: u32) -> bool {
    // One that has ended is not.
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let state = stat[stat.rfind(')').unwrap() + 1..].trim_start();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    state.starts_with(['R', 'D'])
        || children
            .unwrap_or_default()
            .split_whitespace()
            .any(|child| is_busy(child.parse().unwrap()))
}
