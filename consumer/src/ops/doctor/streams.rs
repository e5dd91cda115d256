//! The streams: that they are streams, and that workers read all of them.

use passerby_shared::StreamKey;
use redis::Pipeline;

use super::{
    check::{Outcome, Unknown, Verdict},
    patient::{Patient, Redis},
};

/// Streams beyond those of the workers are looked for so far.
const MOST_SHARDS: u16 = 1_024;

pub(super) async fn key_type(patient: &Patient<'_>) -> Outcome {
    let redis = patient.redis()?;
    let streams = patient.config.key_prefix.streams(patient.config.shards);
    let mut pipe = Pipeline::new();
    for stream in &streams {
        pipe.cmd("TYPE").arg(stream);
    }
    let types: Vec<String> = ask(redis, &pipe, "TYPE").await?;
    let wrong = streams
        .iter()
        .zip(&types)
        .find(|(_, kind)| !matches!(kind.as_str(), "stream" | "none"));
    if let Some((stream, kind)) = wrong {
        return Ok(Verdict::problem(
            format!("`{stream}` is a {kind}"),
            format!("redis-cli RENAME '{stream}' '{stream}:aside', or choose another --key-prefix"),
        ));
    }
    let missing = types.iter().filter(|kind| *kind == "none").count();
    Ok(Verdict::ok(match (streams.as_slice(), missing) {
        ([stream], 0) => format!("`{stream}` is a stream"),
        ([stream], _) => format!("`{stream}` is not there yet"),
        (streams, 0) => format!("all {} are streams", streams.len()),
        (streams, missing) => format!(
            "{} streams, {missing} not there yet",
            streams.len() - missing
        ),
    }))
}

pub(super) async fn shards(patient: &Patient<'_>) -> Outcome {
    let redis = patient.redis()?;
    let (prefix, shards) = (&patient.config.key_prefix, patient.config.shards.get());
    let beyond: Vec<(u16, StreamKey)> = (shards..MOST_SHARDS.max(shards))
        .map(|shard| (shard, prefix.stream(shard)))
        .collect();
    let mut pipe = Pipeline::new();
    for (_, stream) in &beyond {
        pipe.cmd("XLEN").arg(stream);
    }
    pipe.ignore_errors();
    let lengths: Vec<redis::RedisResult<u64>> = ask(redis, &pipe, "XLEN").await?;
    let mut filled = Vec::new();
    for ((shard, _), length) in beyond.iter().zip(lengths) {
        match length {
            Ok(0) => {}
            Ok(length) => filled.push((*shard, length)),
            Err(error) if error.code() == Some("WRONGTYPE") => {}
            Err(error) => return Err(Unknown::redis("XLEN", &error)),
        }
    }
    let Some((last, _)) = filled.last() else {
        return Ok(Verdict::ok(format!(
            "no stream from shard {shards} on holds an entry"
        )));
    };
    let n_entries: u64 = filled.iter().map(|(_, length)| length).sum();
    Ok(Verdict::problem(
        format!(
            "{n_entries} entries stand in {} of shards {shards}…{last}, and workers read {shards}",
            if filled.len() == 1 {
                "a stream".to_owned()
            } else {
                format!("{} streams", filled.len())
            },
        ),
        format!(
            "start every worker with --shards {}, the number of the producers",
            last + 1
        ),
    ))
}

pub(super) async fn nodes(patient: &Patient<'_>) -> Outcome {
    let redis = patient.redis()?;
    let number = |text: String| {
        text.parse::<u64>()
            .map_err(|_| Unknown::new(format!("`{text}` is no number")))
    };
    let bytes = number(redis.setting("stream-node-max-bytes").await?)?;
    let entries = number(redis.setting("stream-node-max-entries").await?)?;
    Ok(judge_nodes(bytes, entries))
}

fn judge_nodes(bytes: u64, entries: u64) -> Verdict {
    const FIX: &str = "redis-cli CONFIG SET stream-node-max-bytes 4096, and the same in redis.conf";
    let what = format!("a node holds up to {bytes} bytes and {entries} entries");
    match (bytes, entries) {
        (0, _) => Verdict::warning("a node holds entries of any size together", FIX)
            .because("an XADD copies the node that it adds to, and a trim frees whole nodes only"),
        (bytes, _) if bytes > 1 << 20 => Verdict::warning(what, FIX)
            .because("an XADD copies the node that it adds to, and a trim frees whole nodes only"),
        (_, 1..10) => Verdict::warning(
            what,
            "redis-cli CONFIG SET stream-node-max-entries 100, and the same in redis.conf",
        )
        .because("nodes of a few entries take more memory than the entries"),
        _ => Verdict::ok(what),
    }
}

async fn ask<T: redis::FromRedisValue>(
    redis: &Redis,
    pipe: &Pipeline,
    command: &str,
) -> Result<T, Unknown> {
    pipe.query_async(&mut redis.connection())
        .await
        .map_err(|error| Unknown::redis(command, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Status;

    #[test]
    fn nodes_are_neither_huge_nor_tiny() {
        let check = |bytes, entries, expected| {
            assert_eq!(judge_nodes(bytes, entries).status, expected);
        };
        check(4096, 100, Status::Ok);
        check(65_536, 0, Status::Ok);
        check(0, 100, Status::Warning);
        check(2 << 20, 100, Status::Warning);
        check(4096, 1, Status::Warning);
    }
}
