use std::process::Command;

use passerby_servers::{Binaries, PostgresOptions, PostgresServer, Source};

use crate::{from, installed};

fn options(source: Source) -> PostgresOptions {
    PostgresOptions {
        binaries: from(source),
        ..PostgresOptions::default()
    }
}

fn query(server: &PostgresServer, sql: &str) -> String {
    let output = Command::new(server.psql_path().unwrap())
        .args([
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            sql,
            &server.url("postgres"),
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn server_answers_where_its_url_says() {
    for source in [Source::System, Source::Fetched] {
        let Some(server) = installed(PostgresServer::start(options(source))) else {
            continue;
        };
        assert!(server.version_line().starts_with("postgres (PostgreSQL) "));
        assert_eq!(query(&server, "SELECT current_user"), "postgres");
        assert_eq!(query(&server, "SHOW fsync"), "off");
        assert_eq!(query(&server, "SHOW server_encoding"), "UTF8");
        assert_eq!(query(&server, "SHOW timezone"), "UTC");
        let socket = format!(".s.PGSQL.{}", server.port());
        assert!(server.dir().join(socket).exists());
    }
}

#[test]
fn committed_rows_survive_a_kill() {
    for source in [Source::System, Source::Fetched] {
        let options = PostgresOptions {
            fsync: true,
            ..options(source)
        };
        let Some(mut server) = installed(PostgresServer::start(options)) else {
            continue;
        };
        let (url, pid) = (server.url("postgres"), server.pid());
        assert_eq!(query(&server, "SHOW fsync"), "on");
        query(
            &server,
            "CREATE TABLE numbers AS SELECT generate_series(1, 1000) AS number",
        );

        server.kill().unwrap();
        assert_eq!(server.pid(), None);
        server.restart().unwrap();

        assert_eq!(server.url("postgres"), url);
        assert_ne!(server.pid(), pid);
        assert_eq!(query(&server, "SELECT count(*) FROM numbers"), "1000");
    }
}

#[test]
fn callers_settings_win_and_a_wrong_one_is_shown() {
    let setting = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let settings = setting("cluster_name", r"it's \ fine");
    let server = PostgresServer::start(PostgresOptions {
        settings,
        ..options(Source::Auto)
    });
    assert_eq!(query(&server.unwrap(), "SHOW cluster_name"), r"it's \ fine");

    let settings = setting("no_such_setting", "1");
    let error = PostgresServer::start(PostgresOptions {
        settings,
        ..options(Source::Auto)
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("no_such_setting"), "{error}");
}

#[test]
fn servers_started_at_once_share_one_template() {
    let cache = tempfile::tempdir().unwrap();
    open_to_all(cache.path());
    let binaries = Binaries {
        cache_dir: Some(cache.path().to_path_buf()),
        ..from(Source::System)
    };
    let start = || {
        let binaries = binaries.clone();
        PostgresServer::start(PostgresOptions {
            binaries,
            ..PostgresOptions::default()
        })
    };
    let servers: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..3).map(|_| scope.spawn(start)).collect();
        starts
            .into_iter()
            .filter_map(|started| installed(started.join().unwrap()))
            .collect()
    });

    for server in &servers {
        query(server, "CREATE DATABASE passerby");
    }
    if !servers.is_empty() {
        let kept = std::fs::read_dir(cache.path().join("servers")).unwrap();
        let dirs = kept
            .map(Result::unwrap)
            .filter(|entry| entry.path().is_dir());
        assert_eq!(dirs.count(), 1);
    }
}

/// Where the tests run as root, the servers do not.
fn open_to_all(dir: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn cache_that_the_server_cannot_enter_costs_only_the_template() {
    let closed = tempfile::tempdir().unwrap();
    let cache_dir = Some(closed.path().to_path_buf());
    let binaries = Binaries {
        cache_dir,
        ..from(Source::System)
    };
    let started = PostgresServer::start(PostgresOptions {
        binaries,
        ..options(Source::System)
    });
    if let Some(server) = installed(started) {
        assert_eq!(query(&server, "SELECT 1"), "1");
    }
}
