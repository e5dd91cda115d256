use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{BenchServers, Usage};
use crate::program;

/// The program `passerby-worker`, draining the streams, with its defaults where nothing else is said.
#[derive(Debug)]
pub struct WorkerProcess {
    child: Child,
    started: Instant,
}

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
        let mut command = Command::new(Self::build());
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
        let mut peak_kib = 0;
        let usage = loop {
            let usage = Usage::of(pid);
            // What has ended has no memory; what it used is told until somebody waits for it.
            if usage.peak_kib == 0 {
                break Usage { peak_kib, ..usage };
            }
            peak_kib = usage.peak_kib;
            sleep(Duration::from_millis(2)).await;
        };
        let elapsed = self.started.elapsed();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        Drained { elapsed, usage }
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        // It has ended, unless the benchmark failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
