//! Versions of the servers that are known to be bad.

use std::{fmt, str::FromStr};

use chrono::NaiveDate;

use super::check::Verdict;

/// A program that may be at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    Redis,
    Valkey,
    Postgres,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "Redis",
            Self::Valkey => "Valkey",
            Self::Postgres => "Postgres",
        })
    }
}

/// `major.minor.patch`; Postgres has two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32, pub(super) u32);

impl FromStr for Version {
    type Err = ();

    /// The numbers at the beginning of `15.18 (Debian 15.18-0+deb12u1)`, `7.0.15`, `18beta1`.
    fn from_str(s: &str) -> Result<Self, ()> {
        let end = s
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(s.len());
        let mut numbers = s[..end].split('.').map(str::parse);
        let first = numbers.next().and_then(Result::ok).ok_or(())?;
        let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
        Ok(Self(first, next(), next()))
    }
}

/// How a bug concerns us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Concern {
    /// Passerby runs into it.
    Passerby,
    /// Whoever may connect can abuse it. Distributions mend it without a new number.
    Security,
    /// Only commands typed by hand run into it.
    ByHand,
}

struct KnownBug {
    server: Server,
    from: Version,
    /// The first version without it.
    fixed_in: Version,
    concern: Concern,
    what: &'static str,
}

const fn bug(
    server: Server,
    from: Version,
    fixed_in: Version,
    concern: Concern,
    what: &'static str,
) -> KnownBug {
    KnownBug {
        server,
        from,
        fixed_in,
        concern,
        what,
    }
}

const XAUTOCLAIM: &str = "XAUTOCLAIM, which every worker uses, can overrun the heap \
                          (CVE-2022-31144, CVE-2022-35951)";
const LUA: &str = "whoever may run a script can take the server over (CVE-2025-49844)";
const XACKDEL: &str = "whoever may run XACKDEL can take the server over (CVE-2025-62507)";
const ACKED: &str = "`XTRIM ~ … ACKED` and DELREF delete nothing (redis#14656)";
const IDMP: &str =
    "XADD with IDMP loses its memory of what it has seen (redis#14858, #14869, #14897)";
const CONSUMERS: &str = "replicas may know other consumers than the primary (redis#14963)";
const CONCURRENTLY: &str = "CREATE INDEX CONCURRENTLY and REINDEX CONCURRENTLY can leave rows out of an \
                            index: after the update, check with amcheck or run REINDEX";

use Concern::{ByHand, Passerby, Security};
use Server::{Postgres, Redis, Valkey};

const KNOWN_BUGS: &[KnownBug] = &[
    bug(
        Redis,
        Version(7, 0, 0),
        Version(7, 0, 5),
        Passerby,
        XAUTOCLAIM,
    ),
    bug(Redis, Version(6, 2, 0), Version(6, 2, 20), Security, LUA),
    bug(Redis, Version(7, 2, 0), Version(7, 2, 11), Security, LUA),
    bug(Redis, Version(7, 4, 0), Version(7, 4, 6), Security, LUA),
    bug(Redis, Version(8, 0, 0), Version(8, 0, 4), Security, LUA),
    bug(Redis, Version(8, 2, 0), Version(8, 2, 2), Security, LUA),
    bug(Redis, Version(8, 2, 0), Version(8, 2, 3), Security, XACKDEL),
    bug(Redis, Version(8, 2, 0), Version(8, 2, 7), ByHand, ACKED),
    bug(Redis, Version(8, 4, 0), Version(8, 4, 4), ByHand, ACKED),
    bug(Redis, Version(8, 6, 0), Version(8, 6, 2), ByHand, IDMP),
    bug(Redis, Version(8, 6, 0), Version(8, 6, 4), ByHand, CONSUMERS),
    bug(Valkey, Version(7, 2, 0), Version(7, 2, 11), Security, LUA),
    bug(Valkey, Version(8, 0, 0), Version(8, 0, 6), Security, LUA),
    bug(Valkey, Version(8, 1, 0), Version(8, 1, 4), Security, LUA),
    bug(
        Postgres,
        Version(14, 0, 0),
        Version(14, 4, 0),
        Passerby,
        CONCURRENTLY,
    ),
];

/// The oldest that Passerby works with.
const fn oldest(server: Server) -> Version {
    match server {
        Server::Redis => Version(6, 2, 0),
        Server::Valkey => Version(7, 2, 0),
        Server::Postgres => Version(14, 0, 0),
    }
}

/// When the Postgres project stops to mend a major version.
const END_OF_LIFE: &[(u32, i32, u32, u32)] = &[
    (14, 2026, 11, 12),
    (15, 2027, 11, 11),
    (16, 2028, 11, 9),
    (17, 2029, 11, 8),
    (18, 2030, 11, 14),
];

