//! Opens a spool: what an earlier process left is found, and made ready to be sent.

use tracing::{info, warn};

use super::{
    config::SpoolConfig,
    directory::{self, Lock, Meta, RING},
    error::SpoolError,
    frame::RowCounts,
    log::{AppendError, Log, Position},
    ring::{Left, Ring},
};
use crate::{
    batcher::{Batcher, Entry},
    config::ProducerConfig,
    row::Row,
    saturation::Saturation,
};

/// A spool, open and locked.
pub(crate) struct Opened {
    pub(crate) lock: Lock,
    pub(crate) log: Log,
    pub(crate) ring: Ring,
    /// Where the log is to be sent from.
    pub(crate) cursor: Position,
    /// Rows in the log that Redis may not have.
    pub(crate) recovered: RowCounts,
    /// The number of the next row that is accepted.
    pub(crate) next_seq: u64,
    pub(crate) n_damaged: u64,
}

/// Opens the spool of a producer.
///
/// The rows that an earlier process had in its buffer are made entries now and come into the log,
/// behind the frames that are there.
pub(crate) fn open(config: &ProducerConfig, spool: &SpoolConfig) -> Result<Opened, SpoolError> {
    let dir = spool.dir.as_path();
    directory::make(dir)?;
    let lock = directory::lock(dir)?;
    let meta = Meta {
        key_prefix: config.key_prefix.clone(),
        shards: config.shards,
    };
    let recorded = directory::read_meta(dir)?;
    if let Some(recorded) = &recorded
        && recorded.key_prefix != meta.key_prefix
    {
        return Err(SpoolError::OtherPrefix {
            dir: dir.to_path_buf(),
            recorded: recorded.key_prefix.to_string(),
            configured: meta.key_prefix.to_string(),
        });
    }
    let ring_path = dir.join(RING);
    let (mut ring, left) = Ring::open(&ring_path, spool.ring_bytes)?;
    if recorded.is_some() && left.is_none() {
        warn!(
            file = %ring_path.display(),
            "the spool's ring cannot be read: rows that were not in the log are lost, and all of the \
             log is sent again"
        );
    }
    let Left { state, rows } = left.unwrap_or_default();
    let (mut log, found) = Log::open(spool, state.cursor)?;
    // After a power cut the ring may know of more than the log still has: what comes now is not sent yet.
    let cursor = state.cursor.min(log.end());
    // Entries keep their streams, which must be there.
    if let Some(shard) = found.highest_shard
        && shard >= config.shards.get()
    {
        return Err(SpoolError::FewerShards {
            dir: dir.to_path_buf(),
            shard,
            configured: config.shards.get(),
        });
    }
    if recorded.as_ref() != Some(&meta) {
        directory::write_meta(dir, &meta)?;
    }
    if state.is_abandoned {
        warn!(
            dir = %dir.display(),
            "the spool was abandoned because its disk failed: rows that were in the buffer then are \
             not sent again"
        );
    }
    let in_log = found.through_seq.map_or(0, |through| through + 1);
    let last_left = rows.last().map_or(0, |(seq, _)| seq + 1);
    let next_seq = in_log.max(state.framed_below).max(last_left);
    let mut recovered = found.unsent;
    recovered += log.beyond_limit(|log| {
        let rows = rows.into_iter().filter(|(seq, _)| *seq >= in_log);
        take_over(config, spool, rows, log)
    })?;
    // What can be set aside is set aside now: a segment to be written, and the spare one.
    log.beyond_limit(|log| log.prepare(0))
        .map_err(|error| no_room(error, spool, 0))?;
    log.unsynced().sync()?;
    ring.restart(next_seq, cursor);
    if recovered.total() > 0 {
        info!(
            dir = %dir.display(),
            n_rows = recovered.total(),
            "rows of an earlier run are in the spool and are sent first"
        );
    }
    Ok(Opened {
        lock,
        log,
        ring,
        cursor,
        recovered,
        next_seq,
        n_damaged: found.n_damaged,
    })
}

/// Makes entries of the rows in a ring, and puts them into the log.
fn take_over(
    config: &ProducerConfig,
    spool: &SpoolConfig,
    rows: impl Iterator<Item = (u64, Row)>,
    log: &mut Log,
) -> Result<RowCounts, SpoolError> {
    let batcher = Batcher::new(config, Saturation::default());
    let limit = usize::try_from(spool.segment_bytes / 2).unwrap_or(usize::MAX);
    let mut taken = RowCounts::default();
    let mut rows = rows.peekable();
    while let Some((first_seq, _)) = rows.peek() {
        let first_seq = *first_seq;
        let (mut next_seq, mut n_bytes, mut flight) = (first_seq, 0, Vec::new());
        // What a row is charged is never less than what it takes.
        while let Some((seq, row)) =
            rows.next_if(|(_, row)| n_bytes == 0 || n_bytes + row.n_bytes() <= limit)
        {
            n_bytes += row.n_bytes();
            next_seq = seq + 1;
            flight.push(row);
        }
        let entries: Vec<Entry> = batcher.batch(flight.iter_mut());
        taken += RowCounts::of(&entries);
        log.append(first_seq..next_seq, &entries)
            .map_err(|error| no_room(error, spool, n_bytes))?;
    }
    Ok(taken)
}

fn no_room(error: AppendError, spool: &SpoolConfig, n_bytes: usize) -> SpoolError {
    match error {
        AppendError::Io(error) => error,
        AppendError::Full => SpoolError::NoRoom {
            path: spool.dir.clone(),
            n_bytes: (n_bytes as u64).max(spool.segment_bytes),
            source: std::io::ErrorKind::StorageFull.into(),
        },
    }
}
