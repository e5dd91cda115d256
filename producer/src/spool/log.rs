//! The log: frames in segments, appended before anything is sent, freed after Redis has it.
//!
//! Segments are numbered and never hold what was not theirs: a frame names its segment, as the file of
//! a segment that has been sent is used again. One such file is kept spare, so that a disk that others
//! have filled does not stop what comes and goes.
//!
//! Nothing here knows of Redis or waits for anything but the disk.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::Utc;
use passerby_shared::ErrorChain;
use tracing::{error, warn};

use super::{
    config::SpoolConfig,
    error::{SpoolError, is_full},
    files,
    frame::{self, RowCounts, Scan},
    segment::{self, ReadBack, SPARE, Segment},
};
use crate::batcher::Entry;

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Position {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

#[derive(Debug)]
pub(crate) struct Log {
    dir: PathBuf,
    segment_bytes: u64,
    max_segments: usize,
    /// Oldest first; the last one is written.
    segments: VecDeque<Segment>,
    has_spare: bool,
    last_number: u64,
    /// What was written since it was last forced onto the disk, besides the last segment.
    unsynced: Vec<Arc<File>>,
    dir_changed: bool,
    /// A frame, encoded.
    scratch: Vec<u8>,
}

/// Why a frame was not added.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// There is no room: as many segments as there may be, or as the disk takes.
    Full,
    /// The disk fails.
    Io(SpoolError),
}

/// What was found when a log was opened.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Rows that were not sent.
    pub(crate) unsent: RowCounts,
    /// The highest shard that they are for.
    pub(crate) highest_shard: Option<u16>,
    /// Rows up to this number are in the log; `None` when it has no frame.
    pub(crate) through_seq: Option<u64>,
    /// Places that cannot be read, those of a frame that was being written not counted.
    pub(crate) n_damaged: u64,
}

/// What is next in the log.
#[derive(Debug)]
pub(crate) enum Next {
    Frame {
        at: Position,
        next: Position,
        frame: ReadBack,
    },
    /// A segment ended, and some of its rows could not be read.
    Lost { rows: RowCounts, next: Position },
    /// Nothing before the place that was named.
    End,
}

/// What is to be forced onto the disk.
#[derive(Debug)]
pub(crate) struct Unsynced {
    files: Vec<Arc<File>>,
    dir: Option<PathBuf>,
}

impl Log {
    /// Opens the log in a directory. Frames before `cursor` have been sent.
    pub(crate) fn open(
        config: &SpoolConfig,
        cursor: Position,
    ) -> Result<(Self, Found), SpoolError> {
        let dir = &config.dir;
        let (files, highest) = segment::list(dir)?;
        let mut log = Self {
            dir: dir.clone(),
            segment_bytes: config.segment_bytes,
            max_segments: config.max_segments(),
            segments: VecDeque::new(),
            has_spare: false,
            last_number: highest.max(cursor.segment),
            unsynced: Vec::new(),
            dir_changed: true,
            scratch: Vec::new(),
        };
        log.open_spare()?;
        let mut found = Found::default();
        for (number, path) in files {
            let segment = read_segment(number, &path, cursor, &mut found)?;
            log.segments.push_back(segment);
        }
        if let Some(last) = log.segments.back() {
            last.cut()
                .map_err(SpoolError::io("write", &log.path(last.number)))?;
        }
        log.release_before(cursor);
        log.make_spare();
        Ok((log, found))
    }

    fn open_spare(&mut self) -> Result<(), SpoolError> {
        let path = self.dir.join(SPARE);
        let Ok(spare) = fs::metadata(&path) else {
            return Ok(());
        };
        if spare.len() != self.segment_bytes {
            return fs::remove_file(&path).map_err(SpoolError::io("remove", &path));
        }
        // Whatever became of the other files, its number is not used again: its frames are still there.
        let mut head = [0; frame::HEAD_BYTES];
        let file = segment::open(&path)?;
        if io::Read::read_exact(&mut &file, &mut head).is_ok() {
            self.last_number = self.last_number.max(frame::segment_said(&head));
        }
        self.has_spare = true;
        Ok(())
    }

