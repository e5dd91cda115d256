use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use passerby_servers::{Appendonly, RedisServer, ServerError};
use passerby_shared::redis_connection::{RedisLink, RedisTimeouts, RedisUrl};
use redis::FromRedisValue;

use crate::{
    FaultProxy,
    servers::{blocking, start_redis},
};

/// A Redis that one test may kill, freeze, fill or lock up. It syncs its append-only file before each
/// reply.
#[derive(Debug)]
pub struct OwnRedis {
    server: Arc<Mutex<RedisServer>>,
    port: u16,
    dir: PathBuf,
}

impl OwnRedis {
    /// Starts it, with these directives on top.
    pub async fn start(directives: &'static [(&'static str, &'static str)]) -> Self {
        let server = blocking(move || start_redis(Appendonly::Always, directives)).await;
        let server = server.unwrap_or_else(|e| panic!("{}", passerby_shared::ErrorChain(&e)));
        Self {
            port: server.port(),
            dir: server.dir().to_owned(),
            server: Arc::new(Mutex::new(server)),
        }
    }

    /// Where it is.
    pub fn url(&self) -> RedisUrl {
        format!("redis://127.0.0.1:{}/0", self.port)
            .parse()
            .unwrap()
    }

    /// Its private directory, with its data.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A proxy before it, with the address to give to a client.
    pub async fn proxy(&self) -> (FaultProxy, RedisUrl) {
        let proxy = FaultProxy::start(self.port).await;
        let url = format!("redis://127.0.0.1:{}/0", proxy.port());
        (proxy, url.parse().unwrap())
    }

    /// Runs a command, over a connection of its own.
    pub async fn redis<T: FromRedisValue>(&self, command: &redis::Cmd) -> T {
        let mut link = RedisLink::new(self.url(), RedisTimeouts::default());
        command
            .query_async(link.get().await.unwrap())
            .await
            .unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Commands that it has run so far, those of scripts included.
    pub async fn n_commands(&self) -> u64 {
        let stats: redis::InfoDict = self.redis(redis::cmd("INFO").arg("stats")).await;
        stats.get("total_commands_processed").unwrap()
    }

    /// Sets a directive while it runs.
    pub async fn configure(&self, name: &str, value: &str) {
        let mut command = redis::cmd("CONFIG");
        self.redis::<()>(command.arg("SET").arg(name).arg(value))
            .await;
    }

    /// Kills it; what it had acknowledged is in its append-only file.
    pub async fn kill(&self) {
        self.with(RedisServer::kill).await;
    }

    /// Starts it again, where it was.
    pub async fn restart(&self) {
        self.with(RedisServer::restart).await;
    }

    /// Stops it in its tracks: connections stay open and nothing answers.
    pub async fn freeze(&self) {
        self.with(RedisServer::pause).await;
    }

    /// Lets it go on.
    pub async fn thaw(&self) {
        self.with(RedisServer::resume).await;
    }

    async fn with(&self, run: fn(&mut RedisServer) -> Result<(), ServerError>) {
        let server = Arc::clone(&self.server);
        blocking(move || {
            let mut server: MutexGuard<'_, RedisServer> =
                server.lock().unwrap_or_else(PoisonError::into_inner);
            run(&mut server).unwrap();
        })
        .await;
    }
}
