//! Measures how near the store is to its limits, tells the pipeline, and leaves fields out when it is there.
//!
//! A backlog grows when workers are fewer or slower than the pipelines, and ends in a full Redis. Before
//! that the pipeline can lower its frame rate ([`Producer::pressure`](crate::Producer::pressure)); where it
//! does not, what matters least is left out of the rows, and the rows say so.

mod ladder;
mod monitor;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

pub use ladder::Degradation;
use passerby_shared::wire::Kind;

use crate::{row::Row, stats::SaturationStats};
pub(crate) use monitor::Monitor;

/// When the store counts as saturated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaturationConfig {
    /// The workers' consumer group, whose backlog counts: `passerby`.
    pub group: String,
    /// How often the backlog is measured: every 2 s, with one short script for each shard.
    pub check_every: Duration,
    /// The store is saturated from so many entries on that no worker has settled, in all shards together:
    /// 10 000. So it is when Redis uses 90 % of its `maxmemory`.
    pub high_water: u64,
    /// It is relieved again at so many entries, and 75 % of the memory: 2 000.
    pub low_water: u64,
    /// The time between two steps of the ladder: 10 s.
    pub step: Duration,
    /// Whether anything is left out of rows at all: true. If not, the store's state only counts in the
    /// pressure.
    pub degrade: bool,
}

impl Default for SaturationConfig {
    fn default() -> Self {
        Self {
            group: "passerby".to_owned(),
            check_every: Duration::from_secs(2),
            high_water: 10_000,
            low_water: 2_000,
            step: ladder::DEFAULT_STEP,
            degrade: true,
        }
    }
}

impl SaturationConfig {
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.low_water >= self.high_water {
            return Err(format!(
                "saturation.low_water ({}) must be less than saturation.high_water ({})",
                self.low_water, self.high_water
            ));
        }
        if self.check_every < Duration::from_millis(50) {
            return Err(format!(
                "saturation.check_every ({:?}) must be at least 50 ms",
                self.check_every
            ));
        }
        Ok(())
    }
}

/// What the monitor has found, for whoever asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Saturation(Arc<Found>);

#[derive(Debug, Default)]
struct Found {
    level: AtomicU8,
    /// The bits of an `f32`.
    pressure: AtomicU32,
    detections_degraded: AtomicU64,
    tracks_degraded: AtomicU64,
    embeddings_left_out: AtomicU64,
}

impl Saturation {
    pub(crate) fn degradation(&self) -> Degradation {
        Degradation::from_level(self.0.level.load(Relaxed))
    }

    /// How near the store is to being saturated, 0…1.
    pub(crate) fn pressure(&self) -> f32 {
        f32::from_bits(self.0.pressure.load(Relaxed))
    }

    /// Leaves out of a row what is to be left out now.
    pub(crate) fn degrade(&self, row: &mut Row) {
        if self.degradation().apply(row) {
            match row.kind() {
                Kind::Detections => self.0.detections_degraded.fetch_add(1, Relaxed),
                _ => self.0.tracks_degraded.fetch_add(1, Relaxed),
            };
        }
    }

    /// Whether an embedding is to be left out of the cache, and counted.
    pub(crate) fn leaves_out_embedding(&self) -> bool {
        let is_left_out = self.degradation() >= Degradation::Trajectories;
        if is_left_out {
            self.0.embeddings_left_out.fetch_add(1, Relaxed);
        }
        is_left_out
    }

    pub(crate) fn stats(&self) -> SaturationStats {
        SaturationStats {
            pressure: self.pressure(),
            left_out: self.degradation(),
            detections_degraded: self.0.detections_degraded.load(Relaxed),
            tracks_degraded: self.0.tracks_degraded.load(Relaxed),
            embeddings_left_out: self.0.embeddings_left_out.load(Relaxed),
        }
    }

    fn set(&self, level: Degradation, pressure: f32) {
        self.0.level.store(level as u8, Relaxed);
        self.0.pressure.store(pressure.to_bits(), Relaxed);
    }
}