    /// Lets the log grow beyond its limit for as long as `work` takes.
    pub(crate) fn beyond_limit<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let max_segments = std::mem::replace(&mut self.max_segments, usize::MAX);
        let done = work(self);
        self.max_segments = max_segments;
        done
    }

    /// Sees to it that a frame of so many bytes has room.
    pub(crate) fn prepare(&mut self, n_bytes: u64) -> Result<(), AppendError> {
        if self
            .segments
            .back()
            .is_some_and(|last| last.has_room(n_bytes))
        {
            return Ok(());
        }
        let size = self.segment_bytes.max(n_bytes + frame::END_BYTES as u64);
        // A segment that has been sent is room, too, where there is no other.
        if !self.has_spare
            && self.segments.len() == 1
            && self
                .segments
                .iter()
                .all(|segment| segment.unsent.total() == 0)
        {
            self.release_first();
        }
        let number = self.last_number + 1;
        let path = self.path(number);
        let file = if self.has_spare && size == self.segment_bytes {
            let spare = self.dir.join(SPARE);
            let file = segment::open(&spare).map_err(AppendError::Io)?;
            fs::rename(&spare, &path)
                .map_err(|source| AppendError::Io(SpoolError::io("rename", &spare)(source)))?;
            self.has_spare = false;
            file
        } else if self.segments.len() + usize::from(self.has_spare) < self.max_segments {
            segment::create(&path, size).map_err(|error| {
                if error.is_full() {
                    AppendError::Full
                } else {
                    AppendError::Io(error)
                }
            })?
        } else {
            return Err(AppendError::Full);
        };
        self.last_number = number;
        self.dir_changed = true;
        if let Some(last) = self.segments.back_mut() {
            last.is_sealed = true;
            self.unsynced.push(Arc::clone(&last.file));
        }
        let segment = Segment::new(number, file, size);
        segment
            .cut()
            .map_err(|source| AppendError::Io(SpoolError::io("write", &path)(source)))?;
        self.segments.push_back(segment);
        self.make_spare();
        Ok(())
    }

    /// Adds a frame. Returns where it begins and where it ends.
    pub(crate) fn append(
        &mut self,
        seqs: Range<u64>,
        entries: &[Entry],
    ) -> Result<(Position, Position), AppendError> {
        self.prepare(frame::frame_len(entries) as u64)?;
        let Some(last) = self.segments.back_mut() else {
            return Err(AppendError::Full);
        };
        let at_ms = u64::try_from(Utc::now().timestamp_millis()).unwrap_or_default();
        frame::encode(last.number, seqs, at_ms, entries, &mut self.scratch);
        let offset = last.end;
        let appended = last.append(&self.scratch, RowCounts::of(entries));
        let position = |offset| Position {
            segment: last.number,
            offset,
        };
        match appended {
            Ok(()) => Ok((position(offset), position(last.end))),
            Err(source) if is_full(&source) => Err(AppendError::Full),
            Err(source) => {
                let path = self.path(self.last_number);
                Err(AppendError::Io(SpoolError::io("write", &path)(source)))
            }
        }
    }

    /// The next frame from a place on, if it begins before `until`. Everything before it has been
    /// acknowledged.
    pub(crate) fn next(&mut self, mut from: Position, until: Position) -> Next {
        loop {
            let Some(at) = self.segments.iter().position(|s| s.number >= from.segment) else {
                return Next::End;
            };
            let is_last = at + 1 == self.segments.len();
            let path = self.path(self.segments[at].number);
            let segment = &mut self.segments[at];
            if segment.number > from.segment {
                from = Position {
                    segment: segment.number,
                    offset: 0,
                };
            }
            if from.offset >= segment.end {
                let next = if is_last {
                    from
                } else {
                    Position {
                        segment: segment.number + 1,
                        offset: 0,
                    }
                };
                if segment.unsent.total() > 0 && segment.is_sealed {
                    let rows = std::mem::take(&mut segment.unsent);
                    return Next::Lost { rows, next };
                }
                if is_last {
                    return Next::End;
                }
                from = next;
                continue;
            }
            if from >= until {
                return Next::End;
            }
            if let Some(frame) = segment.read(from.offset) {
                let next = Position {
                    segment: segment.number,
                    offset: frame.end,
                };
                return Next::Frame {
                    at: from,
                    next,
                    frame,
                };
            }
            let found = segment.find_after(&path, from.offset);
            if !segment.is_damaged {
                error!(
                    file = %path.display(),
                    offset = from.offset,
                    n_bytes = found - from.offset,
                    "part of the spool cannot be read back: its rows are lost, and the file is kept aside"
                );
            }
            // What is counted as lost must not grow any more.
            (segment.is_damaged, segment.is_sealed) = (true, true);
            from.offset = found;
        }
    }

    /// Notes that Redis has a frame's rows, and frees what lies before `next`. Returns the rows in it
    /// that could not be read.
    pub(crate) fn acknowledge(
        &mut self,
        at: Position,
        next: Position,
        rows: RowCounts,
    ) -> RowCounts {
        if let Some(segment) = self.segments.iter_mut().find(|s| s.number == at.segment) {
            segment.unsent -= rows;
        }
        self.release_before(next)
    }

    fn release_before(&mut self, next: Position) -> RowCounts {
        let mut lost = RowCounts::default();
        // The last one is written on, unless it is damaged: then it is kept aside as soon as nothing in it is to
        // be sent any more, and before anybody could take it for one that was sent whole.
        while let Some(first) = self.segments.front()
            && (self.segments.len() > 1 || first.is_damaged)
            && (first.number < next.segment
                || first.number == next.segment && next.offset >= first.end)
        {
            lost += first.unsent;
            self.release_first();
        }
        lost
    }

    /// Drops the oldest segment. Returns its number and the rows in it that Redis does not have.
    pub(crate) fn drop_oldest(&mut self) -> Option<(u64, RowCounts)> {
        let first = self.segments.front()?;
        let dropped = (first.number, first.unsent);
        self.release_first();
        Some(dropped)
    }

    fn release_first(&mut self) {
        let Some(first) = self.segments.pop_front() else {
            return;
        };
        self.unsynced.retain(|file| !Arc::ptr_eq(file, &first.file));
        let path = self.path(first.number);
        let released = if first.is_damaged {
            let mut aside = path.clone().into_os_string();
            aside.push(segment::DAMAGED);
            fs::rename(&path, aside)
        } else if !self.has_spare && first.size == self.segment_bytes {
            fs::rename(&path, self.dir.join(SPARE)).inspect(|()| self.has_spare = true)
        } else {
            fs::remove_file(&path)
        };
        self.dir_changed = true;
        // It has been sent: left behind it costs its place, until the next start.
        if let Err(error) = released {
            warn!(file = %path.display(), error = %ErrorChain(&error), "segment not freed");
        }
    }

    /// Makes a spare segment, if there is room for it.
    fn make_spare(&mut self) {
        if self.has_spare || self.segments.len() >= self.max_segments {
            return;
        }
        // When there is none, the next segment that has been sent becomes it.
        self.has_spare = segment::create(&self.dir.join(SPARE), self.segment_bytes).is_ok();
        self.dir_changed |= self.has_spare;
    }

    /// What is to be forced onto the disk for all frames so far to be there.
    pub(crate) fn unsynced(&mut self) -> Unsynced {
        let mut files = std::mem::take(&mut self.unsynced);
        files.extend(self.segments.back().map(|last| Arc::clone(&last.file)));
        let dir = std::mem::take(&mut self.dir_changed).then(|| self.dir.clone());
        Unsynced { files, dir }
    }

    /// Behind the last frame.
    pub(crate) fn end(&self) -> Position {
        self.segments.back().map_or(
            Position {
                segment: self.last_number + 1,
                offset: 0,
            },
            |last| Position {
                segment: last.number,
                offset: last.end,
            },
        )
    }

    /// How many segments there are, and how many bytes of frames they hold.
    pub(crate) fn size(&self) -> (u64, u64) {
        let n_bytes = self.segments.iter().map(|segment| segment.end).sum();
        (self.segments.len() as u64, n_bytes)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(segment::file_name(number))
    }
}

