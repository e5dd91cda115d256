//! What to do after a Redis command has failed.
//!
//! redis-rs' own classification is made for clusters and calls `OOM`, `NOGROUP`, `READONLY` and
//! others final or retryable in ways that do not fit a stream; so the error code is judged here.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// What to do after a failed command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisRecovery {
    /// The connection is of no more use: make a new one, then try again.
    Reconnect,
    /// The server is alive and cannot serve now (full, failing disk, busy): try again later.
    Wait,
    /// The consumer group or its stream is gone: create it again.
    RecreateGroup,
    /// An operator must act: wrong password, missing permission, a key of another type.
    Stop,
}

/// Judges an error by its code.
pub fn recovery(error: &RedisError) -> RedisRecovery {
    use RedisRecovery::{Reconnect, RecreateGroup, Stop, Wait};
    match error.code() {
        Some("LOADING" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "UNBLOCKED") => {
            Reconnect
        }
        Some("OOM" | "MISCONF" | "NOREPLICAS" | "BUSY") => Wait,
        Some("NOGROUP") => RecreateGroup,
        Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "WRONGTYPE" | "CROSSSLOT") => Stop,
        // "ERR max number of clients reached" closes the connection; any other ERR is a command
        // that this server does not know or does not accept.
        Some("ERR") => match error.detail() {
            Some(detail) if detail.contains("max number of clients") => Reconnect,
            _ => Stop,
        },
        _ => match error.kind() {
            ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => Stop,
            ErrorKind::Server(ServerErrorKind::ResponseError) => Stop,
            _ => Reconnect,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reply: &str, expected: RedisRecovery) {
        let error = redis::parse_redis_value(format!("-{reply}\r\n").as_bytes())
            .and_then(redis::Value::extract_error)
            .unwrap_err();
        assert_eq!(recovery(&error), expected, "{reply}: {error:?}");
    }

    #[test]
    fn each_code_has_its_recovery() {
        use RedisRecovery::{Reconnect, RecreateGroup, Stop, Wait};
        check(
            "READONLY You can't write against a read only replica.",
            Reconnect,
        );
        check("LOADING Redis is loading the dataset in memory", Reconnect);
        check("UNBLOCKED the stream key no longer exists", Reconnect);
        check("ERR max number of clients reached", Reconnect);
        check(
            "OOM command not allowed when used memory > 'maxmemory'.",
            Wait,
        );
        check("MISCONF Redis is configured to save RDB snapshots", Wait);
        check(
            "NOGROUP No such key 'x' or consumer group 'y'",
            RecreateGroup,
        );
        check("WRONGPASS invalid username-password pair", Stop);
        check("NOPERM this user has no permissions", Stop);
        check(
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            Stop,
        );
        check("ERR unknown command 'XADD'", Stop);
    }

    #[test]
    fn a_lost_connection_is_made_again() {
        let error = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!(recovery(&error), RedisRecovery::Reconnect);
    }
}
