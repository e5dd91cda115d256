//! A connection of one task, whose replies are not copied.
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

/// Bytes there is room for at least, before anything is received. Short replies keep so much in memory, too.
const MIN_ROOM: usize = 16 << 10;
/// The same, where the reply before was a long one.
const MAX_ROOM: usize = 1 << 20;
/// Bytes that are asked of the socket at once, at least.
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
        match timeout(timeouts.connect * 2, Self::open(url)).await {
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
        if self.is_out_of_step {
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
                self.room = len.clamp(MIN_ROOM, MAX_ROOM);
                return Ok(self.received.split_to(len).freeze());
            }
            let n_missing = end.n_bytes_missing(&self.received);
            let room = self.room.saturating_sub(self.received.len());
            self.received.reserve(n_missing.max(room).max(MIN_READ));
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
