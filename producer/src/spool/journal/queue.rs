//! What the log's loops know of what is to be sent.

use std::collections::VecDeque;

use super::super::{frame::RowCounts, log::Position};
use crate::batcher::Entry;

/// Most payload that waits in memory for its turn.
const WINDOW_BYTES: usize = 4 << 20;

/// What is to be sent.
#[derive(Default)]
pub(super) struct Queue {
    /// The next frames, without a gap, from `read_from` on; none while reading is behind.
    window: VecDeque<Frame>,
    n_window_bytes: usize,
    /// Frames from `read_from` on are to be read back.
    pub(super) is_behind: bool,
    pub(super) read_from: Position,
    pub(super) appended_to: Position,
    /// The segment of the frame that is being sent, and its rows.
    pub(super) sending: Option<(u64, RowCounts)>,
    /// Entries that did not get into the log, the last ones there will be.
    pub(super) orphans: Vec<Entry>,
    /// No frame will come any more.
    pub(super) is_filled: bool,
    pub(super) is_abandoned: bool,
}

pub(super) struct Frame {
    pub(super) at: Position,
    pub(super) next: Position,
    pub(super) through_seq: u64,
    pub(super) entries: Vec<Entry>,
}

impl Queue {
    /// What lies between two places in the log is to be sent, and none of it is in memory.
    pub(super) fn new(read_from: Position, appended_to: Position) -> Self {
        Self {
            is_behind: true,
            read_from,
            appended_to,
            ..Self::default()
        }
    }

    /// Forgets what waits in memory: from this place on it is to be read back.
    pub(super) fn fall_back_to(&mut self, from: Position) {
        self.window.clear();
        self.n_window_bytes = 0;
        self.is_behind = true;
        self.read_from = self.read_from.max(from);
    }

    /// Adds a frame that is in the log now.
    pub(super) fn push(&mut self, frame: Frame) {
        self.appended_to = frame.next;
        let n_bytes = payload_bytes(&frame.entries);
        if self.is_behind || self.n_window_bytes + n_bytes > WINDOW_BYTES {
            self.is_behind = true;
            return;
        }
        self.n_window_bytes += n_bytes;
        self.window.push_back(frame);
    }

    /// The next frame, if it is in memory: it is being sent from now on.
    pub(super) fn pop(&mut self) -> Option<Frame> {
        let frame = self.window.pop_front()?;
        self.n_window_bytes -= payload_bytes(&frame.entries);
        self.read_from = frame.next;
        self.sending = Some((frame.at.segment, RowCounts::of(&frame.entries)));
        Some(frame)
    }
}

fn payload_bytes(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| entry.payload.len()).sum()
}
