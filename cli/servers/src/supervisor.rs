//! Keeps a server alive exactly as long as this process.
//!
//! Between us and the server stands a shell that reads from a pipe whose other end only we hold. The
//! kernel closes our end however we go, by `Drop`, a panic or SIGKILL; the shell then stops the
//! server, waits for it and removes its private directory. The kernel's own parent-death signal would
//! not do: it follows the *thread* that spawned the child, and needs `unsafe`.
//!
//! The shell and the server form a process group of their own, so Ctrl-C in a terminal reaches us
//! alone, and the servers stay until we are finished with them.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tracing::{debug, warn};

use crate::{
    error::ServerError,
    find::Kind,
    user::{self, User},
};

const SCRIPT: &str = include_str!("supervisor.sh");
/// Longest wait for the shell's answer, or for a server to be gone once it has been told to go.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest wait for a started server to answer.
const START_DEADLINE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
const N_LOG_LINES: usize = 20;

/// How a server ends once nobody wants it any more.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stop {
    /// At once.
    Kill,
    /// The immediate shutdown of Postgres, which takes its children with it; then at once.
    Quit,
}

/// What the shell says.
#[derive(Debug)]
enum Report {
    Dir(PathBuf),
    Started(Pid),
    Exited,
    Other(String),
}

/// Why a started server cannot be used.
#[derive(Debug)]
pub(crate) enum Unready {
    Exited,
    Silent,
}

/// One server, its private directory and the shell that looks after both.
#[derive(Debug)]
pub(crate) struct Supervisor {
    kind: Kind,
    stop: Stop,
    shell: Child,
    /// `None` once dropped. Closing it is the order to stop.
    commands: Option<ChildStdin>,
    reports: Receiver<Report>,
    dir: PathBuf,
    /// The server while it runs.
    pid: Option<Pid>,
}

impl Supervisor {
    /// Makes the private directory; the command starts in it with [`start`](Self::start).
    pub(crate) fn spawn(
        kind: Kind,
        stop: Stop,
        user: Option<&User>,
        command: &[&Path],
    ) -> Result<Self, ServerError> {
        let parent = user::private_dir_parent(user);
        let signal = match stop {
            Stop::Kill => "KILL",
            Stop::Quit => "QUIT",
        };
        let mut shell = user::command(Path::new("/bin/sh"), user)
            .args(["-c", SCRIPT, "sh"])
            .arg(&parent)
            .arg(signal)
            .args(command)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| ServerError::Supervise { kind, source })?;
        let commands = shell.stdin.take();
        let stdout = shell
            .stdout
            .take()
            .expect("stdout is piped: set three lines up");
        let (sender, reports) = mpsc::channel();
        // Ends with the shell, which `Drop` waits for.
        thread::spawn(move || read_reports(stdout, &sender));

