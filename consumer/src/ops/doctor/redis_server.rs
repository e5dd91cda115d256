//! Redis itself: whether it answers, what it is, and what it lets us do.

use redis::{Cmd, Pipeline, Value};
use uuid::Uuid;

use super::{
    check::{Outcome, Unknown, Verdict},
    known_bugs::{Server, Version, judge},
    patient::{Patient, Redis, Way},
};

pub(super) async fn reachable(patient: &Patient<'_>) -> Outcome {
    let redis = match patient.redis_or_problem() {
        Ok(redis) => redis,
        Err(problem) => return Ok(problem),
    };
    if redis.info("loading").ok().flatten() == Some("1") {
        return Ok(Verdict::problem(
            format!("{} is reading its data from the disk", redis.url),
            "wait until it has; `redis-cli INFO persistence` shows how long it will take",
        ));
    }
    let begun = tokio::time::Instant::now();
    let pong: redis::RedisResult<Value> = redis.query(&redis::cmd("PING")).await;
    match pong {
        Ok(_) => Ok(Verdict::ok(format!(
            "{} answers within {:.1} ms",
            redis.url,
            begun.elapsed().as_secs_f64() * 1e3
        ))),
        Err(error) => Err(Unknown::redis("PING", &error)),
    }
}

pub(super) async fn tls(patient: &Patient<'_>) -> Outcome {
    let redis = patient.redis()?;
    let (way, is_encrypted) = Way::to_redis(&redis.url).await?;
    Ok(judge_tls(way, is_encrypted))
}

fn judge_tls(way: Way, is_encrypted: bool) -> Verdict {
    match (way, is_encrypted) {
        (_, true) => Verdict::ok("encrypted, and the server's certificate was verified"),
        (Way::Public, false) => Verdict::warning(
            "not encrypted, over public addresses",
            "name it with rediss:// in PASSERBY_REDIS_URL, and give Redis a `tls-port`",
        ),
        (way, false) => Verdict::ok(format!("not encrypted, {}", way.as_str())),
    }
}

/// What the server is.
pub(super) fn version_of(redis: &Redis) -> Result<(Server, Version), Unknown> {
    let (server, field) = match redis.info("valkey_version")? {
        Some(_) => (Server::Valkey, "valkey_version"),
        None => (Server::Redis, "redis_version"),
    };
    let text = redis.needed_info(field)?;
    match text.parse() {
        Ok(version) => Ok((server, version)),
        Err(()) => Err(Unknown::new(format!("{field}:{text} is no version"))),
    }
}

pub(super) async fn version(patient: &Patient<'_>) -> Outcome {
    let redis = patient.redis()?;
    for stranger in ["dragonfly_version", "kvrocks_version"] {
        if redis.info(stranger)?.is_some() {
            return Ok(Verdict::warning(
                format!("the server says {stranger}: it speaks Redis' protocol and is not Redis"),
                "use Redis 6.2 or later, or Valkey: streams behave differently elsewhere",
            ));
        }
    }
    let (server, version) = version_of(redis)?;
    Ok(judge(
        server,
        version,
        (patient.config.clock)().date_naive(),
    ))
}

pub(super) async fn role(patient: &Patient<'_>) -> Outcome {
    let redis = patient.redis()?;
    if redis.needed_info("role")? == "slave" {
        let primary = redis.info("master_host")?.unwrap_or("elsewhere");
        return Ok(Verdict::problem(
            format!("this server is a replica; its primary is {primary}"),
            "name the primary in PASSERBY_REDIS_URL",
        ));
    }
    if redis.info("cluster_enabled")? == Some("1")
        && let Some(problem) = foreign_slots(patient, redis).await?
    {
        return Ok(problem);
    }
    let n_replicas = redis.number("connected_slaves").unwrap_or(0);
    let wanted = redis.setting("min-replicas-to-write").await;
    let wanted = wanted.ok().and_then(|n| n.parse().ok()).unwrap_or(0_u64);
    if n_replicas < wanted {
        return Ok(Verdict::problem(
            format!("min-replicas-to-write is {wanted}, and {n_replicas} replicas are connected"),
            "bring the replicas back, or `redis-cli CONFIG SET min-replicas-to-write 0`",
        )
        .because("Redis refuses every XADD with NOREPLICAS"));
    }
    Ok(Verdict::ok(match n_replicas {
        0 => "a primary without replicas".to_owned(),
        1 => "a primary with 1 replica".to_owned(),
        n => format!("a primary with {n} replicas"),
    }))
}

/// Workers and producers talk to one server: the slots of all streams must be there.
async fn foreign_slots(patient: &Patient<'_>, redis: &Redis) -> Result<Option<Verdict>, Unknown> {
    for stream in patient.config.key_prefix.streams(patient.config.shards) {
        let mut command = redis::cmd("XLEN");
        let asked: redis::RedisResult<Value> = redis.query(command.arg(&stream)).await;
        match asked {
            Err(error) if matches!(error.code(), Some("MOVED" | "ASK" | "CLUSTERDOWN")) => {
                return Ok(Some(
                    Verdict::problem(
                        format!("a node of a cluster that does not serve `{stream}`: {error}"),
                        "use a Redis that is no cluster, or one node for all streams",
                    )
                    .because("producers and workers talk to the one server they are given"),
                ));
            }
            Err(error) if error.code() == Some("WRONGTYPE") => {}
            Err(error) => return Err(Unknown::redis("XLEN", &error)),
            Ok(_) => {}
        }
    }
    Ok(None)
}

