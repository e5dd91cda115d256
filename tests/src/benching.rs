//! What the benchmarks share: servers at their default settings, a filled stream, a steady pace, how long calls took,
//! what a process used, and figures with both sides, their spread and the target that they are held against.

mod history;
mod latencies;
mod pace;
mod python;
mod report;
mod samples;
mod servers;
mod turns;
mod usage;
mod worker_process;

pub use history::{Burst, History, bytes_of, settle};
pub use latencies::Latencies;
pub use pace::Pace;
pub use python::Python;
pub use report::{Figure, Report, Target, number};
pub use samples::Samples;
pub use servers::{BenchServers, Copying, InBatch, Rows};
pub use turns::{Side, Work};
pub use usage::{CpuTime, Usage};
pub use worker_process::{Drained, WorkerProcess};

/// Builds the program `passerby`, and says where it is: not while the clock runs.
#[must_use]
pub fn passerby_program() -> std::path::PathBuf {
    crate::program::build("passerby")
}
