//! What a command prints is what the committed files say: for people in `tests/cmd/`, for programs by the
//! schemas in `docs/schemas/`, and for whoever asks for help in `tests/cmd/help/`.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use passerby_consumer::{WorkerConfig, ops};
use passerby_tests::{
    Env, Golden, Passerby, Schemas, compare_with_file, eventually,
    fixtures::{detections, track},
};

/// Every command that does something, as it is typed.
fn commands() -> Vec<(Vec<String>, clap::Command)> {
    fn walk(
        path: &[String],
        command: &clap::Command,
        found: &mut Vec<(Vec<String>, clap::Command)>,
    ) {
        for child in command
            .get_subcommands()
            .filter(|child| child.get_name() != "help")
        {
            let path = [path, &[child.get_name().to_owned()]].concat();
            found.push((path.clone(), child.clone()));
            walk(&path, child, found);
        }
    }
    let mut found = Vec::new();
    walk(&[], &passerby::command(), &mut found);
    found
}

fn files_in(folder: &Path, extension: &str) -> BTreeSet<String> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| Some(name.strip_suffix(extension)?.to_owned()))
        .collect()
}

#[tokio::test]
async fn help() {
    let mut known = BTreeSet::from(["passerby".to_owned()]);
    Golden::verbatim("help/passerby", Passerby::alone())
        .run(&["--help"])
        .await;
    for (words, _) in commands() {
        let name = words.join("-");
        let mut args: Vec<&str> = words.iter().map(String::as_str).collect();
        args.push("--help");
        Golden::verbatim(&format!("help/{name}"), Passerby::alone())
            .run(&args)
            .await;
        known.insert(name);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cmd/help");
    assert_eq!(
        files_in(&folder, ".txt"),
        known,
        "help of commands that are no more"
    );
}

/// Commands that print JSON of which there is no schema yet.
const WITHOUT_SCHEMA: &[&str] = &[];

#[test]
fn every_command_that_prints_json_has_a_schema() {
    let prints_json =
        |command: &clap::Command| command.get_arguments().any(|arg| arg.get_id() == "json");
    let missing: Vec<String> = commands()
        .into_iter()
        .filter(|(_, command)| prints_json(command))
        .map(|(words, _)| words.join("-"))
        .filter(|name| !Schemas::committed().has(name) && !WITHOUT_SCHEMA.contains(&&**name))
        .collect();
    assert!(
        missing.is_empty(),
        "add {missing:?} to cli/src/schema.rs, and see CONTRIBUTING.md"
    );
}

#[test]
fn schemas() {
    let mut known = BTreeSet::new();
    for (name, schema) in Schemas::committed().iter() {
        let text = serde_json::to_string_pretty(schema).unwrap() + "\n";
        compare_with_file(&text, &Schemas::folder().join(format!("{name}.json")));
        known.insert(name.to_owned());
    }
    assert_eq!(
        files_in(&Schemas::folder(), ".json"),
        known,
        "schemas of commands that are no more"
    );
}

/// Entries of ten rows each, delivered to a consumer that does nothing with them.
async fn held_by(env: &Env, consumer: &str, first_entry: i64, n_entries: i64) {
    for n in first_entry..first_entry + n_entries {
        env.publish(&detections(10 * n..10 * n + 10)).await;
    }
    env.read_as(consumer, usize::try_from(n_entries).unwrap())
        .await;
}

#[tokio::test]
async fn pending() {
    let env = Env::start().await;
    let mut golden = Golden::of("pending", &env);
    golden.run(&["pending"]).await;
    env.create_group().await;
    golden.note("a worker has been there");
    golden.run(&["pending"]).await;
    held_by(&env, "gate-host", 0, 2).await;
    held_by(&env, "yard-host", 2, 1).await;
    env.publish(&detections(30..40)).await;
    golden.note("two workers hold entries, and one waits in the stream");
    golden.run(&["pending"]).await;
    golden.run(&["pending", "--consumer", "yard-host"]).await;
    golden.run(&["pending", "--limit", "1", "--json"]).await;
    golden.run(&["pending", "--by", "consumer"]).await;
    golden
        .run(&["pending", "--by", "deliveries", "--consumer", "nobody"])
        .await;
    golden.run(&["pending", "--min-idle", "soon"]).await;
}

#[tokio::test]
async fn status() {
    let env = Env::start().await;
    let mut golden = Golden::of("status", &env);
    golden.run(&["status"]).await;
    env.publish(&detections(0..30)).await;
    env.read_as("yard-host", 1).await;
    env.publish_tracks(&[track(1, 3)]).await;
    golden.note("a worker died, and nobody is there");
    // It is said of whoever has read in the last ten seconds that it does not show itself.
    env.looks_as("yard-host").await;
    golden.run(&["status"]).await;
    golden.run(&["status", "--check"]).await;
    let worker = env
        .start_worker(WorkerConfig {
            consumer: "gate-host".parse().unwrap(),
            ..env.claiming_config(Duration::from_millis(100))
        })
        .await;
    eventually("all is stored", async || {
        let status = env.status().await;
        let redis = status.redis.unwrap();
        redis.backlog_entries() == 0
            && redis
                .live_workers()
                .any(|worker| worker.done.detections == 30)
    })
    .await;
    golden.note("a worker has taken it over");
    env.looks_as("yard-host").await;
    golden.run(&["status"]).await;
    golden
        .run(&["status", "--check", "--max-backlog", "5m"])
        .await;
    let passerby = Passerby::on(&env);
    let json = ["status", "--json"];
    Schemas::committed().assert_valid(&json, &passerby.run(&json).await.stdout);
    golden.run(&["pause", "--dry-run"]).await;
    golden
        .run(&["pause", "--reason", "vacuum full", "--yes"])
        .await;
    let paused = ops::paused(&mut env.target()).await.unwrap().unwrap();
    golden.redact(&paused.told.by, "anna@gate");
    golden.note("the group is paused");
    env.looks_as("yard-host").await;
    golden.run(&["status", "--check"]).await;
    golden.run(&["status", "--check", "--allow-paused"]).await;
    golden.run(&["resume", "--dry-run"]).await;
    golden.run(&["resume", "--yes"]).await;
    golden.run(&["resume", "--yes"]).await;
    worker.stop().await;
    golden.run(&["status", "--watch", "soon"]).await;
}

#[tokio::test]
async fn claim() {
    let env = Env::start().await;
    held_by(&env, "gone", 0, 4).await;
    let mut golden = Golden::of("claim", &env);
    golden.run(&["claim", "--min-idle", "1h"]).await;
    golden
        .run(&["claim", "--min-idle", "0s", "--dry-run"])
        .await;
    golden.run(&["claim", "--min-idle", "0s"]).await;
    golden
        .run(&[
            "claim",
            "--min-idle",
            "0s",
            "--limit",
            "1",
            "--to",
            "gate-host",
            "--yes",
        ])
        .await;
    golden
        .run(&["claim", "--min-idle", "0s", "--limit", "2", "--yes"])
        .await;
    golden
        .run(&["claim", "--min-idle", "0s", "--yes", "--json"])
        .await;
    golden
        .run(&["claim", "--min-idle", "0s", "--dry-run", "--json"])
        .await;
    golden.run(&["claim", "17"]).await;
}

#[tokio::test]
async fn migrate() {
    let env = Env::with_empty_database().await;
    let mut golden = Golden::of("migrate", &env);
    golden.run(&["migrate", "--dry-run"]).await;
    golden.run(&["migrate"]).await;
    golden.run(&["migrate"]).await;
    golden.run(&["migrate", "--json"]).await;
}

#[tokio::test]
async fn query() {
    let env = Env::start().await;
    env.publish(&detections(0..20)).await;
    env.publish_tracks(&[track(1, 3), track(2, 2)]).await;
    env.run_worker_drain().await;
    let mut golden = Golden::of("query", &env);
    golden.run(&["query", "detections", "--limit", "3"]).await;
    golden
        .run(&["query", "detections", "--track-id", "2", "--json"])
        .await;
    golden
        .run(&["query", "detections", "--track-id", "2", "--csv"])
        .await;
    golden
        .run(&["query", "detections", "--camera-id", "no-such"])
        .await;
    golden.run(&["query", "tracks"]).await;
    golden.run(&["query", "tracks", "--json"]).await;
    golden.run(&["query", "demographics"]).await;
    golden
        .run(&["query", "demographics", "--per", "all", "--json"])
        .await;
    golden
        .run(&["query", "demographics", "--per", "week"])
        .await;
}

#[tokio::test]
async fn ingest() {
    let env = Env::start().await;
    let mut golden = Golden::of("ingest", &env);
    let campus = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../cli/data/TUD-Campus.mot.txt"
    );
    golden.redact(campus, "campus.mot.txt");
    golden.redact("TUD-Campus.mot", "campus.mot");
    let args = ["ingest", campus, "--db-enable", "--json"];
    golden.run(&args).await;
    golden.run(&args).await;
}