impl Unsynced {
    /// Forces it. Slow.
    pub(crate) fn sync(self) -> Result<(), SpoolError> {
        for file in self.files {
            file.sync_data()
                .map_err(SpoolError::io("sync a segment in", Path::new("the spool")))?;
        }
        self.dir.map_or(Ok(()), |dir| files::sync_dir(&dir))
    }
}

fn read_segment(
    number: u64,
    path: &Path,
    cursor: Position,
    found: &mut Found,
) -> Result<Segment, SpoolError> {
    let file = segment::open(path)?;
    let bytes = segment::read_whole(path)?;
    let mut segment = Segment::new(number, file, bytes.len() as u64);
    let mut scan = Scan::new(&bytes, number, 0);
    for frame in &mut scan {
        let at = Position {
            segment: number,
            offset: frame.at.start as u64,
        };
        let through = found.through_seq.unwrap_or(0);
        found.through_seq = Some(through.max(frame.head.through_seq));
        if at >= cursor {
            let rows = RowCounts::of(&frame.entries);
            segment.unsent += rows;
            found.unsent += rows;
            let shards = frame.entries.iter().map(|entry| entry.shard);
            found.highest_shard = found.highest_shard.max(shards.max());
        }
    }
    segment.end = scan.end() as u64;
    for damage in &scan.damage {
        let (offset, n_bytes) = (damage.offset as u64, damage.n_bytes as u64);
        let is_sent = Position {
            segment: number,
            offset,
        } < cursor;
        if !damage.in_the_middle {
            warn!(
                file = %path.display(), offset, n_bytes,
                "the spool's last frame was cut short and is left out: its rows come from the buffer"
            );
        } else if !is_sent {
            error!(
                file = %path.display(), offset, n_bytes,
                "part of the spool cannot be read: its rows are lost, and the file is kept aside"
            );
            found.n_damaged += 1;
            (segment.is_damaged, segment.is_sealed) = (true, true);
        }
    }
    Ok(segment)
}

#[cfg(test)]
mod tests;
