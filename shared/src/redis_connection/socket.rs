//! The way to a server: TCP, TLS over TCP, or a Unix socket.

use std::{io, sync::Arc};

use ::redis::{ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, io::tcp::socket2::SockRef};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;

/// What bytes are exchanged over.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Socket for S {}

/// Opens one, as the driver opens its own.
pub(super) async fn open(info: &ConnectionInfo) -> Result<Box<dyn Socket>, RedisError> {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) => Ok(Box::new(open_tcp(host, *port, info).await?)),
        ConnectionAddr::TcpTls { insecure: true, .. } => Err(RedisError::from((
            ErrorKind::InvalidClientConfig,
            "a certificate is always verified: leave out `#insecure`",
        ))),
        ConnectionAddr::TcpTls { host, port, .. } => {
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            let tcp = open_tcp(host, *port, info).await?;
            let connector = TlsConnector::from(Arc::new(tls_config()?));
            Ok(Box::new(connector.connect(name, tcp).await?))
        }
        ConnectionAddr::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        _ => Err(RedisError::from((
            ErrorKind::InvalidClientConfig,
            "an address of this kind is not known",
        ))),
    }
}

async fn open_tcp(host: &str, port: u16, info: &ConnectionInfo) -> Result<TcpStream, io::Error> {
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(info.tcp_settings().nodelay())?;
    #[cfg(target_os = "linux")]
    SockRef::from(&tcp).set_tcp_user_timeout(info.tcp_settings().user_timeout())?;
    Ok(tcp)
}

/// Trusts whom the system trusts.
fn tls_config() -> Result<ClientConfig, RedisError> {
    let found = rustls_native_certs::load_native_certs();
    if let Some(error) = found.errors.into_iter().next() {
        return Err(io::Error::other(error).into());
    }
    let mut roots = RootCertStore::empty();
    for certificate in found.certs {
        roots.add(certificate).map_err(io::Error::other)?;
    }
    Ok(ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth())
}
