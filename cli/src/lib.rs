//! The command `passerby`, as a library.
//!
//! The binary parses flags, wires and runs; what it runs stands here, so that a test can call it.

mod app;
mod commands;
pub mod ingest;
pub mod render;
#[cfg(feature = "schema")]
pub mod schema;
pub mod top;
mod visible;

pub use app::{command, run};