/// Judges a version, as of a day.
pub(super) fn judge(server: Server, version: Version, today: NaiveDate) -> Verdict {
    let shown = shown(server, version);
    if version < oldest(server) {
        return Verdict::problem(
            format!("{shown} is too old"),
            format!("install {} or later", self::shown(server, oldest(server))),
        )
        .because("Passerby uses what older versions do not have");
    }
    let bugs: Vec<&KnownBug> = KNOWN_BUGS
        .iter()
        .filter(|bug| bug.server == server && (bug.from..bug.fixed_in).contains(&version))
        .collect();
    let of = |concern| bugs.iter().filter(move |bug| bug.concern == concern);
    let list = |concern| {
        let whats: Vec<&str> = of(concern).map(|bug| bug.what).collect();
        whats.join("; ")
    };
    let update = |concern| {
        let fixed_in = of(concern).map(|bug| bug.fixed_in).max();
        fixed_in.map(|version| format!("update to {} or later", self::shown(server, version)))
    };
    if let Some(update) = update(Passerby) {
        return Verdict::problem(format!("{shown}: {}", list(Passerby)), update);
    }
    if let Some(update) = update(Security) {
        return Verdict::warning(
            format!("{shown}: {}", list(Security)),
            format!("{update}, unless your distribution has mended it under the same number"),
        );
    }
    if let Some(verdict) = end_of_life(server, version, today) {
        return verdict;
    }
    Verdict::ok(match list(ByHand) {
        list if list.is_empty() => shown,
        list => format!("{shown}; Passerby does not use it, but {list}"),
    })
}

fn end_of_life(server: Server, version: Version, today: NaiveDate) -> Option<Verdict> {
    if server != Server::Postgres {
        return None;
    }
    let (_, year, month, day) = END_OF_LIFE.iter().find(|(major, ..)| *major == version.0)?;
    let end = NaiveDate::from_ymd_opt(*year, *month, *day)?;
    (today > end).then(|| {
        Verdict::warning(
            format!("{} gets no fixes since {end}", shown(server, version)),
            "plan the update to a later major version: pg_upgrade, or a replica and a switch",
        )
    })
}

fn shown(server: Server, Version(major, minor, patch): Version) -> String {
    match server {
        Server::Postgres => format!("{server} {major}.{minor}"),
        _ => format!("{server} {major}.{minor}.{patch}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Status;

    #[test]
    fn versions_are_read_as_servers_write_them() {
        let check = |text: &str, expected| assert_eq!(text.parse(), expected, "{text}");
        check("7.0.15", Ok(Version(7, 0, 15)));
        check("15.18 (Debian 15.18-0+deb12u1)", Ok(Version(15, 18, 0)));
        check("18.6", Ok(Version(18, 6, 0)));
        check("19beta2", Ok(Version(19, 0, 0)));
        check("unstable", Err(()));
        check("", Err(()));
    }

    #[test]
    fn each_version_is_judged() {
        let day = NaiveDate::from_ymd_opt(2026, 11, 1).unwrap();
        let check = |server, text: &str, status, word: &str| {
            let verdict = judge(server, text.parse().unwrap(), day);
            assert!(verdict.status == status, "{server} {text}: {verdict:?}");
            assert!(verdict.what.contains(word), "{server} {text}: {verdict:?}");
        };
        check(Redis, "6.0.16", Status::Problem, "too old");
        check(Redis, "6.2.5", Status::Warning, "CVE-2025-49844");
        check(Redis, "6.2.20", Status::Ok, "Redis 6.2.20");
        check(Redis, "7.0.4", Status::Problem, "XAUTOCLAIM");
        check(Redis, "7.0.5", Status::Ok, "Redis 7.0.5");
        check(Redis, "7.0.15", Status::Ok, "Redis 7.0.15");
        check(Redis, "7.2.10", Status::Warning, "CVE-2025-49844");
        check(Redis, "8.2.1", Status::Warning, "CVE-2025-62507");
        check(Redis, "8.2.3", Status::Ok, "ACKED");
        check(Redis, "8.2.7", Status::Ok, "Redis 8.2.7");
        check(Redis, "8.4.3", Status::Ok, "ACKED");
        check(Redis, "8.6.1", Status::Ok, "IDMP");
        check(Redis, "8.6.4", Status::Ok, "Redis 8.6.4");
        check(Valkey, "7.2.4", Status::Warning, "CVE-2025-49844");
        check(Valkey, "8.1.4", Status::Ok, "Valkey 8.1.4");
        check(Valkey, "9.1.2", Status::Ok, "Valkey 9.1.2");
        check(Postgres, "13.20", Status::Problem, "too old");
        check(Postgres, "14.3", Status::Problem, "CONCURRENTLY");
        check(Postgres, "14.4", Status::Ok, "Postgres 14.4");
        check(Postgres, "18.6", Status::Ok, "Postgres 18.6");
        check(Postgres, "19.0", Status::Ok, "Postgres 19.0");
    }

    #[test]
    fn what_gets_no_fixes_is_said_from_that_day_on() {
        let check = |day: &str, expected| {
            let verdict = judge(Postgres, Version(14, 20, 0), day.parse().unwrap());
            assert!(verdict.status == expected, "{day}: {verdict:?}");
        };
        check("2026-11-12", Status::Ok);
        check("2026-11-13", Status::Warning);
    }

    #[test]
    fn a_range_of_versions_is_not_empty() {
        for bug in KNOWN_BUGS {
            assert!(bug.from < bug.fixed_in, "{}", bug.what);
        }
    }
}
