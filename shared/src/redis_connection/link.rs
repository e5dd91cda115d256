//! A connection that is made when it is needed, and made again when it broke.

use metrics::Counter;
use redis::{RedisError, aio::MultiplexedConnection};

use super::{
    ConnectError, ExclusiveConnection, RedisRecovery, RedisTimeouts, RedisUrl, connect, recovery,
};

/// At most one connection to a server, owned by one task.
///
/// The link neither waits nor retries: how long to wait before the next attempt is its owner's
/// decision.
pub struct RedisLink<C = MultiplexedConnection> {
    url: RedisUrl,
    timeouts: RedisTimeouts,
    connection: Option<C>,
    n_connections: Counter,
}

/// A connection that a link can make.
pub trait Connect: Sized {
    /// Makes it.
    fn connect(
        url: &RedisUrl,
        timeouts: RedisTimeouts,
    ) -> impl Future<Output = Result<Self, ConnectError>> + Send;
}

impl Connect for MultiplexedConnection {
    async fn connect(url: &RedisUrl, timeouts: RedisTimeouts) -> Result<Self, ConnectError> {
        connect(url, timeouts).await
    }
}

impl RedisLink {
    /// A link that is not connected yet, over a connection of the driver's.
    pub fn new(url: RedisUrl, timeouts: RedisTimeouts) -> Self {
        Self::unconnected(url, timeouts)
    }
}

impl RedisLink<ExclusiveConnection> {
    /// A link that is not connected yet, over a connection for long replies.
    pub fn exclusive(url: RedisUrl, timeouts: RedisTimeouts) -> Self {
        Self::unconnected(url, timeouts)
    }
}

impl<C: Connect> RedisLink<C> {
    fn unconnected(url: RedisUrl, timeouts: RedisTimeouts) -> Self {
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
    pub async fn get(&mut self) -> Result<&mut C, ConnectError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let connection = C::connect(&self.url, self.timeouts).await?;
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

impl<C> std::fmt::Debug for RedisLink<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisLink")
            .field("url", &self.url)
            .field("connected", &self.connection.is_some())
            .finish_non_exhaustive()
    }
}
