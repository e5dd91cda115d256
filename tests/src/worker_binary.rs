use std::{
    env,
    fs::File,
    net::SocketAddr,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Env, GROUP, Scrape, eventually, http_get, program, servers::blocking};

/// The program `passerby-worker`, running. It is killed when dropped.
#[derive(Debug)]
pub struct WorkerBinary {
    child: Child,
    stderr: File,
}

/// What a program left behind.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote on stderr.
    pub stderr: String,
}

impl WorkerBinary {
    /// Starts it with these arguments, and with nothing of the environment that it reads.
    pub async fn start(args: &[&str]) -> Self {
        Self::start_in(&[], args).await
    }

    async fn start_in(variables: &[(&str, &str)], args: &[&str]) -> Self {
        let path = blocking(path).await;
        let mut command = Command::new(path);
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("PASSERBY_") || text == "REDIS_URL" || text == "DATABASE_URL" {
                command.env_remove(name);
            }
        }
        command.env("PASSERBY_CONFIG", "");
        // Many run at the same time.
        command.env("PASSERBY_LISTEN", "nowhere");
        for (name, value) in variables {
            match *value {
                "" => command.env_remove(name),
                value => command.env(name, value),
            };
        }
        let stderr = unnamed_file();
        let child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .unwrap();
        Self { child, stderr }
    }

    /// Starts it on a test's stream and database, with further arguments, which win.
    pub async fn start_on(test: &Env, args: &[&str]) -> Self {
        Self::start_on_in(test, &[], args).await
    }

    /// As [`WorkerBinary::start_on`], with variables in its environment; without those that are empty.
    pub async fn start_on_in(test: &Env, variables: &[(&str, &str)], args: &[&str]) -> Self {
        let redis_url = test.redis_url();
        let database_url = test.servers.postgres_url(test.database());
        let prefix = test.key_prefix().to_string();
        let ours = [
            ("--redis-url", redis_url.expose()),
            ("--database-url", &database_url),
            ("--key-prefix", &prefix),
            ("--group", GROUP),
            ("--block", "50ms"),
        ];
        let ours = ours
            .into_iter()
            .filter(|(name, _)| !args.contains(name))
            .flat_map(|(name, value)| [name, value]);
        let args: Vec<&str> = ours.chain(args.iter().copied()).collect();
        Self::start_in(variables, &args).await
    }

    /// The address that it serves /metrics on, given `--listen 127.0.0.1:0`.
    pub async fn address(&self) -> SocketAddr {
        let mut address = None;
        eventually("it listens", async || {
            let stderr = self.stderr();
            let line = stderr
                .lines()
                .find(|line| line.contains("serving /metrics"));
            address = line
                .and_then(|line| line.split_once("address="))
                .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
            address.is_some()
        })
        .await;
        address.expect("found above")
    }

    /// What it exports now.
    pub async fn scrape(&self) -> Scrape {
        let (status, text) = http_get(self.address().await, "/metrics").await;
        assert_eq!(status, 200, "{text}");
        Scrape::parse(&text)
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    pub async fn finished(mut self) -> Finished {
        let mut status = None;
        eventually("the program ends", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        Finished {
            code: status.and_then(|status| status.code()),
            stderr: self.stderr(),
        }
    }

    /// What it has written on stderr so far.
    pub fn stderr(&self) -> String {
        // The position is shared with the program, which is about to write there.
        let n_bytes = self.stderr.metadata().unwrap().len();
        let mut text = vec![0; usize::try_from(n_bytes).unwrap()];
        let n_bytes = self.stderr.read_at(&mut text, 0).unwrap();
        String::from_utf8_lossy(&text[..n_bytes]).into_owned()
    }
}

impl Drop for WorkerBinary {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A file that nobody else can find and that goes with its last handle: a pipe nobody empties would
/// stop the program.
fn unnamed_file() -> File {
    tempfile::tempfile().unwrap()
}

/// Where the program is.
fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| program::build("passerby-worker"))
}
