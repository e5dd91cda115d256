//! Looks into a spool without touching it, whoever uses it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use passerby_shared::StreamKey;
use serde::Serialize;

use super::{
    directory::{self, RING},
    error::SpoolError,
    frame::{RowCounts, Scan},
    log::Position,
    ring::{self, Left},
    segment,
};
use crate::row::Row;

/// What is in a spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Inspection {
    /// The directory.
    pub dir: PathBuf,
    /// What the keys in Redis begin with.
    pub key_prefix: String,
    /// How many streams there are.
    pub shards: u16,
    /// The process that uses it now; 0 when it does not say which it is.
    pub held_by: Option<u32>,
    /// The disk failed, and a producer went on without it.
    pub is_abandoned: bool,
    /// Segments of the log.
    pub segments: u64,
    /// Bytes of everything in the directory.
    pub disk_bytes: u64,
    /// Frames that wait to be sent.
    pub frames: u64,
    /// Entries in these frames.
    pub entries: u64,
    /// Rows in these entries.
    pub rows: u64,
    /// Payload of these entries, in bytes.
    pub payload_bytes: u64,
    /// When the oldest of these frames was made (UTC).
    pub oldest_at: Option<DateTime<Utc>>,
    /// When the newest of these frames was made (UTC).
    pub newest_at: Option<DateTime<Utc>>,
    /// The entries by stream and kind.
    pub waiting: Vec<WaitingEntries>,
    /// Rows of the buffer, which are in no frame yet.
    pub ring: RowCounts,
    /// What cannot be read, and held rows that were still to be sent. Not a frame that was just being written
    /// when its program ended: its rows are in the buffer.
    pub damaged: Vec<DamagedPart>,
}

/// Entries of one kind that wait to be sent to one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct WaitingEntries {
    /// The stream.
    pub stream: String,
    /// `detections`, `tracks` or `sessions`.
    pub kind: &'static str,
    /// How many entries.
    pub entries: u64,
    /// How many rows in them.
    pub rows: u64,
}

/// A part of the log that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct DamagedPart {
    /// The file.
    pub file: PathBuf,
    /// Where it begins in the file.
    pub offset: u64,
    /// How many bytes of the file it takes; the whole file when it has been kept aside.
    pub bytes: u64,
}

/// Looks into a spool. Changes nothing; of a spool in use it sees one moment after the other.
///
/// # Errors
///
/// [`SpoolError`] when there is no spool there, or it cannot be read.
pub fn inspect(dir: &Path) -> Result<Inspection, SpoolError> {
    if fs::metadata(dir).is_ok_and(|found| !found.is_dir()) {
        return Err(SpoolError::NotADirectory {
            path: dir.to_path_buf(),
        });
    }
    let meta = directory::read_meta(dir)?.ok_or_else(|| SpoolError::NoSpool {
        dir: dir.to_path_buf(),
    })?;
    let held_by = directory::held_by(dir);
    let ring_path = dir.join(RING);
    let bytes = fs::read(&ring_path).map_err(SpoolError::io("read", &ring_path))?;
    ring::check_version(&ring_path, &bytes)?;
    let Left { state, rows } = ring::read(&bytes).unwrap_or_default();
    let (segments, _) = segment::list(dir)?;
    let mut waiting = Waiting::new(state.cursor);
    for (number, path) in &segments {
        // It may just have been freed.
        if let Ok(bytes) = read_unchanged(*number, path, held_by.is_some()) {
            waiting.scan(*number, path, &bytes, held_by.is_some());
        }
    }
    let mut in_ring = RowCounts::default();
    for (seq, row) in &rows {
        if waiting.through_seq.is_none_or(|through| *seq > through) {
            waiting.next_row(*seq);
            in_ring.add(Row::kind(row), 1);
        }
    }
    // Nothing is behind it, in the log or in the buffer.
    waiting.damaged.extend(waiting.cut_short.take());
    let (disk_bytes, aside) = list_files(dir)?;
    waiting.damaged.extend(aside);
    let time = |ms: u64| DateTime::from_timestamp_millis(i64::try_from(ms).ok()?);
    let streams = waiting.entries.iter();
    Ok(Inspection {
        dir: dir.to_path_buf(),
        shards: meta.shards.get(),
        held_by,
        is_abandoned: state.is_abandoned,
        segments: segments.len() as u64,
        disk_bytes,
        frames: waiting.n_frames,
        entries: waiting.entries.values().map(|(entries, _)| entries).sum(),
        rows: waiting.entries.values().map(|(_, rows)| rows).sum(),
        payload_bytes: waiting.n_payload_bytes,
        oldest_at: waiting.oldest_ms.and_then(time),
        newest_at: waiting.newest_ms.and_then(time),
        waiting: streams
            .map(|(&(shard, kind), &(entries, rows))| WaitingEntries {
                stream: StreamKey::to_string(&meta.key_prefix.stream(shard)),
                kind,
                entries,
                rows,
            })
            .collect(),
        key_prefix: meta.key_prefix.to_string(),
        ring: in_ring,
        damaged: waiting.damaged,
    })
}

