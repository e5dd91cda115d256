//! What the benchmarks share: servers at their default settings, a filled stream, a steady pace, how long calls took,
//! what a process used, and figures with both sides, their spread and the target that they are held against.

mod latencies;
mod pace;
mod report;
mod samples;
mod servers;
mod usage;

pub use latencies::Latencies;
pub use pace::Pace;
pub use report::{Figure, Report, Target};
pub use samples::Samples;
pub use servers::{BenchServers, Rows};
pub use usage::{CpuTime, Usage};
