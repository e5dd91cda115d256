//! What of Redis survives a crash.

use super::{
    check::{Outcome, Unknown, Verdict},
    patient::Patient,
};

pub(super) async fn aof(patient: &Patient<'_>) -> Outcome {
    let redis = patient.redis()?;
    if redis.needed_info("aof_enabled")? == "1" {
        return Ok(Verdict::ok("the append-only file is on"));
    }
    let last_save = redis.number("rdb_last_save_time")?;
    let age = (patient.config.clock)()
        .timestamp()
        .cast_unsigned()
        .saturating_sub(last_save);
    Ok(Verdict::problem(
        format!("appendonly is no; the last snapshot, or start, was {age} s ago"),
        "redis-cli CONFIG SET appendonly yes, and the same in redis.conf",
    ))
}

pub(super) async fn fsync(patient: &Patient<'_>) -> Outcome {
    let redis = patient.redis()?;
    if redis.needed_info("aof_enabled")? != "1" {
        return Err(Unknown::new("the append-only file is off"));
    }
    let policy = redis.setting("appendfsync").await?;
    let pauses = redis.setting("no-appendfsync-on-rewrite").await? == "yes";
    Ok(match policy.as_str() {
        "no" => Verdict::warning(
            "appendfsync is no: the system decides when, commonly after 30 s",
            "redis-cli CONFIG SET appendfsync everysec, and the same in redis.conf",
        ),
        _ if pauses => Verdict::warning(
            "no-appendfsync-on-rewrite is yes: while the file is rewritten nothing is forced",
            "redis-cli CONFIG SET no-appendfsync-on-rewrite no, and the same in redis.conf",
        ),
        policy => Verdict::ok(format!("appendfsync is {policy}")),
    })
}

pub(super) async fn disk_writes(patient: &Patient<'_>) -> Outcome {
    const FIX: &str =
        "free the disk of the Redis server, or mend its permissions; its log names the file";
    let redis = patient.redis()?;
    let failed = |name| Ok::<_, Unknown>(redis.info(name)? == Some("err"));
    if failed("aof_last_write_status")? {
        return Ok(
            Verdict::problem("the last write to the append-only file failed", FIX)
                .because("Redis refuses every XADD with MISCONF until a write succeeds"),
        );
    }
    if failed("rdb_last_bgsave_status")? {
        let refuses = redis.setting("stop-writes-on-bgsave-error").await;
        let saves = redis.setting("save").await;
        let (Ok(refuses), Ok(saves)) = (refuses, saves) else {
            return Ok(Verdict::problem("the last snapshot failed", FIX));
        };
        return Ok(if refuses == "yes" && !saves.is_empty() {
            Verdict::problem("the last snapshot failed", FIX)
                .because("Redis refuses every XADD with MISCONF until one succeeds")
        } else {
            Verdict::warning("the last snapshot failed", FIX)
        });
    }
    if failed("aof_last_bgrewrite_status")? {
        return Ok(
            Verdict::warning("the last rewrite of the append-only file failed", FIX)
                .because("the file grows until a rewrite succeeds, and a restart takes longer"),
        );
    }
    Ok(Verdict::ok("the last writes to the disk succeeded"))
}
