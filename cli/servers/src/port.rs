//! Finds a port for a server, knowing that somebody else may be faster.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io,
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    path::Path,
};

use rustix::process::Pid;

use crate::{
    error::ServerError,
    find::Kind,
    supervisor::{Supervisor, Unready},
};

/// Between our choosing a port and the server's binding it, anyone can take it.
const N_ATTEMPTS: u32 = 8;
/// Below the ports that Linux and macOS give to outgoing connections.
const PORTS: Range<u16> = 15_000..30_000;
const N_PORTS_TRIED: u32 = 1_000;

/// Starts the server on a free port and returns that port.
///
/// `configure` writes the port where the server will read it.
pub(crate) fn start(
    supervisor: &mut Supervisor,
    kind: Kind,
    mut configure: impl FnMut(&Path, u16) -> Result<(), ServerError>,
    is_ready: impl Fn(u16, &Path, Pid) -> bool,
) -> Result<u16, ServerError> {
    let mut attempt = 1;
    loop {
        let port = free_port().map_err(|source| ServerError::Port { kind, source })?;
        configure(supervisor.dir(), port)?;
        match supervisor.start(|dir, pid| is_ready(port, dir, pid)) {
            Ok(()) => return Ok(port),
            Err(Unready::Exited) if attempt < N_ATTEMPTS && lost_race(supervisor) => attempt += 1,
            Err(unready) => return Err(supervisor.unready(&unready)),
        }
    }
}

fn lost_race(supervisor: &Supervisor) -> bool {
    supervisor.log_tail().contains("Address already in use")
}

/// A port that nobody listens on.
///
/// Not one that the kernel chooses: those it also gives to outgoing connections, and one of them would
/// have the port when a killed server is to be restarted on it.
fn free_port() -> io::Result<u16> {
    let mut n_tried = 0;
    loop {
        let span = u64::from(PORTS.end - PORTS.start);
        let offset = RandomState::new().build_hasher().finish() % span;
        let port = PORTS.start + u16::try_from(offset).expect("the span is one of ports");
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) if n_tried == N_PORTS_TRIED => return Err(error),
            Err(_) => n_tried += 1,
        }
    }
}
