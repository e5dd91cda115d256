//! The address of a Redis server, which may hold a password and so is never printed whole.

use std::{fmt, str::FromStr};

/// A `redis://`, `rediss://` or `redis+unix://` URL.
///
/// `Display` and `Debug` leave out the password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

/// A text that is no Redis URL. It may hold a password, so it is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a Redis URL ({reason}): expected redis://[user:password@]host[:port][/db], rediss://… for TLS, or redis+unix:///path"
)]
pub struct InvalidRedisUrl {
    reason: String,
}

impl RedisUrl {
    /// The password, for whoever must strike it out of a text.
    pub fn password(&self) -> Option<String> {
        use redis::IntoConnectionInfo;
        let info = self.0.as_str().into_connection_info().ok()?;
        info.redis_settings().password().map(str::to_owned)
    }

    /// The URL with its password, for the driver alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for RedisUrl {
    type Err = InvalidRedisUrl;

    fn from_str(s: &str) -> Result<Self, InvalidRedisUrl> {
        use redis::IntoConnectionInfo;
        match s.into_connection_info() {
            Ok(_) => Ok(Self(s.to_owned())),
            Err(error) => Err(InvalidRedisUrl {
                reason: error.category().to_owned(),
            }),
        }
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return f.write_str("redis");
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let path = path.split('?').next().unwrap_or_default();
        match authority.rsplit_once('@') {
            Some((user_info, host)) => {
                let user = user_info.split(':').next().unwrap_or_default();
                write!(f, "{scheme}://{user}:***@{host}{path}")
            }
            None => write!(f, "{scheme}://{authority}{path}"),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let url: RedisUrl = "redis://me:s3cr3t@example.org:6380/2?password=s3cr3t"
            .parse()
            .unwrap();
        assert_eq!(url.to_string(), "redis://me:***@example.org:6380/2");
        assert_eq!(format!("{url:?}"), "redis://me:***@example.org:6380/2");
        assert!(url.expose().contains("s3cr3t"));
        assert!("postgres://me:s3cr3t@x".parse::<RedisUrl>().is_err());
    }
}
