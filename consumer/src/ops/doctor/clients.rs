//! What Redis allows each client, and how many clients.

use super::{
    check::{Outcome, Unknown, Verdict},
    patient::Patient,
};

/// What a worker may be sent at once: up to a batch of each stream, and an entry of any size may be among
/// them.
const LARGEST_REPLY: u64 = 64 << 20;

pub(super) async fn output_limits(patient: &Patient<'_>) -> Outcome {
    let redis = patient.redis()?;
    let limits = redis.setting("client-output-buffer-limit").await?;
    judge_limits(&limits)
}

/// `normal 0 0 0 slave 268435456 67108864 60 pubsub …`: class, hard limit, soft limit, seconds.
fn judge_limits(limits: &str) -> Outcome {
    let words: Vec<&str> = limits.split_whitespace().collect();
    let normal = words
        .chunks_exact(4)
        .find(|class| class[0] == "normal")
        .ok_or_else(|| Unknown::new(format!("`{limits}` says nothing of normal clients")))?;
    let number = |word: &str| {
        word.parse::<u64>()
            .map_err(|_| Unknown::new(format!("`{word}` in `{limits}` is no number")))
    };
    let (hard, soft, seconds) = (number(normal[1])?, number(normal[2])?, normal[3]);
    let is_low = |limit| limit > 0 && limit < LARGEST_REPLY;
    if is_low(hard) || is_low(soft) {
        return Ok(Verdict::problem(
            format!(
                "a normal client is disconnected at {hard} bytes, or {soft} bytes for {seconds} s"
            ),
            "redis-cli CONFIG SET client-output-buffer-limit 'normal 0 0 0', and the same in redis.conf",
        ));
    }
    Ok(Verdict::ok(match (hard, soft) {
        (0, 0) => "no limit on replies to normal clients".to_owned(),
        _ => format!("normal clients may be sent {hard} bytes, or {soft} bytes for {seconds} s"),
    }))
}

pub(super) async fn connections(patient: &Patient<'_>) -> Outcome {
    let redis = patient.redis()?;
    let connected = redis.number("connected_clients")?;
    // Redis 6.2 has it in its configuration only.
    let most = match redis.number("maxclients") {
        Ok(most) => most,
        Err(_) => redis
            .setting("maxclients")
            .await?
            .parse()
            .map_err(|_| Unknown::new("maxclients is no number"))?,
    };
    let what = format!("{connected} of {most} connections are in use");
    let fix = format!(
        "redis-cli CONFIG SET maxclients {}, after `ulimit -n` of the server allows it; \
         `redis-cli CLIENT LIST` shows who they are",
        most.saturating_mul(2).max(1_000)
    );
    Ok(match most.saturating_sub(connected) {
        free if free < 10 || free < most / 20 => Verdict::problem(what, fix),
        free if free < most / 5 => Verdict::warning(what, fix),
        _ => Verdict::ok(what),
    })
}

pub(super) async fn idle_clients(patient: &Patient<'_>) -> Outcome {
    let redis = patient.redis()?;
    let seconds = |text: String| {
        text.parse::<u64>()
            .map_err(|_| Unknown::new(format!("`{text}` is no number")))
    };
    let timeout = seconds(redis.setting("timeout").await?)?;
    let keepalive = seconds(redis.setting("tcp-keepalive").await?)?;
    if timeout > 0 && timeout < 60 {
        return Ok(Verdict::warning(
            format!("timeout is {timeout} s: a connection that says nothing for so long is closed"),
            "redis-cli CONFIG SET timeout 0, and the same in redis.conf; tcp-keepalive finds dead clients",
        ));
    }
    if keepalive == 0 && timeout == 0 {
        return Ok(Verdict::warning(
            "tcp-keepalive is 0, and timeout, too: the connection of a dead client is never closed",
            "redis-cli CONFIG SET tcp-keepalive 300, and the same in redis.conf",
        ));
    }
    Ok(Verdict::ok(format!(
        "timeout is {timeout} s, tcp-keepalive {keepalive} s"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Status;

    #[test]
    fn a_limit_below_a_reply_is_a_problem() {
        let check = |limits: &str, expected| {
            assert_eq!(judge_limits(limits).unwrap().status, expected, "{limits}");
        };
        check("normal 0 0 0 slave 268435456 67108864 60", Status::Ok);
        check("slave 1 1 1 normal 1048576 0 0", Status::Problem);
        check("normal 0 1048576 10 pubsub 1 1 1", Status::Problem);
        check("normal 268435456 134217728 60", Status::Ok);
        assert!(judge_limits("pubsub 1 1 1").is_err());
        assert!(judge_limits("normal a b c").is_err());
    }
}