/// Each command of a worker and an operator, on a key that is not there: where it is allowed it does
/// nothing. Redis looks at privileges before it looks at the key.
fn probes(key: &str) -> Vec<Cmd> {
    let command = |words: &[&str]| {
        let mut command = Cmd::new();
        for word in words {
            command.arg(if *word == "KEY" { key } else { word });
        }
        command
    };
    [
        &["TIME"][..],
        &["EXISTS", "KEY"],
        &["PING"],
        &["INFO", "server"],
        &["HGETALL", "KEY"],
        &["HGET", "KEY", "f"],
        // A value too few: it is refused, if not for want of a privilege.
        &["HSET", "KEY", "f", "1", "g"],
        &["HDEL", "KEY", "f"],
        &["XLEN", "KEY"],
        &["XRANGE", "KEY", "-", "+", "COUNT", "1"],
        &["XINFO", "GROUPS", "KEY"],
        &["XPENDING", "KEY", "g"],
        &["XGROUP", "CREATECONSUMER", "KEY", "g", "c"],
        &[
            "XREADGROUP",
            "GROUP",
            "g",
            "c",
            "COUNT",
            "1",
            "STREAMS",
            "KEY",
            ">",
        ],
        &["XAUTOCLAIM", "KEY", "g", "c", "0", "0"],
        &["XCLAIM", "KEY", "g", "c", "0", "0-1"],
        &["XACK", "KEY", "g", "0-1"],
        &["XTRIM", "KEY", "MINID", "0"],
        &["XADD", "KEY", "NOMKSTREAM", "*", "probe", "1"],
        &["SET", "KEY", "1", "XX"],
        &["EVAL", "return 1", "1", "KEY"],
        &[
            "EVALSHA",
            "0000000000000000000000000000000000000000",
            "1",
            "KEY",
        ],
        &["SCRIPT", "LOAD", "return 1"],
    ]
    .into_iter()
    .map(command)
    .collect()
}

/// As an access list names it.
fn name_of(command: &Cmd) -> String {
    let mut words = command.args_iter().filter_map(|arg| match arg {
        redis::Arg::Simple(bytes) => std::str::from_utf8(bytes).ok().map(str::to_lowercase),
        _ => None,
    });
    let name = words.next().unwrap_or_default();
    match (name.as_str(), words.next()) {
        ("xinfo" | "xgroup" | "script", Some(sub)) => format!("{name}|{sub}"),
        _ => name,
    }
}

pub(super) async fn privileges(patient: &Patient<'_>) -> Outcome {
    let redis = patient.redis()?;
    let key = format!(
        "{}:doctor:{{{}}}",
        patient.config.key_prefix,
        Uuid::now_v7().simple()
    );
    let probes = probes(&key);
    let mut pipe = Pipeline::new();
    for probe in &probes {
        pipe.add_command(probe.clone());
    }
    pipe.ignore_errors();
    let replies: Vec<redis::RedisResult<Value>> =
        pipe.query_async(&mut redis.connection())
            .await
            .map_err(|error| Unknown::redis("PING", &error))?;
    let mut denied = Vec::new();
    for (probe, reply) in probes.iter().zip(replies) {
        if let Err(error) = reply {
            match error.code() {
                Some("NOPERM") => denied.push(name_of(probe)),
                Some("ERR")
                    if error
                        .detail()
                        .is_some_and(|d| d.contains("unknown command")) =>
                {
                    denied.push(name_of(probe));
                }
                _ => {}
            }
        }
    }
    if denied.is_empty() {
        return Ok(Verdict::ok(format!(
            "all {} commands that a worker needs are allowed on `{}:*`",
            probes.len(),
            patient.config.key_prefix
        )));
    }
    let grants: Vec<String> = denied.iter().map(|name| format!("+{name}")).collect();
    Ok(Verdict::problem(
        format!(
            "not allowed on `{}:*`: {}",
            patient.config.key_prefix,
            denied.join(", ")
        ),
        format!(
            "redis-cli ACL SETUSER <user> {} '~{}:*'",
            grants.join(" "),
            patient.config.key_prefix
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Status;

    #[test]
    fn what_is_not_encrypted_matters_in_public_alone() {
        let check = |way, is_encrypted, expected| {
            assert_eq!(judge_tls(way, is_encrypted).status, expected);
        };
        check(Way::Local, false, Status::Ok);
        check(Way::Private, false, Status::Ok);
        check(Way::Public, false, Status::Warning);
        check(Way::Public, true, Status::Ok);
    }

    #[test]
    fn every_command_that_the_documentation_grants_is_probed() {
        let doc = include_str!("../../../../docs/configuration.md");
        let granted = doc
            .split("track cache, and\n`")
            .nth(1)
            .and_then(|rest| rest.split('`').next())
            .expect("the worker's commands stand in docs/configuration.md");
        let probed: Vec<String> = probes("k").iter().map(name_of).collect();
        for name in granted.split_whitespace().map(|name| &name[1..]) {
            // Without it `redis.reachable` and others say so.
            let is_probed = name == "info"
                || probed
                    .iter()
                    .any(|p| p == name || p.split('|').next() == Some(name));
            assert!(is_probed, "{name} is granted and not probed");
        }
        assert!(granted.split_whitespace().count() >= 17);
    }
}
