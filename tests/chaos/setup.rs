//! Starts the servers, with Postgres on disks that can be full.

use std::{fs::Permissions, os::unix::fs::PermissionsExt, path::Path, process::Command};

use passerby_consumer::store::{DatabaseUrl, Store};
use passerby_servers::{
    Appendonly, PostgresOptions, PostgresServer, RedisOptions, RedisServer, ServerError,
};
use tokio_postgres::NoTls;

use crate::{
    disk::SmallDisk,
    world::{DATABASE, blocking, database_url, refuse},
};

/// Disks of Postgres that can be full, or why there are none.
#[derive(Debug)]
pub(crate) struct Disks {
    pub(crate) tables: Result<SmallDisk, &'static str>,
    pub(crate) wal: Result<SmallDisk, &'static str>,
}

/// The servers, with the schema as the workers want it.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) redis: RedisServer,
    pub(crate) postgres: PostgresServer,
    pub(crate) disks: Disks,
}

/// Starts both servers, with disks in `dir`.
pub(crate) async fn start(dir: &Path) -> Started {
    // Postgres must find its tables here, as a user of its own.
    std::fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
    let redis = blocking(|| {
        RedisServer::start(RedisOptions {
            appendonly: Appendonly::Always,
            ..RedisOptions::default()
        })
    });
    let settings = [
        ("max_connections", "200"),
        // Little WAL, and checkpoints now and then.
        ("max_wal_size", "128MB"),
        ("min_wal_size", "32MB"),
        ("checkpoint_timeout", "30s"),
        ("log_min_messages", "warning"),
    ];
    let options = PostgresOptions {
        settings: settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..PostgresOptions::default()
    };
    let dir_of_disks = dir.to_owned();
    let postgres = blocking(move || {
        let mut server = PostgresServer::start(options)?;
        let wal = move_wal(&mut server, &dir_of_disks.join("wal"))?;
        let tables = SmallDisk::mount(&dir_of_disks.join("tables"), &server.dir().join("data"));
        Ok::<_, ServerError>((server, Disks { tables, wal }))
    });
    let (redis, postgres) = tokio::join!(redis, postgres);
    let redis = redis.unwrap_or_else(refuse);
    let (postgres, disks) = postgres.unwrap_or_else(refuse);
    make_database(&postgres, &disks).await;
    Started {
        redis,
        postgres,
        disks,
    }
}

/// Moves the WAL to a disk of its own.
fn move_wal(
    server: &mut PostgresServer,
    to: &Path,
) -> Result<Result<SmallDisk, &'static str>, ServerError> {
    let data = server.dir().join("data");
    let disk = SmallDisk::mount(to, &data);
    if let Ok(disk) = &disk {
        server.kill()?;
        let wal = data.join("pg_wal");
        let copied = Command::new("cp")
            .arg("-a")
            .arg(wal.join("."))
            .arg(disk.dir())
            .status();
        assert!(copied.unwrap().success(), "copy the WAL");
        std::fs::remove_dir_all(&wal).unwrap();
        std::os::unix::fs::symlink(disk.dir(), &wal).unwrap();
        server.restart()?;
    }
    Ok(disk)
}

async fn make_database(postgres: &PostgresServer, disks: &Disks) {
    let url = postgres.url("postgres");
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let tablespace = if let Ok(disk) = &disks.tables {
        let location = disk.dir().display();
        let sql = format!("CREATE TABLESPACE small LOCATION '{location}'");
        client.batch_execute(&sql).await.unwrap();
        "small"
    } else {
        "pg_default"
    };
    let sql = format!("CREATE DATABASE {DATABASE} TABLESPACE {tablespace}");
    client.batch_execute(&sql).await.unwrap();
    let url: DatabaseUrl = database_url(postgres.port()).parse().unwrap();
    let mut store = Store::connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    store.ensure_partitions_ahead().await.unwrap();
}
