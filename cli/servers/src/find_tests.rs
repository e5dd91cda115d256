use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;

use super::*;

const REDIS: &str = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64";
const OLD_REDIS: &str = "Redis server v=5.0.14 sha=00000000:0 malloc=jemalloc-5.1.0 bits=64";
const POSTGRES: &str = "postgres (PostgreSQL) 15.10 (Debian 15.10-0+deb12u1)";

/// A directory that the servers' user may enter.
fn dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn binary(dir: &Path, name: &str, version_line: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\necho '{version_line}'\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn look(kind: Kind, dirs: &[&TempDir]) -> (Option<PathBuf>, Vec<(PathBuf, Unfit)>) {
    let mut missing = Missing {
        kind,
        source: Source::System,
        places: Vec::new(),
        unfit: Vec::new(),
        fetch: None,
    };
    let dirs: Vec<_> = dirs.iter().map(|dir| dir.path().to_path_buf()).collect();
    let user = User::for_servers().unwrap();
    let found = in_places(kind, &mut missing, &dirs, user.as_ref());
    (found.map(|binary| binary.path), missing.unfit)
}

#[test]
fn versions_are_read_from_what_the_servers_say() {
    let check = |line: &str, expected: Option<(u32, u32)>| {
        let found = Version::parse(line).map(|version| (version.major, version.minor));
        assert_eq!(found, expected, "{line}");
    };
    check(REDIS, Some((7, 0)));
    check(
        "Valkey server v=9.1.2 sha=13710afe:0 malloc=libc bits=64",
        Some((9, 1)),
    );
    check(POSTGRES, Some((15, 10)));
    check("postgres (PostgreSQL) 18.6", Some((18, 6)));
    check("postgres (PostgreSQL) 19devel", Some((19, 0)));
    check("mise 2026.1.0 linux-x64", None);
    check("", None);
}

#[test]
fn old_and_foreign_binaries_are_passed_over() {
    let (old, foreign, good) = (dir(), dir(), dir());
    let old_path = binary(old.path(), "redis-server", OLD_REDIS);
    let foreign_path = binary(foreign.path(), "redis-server", "hello");
    let good_path = binary(good.path(), "redis-server", REDIS);

    let (found, unfit) = look(Kind::Redis, &[&old, &foreign, &good]);

    assert_eq!(found, Some(good_path));
    let [
        (path, Unfit::TooOld { found, .. }),
        (other, Unfit::Unknown { .. }),
    ] = &unfit[..]
    else {
        panic!("{unfit:?}");
    };
    assert_eq!((path, found.major), (&old_path, 5));
    assert_eq!(other, &foreign_path);
}

#[test]
fn symlink_to_postgres_resolves_to_where_initdb_is() {
    let (real, link) = (dir(), dir());
    let postgres = binary(real.path(), "postgres", POSTGRES);
    symlink(&postgres, link.path().join("postgres")).unwrap();

    let (found, unfit) = look(Kind::Postgres, &[&link]);
    assert_eq!(found, None);
    assert!(matches!(unfit[..], [(_, Unfit::NoInitdb)]), "{unfit:?}");

    binary(real.path(), "initdb", "initdb (PostgreSQL) 15.10");
    let (found, _) = look(Kind::Postgres, &[&link]);
    assert_eq!(found, Some(fs::canonicalize(postgres).unwrap()));
}

#[test]
fn directory_may_be_named_instead_of_the_binary() {
    let dir = dir();
    let path = binary(dir.path(), "valkey-server", REDIS);
    let user = User::for_servers().unwrap();
    for name in [dir.path(), &path] {
        assert_eq!(named(Kind::Redis, name, user.as_ref()).unwrap().path, path);
    }
    let nothing = named(Kind::Redis, &dir.path().join("nothing"), user.as_ref());
    assert!(matches!(nothing, Err(Unfit::NotRun { .. })), "{nothing:?}");
}

#[test]
fn missing_server_names_places_packages_and_variables() {
    let missing = Missing {
        kind: Kind::Postgres,
        source: Source::Auto,
        places: vec![
            "PASSERBY_POSTGRES_BIN (not set)".to_owned(),
            "PATH".to_owned(),
        ],
        unfit: vec![(
            PathBuf::from("/usr/lib/postgresql/11/bin/postgres"),
            Unfit::TooOld {
                found: Version {
                    major: 11,
                    minor: 22,
                },
                oldest: Kind::Postgres.oldest_version(),
            },
        )],
        fetch: Some(FetchError::NoBuild {
            os: "linux",
            arch: "riscv64",
        }),
    };
    let said = ServerError::Missing(Box::new(missing)).to_string();
    assert_eq!(
        said,
        "no Postgres server of version 14.0 or later
  looked in PASSERBY_POSTGRES_BIN (not set), PATH
  passed over /usr/lib/postgresql/11/bin/postgres: version 11.22 is older than 14.0
  not fetched: there is none to fetch for linux on riscv64
  install one: Debian and Ubuntu: apt install postgresql
               Fedora: dnf install postgresql-server
               macOS: brew install postgresql@18
  or set PASSERBY_POSTGRES_BIN to the directory of postgres and initdb"
    );
}

#[test]
fn source_is_one_of_three_words() {
    for source in [Source::Auto, Source::System, Source::Fetched] {
        assert_eq!(source.to_string().parse::<Source>().unwrap(), source);
    }
    let error = "always".parse::<Source>().unwrap_err();
    assert!(error.to_string().contains("`always`"), "{error}");
}
