//! A connection that is made when it is needed, and made again when it broke.

use metrics::Counter;
use redis::{RedisError, aio::MultiplexedConnection};

use super::{ConnectError, RedisRecovery, RedisTimeouts, RedisUrl, connect, recovery};

/// At most one connection to a server, owned by one task.
///
/// The link neither waits nor retries: how long to wait before the next attempt is its owner's
/// decision.
pub struct RedisLink {
    url: RedisUrl,
    timeouts: RedisTimeouts,
    connection: Option<MultiplexedConnection>,
    n_connections: Counter,
}

impl RedisLink {
    /// A link that is not connected yet.
    pub fn new(url: RedisUrl, timeouts: RedisTimeouts) -> Self {
        Self {
            url,
            timeouts,
            connection: None,
            n_connections: Counter::noop(),
        }
    }

    /// Counts the connections that are made.
    #[must_use]
    pub fn counted_by(mut self, n_connections: Counter) -> Self {
        self.n_connections = n_connections;
        self
    }

    /// The connection, made now if there is none.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] when it cannot be made.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a dropped call leaves the link without a connection.
    pub async fn get(&mut self) -> Result<&mut MultiplexedConnection, ConnectError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let connection = connect(&self.url, self.timeouts).await?;
                self.n_connections.increment(1);
                connection
            }
        };
        Ok(self.connection.insert(connection))
    }

    /// Judges a failed command, and drops the connection unless it is still good.
    pub fn judge(&mut self, error: &RedisError) -> RedisRecovery {
        let recovery = recovery(error);
        if recovery == RedisRecovery::Reconnect {
            self.disconnect();
        }
        recovery
    }

    /// Drops the connection; the next [`RedisLink::get`] makes a new one.
    pub fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// The server's address.
    pub fn url(&self) -> &RedisUrl {
        &self.url
    }
}

impl std::fmt::Debug for RedisLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisLink")
            .field("url", &self.url)
            .field("connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}
