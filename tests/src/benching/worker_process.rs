use std::{
    fs,
    path::PathBuf,
    pin::pin,
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use rustix::{
    io::retry_on_intr,
    process::{Pid, WaitId, WaitIdOptions, waitid},
};
use tempfile::NamedTempFile;
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout},
};

use super::{BenchServers, Usage};
use crate::program;

/// The program `passerby-worker`, draining the streams, with its defaults where nothing else is said.
#[derive(Debug)]
pub struct WorkerProcess {
    child: Child,
    started: Instant,
}

/// How often its memory is looked at.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// What it took a process to drain the streams.
#[derive(Debug, Clone, Copy)]
pub struct Drained {
    /// From its start to its end.
    pub elapsed: Duration,
    /// What it used from its start to its end.
    pub usage: Usage,
}

impl WorkerProcess {
    /// Builds it, where that is not done yet: not while the clock runs.
    pub fn build() -> &'static PathBuf {
        static PATH: OnceLock<PathBuf> = OnceLock::new();
        PATH.get_or_init(|| program::build("passerby-worker"))
    }

    /// Starts it.
    #[must_use]
    pub fn start(servers: &BenchServers, args: &[&str]) -> Self {
        Self::start_as(Command::new(Self::build()), servers, args)
    }

    /// Lets strace count its system calls until it has drained the streams, and returns what strace says.
    ///
    /// # Panics
    ///
    /// Without strace.
    pub async fn count_system_calls(servers: &BenchServers) -> String {
        let counts = NamedTempFile::new().unwrap();
        let mut command = Command::new("strace");
        command.args(["-c", "-f", "-o"]).arg(counts.path());
        command.arg(Self::build());
        Self::start_as(command, servers, &[]).drained().await;
        fs::read_to_string(counts.path()).unwrap()
    }

    fn start_as(mut command: Command, servers: &BenchServers, args: &[&str]) -> Self {
        command
            .args(["--redis-url", &servers.redis.url()])
            .args(["--database-url", &servers.postgres.url("postgres")])
            .args(["--drain", "--log", "warn"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Self {
            started: Instant::now(),
            child: command.spawn().unwrap(),
        }
    }

    /// Waits until it has drained the streams and ended.
    pub async fn drained(mut self) -> Drained {
        let pid = self.child.id();
        let started = self.started;
        // Without taking its end: what it used is told until somebody does.
        let ending = spawn_blocking(move || {
            let pid = Pid::from_raw(pid.cast_signed()).unwrap();
            let how = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            retry_on_intr(|| waitid(WaitId::Pid(pid), how)).unwrap();
            started.elapsed()
        });
        let mut ending = pin!(ending);
        // What has ended has no memory, so that the peak is asked for before; seldom, as whoever asks takes the
        // processors from those who are measured. It is that of the last look.
        let mut peak_kib = 0;
        let elapsed = loop {
            match timeout(ASK_EVERY, &mut ending).await {
                Ok(ended) => break ended.unwrap(),
                Err(_) => peak_kib = peak_kib.max(Usage::of(pid).peak_kib),
            }
        };
        let usage = Usage::of(pid);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        assert!(peak_kib > 0, "it ended before anybody looked at its memory");
        Drained {
            elapsed,
            usage: Usage { peak_kib, ..usage },
        }
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        // It has ended, unless the benchmark failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
