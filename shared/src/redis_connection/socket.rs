//! The way to a server: TCP, TLS over TCP, or a Unix socket.

use std::{io, net::SocketAddr, sync::Arc};

use ::redis::{ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, io::tcp::socket2::SockRef};
use futures_util::future::select_ok;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream, lookup_host},
};
use tokio_rustls::TlsConnector;

/// What bytes are exchanged over.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Socket for S {}

/// Opens one.
pub(super) async fn open(info: &ConnectionInfo) -> Result<Box<dyn Socket>, RedisError> {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) => open_first(host, *port, info, None).await,
        ConnectionAddr::TcpTls { insecure: true, .. } => Err(RedisError::from((
            ErrorKind::InvalidClientConfig,
            "a certificate is always verified: leave out `#insecure`",
        ))),
        ConnectionAddr::TcpTls { host, port, .. } => {
            let tls = Tls {
                connector: TlsConnector::from(Arc::new(tls_config()?)),
                name: ServerName::try_from(host.clone()).map_err(io::Error::other)?,
            };
            open_first(host, *port, info, Some(&tls)).await
        }
        ConnectionAddr::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        _ => Err(RedisError::from((
            ErrorKind::InvalidClientConfig,
            "an address of this kind is not known",
        ))),
    }
}

/// What TLS needs to know.
struct Tls {
    connector: TlsConnector,
    /// Who the server's certificate must be of.
    name: ServerName<'static>,
}

/// Tries all addresses of a host at once, as the driver does: one of them may be that of a machine that is gone,
/// and would be waited for.
async fn open_first(
    host: &str,
    port: u16,
    info: &ConnectionInfo,
    tls: Option<&Tls>,
) -> Result<Box<dyn Socket>, RedisError> {
    let addresses = lookup_host((host, port)).await?.collect();
    Ok(first_of(addresses, info, tls).await?)
}

async fn first_of(
    addresses: Vec<SocketAddr>,
    info: &ConnectionInfo,
    tls: Option<&Tls>,
) -> io::Result<Box<dyn Socket>> {
    let attempts: Vec<_> = addresses
        .into_iter()
        .map(|address| Box::pin(open_at(address, info, tls)))
        .collect();
    if attempts.is_empty() {
        return Err(io::ErrorKind::HostUnreachable.into());
    }
    let (socket, _others) = select_ok(attempts).await?;
    Ok(socket)
}

async fn open_at(
    address: SocketAddr,
    info: &ConnectionInfo,
    tls: Option<&Tls>,
) -> io::Result<Box<dyn Socket>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(info.tcp_settings().nodelay())?;
    #[cfg(target_os = "linux")]
    SockRef::from(&tcp).set_tcp_user_timeout(info.tcp_settings().user_timeout())?;
    Ok(match tls {
        None => Box::new(tcp),
        Some(Tls { connector, name }) => Box::new(connector.connect(name.clone(), tcp).await?),
    })
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ::redis::IntoConnectionInfo;
    use rcgen::generate_simple_self_signed;
    use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
    use tokio::{net::TcpListener, time::timeout};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// Both ends of TLS to `localhost`.
    fn tls() -> (Tls, TlsAcceptor) {
        let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let tls = Tls {
            connector: TlsConnector::from(Arc::new(client)),
            name: ServerName::try_from("localhost").unwrap(),
        };
        (tls, TlsAcceptor::from(Arc::new(server)))
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_does_not_hold_up_the_others() {
        let bind = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        // It is connected to, and answers no hello.
        let silent = bind().await;
        let listener = bind().await;
        let refuses = bind().await.local_addr().unwrap();
        let addresses = [&silent, &listener].map(|listener| listener.local_addr().unwrap());
        let [no_answer, answers] = addresses;
        let info = "redis://localhost".into_connection_info().unwrap();
        let (tls, acceptor) = tls();
        let accepting = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            acceptor.accept(tcp).await.unwrap()
        });

        let first = |addresses| first_of(addresses, &info, Some(&tls));
        let opened = first(vec![no_answer, refuses, answers]);
        let opened = timeout(Duration::from_secs(30), opened).await;
        assert!(opened.expect("it is not waited for").is_ok());
        accepting.await.unwrap();
        assert!(first(vec![refuses]).await.is_err());
        assert!(first(Vec::new()).await.is_err());
    }
}
