//! All that somebody who is to help wants to see, without rows and without passwords.
//!
//! What is asked for is chosen so that no value of a row can be in it: no first or last entry of a stream, no
//! text of a query, no message of a dead letter, of Postgres' settings none that holds free text. Every
//! password that is known here is struck out of all files besides.

mod postgres;
mod redis;

use std::path::PathBuf;

use passerby_shared::redis_connection::{RedisLink, RedisTimeouts};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    DoctorConfig, Target,
    doctor::{self, Patient},
    status,
};
use crate::store::{Store, StoreTimeouts};

/// What goes into a bundle.
#[derive(Debug, Clone)]
pub struct BundleConfig {
    /// The servers, and what workers are configured to do there.
    pub doctor: DoctorConfig,
    /// The settings that hold, without passwords.
    pub settings: String,
    /// A log, of which the end goes in.
    pub log: Option<PathBuf>,
}

/// A file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleFile {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub what: &'static str,
    /// Its text.
    pub text: String,
}

/// The files of a bundle, with what each holds.
pub const BUNDLE_FILES: &[(&str, &str)] = &[
    (
        "versions.txt",
        "this program, this host, and when the bundle was made",
    ),
    (
        "settings.toml",
        "the settings that hold here and where each comes from, without passwords",
    ),
    ("doctor.json", "what `passerby doctor` finds"),
    (
        "status.json",
        "books, backlog, and workers with their last errors",
    ),
    ("redis/info.txt", "INFO of Redis"),
    (
        "redis/config.txt",
        "settings of Redis that matter to streams, without passwords",
    ),
    (
        "redis/streams.json",
        "streams, groups and consumers: numbers and names, no entry",
    ),
    (
        "postgres/settings.json",
        "settings of Postgres that are numbers and switches",
    ),
    (
        "postgres/tables.json",
        "tables and partitions: sizes, rows, when they were vacuumed",
    ),
    (
        "postgres/indices.json",
        "indices: sizes, how often they are used, whether they are valid",
    ),
    (
        "postgres/migrations.json",
        "which migrations were applied when",
    ),
    (
        "postgres/sessions.json",
        "who is connected, in which state, waiting for what; no query",
    ),
    (
        "postgres/dead-letters.json",
        "reasons of the last 200 dead letters; no row and no message",
    ),
    (
        "log.txt",
        "the end of the log that was named, at most 1 MiB",
    ),
];

/// The end of a log is of so many bytes.
const MOST_LOG: u64 = 1 << 20;

/// Collects the files. What cannot be asked for is explained in the place of its file.
///
/// # Cancel safety
///
/// Cancel safe: nothing is changed.
pub async fn support_bundle(config: &BundleConfig) -> Vec<BundleFile> {
    let patient = Patient::admit(&config.doctor).await;
    let mut files = Vec::new();
    for (name, what) in BUNDLE_FILES {
        if *name == "log.txt" && config.log.is_none() {
            continue;
        }
        let text = collect(name, config, &patient).await;
        let text = text.unwrap_or_else(|reason| format!("not available: {reason}\n"));
        files.push(BundleFile {
            name,
            what,
            text: without_passwords(&config.doctor, text),
        });
    }
    files
}

async fn collect(
    name: &str,
    config: &BundleConfig,
    patient: &Patient<'_>,
) -> Result<String, String> {
    match name {
        "versions.txt" => Ok(versions(config)),
        "settings.toml" => Ok(config.settings.clone()),
        "doctor.json" => as_json(&doctor::doctor(&config.doctor).await),
        "status.json" => book(&config.doctor).await,
        "redis/info.txt" => redis::info(patient).await,
        "redis/config.txt" => redis::settings(patient).await,
        "redis/streams.json" => redis::streams(patient).await,
        "log.txt" => end_of_log(config),
        name => postgres::collect(name, patient).await,
    }
}

fn as_json(value: &impl serde::Serialize) -> Result<String, String> {
    serde_json::to_string_pretty(value).map_err(|error| error.to_string())
}

fn versions(config: &BundleConfig) -> String {
    let host = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    format!(
        "passerby {}\nmade at {}\n{} {}\n\n{}\n{}",
        env!("CARGO_PKG_VERSION"),
        (config.doctor.clock)().to_rfc3339(),
        std::env::consts::OS,
        std::env::consts::ARCH,
        host("/proc/version"),
        host("/etc/os-release"),
    )
}

async fn book(config: &DoctorConfig) -> Result<String, String> {
    let (Some(redis_url), Some(database_url)) = (&config.redis_url, &config.database_url) else {
        return Err("nobody says where both servers are".to_owned());
    };
    let timeouts = RedisTimeouts {
        connect: config.timeout,
        response: config.timeout,
    };
    let mut target = Target {
        link: RedisLink::new(redis_url.clone(), timeouts),
        key_prefix: config.key_prefix.clone(),
        streams: config.key_prefix.streams(config.shards),
        group: config.group.clone(),
    };
    let timeouts = StoreTimeouts {
        connect: config.timeout,
        silence: config.timeout,
        operation: config.timeout,
    };
    let mut store = Store::new(database_url.clone(), timeouts);
    as_json(&status(&mut target, &mut store).await)
}

fn end_of_log(config: &BundleConfig) -> Result<String, String> {
    use std::io::{Read, Seek, SeekFrom};
    let Some(path) = &config.log else {
        return Err("no log was named".to_owned());
    };
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MOST_LOG)))?;
        let mut bytes = Vec::new();
        file.take(MOST_LOG).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Strikes out every password that is known here.
fn without_passwords(config: &DoctorConfig, mut text: String) -> String {
    let of_redis = config.redis_url.as_ref().and_then(|url| url.password());
    let of_postgres = config.database_url.as_ref().and_then(|url| url.password());
    for password in [of_redis, of_postgres].into_iter().flatten() {
        // One of a few characters would strike out half of the text, and hide nothing.
        if password.len() > 3 {
            for form in forms(&password) {
                text = text.replace(&form, "***");
            }
        }
    }
    text
}

/// How a password may be written: as it is, in JSON, and in a URL, which some encode more of than they must.
fn forms(password: &str) -> [String; 6] {
    let in_json = serde_json::Value::from(password).to_string();
    let in_url = |set| utf8_percent_encode(password, set).to_string();
    [
        password.to_owned(),
        in_json.trim_matches('"').to_owned(),
        in_url(NON_ALPHANUMERIC),
        in_url(USER_INFO),
        with_small_digits(&in_url(NON_ALPHANUMERIC)),
        with_small_digits(&in_url(USER_INFO)),
    ]
}

/// `%2f` for `%2F`.
fn with_small_digits(encoded: &str) -> String {
    let mut parts = encoded.split('%');
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        shown.push('%');
        shown.push_str(&digits.to_ascii_lowercase());
        shown.push_str(rest);
    }
    shown
}

/// What must be encoded in a password, by the URL standard.
const USER_INFO: &AsciiSet = &CONTROLS
    .add(b'%')
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_struck_out_however_it_is_written() {
        let config = DoctorConfig::new(
            "redis://:a%2Fb%3Fc%22d@localhost".parse().unwrap(),
            "postgresql://gate:p%40ss%25word@localhost/x"
                .parse()
                .unwrap(),
        );
        let text = r#"a/b?c"d a/b?c\"d a%2Fb%3Fc%22d p@ss%word p%40ss%25word a%2fb%3fc%22d rest"#;
        let shown = without_passwords(&config, text.to_owned());
        assert_eq!(shown, "*** *** *** *** *** *** rest");
    }
}
