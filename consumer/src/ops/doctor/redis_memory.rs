//! What Redis does when its memory is full, and how far it is from that.

use super::{
    check::{Outcome, Verdict},
    patient::Patient,
};

pub(super) async fn eviction(patient: &Patient<'_>) -> Outcome {
    let redis = patient.redis()?;
    let policy = redis.needed_info("maxmemory_policy")?;
    Ok(judge_eviction(policy, redis.number("maxmemory")?))
}

fn judge_eviction(policy: &str, maxmemory: u64) -> Verdict {
    const FIX: &str = "redis-cli CONFIG SET maxmemory-policy noeviction, and the same in redis.conf; \
                       volatile-ttl where Redis holds the track cache, too";
    let what = format!("maxmemory-policy is {policy}");
    if !policy.starts_with("allkeys-") {
        return Verdict::ok(what);
    }
    if maxmemory == 0 {
        return Verdict::warning(
            format!("{what}, and takes effect once there is a maxmemory"),
            FIX,
        );
    }
    Verdict::problem(what, FIX)
}

pub(super) async fn memory(patient: &Patient<'_>) -> Outcome {
    let redis = patient.redis()?;
    let used = redis.number("used_memory")?;
    let maxmemory = redis.number("maxmemory")?;
    let system = redis.number("total_system_memory").ok().filter(|n| *n > 0);
    Ok(judge_memory(used, maxmemory, system))
}

const MIB: u64 = 1 << 20;

fn judge_memory(used: u64, maxmemory: u64, system: Option<u64>) -> Verdict {
    let mib = |bytes: u64| format!("{} MiB", bytes.div_ceil(MIB));
    let of_system = system.map_or_else(String::new, |n| format!(", of {} in the machine", mib(n)));
    if maxmemory == 0 {
        // A suggestion that leaves room for the copy that a rewrite of the append-only file needs.
        let suggestion = system.map_or_else(|| "2gb".to_owned(), |n| format!("{}mb", n / MIB / 2));
        return Verdict::warning(
            format!("no maxmemory: {} used{of_system}", mib(used)),
            format!("redis-cli CONFIG SET maxmemory {suggestion}, and the same in redis.conf"),
        )
        .because(
            "Redis grows until the system ends it, and producers never learn that it is full",
        );
    }
    let percent = used.saturating_mul(100) / maxmemory;
    let what = format!("{} of {} used, {percent} %", mib(used), mib(maxmemory));
    let fix = "see with `passerby pending` whether workers keep up, start more of them, or raise maxmemory";
    match percent {
        90.. => return Verdict::problem(what, fix),
        75.. => return Verdict::warning(what, fix),
        _ => {}
    }
    match system {
        Some(system) if maxmemory > system => Verdict::warning(
            format!("maxmemory is {}{of_system}", mib(maxmemory)),
            format!(
                "redis-cli CONFIG SET maxmemory {}mb, and the same in redis.conf",
                system / MIB / 2
            ),
        )
        .because("the system ends Redis before Redis knows that it is full"),
        _ => Verdict::ok(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Status;

    #[test]
    fn a_policy_that_evicts_streams_is_a_problem() {
        let check = |policy, maxmemory, expected| {
            assert_eq!(
                judge_eviction(policy, maxmemory).status,
                expected,
                "{policy}"
            );
        };
        check("noeviction", 1, Status::Ok);
        check("volatile-ttl", 1, Status::Ok);
        check("allkeys-lru", 0, Status::Warning);
        check("allkeys-random", 1, Status::Problem);
    }

    #[test]
    fn memory_is_judged_by_its_share() {
        let check = |used, maxmemory, system, expected| {
            let verdict = judge_memory(used * MIB, maxmemory * MIB, Some(system * MIB));
            assert_eq!(verdict.status, expected, "{verdict:?}");
        };
        check(10, 0, 1000, Status::Warning);
        check(10, 100, 1000, Status::Ok);
        check(75, 100, 1000, Status::Warning);
        check(90, 100, 1000, Status::Problem);
        check(200, 100, 1000, Status::Problem);
        check(10, 2000, 1000, Status::Warning);
    }
}
