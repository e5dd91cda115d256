//! How a connection to Redis is made, and what a failed command means for it.
//!
//! The redis crate's own connection manager is not used: it does not reconnect on `READONLY` or on
//! response timeouts, both of which a failover leaves behind. [`RedisLink`] drops a connection on
//! everything that [`recovery`] does not call harmless, and makes a new one at the next use.
//!
//! Connections are the driver's, except that of whoever reads streams: [`ExclusiveConnection`].

mod exclusive;
mod link;
mod recovery;
mod reply;
mod socket;
mod url;

use std::time::Duration;

use ::redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, RedisError,
    aio::MultiplexedConnection, io::tcp::TcpSettings,
};

pub use exclusive::ExclusiveConnection;
pub use link::{Connect, RedisLink};
pub use recovery::{RedisRecovery, recovery};
pub use reply::Reply;
pub use url::{InvalidRedisUrl, RedisUrl};

/// Longest wait for a connection, its TLS handshake and its greeting.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a reply to a command that does not block.
pub const DEFAULT_RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection waits.
#[derive(Debug, Clone, Copy)]
pub struct RedisTimeouts {
    /// See [`DEFAULT_CONNECT_TIMEOUT`].
    pub connect: Duration,
    /// See [`DEFAULT_RESPONSE_TIMEOUT`].
    pub response: Duration,
}

impl Default for RedisTimeouts {
    fn default() -> Self {
        Self {
            connect: DEFAULT_CONNECT_TIMEOUT,
            response: DEFAULT_RESPONSE_TIMEOUT,
        }
    }
}

/// A connection that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("connect to Redis at {url}")]
pub struct ConnectError {
    url: RedisUrl,
    #[source]
    source: RedisError,
}

impl ConnectError {
    /// What the driver said.
    pub fn redis_error(&self) -> &RedisError {
        &self.source
    }
}

/// Makes a connection.
///
/// # Errors
///
/// [`ConnectError`] when the server cannot be reached, refuses, or does not answer in time.
pub async fn connect(
    url: &RedisUrl,
    timeouts: RedisTimeouts,
) -> Result<MultiplexedConnection, ConnectError> {
    let failed = |source| ConnectError {
        url: url.clone(),
        source,
    };
    let client = Client::open(connection_info(url).map_err(failed)?).map_err(failed)?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeouts.connect))
        .set_response_timeout(Some(timeouts.response));
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    connecting.await.map_err(failed)
}

fn connection_info(url: &RedisUrl) -> Result<ConnectionInfo, RedisError> {
    // rustls has no provider of its own; whoever installed one before us is right.
    drop(rustls::crypto::ring::default_provider().install_default());
    // redis-rs leaves Nagle's algorithm on in 1.x, which delays small commands behind an
    // unacknowledged one.
    let tcp = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(Duration::from_secs(10));
    Ok(url.expose().into_connection_info()?.set_tcp_settings(tcp))
}
