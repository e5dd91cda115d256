//! Asks a worker on this machine how it is, as the health check of a container does.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// Longest wait for an answer, which costs the worker nothing.
const PATIENCE: Duration = Duration::from_secs(3);
/// An answer is one line.
const MAX_BYTES: u64 = 4 * 1024;

/// A worker that is not ready, or does not answer.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// It says why.
    #[error("{0}")]
    Says(String),
    /// Nobody answers there.
    #[error("no worker answers at {address}")]
    Silent {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Asks the worker that listens at this address whether it can store.
///
/// # Errors
///
/// [`NotReady`] with what the worker says of itself.
pub fn ready(listen: SocketAddr) -> Result<(), NotReady> {
    let address = reachable(listen);
    let reply = ask(address).map_err(|source| NotReady::Silent { address, source })?;
    match reply.split_once("\r\n\r\n") {
        Some((head, _)) if head.split_whitespace().nth(1) == Some("200") => Ok(()),
        Some((_, body)) => Err(NotReady::Says(body.trim().to_owned())),
        None => Err(NotReady::Says(format!("no worker: {}", reply.trim()))),
    }
}

/// An address to connect to, of one to listen on: all of a machine's addresses include its own.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // In HTTP/1.0, so that the answer comes in one piece and ends.
    write!(stream, "GET /readyz HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut reply = String::new();
    stream.take(MAX_BYTES).read_to_string(&mut reply)?;
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_listens_everywhere_is_asked_here() {
        let check = |listen: &str, expected: &str| {
            let listen: SocketAddr = listen.parse().unwrap();
            assert_eq!(reachable(listen).to_string(), expected, "{listen}");
        };
        check("0.0.0.0:9464", "127.0.0.1:9464");
        check("[::]:9464", "[::1]:9464");
        check("10.1.2.3:9464", "10.1.2.3:9464");
    }
}
