//! The two servers, as far as they can be reached, with what many checks ask for.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use passerby_shared::{
    ErrorChain,
    redis_connection::{RedisTimeouts, RedisUrl, connect},
};
use redis::{Cmd, ConnectionAddr, FromRedisValue, IntoConnectionInfo, aio::MultiplexedConnection};
use tokio_postgres::{
    Client, Row,
    config::Host,
    types::{ToSql, Type},
};

use super::{
    DoctorConfig,
    check::{Unknown, Verdict},
};
use crate::{
    store::{DatabaseUrl, HISTORY_TABLE, Store},
    worker::redis_advice,
};

/// What is examined.
pub(in crate::ops) struct Patient<'a> {
    pub(in crate::ops) config: &'a DoctorConfig,
    redis: Result<Redis, Unreachable>,
    postgres: Result<Postgres, Unreachable>,
}

/// A server that is not there.
struct Unreachable {
    server: &'static str,
    what: String,
    fix: String,
}

impl Unreachable {
    fn not_asked(server: &'static str) -> Self {
        Self {
            server,
            what: format!("nobody says where {server} is"),
            fix: String::new(),
        }
    }

    fn as_verdict(&self) -> Verdict {
        Verdict::problem(self.what.clone(), self.fix.clone())
    }

    fn as_unknown(&self) -> Unknown {
        Unknown::new(format!("{} cannot be reached", self.server))
    }
}

/// A Redis that answers.
pub(in crate::ops) struct Redis {
    pub(super) url: RedisUrl,
    connection: MultiplexedConnection,
    info: Result<HashMap<String, String>, String>,
}

/// A Postgres that answers.
pub(in crate::ops) struct Postgres {
    pub(super) url: DatabaseUrl,
    client: Client,
    settings: HashMap<String, String>,
}

impl<'a> Patient<'a> {
    /// Connects to both servers, as far as the checks need them.
    pub(in crate::ops) async fn admit(config: &'a DoctorConfig) -> Self {
        let (redis, postgres) = tokio::join!(
            async {
                match &config.redis_url {
                    Some(url) if config.selection.needs_redis() => {
                        Redis::connect(url, config.timeout).await
                    }
                    _ => Err(Unreachable::not_asked("Redis")),
                }
            },
            async {
                match &config.database_url {
                    Some(url) if config.selection.needs_postgres() => {
                        Postgres::connect(url, config.timeout).await
                    }
                    _ => Err(Unreachable::not_asked("Postgres")),
                }
            },
        );
        Self {
            config,
            redis,
            postgres,
        }
    }

    /// Redis, for a check that can do nothing without it.
    pub(in crate::ops) fn redis(&self) -> Result<&Redis, Unknown> {
        self.redis.as_ref().map_err(Unreachable::as_unknown)
    }

    /// Postgres, for a check that can do nothing without it.
    pub(in crate::ops) fn postgres(&self) -> Result<&Postgres, Unknown> {
        self.postgres.as_ref().map_err(Unreachable::as_unknown)
    }

    /// Redis, or what is to be said of its absence.
    pub(super) fn redis_or_problem(&self) -> Result<&Redis, Verdict> {
        self.redis.as_ref().map_err(Unreachable::as_verdict)
    }

    /// Postgres, or what is to be said of its absence.
    pub(super) fn postgres_or_problem(&self) -> Result<&Postgres, Verdict> {
        self.postgres.as_ref().map_err(Unreachable::as_verdict)
    }
}

impl Redis {
    async fn connect(url: &RedisUrl, limit: Duration) -> Result<Self, Unreachable> {
        let timeouts = RedisTimeouts {
            connect: limit,
            response: limit,
        };
        let mut connection = connect(url, timeouts).await.map_err(|error| Unreachable {
            server: "Redis",
            what: ErrorChain(&error).to_string(),
            fix: redis_advice(error.redis_error()),
        })?;
        let info: Result<String, _> = redis::cmd("INFO").query_async(&mut connection).await;
        let info = match info {
            Ok(text) => Ok(fields(&text)),
            // Connecting sends nothing; it is the first command that hears of a missing password.
            Err(error) if matches!(error.code(), Some("NOAUTH" | "WRONGPASS")) => {
                return Err(Unreachable {
                    server: "Redis",
                    what: format!("{url}: {}", ErrorChain(&error)),
                    fix: redis_advice(&error),
                });
            }
            Err(error) => Err(format!("INFO: {}", ErrorChain(&error))),
        };
        Ok(Self {
            url: url.clone(),
            connection,
            info,
        })
    }

