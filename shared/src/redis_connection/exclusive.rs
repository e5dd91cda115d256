//! A connection of one task, whose replies are handed out in the memory into which they were received.
//!
//! The driver's connection is made to be shared: a task of its own receives replies, in pieces of 8 KiB, and copies every
//! string out of them, the names of an entry's fields included. Whoever reads streams receives some hundred
//! kilobytes at once and shares the connection with nobody, as a command that blocks would hold up all others.

use std::{fmt, io};

use ::redis::{
    Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, Value, aio::ConnectionLike, cmd,
    parse_redis_value,
};
use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    Connect, ConnectError, RedisTimeouts, RedisUrl, connection_info,
    reply::{NotReply, Reply, ReplyEnd},
    socket::{self, Socket},
};

/// Bytes that memory for replies has at least; short ones share it.
const MIN_ROOM: usize = 16 << 10;
/// Bytes that it has at most before a reply begins, and by which it grows beyond what has come of a long one.
const MAX_ROOM: usize = 1 << 20;
/// Bytes by which it grows at least.
const MIN_READ: usize = 4 << 10;

/// A connection that does one command after the other, for one task.
///
/// It waits for replies as long as it takes: whoever asks bounds that, whatever
/// [`RedisTimeouts::response`] says.
pub struct ExclusiveConnection {
    socket: Box<dyn Socket>,
    received: BytesMut,
    /// About as many bytes as the next reply will have.
    room: usize,
    /// A command is on its way, or was when its future was dropped: the next reply is not the next command's.
    is_out_of_step: bool,
    database: i64,
}

impl Connect for ExclusiveConnection {
    async fn connect(url: &RedisUrl, timeouts: RedisTimeouts) -> Result<Self, ConnectError> {
        let failed = |source| ConnectError {
            url: url.clone(),
            source,
        };
        match timeout(timeouts.connect, Self::open(url)).await {
            Ok(connected) => connected.map_err(failed),
            Err(_) => Err(failed(io::Error::from(io::ErrorKind::TimedOut).into())),
        }
    }
}

impl ExclusiveConnection {
    async fn open(url: &RedisUrl) -> Result<Self, RedisError> {
        let info = connection_info(url)?;
        let settings = info.redis_settings();
        let mut connection = Self {
            socket: socket::open(&info).await?,
            received: BytesMut::new(),
            room: MIN_ROOM,
            is_out_of_step: false,
            database: settings.db(),
        };
        if let Some(password) = settings.password() {
            let mut auth = cmd("AUTH");
            if let Some(user) = settings.username() {
                auth.arg(user);
            }
            let () = auth.arg(password).query_async(&mut connection).await?;
        }
        if settings.db() != 0 {
            let mut select = cmd("SELECT");
            let () = select
                .arg(settings.db())
                .query_async(&mut connection)
                .await?;
        }
        Ok(connection)
    }

    /// Does a command.
    ///
    /// # Errors
    ///
    /// What Redis said, or why it could not be heard.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: after a call was dropped, every other one fails, since its reply is still to come.
    pub async fn ask(&mut self, command: &Cmd) -> Result<Reply, RedisError> {
        self.send(&command.get_packed_command()).await?;
        let whole = self.receive().await?;
        self.is_out_of_step = false;
        if whole.first() == Some(&b'-') {
            // The driver knows what errors are called.
            parse_redis_value(&whole).and_then(Value::extract_error)?;
        }
        Reply::parse(&whole).map_err(not_reply)
    }

    async fn send(&mut self, commands: &[u8]) -> Result<(), RedisError> {
        // Nor did anybody ask for what is there already.
        if self.is_out_of_step || !self.received.is_empty() {
            return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into());
        }
        self.is_out_of_step = true;
        self.socket.write_all(commands).await?;
        Ok(self.socket.flush().await?)
    }

    async fn receive(&mut self) -> Result<Bytes, RedisError> {
        let mut end = ReplyEnd::new();
        loop {
            if let Some(len) = end.find(&self.received).map_err(not_reply)? {
                // The next may be somewhat longer.
                self.room = (len + len / 4).clamp(MIN_ROOM, MAX_ROOM);
                let whole = self.received.split_to(len).freeze();
                if len > MAX_ROOM && self.received.is_empty() {
                    // What is left of its memory would keep all of it.
                    self.received = BytesMut::new();
                }
                return Ok(whole);
            }
            let n_missing = end.n_bytes_missing(&self.received);
            if self.received.capacity() - self.received.len() < n_missing {
                // Short replies share memory, as each of them keeps all that it lies in. However long a reply
                // is said to be, memory grows with what has come.
                let room = self.room.saturating_sub(self.received.len());
                self.received
                    .reserve(n_missing.clamp(MIN_READ, MAX_ROOM).max(room));
            }
            if self.socket.read_buf(&mut self.received).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

fn not_reply(error: NotReply) -> RedisError {
    RedisError::from((ErrorKind::Parse, "read a reply", error.to_string()))
}

/// For commands whose replies are short.
impl ConnectionLike for ExclusiveConnection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            self.send(&command.get_packed_command()).await?;
            let whole = self.receive().await?;
            self.is_out_of_step = false;
            parse_redis_value(&whole)
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            self.send(&pipeline.get_packed_pipeline()).await?;
            let mut replies = Vec::with_capacity(count);
            for nth in 0..offset + count {
                let whole = self.receive().await?;
                if nth >= offset {
                    replies.push(parse_redis_value(&whole)?);
                }
            }
            self.is_out_of_step = false;
            Ok(replies)
        })
    }

    fn get_db(&self) -> i64 {
        self.database
    }
}