/// Reads a segment. What is being written meanwhile may look damaged, and does not the next time.
fn read_unchanged(number: u64, path: &Path, is_in_use: bool) -> Result<Vec<u8>, SpoolError> {
    let mut bytes = segment::read_whole(path)?;
    for _ in 0..3 {
        let mut scan = Scan::new(&bytes, number, 0);
        (&mut scan).for_each(drop);
        if !is_in_use || scan.damage.iter().all(|damage| !damage.in_the_middle) {
            break;
        }
        bytes = segment::read_whole(path)?;
    }
    Ok(bytes)
}

struct Waiting {
    cursor: Position,
    n_frames: u64,
    n_payload_bytes: u64,
    /// Entries and rows, by shard and kind.
    entries: BTreeMap<(u16, &'static str), (u64, u64)>,
    oldest_ms: Option<u64>,
    newest_ms: Option<u64>,
    through_seq: Option<u64>,
    damaged: Vec<DamagedPart>,
    /// The last frame that was read ended before this one, which is not whole.
    cut_short: Option<DamagedPart>,
}

impl Waiting {
    fn new(cursor: Position) -> Self {
        Self {
            cursor,
            n_frames: 0,
            n_payload_bytes: 0,
            entries: BTreeMap::new(),
            oldest_ms: None,
            newest_ms: None,
            through_seq: None,
            damaged: Vec::new(),
            cut_short: None,
        }
    }

    fn scan(&mut self, segment: u64, path: &Path, bytes: &[u8], is_in_use: bool) {
        let mut scan = Scan::new(bytes, segment, 0);
        for frame in &mut scan {
            self.next_row(frame.head.first_seq);
            self.through_seq = self.through_seq.max(Some(frame.head.through_seq));
            let at = Position {
                segment,
                offset: frame.at.start as u64,
            };
            if at < self.cursor {
                continue;
            }
            self.n_frames += 1;
            let at_ms = frame.head.at_ms;
            self.oldest_ms = Some(self.oldest_ms.map_or(at_ms, |oldest| oldest.min(at_ms)));
            self.newest_ms = self.newest_ms.max(Some(at_ms));
            for entry in frame.entries {
                let kind = match entry.kind.as_str() {
                    "d" => "detections",
                    "t" => "tracks",
                    _ => "sessions",
                };
                let counts = self.entries.entry((entry.shard, kind)).or_default();
                counts.0 += 1;
                counts.1 += entry.n_rows as u64;
                self.n_payload_bytes += entry.payload.len() as u64;
            }
        }
        for damage in scan.damage {
            let at = Position {
                segment,
                offset: damage.offset as u64,
            };
            if at < self.cursor {
                continue;
            }
            let part = DamagedPart {
                file: path.to_path_buf(),
                offset: damage.offset as u64,
                bytes: damage.n_bytes as u64,
            };
            if damage.in_the_middle {
                self.damaged.push(part);
            } else if !is_in_use {
                // What is just being written looks like that, too.
                self.cut_short = Some(part);
            }
        }
    }

    /// A frame that was cut short is no loss when the rows behind the one before it were found, too.
    fn next_row(&mut self, seq: u64) {
        if let Some(part) = self.cut_short.take()
            && self.through_seq.is_some_and(|through| seq > through + 1)
        {
            self.damaged.push(part);
        }
    }
}

/// How many bytes the directory takes, and which files were kept aside.
fn list_files(dir: &Path) -> Result<(u64, Vec<DamagedPart>), SpoolError> {
    let (mut disk_bytes, mut aside) = (0, Vec::new());
    for entry in fs::read_dir(dir).map_err(SpoolError::io("read", dir))? {
        let path = entry.map_err(SpoolError::io("read", dir))?.path();
        let Ok(found) = fs::metadata(&path) else {
            continue;
        };
        disk_bytes += found.len();
        if path.to_string_lossy().ends_with(segment::DAMAGED) {
            aside.push(DamagedPart {
                bytes: found.len(),
                file: path,
                offset: 0,
            });
        }
    }
    aside.sort_by(|a, b| a.file.cmp(&b.file));
    Ok((disk_bytes, aside))
}
