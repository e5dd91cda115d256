//! The one place that knows whether a producer has a spool on disk.
//!
//! It has none yet. With one, three things change here, and nothing elsewhere:
//!
//! * `KEEPS_ACCEPTED` is true: what was accepted by a pipeline that is then killed must be stored;
//! * `Spool::new` mounts the disk that can be full: `SmallDisk::mount(dir, dir.parent()…)`;
//! * `configure` gives the producer of the pipeline's process its spool in the directory.

use std::path::{Path, PathBuf};

use passerby_producer::ProducerConfig;

use crate::disk::SmallDisk;

/// Whether rows that were accepted outlive the process that accepted them. Without a spool only those do
/// that Redis has acknowledged.
pub(crate) const KEEPS_ACCEPTED: bool = false;

/// Where the producer of the pipeline's process keeps its rows.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    /// What can be full.
    pub(crate) disk: Result<SmallDisk, &'static str>,
}

impl Spool {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            disk: Err("the producer has no spool"),
        }
    }

    /// The directory, for the pipeline's process.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Gives a producer its spool.
pub(crate) fn configure(_config: &mut ProducerConfig, _dir: &Path) {}
