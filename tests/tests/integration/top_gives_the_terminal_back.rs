//! However `passerby top` ends, the terminal is as it was: no screen of its own, and what is typed is seen.

use std::{
    fs::{self, File},
    io::Write,
    process::{Child, Command, Stdio},
};

use passerby_tests::{Env, Tool, build_program, eventually};
use rustix::process::{Pid, Signal, kill_process};

const ENTER_SCREEN: &str = "\u{1b}[?1049h";
const LEAVE_SCREEN: &str = "\u{1b}[?1049l";
/// A colour of the foreground.
const COLOUR: &str = "\u{1b}[38;";

/// `passerby top` on a terminal of 100 columns, which is `script`'s.
struct OnTerminal {
    script: Child,
    shown: tempfile::NamedTempFile,
}

impl OnTerminal {
    /// `None` where there is no `script`.
    async fn start(env: &Env, variables: &[(&str, &str)]) -> Option<Self> {
        let script = Tool::find("script", "apt-get install bsdutils")?;
        let program = tokio::task::spawn_blocking(|| build_program("passerby"))
            .await
            .unwrap();
        let shown = tempfile::NamedTempFile::new().unwrap();
        // What the terminal is set to comes after it, on a line of its own.
        let typed = format!(
            "stty cols 100 rows 30; {} top; code=$?; echo; stty -a | tr ';' '\\n' | grep -oE -- '-?(echo|icanon)\\b'; \
             echo ended with $code",
            program.display()
        );
        let mut command: Command = script.command();
        command
            .args(["--quiet", "--flush", "--command", &typed, "/dev/null"])
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8")
            .env("PASSERBY_CONFIG", "")
            .env("PASSERBY_REDIS_URL", env.redis_url().expose())
            .env(
                "PASSERBY_DATABASE_URL",
                env.servers.postgres_url(env.database()),
            )
            .env("PASSERBY_KEY_PREFIX", env.key_prefix().to_string())
            .env_remove("NO_COLOR")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(File::create(shown.path()).unwrap())
            .stderr(Stdio::inherit());
        Some(Self {
            script: command.spawn().unwrap(),
            shown,
        })
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.shown.path()).unwrap()).into_owned()
    }

    async fn shows(&self, words: &str) {
        let what = format!("{words:?} is on the terminal");
        eventually(&what, async || self.shown().contains(words)).await;
    }

    fn types(&mut self, keys: &[u8]) {
        self.script.stdin.as_mut().unwrap().write_all(keys).unwrap();
    }

    /// The process of `passerby top`.
    fn top(&self) -> Pid {
        let mut pid = self.script.id();
        // `script` starts a shell, and that the program.
        for _ in 0..2 {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
            pid = children.split_whitespace().next().unwrap().parse().unwrap();
        }
        Pid::from_raw(pid.try_into().unwrap()).unwrap()
    }

    /// Waits for its end, and asserts that the terminal is as it was.
    async fn has_ended(&self, code: i32) {
        self.shows(&format!("ended with {code}")).await;
        let shown = self.shown();
        let (_, after) = shown
            .rsplit_once(LEAVE_SCREEN)
            .expect("it leaves its screen");
        let is_set = |name: &str| after.split_whitespace().any(|word| word == name);
        assert!(is_set("echo") && is_set("icanon"), "{after}");
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // What it runs ends with its terminal.
        drop(self.script.kill());
        drop(self.script.wait());
    }
}

#[tokio::test]
async fn a_key_or_a_signal_ends_it_well() {
    let env = Env::start().await;
    for signal in [
        None,
        Some(Signal::TERM),
        Some(Signal::HUP),
        Some(Signal::INT),
    ] {
        let Some(mut terminal) = OnTerminal::start(&env, &[]).await else {
            return;
        };
        terminal.shows("no worker is running").await;
        assert!(terminal.shown().contains(ENTER_SCREEN));
        match signal {
            None => terminal.types(b"q"),
            Some(signal) => kill_process(terminal.top(), signal).unwrap(),
        }
        terminal.has_ended(0).await;
    }
}

#[tokio::test]
async fn colours_are_left_out_where_nobody_wants_them() {
    let env = Env::start().await;
    for (variables, is_coloured) in [(&[][..], true), (&[("NO_COLOR", "1")], false)] {
        let Some(mut terminal) = OnTerminal::start(&env, variables).await else {
            return;
        };
        terminal.shows("no worker is running").await;
        assert_eq!(terminal.shown().contains(COLOUR), is_coloured);
        terminal.types(b"q");
        terminal.has_ended(0).await;
    }
}
