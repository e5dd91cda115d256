//! Worker processes, started again when they end, as a service manager would.

use std::{
    collections::BTreeMap,
    env,
    fs::File,
    io::{Read, Seek, SeekFrom},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use passerby_tests::build_program;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::world::{GROUP, blocking};

pub(crate) const N_WORKERS: usize = 3;
/// An entry whose worker shows no sign of life for so long is taken over.
pub(crate) const MIN_IDLE: Duration = Duration::from_millis(800);
/// Before a worker that ended is started again.
const RESTART_AFTER: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_millis(20);

/// The workers, each in a slot of its own. They are killed when dropped.
#[derive(Debug)]
pub(crate) struct Workers {
    shared: Arc<Shared>,
    _supervisor: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    program: PathBuf,
    args: Vec<String>,
    dir: PathBuf,
    slots: Vec<Mutex<Slot>>,
    findings: Mutex<Findings>,
}

#[derive(Debug, Default)]
struct Slot {
    child: Option<Child>,
    n_starts: usize,
    /// Stays down until then.
    down_until: Option<Instant>,
    /// We told it to end, or ended it.
    is_ending: bool,
    is_frozen: bool,
    /// Where it serves /metrics, by its log.
    address: Option<SocketAddr>,
    /// How much of each log was read, by the number of the start.
    read: BTreeMap<usize, u64>,
}

/// What the workers' logs and exits tell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings {
    /// Entries that the ledger knew.
    pub(crate) n_duplicates: u64,
    /// Entries taken over from others.
    pub(crate) n_claimed: u64,
    /// Workers that could not start, since a server was away.
    pub(crate) n_failed_starts: u64,
    /// Workers that had started and then gave up by themselves, or panicked: their last words.
    pub(crate) gave_up: Vec<String>,
}

impl Workers {
    pub(crate) async fn start(dir: &Path, redis_url: &str, database_url: &str) -> Self {
        let min_idle = format!("{}ms", MIN_IDLE.as_millis());
        let args = [
            ("--redis-url", redis_url),
            ("--database-url", database_url),
            ("--group", GROUP),
            ("--min-idle", &min_idle),
            ("--block", "100ms"),
            ("--trim-grace", "1s"),
            ("--grace-period", "5s"),
            ("--server-timeout", "5s"),
            ("--listen", "127.0.0.1:0"),
            ("--observe-every", "250ms"),
            ("--log-format", "json"),
            (
                "--log",
                "info,passerby_consumer=debug,refinery_core=warn,tokio_postgres=warn",
            ),
        ];
        let shared = Arc::new(Shared {
            program: blocking(|| build_program("passerby-worker")).await,
            args: args
                .iter()
                .flat_map(|(name, value)| [*name, *value])
                .map(str::to_owned)
                .collect(),
            dir: dir.to_owned(),
            slots: (0..N_WORKERS).map(|_| Mutex::default()).collect(),
            findings: Mutex::default(),
        });
        let mut supervisor = JoinSet::new();
        let watched = Arc::clone(&shared);
        supervisor.spawn(async move {
            loop {
                for number in 0..N_WORKERS {
                    watched.look_after(number);
                }
                sleep(POLL).await;
            }
        });
        Self {
            shared,
            _supervisor: supervisor,
        }
    }

    /// SIGKILL; it stays down for so long.
    pub(crate) fn kill(&self, slot: usize, down_for: Duration) {
        self.shared.end(slot, Signal::KILL, down_for);
    }

    /// SIGTERM; once it has ended it stays down until so much time has passed from now.
    pub(crate) fn terminate(&self, slot: usize, down_for: Duration) {
        self.shared.end(slot, Signal::TERM, down_for);
    }

    pub(crate) fn freeze(&self, slot: usize) {
        let mut slot = self.shared.slot(slot);
        slot.is_frozen = true;
        slot.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self, slot: usize) {
        let mut slot = self.shared.slot(slot);
        slot.is_frozen = false;
        slot.signal(Signal::CONT);
    }

    /// Thaws all, and starts those that are down.
    pub(crate) fn all_up(&self) {
        for number in 0..N_WORKERS {
            self.thaw(number);
            self.shared.slot(number).down_until = None;
        }
    }

    /// What was found since the last call.
    pub(crate) fn findings(&self) -> Findings {
        for number in 0..N_WORKERS {
            self.shared.read_logs(number);
        }
        std::mem::take(&mut *self.shared.findings())
    }

    /// Where the workers that run serve /metrics.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        (0..N_WORKERS)
            .filter_map(|number| {
                self.shared.read_logs(number);
                self.shared.slot(number).address
            })
            .collect()
    }

    /// The workers' logs.
    pub(crate) fn logs(&self) -> String {
        self.shared.dir.join("worker-*.log").display().to_string()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for number in 0..N_WORKERS {
            let mut slot = self.shared.slot(number);
            // Nobody starts it again.
            slot.down_until = Some(Instant::now() + Duration::from_secs(3600));
            if let Some(child) = &mut slot.child {
                drop(child.kill());
                drop(child.wait());
            }
        }
    }
}

