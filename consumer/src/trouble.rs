//! What operators are told of an error in Redis: its class, and what was being done, without any value.

use std::error::Error;

use chrono::Utc;
use passerby_shared::{ErrorChain, redis_connection::ConnectError};
use redis::RedisError;

use crate::{MostlyBad, WorkerError, presence::Trouble, reader::ReadError, store::StoreError};

/// Classes of SQLSTATE whose messages have no value of a row: they speak of the server, or name a constraint.
const WITHOUT_VALUES: [&str; 11] = [
    "08", "23", "25", "28", "3D", "3F", "40", "42", "53", "55", "57",
];

/// What the server says, without what it says of rows: never its DETAIL, and its message only where that has
/// no value.
pub(crate) fn said_without_values<'a>(sqlstate: &str, message: &'a str) -> Option<&'a str> {
    let mut safe = WITHOUT_VALUES.iter();
    safe.any(|class| sqlstate.starts_with(class))
        .then_some(message)
}

impl StoreError {
    /// What operators are told of it.
    pub(crate) fn trouble(&self) -> Trouble {
        let doing = match self {
            // The rest of the message names the values that are invalid.
            Self::Invalid { .. } => "a row is invalid".to_owned(),
            other => other.to_string(),
        };
        let (class, said) = match self.db_error() {
            Some(db) => {
                let code = db.code().code();
                (code.to_owned(), said_without_values(code, db.message()))
            }
            None if matches!(self, Self::TimedOut { .. }) => ("timeout".to_owned(), None),
            None if self.source().is_some() => ("connection".to_owned(), None),
            None => ("schema".to_owned(), None),
        };
        trouble(class, doing, said)
    }
}

impl ReadError {
    /// What operators are told of it.
    pub(crate) fn trouble(&self) -> Trouble {
        match self {
            Self::Connect(error) => of_connecting(error),
            Self::Redis(error) => of_redis("read from Redis", error),
            Self::Paused { .. } => trouble("paused".to_owned(), self.to_string(), None),
            Self::Reply(_) => trouble("reply".to_owned(), self.to_string(), None),
            Self::TimedOut { .. } => trouble("timeout".to_owned(), self.to_string(), None),
        }
    }
}

impl WorkerError {
    /// The error and its causes, without any value of a row that the server may quote.
    pub fn without_values(&self) -> String {
        match self {
            Self::Store(error) if error.db_error().is_some() => {
                let Trouble { class, message, .. } = error.trouble();
                format!("{self}: {message} (SQLSTATE {class})")
            }
            _ => ErrorChain(self).to_string(),
        }
    }

    /// What operators are told of it.
    pub(crate) fn trouble(&self) -> Trouble {
        match self {
            Self::Store(error) => error.trouble(),
            Self::Read(error) => error.trouble(),
            Self::Connect(error) => of_connecting(error),
            Self::Ack(error) => of_redis("acknowledge entries", error),
            Self::Prepare { source, .. } => of_redis("prepare a stream", source),
            Self::MostlyBad(MostlyBad {
                n_bad, n_entries, ..
            }) => {
                let said = format!("{n_bad} of the last {n_entries} entries cannot be stored");
                trouble("mostly-bad".to_owned(), said, None)
            }
            Self::Config(_) => trouble("configuration".to_owned(), self.to_string(), None),
            Self::Panic(_) => trouble("panic".to_owned(), self.to_string(), None),
            Self::Unfinished { .. } => trouble("unfinished".to_owned(), self.to_string(), None),
        }
    }
}

fn of_connecting(error: &ConnectError) -> Trouble {
    let class = error.redis_error().code().unwrap_or("connection");
    trouble(class.to_owned(), error.to_string(), None)
}

fn of_redis(doing: &str, error: &RedisError) -> Trouble {
    let class = error.code().unwrap_or("connection");
    trouble(class.to_owned(), doing.to_owned(), error.detail())
}

fn trouble(class: String, doing: String, said: Option<&str>) -> Trouble {
    let message = match said {
        Some(said) => format!("{doing}: {said}"),
        None => doing,
    };
    Trouble {
        at: Utc::now(),
        class,
        message,
    }
}