impl fmt::Debug for ExclusiveConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExclusiveConnection")
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    fn connected() -> (ExclusiveConnection, DuplexStream) {
        let (socket, server) = duplex(1 << 20);
        let connection = ExclusiveConnection {
            socket: Box::new(socket),
            received: BytesMut::new(),
            room: MIN_ROOM,
            is_out_of_step: false,
            database: 0,
        };
        (connection, server)
    }

    fn bulk(len: usize) -> Vec<u8> {
        let mut reply = format!("${len}\r\n").into_bytes();
        reply.resize(reply.len() + len, b'x');
        reply.extend_from_slice(b"\r\n");
        reply
    }

    async fn ask(
        connection: &mut ExclusiveConnection,
        server: &mut DuplexStream,
        reply: &[u8],
    ) -> Result<Reply, RedisError> {
        server.write_all(reply).await.unwrap();
        connection.ask(&cmd("GET")).await
    }

    #[tokio::test]
    async fn short_replies_that_are_kept_share_memory() {
        let (mut connection, mut server) = connected();
        let mut kept = Vec::new();
        for _ in 0..100 {
            let reply = ask(&mut connection, &mut server, &bulk(200)).await;
            let Reply::Bulk(bytes) = reply.unwrap() else {
                unreachable!()
            };
            kept.push(bytes);
        }
        let address = |bytes: &Bytes| bytes.as_ptr() as usize;
        let is_next = |pair: &&[Bytes]| address(&pair[1]).wrapping_sub(address(&pair[0])) < 300;
        let n_shared = kept.windows(2).filter(is_next).count();
        assert!(n_shared >= 95, "{n_shared}");
    }

    #[tokio::test]
    async fn the_memory_of_a_very_long_reply_goes_with_it() {
        let (mut connection, mut server) = connected();
        for len in [10, MAX_ROOM / 2, 10, 5 * MAX_ROOM, 10] {
            let reply = bulk(len);
            let sending = tokio::spawn(async move {
                server.write_all(&reply).await.unwrap();
                server
            });
            let reply = connection.ask(&cmd("GET")).await.unwrap();
            assert!(matches!(reply, Reply::Bulk(bytes) if bytes.len() == len));
            server = sending.await.unwrap();
            assert!(connection.received.capacity() <= MAX_ROOM, "{len}");
        }
    }

    #[tokio::test]
    async fn a_length_is_no_reason_to_ask_for_memory() {
        let (mut connection, mut server) = connected();
        server.write_all(b"$1000000000\r\nx").await.unwrap();
        drop(server);
        let error = connection.ask(&cmd("GET")).await.unwrap_err();
        assert!(error.is_io_error(), "{error:?}");
        assert!(connection.received.capacity() <= 2 * MAX_ROOM);
    }

    #[tokio::test]
    async fn what_nobody_asked_for_answers_nothing() {
        let (mut connection, mut server) = connected();
        let reply = ask(&mut connection, &mut server, b"+OK\r\n+more\r\n").await;
        assert_eq!(reply.unwrap(), Reply::Simple(Bytes::from_static(b"OK")));
        let reply = ask(&mut connection, &mut server, b"+OK\r\n").await;
        assert!(reply.unwrap_err().is_io_error());
    }

    #[tokio::test]
    async fn a_refusal_is_the_drivers_error_and_leaves_the_connection_good() {
        let (mut connection, mut server) = connected();
        let reply = ask(&mut connection, &mut server, b"-NOGROUP No such key\r\n").await;
        assert_eq!(reply.unwrap_err().code(), Some("NOGROUP"));
        let reply = ask(&mut connection, &mut server, b":7\r\n").await;
        assert_eq!(reply.unwrap(), Reply::Int(7));
    }

    #[tokio::test]
    async fn what_is_no_reply_is_an_error() {
        let (mut connection, mut server) = connected();
        let reply = ask(&mut connection, &mut server, b"HTTP/1.1 400\r\n").await;
        assert_eq!(reply.unwrap_err().kind(), ErrorKind::Parse);
    }
}
