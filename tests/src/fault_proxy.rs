use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// Bytes that one connection holds in one direction, whatever the fault.
const BUFFER_BYTES: usize = 16 * 1024;

/// What a [`FaultProxy`] does to the connections that it carries.
///
/// A pattern is looked for in what clients send, also where it is split over packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Bytes of this direction go nowhere until the fault is over, and then arrive late: a network
    /// that loses packets while TCP tries again.
    BlackHole(Direction),
    /// Connections are cut, and new ones as soon as they are made.
    Refuse,
    /// The connection that brings the bytes from clients, counted from now on, to this number is cut
    /// there. Happens once.
    CutAfter(usize),
    /// The connection is cut when the client sends the pattern, whose end the server never sees.
    /// Happens once.
    CutBefore(&'static [u8]),
    /// The client's bytes from the pattern on are held until the fault is over.
    HoldBefore(&'static [u8]),
    /// The pattern reaches the server, and the server's answer to it, instead of reaching the
    /// client, ends the connection. Happens once.
    LoseReplyTo(&'static [u8]),
}

impl Fault {
    /// `COMMIT`, as Postgres' drivers send it: a message that holds nothing else.
    pub const COMMIT: &'static [u8] = b"Q\0\0\0\x0bCOMMIT\0";
    /// `XACK`, as Redis' drivers send it.
    pub const XACK: &'static [u8] = b"$4\r\nXACK\r\n";
}

/// A direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
    /// Both ways.
    Both,
}

impl Direction {
    fn covers(self, other: Self) -> bool {
        self == Self::Both || self == other
    }
}

/// Stands before a server of this machine and breaks connections at a chosen place of the
/// conversation. It lives as long as its value.
#[derive(Debug)]
pub struct FaultProxy {
    port: u16,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct State {
    fault: watch::Sender<Fault>,
    /// How often a pattern or a number of bytes was met.
    n_met: watch::Sender<usize>,
    /// Bytes from clients since the fault was set.
    n_bytes: watch::Sender<usize>,
}

impl FaultProxy {
    /// A proxy of the server on this port of 127.0.0.1, on a port of its own.
    pub async fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            fault: watch::Sender::new(Fault::None),
            n_met: watch::Sender::new(0),
            n_bytes: watch::Sender::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server_port, Arc::clone(&state)));
        Self {
            port,
            state,
            _tasks: tasks,
        }
    }

    /// The port that clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sets the fault, in the place of the one before.
    pub fn set(&self, fault: Fault) {
        self.state.n_met.send_replace(0);
        self.state.n_bytes.send_replace(0);
        self.state.fault.send_replace(fault);
    }

    /// Ends the fault.
    pub fn heal(&self) {
        self.state.fault.send_replace(Fault::None);
    }

    /// Cuts all connections once; new ones are carried.
    pub async fn cut_all(&self) {
        self.set(Fault::Refuse);
        // The connections' tasks see the change before this one goes on.
        tokio::task::yield_now().await;
        self.heal();
    }

    /// Waits until the fault's pattern or number of bytes was met.
    pub async fn met(&self) {
        let mut n_met = self.state.n_met.subscribe();
        let met = n_met.wait_for(|n| *n > 0);
        tokio::time::timeout(std::time::Duration::from_secs(30), met)
            .await
            .unwrap_or_else(|_| panic!("{:?} was not met in 30 s", *self.state.fault.borrow()))
            .unwrap();
    }

    /// Whether the fault's pattern or number of bytes was met.
    pub fn was_met(&self) -> bool {
        *self.state.n_met.borrow() > 0
    }

    /// Bytes that came from clients since the fault was set.
    pub fn n_bytes(&self) -> usize {
        *self.state.n_bytes.borrow()
    }
}

async fn accept(listener: TcpListener, server_port: u16, state: Arc<State>) {
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.unwrap();
                connections.spawn(carry(client, server_port, Arc::clone(&state)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries one connection until an end of it goes, or it is cut.
async fn carry(client: TcpStream, server_port: u16, state: Arc<State>) {
    let mut fault = state.fault.subscribe();
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port)).await else {
        return;
    };
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let reply_is_lost = AtomicBool::new(false);
    let pump = |direction| Pump {
        direction,
        state: &state,
        reply_is_lost: &reply_is_lost,
        seen: Vec::new(),
    };
    tokio::select! {
        () = pump(Direction::ToServer).run(from_client, to_server) => {}
        () = pump(Direction::ToClient).run(from_server, to_client) => {}
        _ = fault.wait_for(|fault| *fault == Fault::Refuse) => {}
    }
}

/// One direction of one connection.
struct Pump<'a> {
    direction: Direction,
    state: &'a State,
    reply_is_lost: &'a AtomicBool,
    /// The last bytes, in case they begin a pattern.
    seen: Vec<u8>,
}

