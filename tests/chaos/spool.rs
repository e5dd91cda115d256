//! The one place that knows whether a producer has a spool on disk.
//!
//! It has none yet. With one, `configure` sets it, `KEEPS_ACCEPTED` becomes true, and `new` mounts a
//! small disk for it. Nothing else here has to change: what was accepted by a pipeline that is killed
//! must then be stored, and the spool's disk can be full.

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
            // SmallDisk::mount(dir, dir.parent()…)
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
