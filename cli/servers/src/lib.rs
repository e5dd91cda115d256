//! Private Redis and Postgres servers that live and die with the process.
//!
//! The demo, the tests and the benchmarks need both servers and must not need anything installed,
//! running, or tidied up afterwards. A server started here
//!
//! - is a binary of this machine, or a pinned build fetched once into the user's cache;
//! - has a port, a Unix socket and a directory of its own, so any number run side by side;
//! - is gone, with its directory, when its value is dropped and when the process ends, even by SIGKILL;
//! - is not touched by Ctrl-C, so the program can finish with it;
//! - never runs as root.
//!
//! | variable | what it says |
//! |---|---|
//! | `PASSERBY_SERVERS` | `auto` (the default), `system`: fetch nothing, `fetched`: only pinned builds |
//! | `PASSERBY_REDIS_BIN` | a `redis-server` or `valkey-server` |
//! | `PASSERBY_POSTGRES_BIN` | the directory of `postgres` and `initdb`, or the `postgres` in it |
//! | `PASSERBY_CACHE_DIR` | where fetched servers and templates are kept |
//!
//! ```no_run
//! use passerby_servers::{Appendonly, PostgresOptions, PostgresServer, RedisOptions, RedisServer};
//!
//! # fn main() -> Result<(), passerby_servers::ServerError> {
//! let mut redis =
//!     RedisServer::start(RedisOptions { appendonly: Appendonly::Always, ..Default::default() })?;
//! let postgres = PostgresServer::start(PostgresOptions::default())?;
//!
//! let (redis_url, postgres_url) = (redis.url(), postgres.url("postgres"));
//! redis.restart()?; // what was acknowledged is still there
//! # Ok(())
//! # }
//! ```
//!
//! The API blocks: a server is started once, and the few seconds it takes are waited for anyway. From
//! async code, call it in `spawn_blocking`.

mod cache;
mod error;
mod fetch;
mod find;
mod folders;
mod missing;
mod pins;
mod port;
mod postgres;
mod redis;
mod supervisor;
mod template;
mod user;
mod wheel;

pub use error::ServerError;
pub use fetch::{Attempt, FetchError};
pub use find::{Binaries, Kind, Progress, Source, Unfit, Version};
pub use missing::Missing;
pub use postgres::{PostgresOptions, PostgresServer};
pub use redis::{Appendonly, RedisOptions, RedisServer};
