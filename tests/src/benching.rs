//! What the benchmarks share: servers at their default settings, a filled stream, what a process used, and
//! figures with both sides, their spread and the target that they are held against.

mod report;
mod samples;
mod servers;
mod usage;

pub use report::{Figure, Report, Target};
pub use samples::Samples;
pub use servers::{BenchServers, Rows};
pub use usage::Usage;
