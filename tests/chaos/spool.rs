//! Where the producer of the pipeline's process keeps its rows on disk.

use std::path::{Path, PathBuf};

use passerby_producer::{Fsync, ProducerConfig, SpoolConfig};

use crate::disk::SmallDisk;

/// The directory, and the disk that it is on.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    /// What can be full.
    pub(crate) disk: Result<SmallDisk, &'static str>,
}

impl Spool {
    pub(crate) fn new(dir: &Path) -> Self {
        let like = dir.parent().unwrap_or(dir);
        Self {
            dir: dir.to_owned(),
            disk: SmallDisk::mount(dir, like),
        }
    }

    /// The directory, for the pipeline's process.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Gives a producer its spool: of small segments, so that an outage of seconds fills some.
pub(crate) fn configure(config: &mut ProducerConfig, dir: &Path) {
    config.spool = Some(SpoolConfig {
        fsync: Fsync::Each,
        segment_bytes: 1 << 20,
        max_bytes: 64 << 20,
        ring_bytes: 4 << 20,
        ..SpoolConfig::new(dir.join("pipeline"))
    });
}