/// How each worker differs: one as it comes, one with small batches over more connections, one that makes
/// few and large ones.
fn own_args(number: usize) -> &'static [&'static str] {
    match number {
        0 => &[],
        1 => &[
            "--batch-rows",
            "100",
            "--committers",
            "4",
            "--linger",
            "1ms",
        ],
        _ => &["--committers", "1", "--linger", "100ms"],
    }
}

/// The first worker keeps its name, as a pod of a stateful set does, and so has a history when it starts
/// again. The others are new each time.
fn consumer(number: usize, n_starts: usize) -> String {
    match number {
        0 => "w0".to_owned(),
        _ => format!("w{number}-{n_starts}"),
    }
}

impl Slot {
    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            // Not waited for yet, so that the number is still its own.
            kill_process(Pid::from_child(child), signal).unwrap_or_default();
        }
    }
}

impl Shared {
    fn slot(&self, number: usize) -> MutexGuard<'_, Slot> {
        self.slots[number]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn findings(&self) -> MutexGuard<'_, Findings> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_path(&self, number: usize, n_starts: usize) -> PathBuf {
        self.dir.join(format!("worker-{number}-{n_starts:03}.log"))
    }

    fn end(&self, number: usize, signal: Signal, down_for: Duration) {
        let mut slot = self.slot(number);
        slot.is_ending = slot.child.is_some();
        slot.down_until = Some(Instant::now() + down_for);
        slot.signal(signal);
    }

    /// Notices that a worker has ended, and starts one where none runs.
    fn look_after(&self, number: usize) {
        let mut slot = self.slot(number);
        let ended = slot
            .child
            .as_mut()
            .and_then(|child| child.try_wait().unwrap());
        if let Some(status) = ended {
            slot.child = None;
            let again = Instant::now() + RESTART_AFTER;
            slot.down_until = Some(slot.down_until.map_or(again, |until| until.max(again)));
            if !std::mem::take(&mut slot.is_ending) {
                let path = self.log_path(number, slot.n_starts);
                let log = std::fs::read_to_string(&path).unwrap_or_default();
                if log.contains("worker started") {
                    let last = log.lines().last().unwrap_or_default();
                    let said = format!("{}: {status}: {last}", path.display());
                    self.findings().gave_up.push(said);
                } else {
                    self.findings().n_failed_starts += 1;
                }
            }
        }
        let is_due = slot.down_until.is_none_or(|until| until <= Instant::now());
        if slot.child.is_none() && is_due {
            slot.down_until = None;
            slot.n_starts += 1;
            slot.address = None;
            let log = File::create(self.log_path(number, slot.n_starts)).unwrap();
            let mut command = Command::new(&self.program);
            for (name, _) in env::vars_os() {
                if name.to_string_lossy().starts_with("PASSERBY_") {
                    command.env_remove(name);
                }
            }
            let consumer = consumer(number, slot.n_starts);
            let child = command
                .args(&self.args)
                .args(["--consumer", &consumer])
                .args(own_args(number))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap();
            slot.child = Some(child);
            if slot.is_frozen {
                slot.signal(Signal::STOP);
            }
        }
    }

    /// Reads on in the logs of a slot.
    fn read_logs(&self, number: usize) {
        let mut slot = self.slot(number);
        for n_starts in 1..=slot.n_starts {
            let at = slot.read.entry(n_starts).or_default();
            let Ok(mut log) = File::open(self.log_path(number, n_starts)) else {
                continue;
            };
            let mut text = String::new();
            log.seek(SeekFrom::Start(*at)).unwrap();
            log.read_to_string(&mut text).unwrap();
            // The last line may be half written.
            let whole = text.rfind('\n').map_or(0, |end| end + 1);
            *at += whole as u64;
            for line in text[..whole].lines() {
                if let Some(address) = self.read_line(line)
                    && n_starts == slot.n_starts
                {
                    slot.address = Some(address);
                }
            }
        }
    }

    /// Returns where the worker serves /metrics, where the line says so.
    fn read_line(&self, line: &str) -> Option<SocketAddr> {
        let mut findings = self.findings();
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            if line.contains("panicked") {
                findings.gave_up.push(line.to_owned());
            }
            return None;
        };
        let number = |name: &str| line[name].as_u64().unwrap_or(0);
        match line["message"].as_str() {
            Some("batch committed") => findings.n_duplicates += number("n_duplicates"),
            Some(text) if text.starts_with("claimed entries") => {
                findings.n_claimed += number("n_entries");
            }
            Some(text) if text.starts_with("serving /metrics") => {
                return line["address"].as_str()?.parse().ok();
            }
            _ => {}
        }
        None
    }
}
