//! A setting is typed, or stands in the environment, or in a file: the first of them wins, and what is wrong
//! in a file is said with its line.

use std::{path::PathBuf, process::Command};

use passerby_tests::{Env, Passerby, build_program};
use serde_json::Value;

/// A file of settings, gone with this value.
struct File {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl File {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passerby.toml");
        std::fs::write(&path, text).unwrap();
        Self { _dir: dir, path }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

/// What `passerby-worker` does with these arguments and nothing else: its exit code, stdout, stderr.
async fn worker(args: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command =
        tokio::task::spawn_blocking(|| Command::new(build_program("passerby-worker")))
            .await
            .unwrap();
    let output = command
        .args(args)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// `key = value # origin` of one setting.
#[track_caller]
fn setting(printed: &str, key: &str) -> String {
    let line = printed
        .lines()
        .find(|line| line.starts_with(&format!("{key} = ")));
    let line = line.unwrap_or_else(|| panic!("no {key} in {printed}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let file = File::new(
        "redis-url = \"redis://me:s3cr3t@localhost/0\"\nshards = 4\n\
         [worker]\nbatch-rows = 10\nlinger = \"5ms\"\nlog = \"debug\"\n\
         [passerby]\nlog = \"error\"\n",
    );
    let database = (
        "PASSERBY_DATABASE_URL",
        "postgresql://me:s3cr3t@localhost/x",
    );

    let args = ["--config", file.path(), "--print-config", "--linger", "7ms"];
    let variables = [
        database,
        ("PASSERBY_BATCH_ROWS", "11"),
        ("PASSERBY_LINGER", "6ms"),
    ];
    let (code, printed, said) = worker(&args, &variables).await;

    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        setting(&printed, "linger"),
        "linger = \"7ms\" # the command line"
    );
    assert_eq!(
        setting(&printed, "batch-rows"),
        "batch-rows = 11 # PASSERBY_BATCH_ROWS"
    );
    assert_eq!(
        setting(&printed, "shards"),
        "shards = 4 # line 2 of the file"
    );
    assert_eq!(
        setting(&printed, "log"),
        "log = \"debug\" # line 6 of the file"
    );
    assert_eq!(setting(&printed, "block"), "block = \"1s\" # default");
    assert!(!printed.contains("s3cr3t"), "{printed}");
    // What it prints is a file.
    let again = File::new(&printed.replace(":***@", ":s3cr3t@"));
    let (code, _, said) = worker(&["--print-config", "--config", again.path()], &[]).await;
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn the_variable_names_the_file_and_commands_read_it_too() {
    let file = File::new("shards = 4\n[worker]\nmin-idle = \"1m\"\nlog = \"debug\"\n");
    let shown = Passerby::alone()
        .with("PASSERBY_CONFIG", file.path())
        .with("REDIS_URL", "redis://me:s3cr3t@localhost/0")
        .run(&["config", "show", "--json"])
        .await
        .json();
    assert_eq!(shown["file"], file.path());
    let setting = |key: &str| -> (Value, Value) {
        let settings = shown["settings"].as_array().unwrap();
        let found = settings
            .iter()
            .find(|setting| setting["key"] == key)
            .unwrap();
        (found["value"].clone(), found["origin"].clone())
    };
    assert_eq!(
        setting("shards"),
        ("4".into(), serde_json::json!({ "line": 1 }))
    );
    assert_eq!(
        setting("min-idle"),
        ("1m".into(), serde_json::json!({ "line": 3 }))
    );
    assert_eq!(setting("log"), ("warn".into(), "default".into()));
    let fallback = serde_json::json!({ "variable": "REDIS_URL" });
    assert_eq!(
        setting("redis-url"),
        ("redis://me:***@localhost/0".into(), fallback)
    );
    assert_eq!(setting("database-url").0, Value::Null);
}

#[tokio::test]
async fn a_worker_works_by_its_file() {
    let env = Env::start().await;
    let n = env.publish_entries(3, 10).await;
    let file = File::new(&format!(
        "redis-url = \"{}\"\ndatabase-url = \"{}\"\nkey-prefix = \"{}\"\n[worker]\ndrain = true\n",
        env.redis_url().expose(),
        env.servers.postgres_url(env.database()),
        env.key_prefix(),
    ));
    let (code, _, said) = worker(&["--config", file.path()], &[]).await;
    assert_eq!(code, Some(0), "{said}");
    env.assert_settled_once(n).await;
}

#[tokio::test]
async fn what_is_wrong_in_a_file_is_wrong_usage_and_said_with_its_line() {
    let check = async |text: &str, words: &[&str]| {
        let file = File::new(text);
        let refused = Passerby::alone()
            .run(&["config", "show", "--config", file.path()])
            .await;
        refused.assert_usage_error(words);
    };
    check(
        "\nshard = 1\n",
        &["passerby.toml, line 2", "no setting shard", "mean shards?"],
    )
    .await;
    // The workers' part is checked by commands, too.
    check(
        "[worker]\nbatch-rows = \"x\"",
        &["line 2: batch-rows: invalid digit"],
    )
    .await;
    check(
        "[passerby]\nbatch-rows = 1",
        &["line 2: there is no setting batch-rows"],
    )
    .await;
    check("shards = ", &["line 1: no TOML"]).await;
    let missing = Passerby::alone()
        .run(&["config", "show", "--config", "/nowhere.toml"])
        .await;
    missing.assert_usage_error(&["read /nowhere.toml", "No such file"]);
}

#[tokio::test]
async fn the_example_holds_every_setting_and_can_be_used() {
    let example = Passerby::alone().run(&["config", "example"]).await.ok();

    let committed = include_str!("../../../docs/passerby.example.toml");
    assert!(
        example == committed,
        "docs/passerby.example.toml is not what `passerby config example` prints"
    );

    // Each setting is a line `#key = value`; what is said of it, `# …`.
    let is_setting = |line: &str| {
        line.strip_prefix('#')
            .is_some_and(|rest| !rest.starts_with(' '))
    };
    let used: Vec<&str> = example
        .lines()
        .map(|line| if is_setting(line) { &line[1..] } else { line })
        .collect();
    let file = File::new(&used.join("\n"));
    let passerby = Passerby::alone();
    let shown = passerby
        .run(&["config", "show", "--config", file.path()])
        .await
        .ok();
    assert!(
        setting(&shown, "log").starts_with("log = \"warn\" # line "),
        "{shown}"
    );
    let (code, _, said) = worker(&["--print-config", "--config", file.path()], &[]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(example.lines().all(|line| line.chars().count() <= 100));
}
