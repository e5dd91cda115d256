//! The address of a Postgres database, which may hold a password and so is never printed whole.

use std::{fmt, str::FromStr, sync::Arc};

use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};

/// A `postgresql://` URL, or libpq's `key=value` form.
///
/// `Display` and `Debug` show user, host, port and database only.
#[derive(Clone, PartialEq)]
pub struct DatabaseUrl(Arc<Config>);

/// A text that names no database. It may hold a password, so it is not repeated.
#[derive(Debug, thiserror::Error)]
#[error(
    "not a Postgres URL: expected postgresql://[user[:password]@]host[:port]/database[?sslmode=disable|prefer|require]"
)]
pub struct InvalidDatabaseUrl {
    #[source]
    source: tokio_postgres::Error,
}

impl DatabaseUrl {
    /// The driver's configuration, with the password.
    pub(super) fn config(&self) -> &Config {
        &self.0
    }

    /// The database's name: the user's where the URL gives none.
    pub fn database(&self) -> &str {
        self.0
            .get_dbname()
            .or(self.0.get_user())
            .unwrap_or("postgres")
    }

    /// The servers to try, each with its port.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = (Host, u16)> {
        let ports = self.0.get_ports();
        let port = move |i| ports.get(i).or_else(|| ports.first()).copied();
        let hosts = self.0.get_hosts().iter().enumerate();
        hosts.map(move |(i, host)| (host.clone(), port(i).unwrap_or(5432)))
    }

    /// The password, for whoever must strike it out of a text.
    pub(crate) fn password(&self) -> Option<String> {
        let password = self.0.get_password()?;
        Some(String::from_utf8_lossy(password).into_owned())
    }

    /// How `sslmode` says to encrypt.
    pub(crate) fn ssl_mode(&self) -> SslMode {
        self.0.get_ssl_mode()
    }

    /// The same server with another database.
    #[must_use]
    pub fn with_database(&self, name: &str) -> Self {
        let mut config = Config::clone(&self.0);
        config.dbname(name);
        Self(Arc::new(config))
    }
}

impl FromStr for DatabaseUrl {
    type Err = InvalidDatabaseUrl;

    fn from_str(s: &str) -> Result<Self, InvalidDatabaseUrl> {
        s.parse::<Config>()
            .map(|config| Self(Arc::new(config)))
            .map_err(|source| InvalidDatabaseUrl { source })
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgresql://")?;
        if let Some(user) = self.0.get_user() {
            write!(f, "{user}@")?;
        }
        for (i, host) in self.0.get_hosts().iter().enumerate() {
            let separator = if i == 0 { "" } else { "," };
            match host {
                Host::Tcp(name) => write!(f, "{separator}{name}")?,
                #[cfg(unix)]
                Host::Unix(path) => write!(f, "{separator}{}", path.display())?,
            }
            let ports = self.0.get_ports();
            if let Some(port) = ports.get(i).or_else(|| ports.first()) {
                write!(f, ":{port}")?;
            }
        }
        write!(f, "/{}", self.database())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let url: DatabaseUrl = "postgresql://me:s3cr3t@db.example.org:5433/passerby"
            .parse()
            .unwrap();
        assert_eq!(
            url.to_string(),
            "postgresql://me@db.example.org:5433/passerby"
        );
        assert!(!format!("{url:?}").contains("s3cr3t"));
        let error = "postgresql://me:s3cr3t@h/x?nonsense=1"
            .parse::<DatabaseUrl>()
            .unwrap_err();
        assert!(!error.to_string().contains("s3cr3t"));
    }
}
