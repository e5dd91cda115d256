//! What a spool needs to know.

use std::{path::PathBuf, time::Duration};

/// Smallest segment: an entry of the largest size and what surrounds it fit several times.
const MIN_SEGMENT_BYTES: u64 = 64 << 10;
/// Largest segment: one is read whole when it is damaged.
pub(crate) const MAX_SEGMENT_BYTES: u64 = 256 << 20;
/// Largest ring.
const MAX_RING_BYTES: u64 = 1 << 30;

/// Where accepted rows are kept on disk until Redis has them, and how much of that there may be.
///
/// On disk the spool takes `max_bytes` and `ring_bytes` at most. Not counted are segments that were
/// found damaged, which are kept aside for a person to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolConfig {
    /// The spool's own directory; made if it is not there. One producer at a time uses it. It is best
    /// on a local disk: `record()` writes to memory that is mapped from a file in it.
    pub dir: PathBuf,
    /// When what is in the log is forced onto the disk.
    pub fsync: Fsync,
    /// Most bytes of segments, the spare one included: 1 GiB, at least three segments.
    pub max_bytes: u64,
    /// Size of a segment: 16 MiB. Segments are freed whole, and a full spool drops whole ones.
    pub segment_bytes: u64,
    /// Size of the ring that holds the rows of the buffer: 16 MiB. A detection takes about 110 bytes
    /// of it. A row for which it has no room has no room in the buffer either.
    pub ring_bytes: u64,
    /// What happens when `max_bytes` are used, or the disk is full.
    pub when_full: SpoolFull,
}

/// When the log is forced onto the disk. Whatever it says, a producer that dies loses no accepted row;
/// this is about the machine losing power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// When the system likes, and on [`sync`](crate::Producer::sync).
    Never,
    /// So long after a row came into the log: 200 ms.
    ///
    /// After a power cut in that time, entries that Redis already had may be made anew, under other
    /// keys, if the system had happened to write the ring to disk and not the log. [`Fsync::Each`]
    /// excludes that.
    Interval(Duration),
    /// Before the first attempt to send: what Redis has is on the disk, too.
    Each,
}

impl Default for Fsync {
    fn default() -> Self {
        Self::Interval(Duration::from_millis(200))
    }
}

/// What happens when the spool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpoolFull {
    /// Rows stay in the buffer until Redis takes something; when that is full too,
    /// [`Overflow`](crate::Overflow) applies. The default.
    #[default]
    Keep,
    /// The oldest segment that was not sent is dropped. Its rows are counted in
    /// [`RowStats::dropped_spool_full`](crate::RowStats::dropped_spool_full).
    DropOldest,
}

impl SpoolConfig {
    /// The defaults, in this directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            fsync: Fsync::default(),
            max_bytes: 1 << 30,
            segment_bytes: 16 << 20,
            ring_bytes: 16 << 20,
            when_full: SpoolFull::default(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let (segment, max, ring) = (self.segment_bytes, self.max_bytes, self.ring_bytes);
        if self.dir.as_os_str().is_empty() {
            return Err("spool.dir is empty: name the spool's directory".to_owned());
        }
        if !(MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&segment) {
            return Err(format!(
                "spool.segment_bytes ({segment}) must be {MIN_SEGMENT_BYTES}…{MAX_SEGMENT_BYTES}"
            ));
        }
        if max / 3 < segment {
            return Err(format!(
                "spool.max_bytes ({max}) must be at least three times spool.segment_bytes \
                 ({segment}): one is written, one is sent, one is spare"
            ));
        }
        if !(MIN_SEGMENT_BYTES..=MAX_RING_BYTES).contains(&ring) {
            return Err(format!(
                "spool.ring_bytes ({ring}) must be {MIN_SEGMENT_BYTES}…{MAX_RING_BYTES}"
            ));
        }
        if let Fsync::Interval(interval) = self.fsync
            && (interval < Duration::from_millis(1) || interval > Duration::from_secs(60))
        {
            return Err(format!(
                "spool.fsync ({interval:?}) must be 1 ms…60 s; there is Fsync::Each, too"
            ));
        }
        Ok(())
    }

    /// Most segments, the spare one included.
    pub(crate) fn max_segments(&self) -> usize {
        usize::try_from(self.max_bytes / self.segment_bytes).unwrap_or(usize::MAX)
    }
}