/// What it says of a server differs from release to release: these checks say the same of all.
const SAME_EVERYWHERE: &str = "redis.eviction,redis.aof,stream,postgres.schema,postgres.encoding,\
                               postgres.synchronous_commit,postgres.default_partition,dead_letters";

#[tokio::test]
async fn doctor() {
    let env = Env::start().await;
    let mut golden = Golden::of("doctor", &env);
    golden.run(&["doctor", "--list"]).await;
    golden.run(&["doctor", "--only", SAME_EVERYWHERE]).await;
    golden
        .run(&["doctor", "--only", "redis.eviction,redis.aof", "--json"])
        .await;
    golden.run(&["doctor", "--only", "redis.evictions"]).await;
    let nobody = "postgresql://postgres@127.0.0.1:1/passerby";
    golden.note("Postgres is away");
    golden
        .run(&[
            "doctor",
            "--only",
            "postgres.reachable,postgres.schema",
            "--database-url",
            nobody,
        ])
        .await;
}

#[tokio::test]
async fn support_bundle() {
    let env = Env::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bundle.zip");
    let path = path.to_str().unwrap();
    let mut golden = Golden::of("support-bundle", &env);
    golden.redact(path, "bundle.zip");
    golden.run(&["support-bundle", "--dry-run"]).await;
    // How large its files are differs from server to server.
    let said = Passerby::on(&env)
        .run(&["support-bundle", "--output", path])
        .await
        .ok();
    assert!(said.contains("versions.txt"), "{said}");
    golden.note("there is a bundle");
    golden.run(&["support-bundle", "--output", path]).await;
    golden
        .run(&["support-bundle", "--output", path, "--json"])
        .await;
}

#[tokio::test]
async fn config() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("passerby.toml");
    let path = path.to_str().unwrap();
    let passerby = Passerby::alone().with("PASSERBY_REDIS_URL", "redis://gate:s3cr3t@redis:6379/0");
    let mut golden = Golden::with("config", passerby);
    golden.redact(path, "passerby.toml");
    golden.run(&["config", "show"]).await;
    let file = "redis-url = \"redis://elsewhere\"\nshards = 2\n[worker]\nmin-idle = \"1m\"\n";
    fs::write(path, file).unwrap();
    golden.note("with a file");
    golden.run(&["config", "show", "--config", path]).await;
    golden
        .run(&["config", "show", "--config", path, "--json"])
        .await;
    fs::write(path, "redis-url = \"redis://elsewhere\"\nshard = 2\n").unwrap();
    golden.note("with a slip of the pen");
    golden.run(&["config", "show", "--config", path]).await;
    golden
        .run(&["config", "show", "--config", "/nowhere.toml"])
        .await;
}
