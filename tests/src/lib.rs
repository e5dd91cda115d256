//! What the integration tests and the benchmarks stand on: real servers, real faults.
//!
//! A test gets an [`Env`]: a key prefix of its own in a Redis and a database of its own in a Postgres
//! that all tests of the process share, both private and started when first needed. A [`FaultProxy`]
//! before either of them breaks connections at a chosen place of the conversation. The worker under
//! test is the library's, as a task that can be crashed ([`RunningWorker`]), or the binary
//! ([`WorkerBinary`]).
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::missing_errors_doc,
    reason = "what fails here fails a test"
)]

pub mod benching;
mod cli;
mod env;
mod eventually;
mod fault_proxy;
pub mod fixtures;
pub mod fuzzing;
mod golden;
mod own_redis;
mod pgbouncer;
mod producing;
mod program;
mod prometheus;
mod redact;
mod schemas;
mod scrape;
mod servers;
mod shell;
mod tool;
mod worker;
mod worker_binary;

pub use cli::{Output, Passerby, RunningPasserby};
pub use env::{Env, GROUP};
pub use eventually::{eventually, stays};
pub use fault_proxy::{Direction, Fault, FaultProxy};
pub use golden::{Golden, cmd_file, compare_with_file};
pub use own_redis::OwnRedis;
pub use pgbouncer::{PgBouncer, RunningPgBouncer};
pub use producing::{Published, producer_config};
pub use program::build as build_program;
pub use prometheus::{Page, Prometheus};
pub use schemas::{Schemas, command_name};
pub use scrape::{Family, Sample, Scrape, http_get, http_get_as};
pub use servers::Servers;
pub use tool::{Tool, project, project_file};
pub use worker::RunningWorker;
pub use worker_binary::{Finished, WorkerBinary};
