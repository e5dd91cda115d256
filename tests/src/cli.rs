use std::{
    env,
    fs::File,
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::OnceLock,
    time::Duration,
};

use rustix::process::Pid;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{Env, GROUP, program, servers::blocking};

/// Longest wait for a command's end: the demo starts servers and may have to fetch them.
const DEADLINE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(10);
/// What an environment says of the servers under test, and not of the program.
const KEPT: [&str; 4] = [
    "PASSERBY_SERVERS",
    "PASSERBY_REDIS_BIN",
    "PASSERBY_POSTGRES_BIN",
    "PASSERBY_CACHE_DIR",
];

/// The program `passerby`, about to run. Of the environment it sees nothing that it reads, except
/// where the servers under test come from.
#[derive(Debug)]
pub struct Passerby {
    variables: Vec<(String, String)>,
    stdin: Option<Vec<u8>>,
}

/// The program `passerby`, running. It is killed when dropped.
#[derive(Debug)]
pub struct RunningPasserby {
    child: Child,
    stdout: File,
    stderr: File,
}

/// What the program `passerby` left behind.
#[derive(Debug)]
pub struct Output {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote on stdout.
    pub stdout: String,
    /// What it wrote on stderr.
    pub stderr: String,
}

impl Passerby {
    /// Nothing tells it where servers are.
    pub fn alone() -> Self {
        Self {
            variables: Vec::new(),
            stdin: None,
        }
    }

    /// On a test's stream and database.
    pub fn on(test: &Env) -> Self {
        let redis_url = test.redis_url();
        Self::alone()
            .with("PASSERBY_REDIS_URL", redis_url.expose())
            .with(
                "PASSERBY_DATABASE_URL",
                &test.servers.postgres_url(test.database()),
            )
            .with("PASSERBY_KEY_PREFIX", &test.key_prefix().to_string())
            .with("PASSERBY_GROUP", GROUP)
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Takes a variable out of its environment.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self
    }

    /// What it reads on stdin, through a pipe: little enough for the pipe to hold it.
    #[must_use]
    pub fn stdin(mut self, bytes: &[u8]) -> Self {
        self.stdin = Some(bytes.to_vec());
        self
    }

    /// Starts it.
    pub async fn start(&self, args: &[&str]) -> RunningPasserby {
        let mut command = Command::new(blocking(path).await);
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            let is_read = text.starts_with("PASSERBY_") && !KEPT.contains(&&*text);
            if is_read || text == "REDIS_URL" || text == "DATABASE_URL" {
                command.env_remove(name);
            }
        }
        // Files: a pipe that nobody empties would stop the program.
        let stdout = tempfile::tempfile().unwrap();
        let stderr = tempfile::tempfile().unwrap();
        // Tables are drawn as in a file, in Unicode.
        command
            .env_remove("COLUMNS")
            .env("LC_ALL", "C.UTF-8")
            .env("PASSERBY_CONFIG", "");
        let mut child = command
            .args(args)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(match self.stdin {
                Some(_) => Stdio::piped(),
                None => Stdio::null(),
            })
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .unwrap();
        if let (Some(mut pipe), Some(bytes)) = (child.stdin.take(), &self.stdin) {
            pipe.write_all(bytes).unwrap();
        }
        RunningPasserby {
            child,
            stdout,
            stderr,
        }
    }

    /// Runs it to its end.
    pub async fn run(&self, args: &[&str]) -> Output {
        self.start(args).await.finished().await
    }
}

impl RunningPasserby {
    /// Its process ID.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Ends it with SIGKILL, wherever it stands.
    pub fn kill(mut self) {
        assert!(
            self.child.try_wait().unwrap().is_none(),
            "it ended before it could be killed: {}",
            text(&self.stderr)
        );
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub async fn finished(mut self) -> Output {
        let deadline = Instant::now() + DEADLINE;
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "passerby has not ended in {DEADLINE:?}: {}{}",
                text(&self.stdout),
                text(&self.stderr)
            );
            sleep(POLL).await;
        };
        Output {
            code: status.code(),
            stdout: text(&self.stdout),
            stderr: text(&self.stderr),
        }
    }
}

impl Drop for RunningPasserby {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Output {
    /// Asserts that it ended well, and returns what it wrote on stdout.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Asserts that it ended well with one JSON value on stdout.
    #[track_caller]
    pub fn json(self) -> Value {
        let stdout = self.ok();
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
    }

    /// Asserts that it ended well with a JSON value on each line of stdout.
    #[track_caller]
    pub fn json_lines(self) -> Vec<Value> {
        self.ok()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    /// Asserts that it failed with code 1 and one line on stderr, which holds all of these words in
    /// this order.
    #[track_caller]
    pub fn assert_one_error_line(&self, words: &[&str]) {
        let Self { code, stderr, .. } = self;
        assert_eq!(*code, Some(1), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        let mut rest = stderr
            .strip_prefix("error: ")
            .unwrap_or_else(|| panic!("no `error: ` before: {stderr}"));
        for word in words {
            let at = rest
                .find(word)
                .unwrap_or_else(|| panic!("no `{word}` in: {stderr}"));
            rest = &rest[at + word.len()..];
        }
    }

    /// Asserts that it ended with code 2, as after wrong usage, and says all of these words.
    #[track_caller]
    pub fn assert_usage_error(&self, words: &[&str]) {
        assert_eq!(self.code, Some(2), "{}{}", self.stdout, self.stderr);
        for word in words {
            assert!(
                self.stderr.contains(word),
                "no `{word}` in: {}",
                self.stderr
            );
        }
    }
}

fn text(file: &File) -> String {
    // The position is shared with the program, which may be about to write there.
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The program.
fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| program::build("passerby"))
}
