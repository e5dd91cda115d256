//! A segment: a file of frames, whose place on the disk is set aside before anything is written.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    config::MAX_SEGMENT_BYTES,
    error::SpoolError,
    files,
    frame::{self, Found, RowCounts, Scan},
};
use crate::batcher::Entry;

pub(crate) const SPARE: &str = "spare.seg";
const SUFFIX: &str = ".seg";
pub(crate) const DAMAGED: &str = ".damaged";

/// A segment of the log.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) file: Arc<File>,
    pub(crate) size: u64,
    /// Behind the last frame.
    pub(crate) end: u64,
    /// Rows in it that Redis has not acknowledged.
    pub(crate) unsent: RowCounts,
    /// Nothing is added to it any more.
    pub(crate) is_sealed: bool,
    pub(crate) is_damaged: bool,
}

/// A frame that was read back.
#[derive(Debug)]
pub(crate) struct ReadBack {
    pub(crate) through_seq: u64,
    pub(crate) entries: Vec<Entry>,
    /// Where the next one begins.
    pub(crate) end: u64,
}

/// The name of a segment's file.
pub(crate) fn file_name(number: u64) -> String {
    format!("{number:08}{SUFFIX}")
}

/// The number of the segment that a file of this name is, or was before it was kept aside.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let name = name.strip_suffix(DAMAGED).unwrap_or(name);
    let digits = name.strip_suffix(SUFFIX)?;
    if digits.len() < 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Makes a file of this length, or leaves none.
pub(crate) fn create(path: &Path, n_bytes: u64) -> Result<File, SpoolError> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(SpoolError::allocate(path, n_bytes))?;
    files::allocate(&file, n_bytes).map_err(|source| {
        drop(std::fs::remove_file(path));
        SpoolError::allocate(path, n_bytes)(source)
    })?;
    Ok(file)
}

/// Opens a file for reading and writing.
pub(crate) fn open(path: &Path) -> Result<File, SpoolError> {
    File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(SpoolError::io("open", path))
}

/// Reads a segment's file whole.
pub(crate) fn read_whole(path: &Path) -> Result<Vec<u8>, SpoolError> {
    let n_bytes = std::fs::metadata(path)
        .map_err(SpoolError::io("look at", path))?
        .len();
    // An entry is far smaller than a segment, and a frame holds a few.
    if n_bytes > 2 * MAX_SEGMENT_BYTES {
        return Err(SpoolError::Unreadable {
            path: path.to_path_buf(),
            what: format!("has {n_bytes} bytes, more than any segment has"),
        });
    }
    std::fs::read(path).map_err(SpoolError::io("read", path))
}

impl Segment {
    pub(crate) fn new(number: u64, file: File, size: u64) -> Self {
        Self {
            number,
            file: Arc::new(file),
            size,
            end: 0,
            unsent: RowCounts::default(),
            is_sealed: false,
            is_damaged: false,
        }
    }

    /// Whether a frame of so many bytes can be added.
    pub(crate) fn has_room(&self, n_bytes: u64) -> bool {
        let needed = self.end + n_bytes + frame::END_BYTES as u64;
        !self.is_sealed && needed <= self.size
    }

    /// Adds a frame, given with its end mark.
    pub(crate) fn append(&mut self, frame: &[u8], rows: RowCounts) -> io::Result<()> {
        self.file.write_all_at(frame, self.end)?;
        self.end += (frame.len() - frame::END_BYTES) as u64;
        self.unsent += rows;
        Ok(())
    }

    /// Marks the end, over what was cut off.
    pub(crate) fn cut(&self) -> io::Result<()> {
        if self.end + frame::END_BYTES as u64 > self.size {
            return Ok(());
        }
        self.file.write_all_at(&[0; frame::END_BYTES], self.end)
    }

    /// The frame at this offset; `None` when it cannot be read.
    pub(crate) fn read(&self, offset: u64) -> Option<ReadBack> {
        let mut head = [0; frame::HEAD_BYTES];
        self.file.read_exact_at(&mut head, offset).ok()?;
        let head = frame::head(&head, self.number)?;
        let body_at = offset + frame::HEAD_BYTES as u64;
        let end = body_at + head.n_body_bytes as u64;
        if end > self.end {
            return None;
        }
        let mut body = vec![0; head.n_body_bytes];
        self.file.read_exact_at(&mut body, body_at).ok()?;
        Some(ReadBack {
            through_seq: head.through_seq,
            entries: frame::entries(&head, &body)?,
            end,
        })
    }

    /// Where the next frame behind a damaged one begins: at the end when there is none.
    pub(crate) fn find_after(&self, path: &Path, offset: u64) -> u64 {
        let found = read_whole(path).ok().and_then(|bytes| {
            let end = usize::try_from(self.end).ok()?.min(bytes.len());
            let at = usize::try_from(offset).ok()?;
            Scan::new(&bytes[..end], self.number, at).next()
        });
        found.map_or(self.end, |found: Found| found.at.start as u64)
    }
}

/// The files of a spool that are segments, oldest first, and the highest number that any file has.
pub(crate) fn list(dir: &Path) -> Result<(Vec<(u64, PathBuf)>, u64), SpoolError> {
    let mut segments = Vec::new();
    let mut highest = 0;
    let entries = std::fs::read_dir(dir).map_err(SpoolError::io("read", dir))?;
    for entry in entries {
        let path = entry.map_err(SpoolError::io("read", dir))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let Some(number) = number_of(name) else {
            continue;
        };
        highest = highest.max(number);
        if !name.ends_with(DAMAGED) {
            segments.push((number, path));
        }
    }
    segments.sort();
    Ok((segments, highest))
}
