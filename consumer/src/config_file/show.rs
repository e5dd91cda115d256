//! Which settings hold, and where each comes from.

use std::fmt;

use clap::{ArgMatches, Command, parser::ValueSource};
use passerby_shared::redis_connection::RedisUrl;
use serde::Serialize;

use super::{ConfigFile, Program, key_of, settings};
use crate::store::DatabaseUrl;

/// A setting that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Shown {
    /// Its name, as flag and in the file.
    pub key: String,
    /// Its value, without passwords; `None` where there is none.
    pub value: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// It was typed.
    Flag,
    /// This variable of the environment.
    Variable(String),
    /// This line of the file.
    Line(usize),
    /// Nobody has said anything.
    Default,
}

impl Shown {
    /// As a line of a file that says the same, with where it comes from as a comment.
    pub fn line(&self) -> String {
        let Self { key, value, origin } = self;
        match value {
            Some(value) => {
                let line = format!("{key} = {}", as_toml(value));
                format!("{line:<48} # {origin}")
            }
            None => format!("# {key} is not set"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("the command line"),
            Self::Variable(name) => f.write_str(name),
            Self::Line(line) => write!(f, "line {line} of the file"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value as TOML has it.
pub(super) fn as_toml(value: &str) -> String {
    let is_bare = value.parse::<u64>().is_ok() || matches!(value, "true" | "false");
    if is_bare {
        value.to_owned()
    } else {
        toml::Value::from(value).to_string()
    }
}

/// The settings of a command and its subcommands as they hold, each once.
///
/// `matches` are of the command line, where the settings stand on it.
pub fn show(
    program: Program,
    command: &Command,
    file: &ConfigFile,
    matches: Option<&ArgMatches>,
) -> Vec<Shown> {
    let mut shown: Vec<Shown> = Vec::new();
    for arg in settings(command) {
        let key = key_of(&arg);
        if shown.iter().any(|known| known.key == key) {
            continue;
        }
        let id = arg.get_id().as_str();
        let alone = Command::new("alone").arg(arg.clone().global(false));
        let asked = match matches {
            Some(matches) => Ok(matches.clone()),
            None => alone.try_get_matches_from(["alone"]),
        };
        let Ok(matches) = asked else {
            // A variable whose value the flag refuses: whoever uses it is told.
            continue;
        };
        let text = matches
            .try_get_raw(id)
            .ok()
            .flatten()
            .and_then(|mut values| values.next())
            .map(|value| value.to_string_lossy().into_owned());
        let variable = arg
            .get_env()
            .map(|name| name.to_string_lossy().into_owned());
        let origin = match (matches.value_source(id), file.get(program, &key), variable) {
            (Some(ValueSource::CommandLine), ..) => Origin::Flag,
            (Some(ValueSource::EnvVariable), _, Some(name)) => Origin::Variable(name),
            (Some(_), Some(value), _) => Origin::Line(value.line),
            _ => Origin::Default,
        };
        let (text, origin) = match text {
            Some(text) => (Some(text), origin),
            None => match fallback(&key) {
                Some((name, text)) => (Some(text), Origin::Variable(name.to_owned())),
                None => (None, origin),
            },
        };
        shown.push(Shown {
            key,
            value: text.map(|text| match arg.is_hide_env_values_set() {
                true => without_password(&text),
                false => text,
            }),
            origin,
        });
    }
    shown
}

/// What many environments name an address by, used where nothing else says it.
fn fallback(key: &str) -> Option<(&'static str, String)> {
    let name = match key {
        "redis-url" => "REDIS_URL",
        "database-url" => "DATABASE_URL",
        _ => return None,
    };
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some((name, text))
}

/// What may be shown of a value that may hold a password.
fn without_password(text: &str) -> String {
    if let Ok(url) = text.parse::<RedisUrl>() {
        return url.to_string();
    }
    match text.parse::<DatabaseUrl>() {
        Ok(url) => url.to_string(),
        Err(_) => "***".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_left_out() {
        let check = |text, expected: &str| assert_eq!(without_password(text), expected);
        check("redis://me:s3cr3t@host/0", "redis://me:***@host/0");
        check(
            "postgresql://me:s3cr3t@host/db",
            "postgresql://me@host:5432/db",
        );
        check("host=h password=s3cr3t", "postgresql://h/postgres");
        check("Bearer s3cr3t", "***");
    }

    #[test]
    fn a_line_can_be_read_again() {
        let check = |value: &str, expected: &str| {
            let shown = Shown {
                key: "key".to_owned(),
                value: Some(value.to_owned()),
                origin: Origin::Default,
            };
            let line = shown.line();
            assert_eq!(line.split(" #").next().unwrap().trim_end(), expected);
            assert!(line.ends_with("# default"));
        };
        check("5000", "key = 5000");
        check("true", "key = true");
        check("2ms", "key = \"2ms\"");
        check("a\"b", "key = 'a\"b'");
    }
}
