//! Drains Passerby's Redis Streams into Postgres, each entry exactly once.
//!
//! An entry's way through a [`Worker`], a file for each step:
//!
//! ```text
//! reader ──▶ decoder ──▶ committers ──▶ acker
//!   │  XREADGROUP, own history    │ one transaction: ledger, rows, dead letters
//!   └─ reclaimer: XAUTOCLAIM      └ store/: COPY, tracks, sessions, partitions, queries
//! heartbeat: signs of life for entries in work
//! upkeep: trimming, session summaries, partitions ahead
//! observer: how much the group has before it, for exporter: /metrics
//! ```
//!
//! Bounded channels join the steps: a store that is slow or away stops the reader, and memory stays
//! flat whatever the backlog. [`store`] works without Redis; [`ops`] is what operators do by hand.

mod acker;
pub mod args;
pub mod batch;
mod batch_memory;
mod books_keeper;
pub mod command_line;
mod committer;
mod config;
pub mod config_file;
mod dead_letter_guard;
mod decoder;
pub mod exporter;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod group;
pub mod health;
mod heartbeat;
mod in_flight;
mod isolation;
mod ledger_keeper;
pub mod logs;
pub mod metrics;
mod observer;
pub mod ops;
#[cfg(feature = "otel")]
pub mod otel;
mod pause;
pub mod presence;
pub mod probe;
mod reader;
mod reclaimer;
mod reply;
mod retention_keeper;
mod stats;
pub mod store;
mod suspects;
pub mod systemd;
mod tail;
mod timing;
mod trimmer;
mod trouble;
mod upkeep;
mod worker;

pub use config::{ConsumerName, InvalidConfig, InvalidConsumerName, WorkerConfig};
pub use dead_letter_guard::MostlyBad;
pub use health::Health;
pub use pause::Paused;
pub use stats::{WorkerReport, WorkerStats};
pub use worker::{Worker, WorkerError};