    /// A field of `INFO`; `None` where this server has none of that name.
    pub(super) fn info(&self, name: &str) -> Result<Option<&str>, Unknown> {
        match &self.info {
            Ok(fields) => Ok(fields.get(name).map(String::as_str)),
            Err(reason) => {
                Err(Unknown::new(reason.clone()).fix("grant the user `+info` to have this checked"))
            }
        }
    }

    /// A field of `INFO` that is needed.
    pub(super) fn needed_info(&self, name: &str) -> Result<&str, Unknown> {
        self.info(name)?
            .ok_or_else(|| Unknown::new(format!("INFO of this server has no {name}")))
    }

    /// A field of `INFO` that is a number.
    pub(super) fn number(&self, name: &str) -> Result<u64, Unknown> {
        let text = self.needed_info(name)?;
        text.parse()
            .map_err(|_| Unknown::new(format!("INFO says {name}:{text}, which is no number")))
    }

    /// Runs a command.
    pub(in crate::ops) async fn query<T: FromRedisValue>(
        &self,
        command: &Cmd,
    ) -> redis::RedisResult<T> {
        command.query_async(&mut self.connection.clone()).await
    }

    /// A connection, which shares the one there is.
    pub(super) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    /// A setting. Managed servers keep `CONFIG` to themselves.
    pub(in crate::ops) async fn setting(&self, name: &str) -> Result<String, Unknown> {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg(name);
        let found: HashMap<String, String> = self
            .query(&command)
            .await
            .map_err(|error| Unknown::redis("CONFIG GET", &error))?;
        found
            .into_values()
            .next()
            .ok_or_else(|| Unknown::new(format!("this server has no setting {name}")))
    }
}

/// `name:value` on each line.
fn fields(info: &str) -> HashMap<String, String> {
    info.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim_end().to_owned()))
        .collect()
}

/// Every setting, as a session of this role has it.
const SETTINGS: &str = "SELECT name, setting FROM pg_settings";

/// Nothing here may wait behind somebody's lock, or work for long; and nothing may stay behind on a
/// connection that a pooler gives to others.
const BEGIN: &str = "BEGIN READ ONLY; SET LOCAL lock_timeout = '500ms'; \
                     SET LOCAL statement_timeout = '2s'";

impl Postgres {
    async fn connect(url: &DatabaseUrl, limit: Duration) -> Result<Self, Unreachable> {
        let unreachable = |what: String, advice: Option<String>| Unreachable {
            server: "Postgres",
            what,
            fix: advice.unwrap_or_else(|| "look into the server's log".to_owned()),
        };
        let client = Store::open_client(url, limit)
            .await
            .map_err(|error| unreachable(ErrorChain(&error).to_string(), error.advice()))?;
        let looking = client.query_typed(SETTINGS, &[]);
        let rows = match tokio::time::timeout(limit, looking).await {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => {
                return Err(unreachable(format!("{url}: {}", ErrorChain(&error)), None));
            }
            Err(_) => {
                return Err(unreachable(
                    format!("{url}: no answer within {} s", limit.as_secs_f32()),
                    None,
                ));
            }
        };
        Ok(Self {
            url: url.clone(),
            client,
            settings: rows.iter().map(|row| (row.get(0), row.get(1))).collect(),
        })
    }

    /// A setting as the server had it before this connection changed any, in the unit of `pg_settings`;
    /// `None` where this version has none of that name, or keeps it from this role.
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// A setting that is needed.
    pub(super) fn needed_setting(&self, name: &str) -> Result<&str, Unknown> {
        self.setting(name).ok_or_else(|| {
            Unknown::new(format!("this role does not see the setting {name}"))
                .fix("GRANT pg_read_all_settings to the role to have this checked")
        })
    }

