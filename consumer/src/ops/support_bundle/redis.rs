//! What Redis tells.

use std::collections::BTreeMap;

use redis::{Value, from_redis_value};
use serde_json::{Value as Json, json};

use crate::ops::doctor::{Patient, Redis};

/// No password is among them.
const SETTINGS: &[&str] = &[
    "maxmemory",
    "maxmemory-policy",
    "maxclients",
    "timeout",
    "tcp-keepalive",
    "client-output-buffer-limit",
    "client-query-buffer-limit",
    "appendonly",
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "auto-aof-rewrite-percentage",
    "auto-aof-rewrite-min-size",
    "aof-use-rdb-preamble",
    "save",
    "stop-writes-on-bgsave-error",
    "stream-node-max-bytes",
    "stream-node-max-entries",
    "min-replicas-to-write",
    "min-replicas-max-lag",
    "io-threads",
    "hz",
    "lua-time-limit",
    "slowlog-log-slower-than",
    "latency-monitor-threshold",
];

pub(super) async fn info(patient: &Patient<'_>) -> Result<String, String> {
    let redis = patient.redis().map_err(|unknown| unknown.reason)?;
    redis
        .query(redis::cmd("INFO").arg("everything"))
        .await
        .map_err(|error| format!("INFO: {error}"))
}

pub(super) async fn settings(patient: &Patient<'_>) -> Result<String, String> {
    let redis = patient.redis().map_err(|unknown| unknown.reason)?;
    let mut text = String::new();
    for name in SETTINGS {
        let value = match redis.setting(name).await {
            Ok(value) => value,
            Err(unknown) => format!("# {}", unknown.reason),
        };
        text.extend([name, " ", &value, "\n"]);
    }
    Ok(text)
}

pub(super) async fn streams(patient: &Patient<'_>) -> Result<String, String> {
    let redis = patient.redis().map_err(|unknown| unknown.reason)?;
    let mut found = serde_json::Map::new();
    for stream in patient.config.key_prefix.streams(patient.config.shards) {
        let ask = async |words: &[&str]| ask(redis, words).await;
        let stream = stream.as_str();
        let mut about = match ask(&["XINFO", "STREAM", stream]).await {
            Ok(about) => about,
            Err(reason) => {
                found.insert(stream.to_owned(), json!({ "not available": reason }));
                continue;
            }
        };
        // Their fields are rows.
        if let Some(fields) = about.as_object_mut() {
            fields.remove("first-entry");
            fields.remove("last-entry");
        }
        let mut groups = ask(&["XINFO", "GROUPS", stream])
            .await
            .unwrap_or_else(Json::String);
        for group in groups.as_array_mut().into_iter().flatten() {
            let name = group["name"].as_str().unwrap_or_default().to_owned();
            let consumers = ask(&["XINFO", "CONSUMERS", stream, &name]).await;
            group["consumers"] = consumers.unwrap_or_else(Json::String);
        }
        found.insert(
            stream.to_owned(),
            json!({ "stream": about, "groups": groups }),
        );
    }
    super::as_json(&found)
}

async fn ask(redis: &Redis, words: &[&str]) -> Result<Json, String> {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(*word);
    }
    let reply: Value = redis
        .query(&command)
        .await
        .map_err(|error| error.to_string())?;
    Ok(match reply {
        Value::Array(items)
            if items
                .first()
                .is_some_and(|item| matches!(item, Value::Array(_))) =>
        {
            Json::Array(items.into_iter().map(fields).collect())
        }
        Value::Array(items) if items.is_empty() => Json::Array(Vec::new()),
        one => fields(one),
    })
}

/// `name value name value …`
fn fields(reply: Value) -> Json {
    let pairs: BTreeMap<String, Value> = from_redis_value(reply).unwrap_or_default();
    let fields = pairs.into_iter().map(|(name, value)| {
        let value = match value {
            Value::Int(n) => json!(n),
            Value::Nil => Json::Null,
            Value::BulkString(bytes) => json!(String::from_utf8_lossy(&bytes)),
            Value::SimpleString(text) => json!(text),
            // Entries, which are not to be shown.
            _ => Json::Null,
        };
        (name, value)
    });
    Json::Object(fields.collect())
}