        match reports.recv_timeout(PATIENCE) {
            Ok(Report::Dir(dir)) => Ok(Self {
                kind,
                stop,
                shell,
                commands,
                reports,
                dir,
                pid: None,
            }),
            answer => {
                drop(commands);
                let said = match answer {
                    Ok(Report::Other(line)) => line,
                    _ => "nothing".to_owned(),
                };
                Err(ServerError::PrivateDir { kind, parent, said })
            }
        }
    }

    /// The private directory. It is also where the command starts.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn pid(&self) -> Option<Pid> {
        self.pid
    }

    /// Starts the command and waits until `is_ready` says so.
    pub(crate) fn start(
        &mut self,
        mut is_ready: impl FnMut(&Path, Pid) -> bool,
    ) -> Result<(), Unready> {
        let asked = match &mut self.commands {
            Some(commands) => writeln!(commands, "start"),
            None => Ok(()),
        };
        if let Err(error) = asked {
            warn!(%error, "supervisor is gone");
            return Err(Unready::Exited);
        }
        let deadline = Instant::now() + START_DEADLINE;
        while Instant::now() < deadline {
            match self.reports.recv_timeout(POLL_INTERVAL) {
                Ok(Report::Started(pid)) => self.pid = Some(pid),
                Ok(Report::Exited) | Err(RecvTimeoutError::Disconnected) => {
                    self.pid = None;
                    return Err(Unready::Exited);
                }
                Ok(Report::Dir(_) | Report::Other(_)) | Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(pid) = self.pid
                && is_ready(&self.dir, pid)
            {
                return Ok(());
            }
        }
        Err(Unready::Silent)
    }

    /// Stops the server, without a goodbye, and waits for it and its children to be gone.
    pub(crate) fn kill(&mut self) -> Result<(), ServerError> {
        let first = match self.stop {
            Stop::Kill => Signal::KILL,
            Stop::Quit => Signal::QUIT,
        };
        for signal in [first, Signal::KILL] {
            if self.is_running() {
                self.signal(signal)?;
            }
            let deadline = Instant::now() + PATIENCE;
            while self.pid.is_some() && Instant::now() < deadline {
                let report = self.reports.recv_timeout(POLL_INTERVAL);
                if matches!(
                    report,
                    Ok(Report::Exited) | Err(RecvTimeoutError::Disconnected)
                ) {
                    self.pid = None;
                }
            }
        }
        match self.pid {
            None => Ok(()),
            Some(pid) => Err(ServerError::Unkillable {
                kind: self.kind,
                pid: pid_number(pid),
            }),
        }
    }

    /// Sends a signal to the server.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<(), ServerError> {
        if !self.is_running() {
            return Err(ServerError::NotRunning { kind: self.kind });
        }
        let Some(pid) = self.pid else { return Ok(()) };
        kill_process(pid, signal).map_err(|source| ServerError::Signal {
            kind: self.kind,
            pid: pid_number(pid),
            source: source.into(),
        })
    }

    /// Whether the server runs, as far as the shell has reported.
    pub(crate) fn is_running(&mut self) -> bool {
        while self.pid.is_some() {
            match self.reports.try_recv() {
                Ok(Report::Exited) | Err(TryRecvError::Disconnected) => self.pid = None,
                Ok(_) => {}
                Err(TryRecvError::Empty) => break,
            }
        }
        self.pid.is_some()
    }

    /// The last lines the server wrote.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read(self.dir.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(N_LOG_LINES)..].join("\n")
    }

    /// The error for a server that did not come up, with its last words.
    pub(crate) fn unready(&self, why: &Unready) -> ServerError {
        let (kind, log_tail) = (self.kind, self.log_tail());
        match why {
            Unready::Exited => ServerError::ExitedAtStart { kind, log_tail },
            Unready::Silent => ServerError::Silent {
                kind,
                waited: START_DEADLINE,
                log_tail,
            },
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.commands = None;
        // Nothing is sent any more when the shell and all that it started have let go of the pipe.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    warn!(server = %self.kind, dir = %self.dir.display(), "server is slow to stop");
                    return;
                }
            }
        }
        if let Err(error) = self.shell.wait() {
            debug!(%error, "supervisor not waited for");
        }
    }
}

/// The number that people and tools know a process by.
pub(crate) fn pid_number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

fn read_reports(stdout: ChildStdout, reports: &mpsc::Sender<Report>) {
    let lines = BufReader::new(stdout).lines().map_while(io::Result::ok);
    for report in lines.map(|line| parse_report(&line)) {
        if let Report::Other(line) = &report {
            debug!(line, "supervisor said");
        }
        if reports.send(report).is_err() {
            return;
        }
    }
}

fn parse_report(line: &str) -> Report {
    let report = match line.split_once(' ') {
        None if line == "exited" => Some(Report::Exited),
        Some(("dir", dir)) => Some(Report::Dir(PathBuf::from(dir))),
        Some(("started", pid)) => pid
            .parse()
            .ok()
            .and_then(Pid::from_raw)
            .map(Report::Started),
        _ => None,
    };
    report.unwrap_or_else(|| Report::Other(line.to_owned()))
}