    /// Runs a query with an unnamed statement, which a pooler lets through, too.
    pub(in crate::ops) async fn query(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, Unknown> {
        // The three leave together when they are first polled, so that nothing of another check comes
        // between.
        let (begun, rows, ended) = tokio::join!(
            self.client.batch_execute(BEGIN),
            self.client.query_typed(sql, parameters),
            self.client.batch_execute("ROLLBACK"),
        );
        begun?;
        let rows = rows?;
        ended?;
        Ok(rows)
    }

    /// Checks about tables are about those of a schema that is there.
    pub(super) async fn has_schema(&self) -> Result<(), Unknown> {
        let row = self
            .one(
                &format!("SELECT to_regclass('{HISTORY_TABLE}') IS NOT NULL"),
                &[],
            )
            .await?;
        if row.get(0) {
            Ok(())
        } else {
            Err(Unknown::new("there is no schema of Passerby"))
        }
    }

    /// The role that matters: the one that is named, else the one that asks.
    pub(super) async fn role(&self, named: Option<&str>) -> Result<String, Unknown> {
        match named {
            Some(name) => Ok(name.to_owned()),
            None => Ok(self.one("SELECT current_user::text", &[]).await?.get(0)),
        }
    }

    /// Runs a query that has one row.
    pub(super) async fn one(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Row, Unknown> {
        let rows = self.query(sql, parameters).await?;
        rows.into_iter()
            .next()
            .ok_or_else(|| Unknown::new("Postgres answers without a row"))
    }
}

/// How a client reaches a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Over a socket of this host.
    Local,
    /// Within a private network.
    Private,
    /// Over addresses that the world can reach.
    Public,
}

impl Way {
    fn of(addresses: &[IpAddr]) -> Self {
        let way = |address: &IpAddr| match address.to_canonical() {
            address if address.is_loopback() => Self::Local,
            IpAddr::V4(v4) if v4.is_private() || v4.is_link_local() => Self::Private,
            // 100.64.0.0/10, which overlay networks use.
            IpAddr::V4(v4) if v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64 => Self::Private,
            IpAddr::V6(v6) if v6.is_unique_local() || v6.is_unicast_link_local() => Self::Private,
            _ => Self::Public,
        };
        let ways: Vec<Self> = addresses.iter().map(way).collect();
        if ways.contains(&Self::Public) || ways.is_empty() {
            Self::Public
        } else if ways.contains(&Self::Private) {
            Self::Private
        } else {
            Self::Local
        }
    }

    async fn to_host(host: &str, port: u16) -> Result<Self, Unknown> {
        let found = tokio::net::lookup_host((host, port))
            .await
            .map_err(|error| Unknown::new(format!("look up {host}: {error}")))?;
        let addresses: Vec<IpAddr> = found.map(|a: SocketAddr| a.ip()).collect();
        Ok(Self::of(&addresses))
    }

    /// How Redis is reached, and whether over TLS.
    pub(super) async fn to_redis(url: &RedisUrl) -> Result<(Self, bool), Unknown> {
        let info = url
            .expose()
            .into_connection_info()
            .map_err(|error| Unknown::new(error.category().to_owned()))?;
        match info.addr() {
            ConnectionAddr::Unix(_) => Ok((Self::Local, false)),
            ConnectionAddr::Tcp(host, port) => Ok((Self::to_host(host, *port).await?, false)),
            ConnectionAddr::TcpTls { host, port, .. } => {
                Ok((Self::to_host(host, *port).await?, true))
            }
            _ => Err(Unknown::new("an address of a kind that is not known here")),
        }
    }

    /// How Postgres is reached.
    pub(super) async fn to_postgres(url: &DatabaseUrl) -> Result<Self, Unknown> {
        let mut worst = Self::Local;
        for (host, port) in url.hosts() {
            let way = match host {
                Host::Tcp(name) => Self::to_host(&name, port).await?,
                #[cfg(unix)]
                Host::Unix(_) => Self::Local,
            };
            if way != Self::Local && worst != Self::Public {
                worst = way;
            }
        }
        Ok(worst)
    }

    /// For people.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "on this host",
            Self::Private => "within a private network",
            Self::Public => "over public addresses",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_as_public_as_its_most_public_address() {
        let check = |addresses: &[&str], expected| {
            let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
            assert_eq!(Way::of(&addresses), expected, "{addresses:?}");
        };
        check(&["127.0.0.1", "::1"], Way::Local);
        check(&["127.0.0.1", "10.0.0.1"], Way::Private);
        check(&["172.18.0.3"], Way::Private);
        check(&["100.64.3.1"], Way::Private);
        check(&["fd00::1"], Way::Private);
        check(&["::ffff:192.168.1.1"], Way::Private);
        check(&["10.0.0.1", "203.0.113.7"], Way::Public);
        check(&["2001:db8::1"], Way::Public);
        check(&[], Way::Public);
    }
}