enum Verdict {
    /// So many bytes may go on.
    Forward(usize),
    /// Ask again when the fault changes.
    Hold,
    /// So many bytes may go on, then the connection ends.
    Cut(usize),
}

impl Pump<'_> {
    async fn run(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut fault = self.state.fault.subscribe();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let n = match from.read(&mut buffer).await {
                Ok(n) if n > 0 => n,
                _ => return,
            };
            let mut is_held = false;
            let verdict = loop {
                let now = fault.borrow_and_update().clone();
                match self.judge(&now, &buffer[..n], is_held) {
                    Verdict::Hold => is_held = true,
                    verdict => break verdict,
                }
                if fault.changed().await.is_err() {
                    return;
                }
            };
            let (Verdict::Forward(n_forward) | Verdict::Cut(n_forward)) = verdict else {
                return;
            };
            if to.write_all(&buffer[..n_forward]).await.is_err()
                || matches!(verdict, Verdict::Cut(_))
            {
                return;
            }
            self.remember(&buffer[..n]);
        }
    }

    fn judge(&self, fault: &Fault, bytes: &[u8], is_held: bool) -> Verdict {
        let all = Verdict::Forward(bytes.len());
        if self.direction == Direction::ToClient {
            return match fault {
                _ if self.reply_is_lost.load(SeqCst) => Verdict::Cut(0),
                Fault::BlackHole(direction) if direction.covers(self.direction) => Verdict::Hold,
                _ => all,
            };
        }
        let mut n_before = 0;
        if !is_held {
            self.state.n_bytes.send_modify(|n| {
                n_before = *n;
                *n += bytes.len();
            });
        }
        match *fault {
            Fault::None => all,
            Fault::Refuse => Verdict::Cut(0),
            Fault::BlackHole(direction) if direction.covers(self.direction) => Verdict::Hold,
            Fault::BlackHole(_) => all,
            Fault::CutAfter(limit) if n_before + bytes.len() > limit => {
                self.meet_once(fault);
                Verdict::Cut(limit - n_before.min(limit))
            }
            Fault::CutAfter(_) => all,
            Fault::CutBefore(pattern) if self.is_in(pattern, bytes) => {
                self.meet_once(fault);
                Verdict::Cut(0)
            }
            Fault::HoldBefore(pattern) if self.is_in(pattern, bytes) => {
                self.state.n_met.send_modify(|n| *n += 1);
                Verdict::Hold
            }
            Fault::LoseReplyTo(pattern) if self.is_in(pattern, bytes) => {
                self.meet_once(fault);
                self.reply_is_lost.store(true, SeqCst);
                all
            }
            Fault::CutBefore(_) | Fault::HoldBefore(_) | Fault::LoseReplyTo(_) => all,
        }
    }

    /// Ends a fault that happens once.
    fn meet_once(&self, fault: &Fault) {
        self.state.n_met.send_modify(|n| *n += 1);
        self.state.fault.send_if_modified(|now| {
            let is_mine = now == fault;
            if is_mine {
                *now = Fault::None;
            }
            is_mine
        });
    }

    /// Whether the pattern ends within these bytes.
    fn is_in(&self, pattern: &[u8], bytes: &[u8]) -> bool {
        let joint = [&self.seen, bytes].concat();
        let first = self.seen.len().saturating_sub(pattern.len() - 1);
        joint[first..]
            .windows(pattern.len())
            .any(|window| window == pattern)
    }

    fn remember(&mut self, bytes: &[u8]) {
        const LONGEST_PATTERN: usize = 64;
        self.seen.extend_from_slice(bytes);
        let n_old = self.seen.len().saturating_sub(LONGEST_PATTERN);
        self.seen.drain(..n_old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually;

    /// A server that answers every byte with the same byte, behind a proxy.
    struct Echo {
        proxy: FaultProxy,
        _server: JoinSet<()>,
    }

    impl Echo {
        async fn start() -> Self {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let mut server = JoinSet::new();
            server.spawn(async move {
                let mut echoes = JoinSet::new();
                loop {
                    let (connection, _) = listener.accept().await.unwrap();
                    echoes.spawn(async move {
                        let (mut read, mut write) = connection.into_split();
                        tokio::io::copy(&mut read, &mut write).await.unwrap_or(0)
                    });
                }
            });
            Self {
                proxy: FaultProxy::start(port).await,
                _server: server,
            }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.proxy.port()))
                .await
                .unwrap()
        }
    }

    /// What comes back before the connection ends.
    async fn rest(mut connection: TcpStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 64];
        while let Ok(n @ 1..) = connection.read(&mut buffer).await {
            bytes.extend_from_slice(&buffer[..n]);
        }
        bytes
    }

    async fn ask(connection: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
        connection.write_all(bytes).await.unwrap();
        let mut reply = vec![0; bytes.len()];
        connection.read_exact(&mut reply).await.unwrap();
        reply
    }

    #[tokio::test]
    async fn without_a_fault_bytes_come_through() {
        let echo = Echo::start().await;
        assert_eq!(ask(&mut echo.connect().await, b"hello").await, b"hello");
    }

    #[tokio::test]
    async fn a_black_hole_delays_and_keeps_all() {
        for direction in [Direction::ToServer, Direction::ToClient, Direction::Both] {
            let echo = Echo::start().await;
            let mut connection = echo.connect().await;
            ask(&mut connection, b"a").await;
            echo.proxy.set(Fault::BlackHole(direction));
            connection.write_all(b"bc").await.unwrap();
            eventually("the bytes are in the proxy", async || {
                echo.proxy.n_bytes() == 2
            })
            .await;
            let mut byte = [0];
            assert!(connection.try_read(&mut byte).is_err());

            echo.proxy.heal();

            let mut reply = [0; 2];
            connection.read_exact(&mut reply).await.unwrap();
            assert_eq!(&reply, b"bc");
        }
    }

    #[tokio::test]
    async fn a_connection_is_cut_after_a_number_of_bytes_once() {
        let echo = Echo::start().await;
        let mut connection = echo.connect().await;
        ask(&mut connection, b"before").await;
        echo.proxy.set(Fault::CutAfter(4));
        assert_eq!(ask(&mut connection, b"abc").await, b"abc");
        connection.write_all(b"defg").await.unwrap();
        rest(connection).await;
        assert!(echo.proxy.was_met());
        assert_eq!(ask(&mut echo.connect().await, b"hello").await, b"hello");
    }

    #[tokio::test]
    async fn a_pattern_is_found_over_packets_and_its_reply_is_lost() {
        let echo = Echo::start().await;
        echo.proxy.set(Fault::LoseReplyTo(b"COMMIT"));
        let mut connection = echo.connect().await;
        assert_eq!(ask(&mut connection, b"xxCOM").await, b"xxCOM");
        connection.write_all(b"MIT").await.unwrap();
        assert_eq!(rest(connection).await, b"");
        assert_eq!(ask(&mut echo.connect().await, b"COMMIT").await, b"COMMIT");
    }

    #[tokio::test]
    async fn a_pattern_is_held_or_cut_before_the_server_sees_it() {
        let echo = Echo::start().await;
        echo.proxy.set(Fault::HoldBefore(b"XACK"));
        let mut connection = echo.connect().await;
        assert_eq!(ask(&mut connection, b"XADD").await, b"XADD");
        connection.write_all(b"XACK").await.unwrap();
        echo.proxy.met().await;
        assert!(connection.try_read(&mut [0]).is_err());
        echo.proxy.heal();
        let mut reply = [0; 4];
        connection.read_exact(&mut reply).await.unwrap();
        assert_eq!(&reply, b"XACK");

        echo.proxy.set(Fault::CutBefore(b"XACK"));
        connection.write_all(b"XACK").await.unwrap();
        assert_eq!(rest(connection).await, b"");
    }

    #[tokio::test]
    async fn refused_connections_end_at_once_and_old_ones_with_them() {
        let echo = Echo::start().await;
        let mut old = echo.connect().await;
        ask(&mut old, b"a").await;
        echo.proxy.set(Fault::Refuse);
        assert_eq!(rest(old).await, b"");
        assert_eq!(rest(echo.connect().await).await, b"");
        echo.proxy.heal();
        assert_eq!(ask(&mut echo.connect().await, b"b").await, b"b");
    }
}
