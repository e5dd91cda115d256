use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
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
    /// As [`Fault::CutAfter`], with the bytes from the server.
    CutReplyAfter(usize),
    /// Bytes go on after so long, in either direction. What comes meanwhile waits its turn, so that
    /// this is a narrow line as well as a slow one.
    Delay(Duration),
    /// The connection is cut when the client sends the pattern, whose end the server never sees.
    /// Happens once.
    CutBefore(&'static [u8]),
    /// The client's bytes from the pattern on are held until the fault is over.
    HoldBefore(&'static [u8]),
    /// The pattern reaches the server, and the server's answer to it, instead of reaching the
    /// client, ends the connection. Happens once.
    LoseReplyTo(&'static [u8]),
    /// The pattern, which is within one packet, reaches the server with another last byte. Happens once.
    Garble(&'static [u8]),
}

impl Fault {
    /// `COMMIT`, as Postgres' drivers send it: a message that holds nothing else.
    pub const COMMIT: &'static [u8] = b"Q\0\0\0\x0bCOMMIT\0";
    /// The beginning of a transaction that is more than a read.
    pub const BEGIN: &'static [u8] = b"BEGIN ISOLATION";
    /// `XADD`, as Redis' drivers send it.
    pub const XADD: &'static [u8] = b"$4\r\nXADD\r\n";
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
    /// Bytes from the server since the fault was set.
    n_reply_bytes: watch::Sender<usize>,
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
            n_reply_bytes: watch::Sender::new(0),
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
        self.state.n_reply_bytes.send_replace(0);
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
        tokio::time::timeout(Duration::from_secs(30), met)
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
            let delay = match *fault.borrow() {
                Fault::Delay(delay) => Some(delay),
                _ => None,
            };
            if self.direction == Direction::ToServer {
                let now = fault.borrow().clone();
                self.garble(&now, &mut buffer[..n]);
            }
            if let Some(delay) = delay {
                tokio::time::sleep(delay).await;
            }
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
            let n_before = count(&self.state.n_reply_bytes, bytes, is_held);
            return match fault {
                _ if self.reply_is_lost.load(SeqCst) => Verdict::Cut(0),
                Fault::BlackHole(direction) if direction.covers(self.direction) => Verdict::Hold,
                Fault::CutReplyAfter(limit) if n_before + bytes.len() > *limit => {
                    self.meet_once(fault);
                    Verdict::Cut(limit - n_before.min(*limit))
                }
                _ => all,
            };
        }
        let n_before = count(&self.state.n_bytes, bytes, is_held);
        match *fault {
            Fault::None | Fault::CutReplyAfter(_) | Fault::Delay(_) | Fault::Garble(_) => all,
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

    fn garble(&self, fault: &Fault, bytes: &mut [u8]) {
        let Fault::Garble(pattern) = *fault else {
            return;
        };
        let at = bytes
            .windows(pattern.len())
            .position(|window| window == pattern);
        if let Some(at) = at {
            bytes[at + pattern.len() - 1] ^= 1;
            self.meet_once(fault);
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

/// Counts bytes, once however often they are judged; returns how many there were before.
fn count(counter: &watch::Sender<usize>, bytes: &[u8], is_held: bool) -> usize {
    let mut n_before = 0;
    if !is_held {
        counter.send_modify(|n| {
            n_before = *n;
            *n += bytes.len();
        });
    }
    n_before
}

#[cfg(test)]
mod tests;
