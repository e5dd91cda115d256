//! A support bundle holds what helps, whatever is down, and neither a row nor a password.

use std::{collections::BTreeMap, fs::File, io::Read, os::unix::fs::PermissionsExt, path::Path};

use passerby_tests::{Env, OwnRedis, Passerby};
use serde_json::Value;

/// The files of a bundle.
fn unpack(path: &Path) -> BTreeMap<String, String> {
    let mut zip = zip::ZipArchive::new(File::open(path).unwrap()).unwrap();
    let mut files = BTreeMap::new();
    for i in 0..zip.len() {
        let mut file = zip.by_index(i).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        files.insert(file.name().unwrap().into_owned(), text);
    }
    files
}

const PASSWORD: &str = "s3cr3t-of-redis";
const OTHER_PASSWORD: &str = "s3cr3t-of-postgres";
/// As a camera's name, so that it is in the stream, in rows, in dead letters and in what Postgres says.
const CANARY: &str = "canary-of-the-payload";

#[tokio::test]
async fn neither_a_password_nor_a_row_is_in_a_bundle() {
    let env = Env::start().await;
    env.execute(&format!(
        "ALTER TABLE detections ADD CONSTRAINT no_canary CHECK (detection_id <> 5 OR camera_id <> '{CANARY}')"
    ))
    .await;
    let redis = OwnRedis::start(&[("requirepass", PASSWORD)]).await;
    let redis_url = redis
        .url()
        .expose()
        .replace("redis://", &format!("redis://:{PASSWORD}@"));
    let postgres_url = env
        .servers
        .postgres_url(env.database())
        .replace("postgres@", &format!("postgres:{OTHER_PASSWORD}@"));
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("worker.log");
    std::fs::write(&log, format!("INFO connected to {redis_url}\n")).unwrap();
    let passerby = Passerby::on(&env)
        .with("PASSERBY_REDIS_URL", &redis_url)
        .with("PASSERBY_DATABASE_URL", &postgres_url);
    // Rows that are stored, one that is refused, and an entry that is never read.
    let config = passerby_consumer::WorkerConfig {
        redis_url: redis_url.parse().unwrap(),
        ..env.worker_config()
    };
    let mut link = passerby_shared::redis_connection::RedisLink::new(
        redis_url.parse().unwrap(),
        passerby_shared::redis_connection::RedisTimeouts::default(),
    );
    let mut publish = async |payload: &[u8]| {
        let mut add = redis::cmd("XADD");
        add.arg(env.stream())
            .arg("*")
            .arg("k")
            .arg("d")
            .arg("p")
            .arg(payload);
        let connection = link.get().await.unwrap();
        add.query_async::<String>(connection).await.unwrap();
    };
    let mut rows = passerby_tests::fixtures::detections(0..10);
    for row in &mut rows {
        row.camera_id = CANARY.to_owned();
    }
    let mut payload = Vec::new();
    passerby_shared::wire::encode_detections(&rows, &mut payload);
    publish(&payload).await;
    publish(format!("\u{1}{CANARY}").as_bytes()).await;
    env.drain_with(config).await;
    assert_eq!(env.n_rows().await, 9);
    assert!(!env.dead_letters().await.is_empty());
    publish(&payload).await;

    let path = dir.path().join("bundle.zip");
    let args = [
        "support-bundle",
        "--output",
        path.to_str().unwrap(),
        "--log-file",
        log.to_str().unwrap(),
    ];
    let said = passerby.run(&args).await.ok();

    assert!(
        said.contains("look through it before you send it"),
        "{said}"
    );
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let files = unpack(&path);
    for (name, text) in &files {
        for secret in [PASSWORD, OTHER_PASSWORD, CANARY] {
            assert!(!text.contains(secret), "{secret} in {name}: {text}");
        }
        assert!(!text.starts_with("not available"), "{name}: {text}");
        assert!(said.contains(name.as_str()), "{name} is not listed: {said}");
    }
    let json = |name: &str| serde_json::from_str::<Value>(&files[name]).unwrap();
    assert!(files["redis/info.txt"].contains("redis_version:"));
    assert!(files["redis/config.txt"].contains("appendfsync always"));
    let stream = &json("redis/streams.json")[env.stream().as_str()];
    assert_eq!(stream["groups"][0]["name"], "passerby");
    assert_eq!(stream["stream"]["length"], 3);
    assert!(json("postgres/tables.json").as_array().unwrap().len() > 10);
    assert_eq!(json("postgres/migrations.json")[0]["version"], 1);
    let letters = json("postgres/dead-letters.json");
    assert_eq!(
        letters.as_array().unwrap().len(),
        env.dead_letters().await.len()
    );
    assert!(json("doctor.json")["findings"].as_array().unwrap().len() > 40);
    assert!(
        files["settings.toml"].contains("redis://:***@"),
        "{}",
        files["settings.toml"]
    );
    assert!(files["log.txt"].contains("INFO connected"));

    let refused = passerby.run(&args).await; // it is there already
    refused.assert_one_error_line(&["bundle.zip", "exists already", "--output"]);
}

#[tokio::test]
async fn a_bundle_is_made_when_a_server_is_down() {
    let env = Env::start().await;
    let dir = tempfile::tempdir().unwrap();
    for (variable, url, missing) in [
        ("PASSERBY_REDIS_URL", "redis://127.0.0.1:1/0", "redis/"),
        (
            "PASSERBY_DATABASE_URL",
            "postgresql://127.0.0.1:1/x",
            "postgres/",
        ),
    ] {
        let path = dir.path().join(format!("{variable}.zip"));
        let args = [
            "support-bundle",
            "--json",
            "--output",
            path.to_str().unwrap(),
        ];
        let report = Passerby::on(&env)
            .with(variable, url)
            .run(&args)
            .await
            .json();
        let files = unpack(&path);
        assert_eq!(report["files"].as_array().unwrap().len(), files.len());
        for (name, text) in &files {
            assert_eq!(
                text.starts_with("not available"),
                name.starts_with(missing),
                "{name}: {text}"
            );
        }
        assert!(files["doctor.json"].contains("\"problem\""));
    }
}

#[tokio::test]
async fn a_dry_run_lists_what_would_go_in_and_asks_nobody() {
    let listed = Passerby::alone()
        .run(&["support-bundle", "--dry-run"])
        .await
        .ok();
    for (name, _) in passerby_consumer::ops::BUNDLE_FILES {
        assert_eq!(listed.contains(name), *name != "log.txt", "{name} {listed}");
    }
    assert!(listed.ends_with("nothing was written\n"), "{listed}");
}
