//! When the store is saturated, and what is left out of rows then: a ladder with hysteresis.
//!
//! ```text
//! backlog ≥ high water ──▶ first embeddings and trajectories ──still, a step later──▶ then gender
//! backlog ≤ low water  ──▶ one step down, and one more every step
//! ```

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::SaturationConfig;
use crate::row::Row;

/// What is left out of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Degradation {
    /// Nothing.
    #[default]
    None,
    /// Embeddings are not cached, and tracks are recorded without their trajectories.
    Trajectories,
    /// That, and genders with their confidences.
    Genders,
}

impl Degradation {
    const LEVELS: [Self; 3] = [Self::None, Self::Trajectories, Self::Genders];

    pub(super) fn from_level(level: u8) -> Self {
        Self::LEVELS[usize::from(level).min(2)]
    }

    fn up(self) -> Self {
        Self::from_level(self as u8 + 1)
    }

    fn down(self) -> Self {
        Self::from_level((self as u8).saturating_sub(1))
    }

    /// Leaves out of a row what is to be left out, and marks it so if there was anything; tells whether
    /// there was. A row that had nothing to leave out is no less than it would have been.
    pub(crate) fn apply(self, row: &mut Row) -> bool {
        let no_genders = self >= Self::Genders;
        match row {
            Row::Detection(d) if no_genders => {
                let had = d.gender.is_some() || d.gender_confidence.is_some();
                (d.gender, d.gender_confidence) = (None, None);
                d.degraded |= had;
                had
            }
            Row::Track(t) if self >= Self::Trajectories => {
                let mut had = !t.trajectory.is_empty();
                t.trajectory = Vec::new();
                if no_genders {
                    had |= t.gender.is_some() || t.gender_confidence.is_some();
                    (t.gender, t.gender_confidence) = (None, None);
                }
                t.degraded |= had;
                had
            }
            _ => false,
        }
    }
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Load {
    /// Entries that no worker has settled.
    pub(super) backlog: u64,
    /// Of Redis' memory limit, 0…1; 0 without a limit.
    pub(super) memory: f32,
}

/// Where the producer stands on the ladder.
#[derive(Debug)]
pub(super) struct Ladder {
    config: SaturationConfig,
    level: Degradation,
    /// When the last step was taken.
    stepped: Option<Instant>,
}

/// Of Redis' memory: from here on the store is saturated,
const HIGH_MEMORY: f32 = 0.9;
/// and up to here it is not.
const LOW_MEMORY: f32 = 0.75;

impl Ladder {
    pub(super) fn new(config: SaturationConfig) -> Self {
        Self {
            config,
            level: Degradation::None,
            stepped: None,
        }
    }

    /// Takes a step if it is time for one, and returns where that leads.
    pub(super) fn step(&mut self, load: Load) -> Degradation {
        let is_high = load.backlog >= self.config.high_water || load.memory >= HIGH_MEMORY;
        let is_low = load.backlog <= self.config.low_water && load.memory <= LOW_MEMORY;
        let next = match (is_high, is_low) {
            (true, _) => self.level.up(),
            (_, true) => self.level.down(),
            _ => self.level,
        };
        let rested = self
            .stepped
            .is_none_or(|at| at.elapsed() >= self.config.step);
        if next != self.level && rested {
            self.level = next;
            self.stepped = Some(Instant::now());
        }
        self.level
    }

    /// How near the store is to being saturated, 0…1.
    pub(super) fn pressure(&self, load: Load) -> f32 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a share of two numbers of entries"
        )]
        let backlog = load.backlog as f32 / self.config.high_water as f32;
        backlog.max(load.memory / HIGH_MEMORY).clamp(0.0, 1.0)
    }
}

/// Used by the documentation of the configuration.
pub(super) const DEFAULT_STEP: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::{detection, session, track};

    fn load(backlog: u64) -> Load {
        Load {
            backlog,
            memory: 0.0,
        }
    }

    fn ladder() -> Ladder {
        Ladder::new(SaturationConfig {
            high_water: 100,
            low_water: 20,
            step: Duration::from_secs(10),
            ..SaturationConfig::default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn the_ladder_is_climbed_step_by_step_and_left_the_same_way() {
        let mut ladder = ladder();
        let second = |n| tokio::time::advance(Duration::from_secs(n));
        assert_eq!(ladder.step(load(99)), Degradation::None);
        assert_eq!(ladder.step(load(100)), Degradation::Trajectories);
        second(9).await;
        assert_eq!(ladder.step(load(500)), Degradation::Trajectories);
        second(1).await;
        assert_eq!(ladder.step(load(500)), Degradation::Genders);
        second(60).await;
        assert_eq!(ladder.step(load(500)), Degradation::Genders);
        // Between the marks nothing changes.
        assert_eq!(ladder.step(load(21)), Degradation::Genders);
        assert_eq!(ladder.step(load(20)), Degradation::Trajectories);
        assert_eq!(ladder.step(load(0)), Degradation::Trajectories);
        second(10).await;
        assert_eq!(ladder.step(load(0)), Degradation::None);
        second(10).await;
        assert_eq!(ladder.step(load(0)), Degradation::None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_redis_that_is_nearly_full_is_saturated_too() {
        let mut ladder = ladder();
        let memory = |memory| Load { backlog: 0, memory };
        assert_eq!(ladder.step(memory(0.91)), Degradation::Trajectories);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(ladder.step(memory(0.8)), Degradation::Trajectories);
        assert_eq!(ladder.step(memory(0.7)), Degradation::None);
    }

    #[test]
    fn pressure_is_the_share_of_the_high_water_mark() {
        let ladder = ladder();
        for (load, expected) in [
            (load(0), 0.0),
            (load(50), 0.5),
            (load(1_000), 1.0),
            (
                Load {
                    backlog: 10,
                    memory: 0.45,
                },
                0.5,
            ),
        ] {
            let found = ladder.pressure(load);
            assert!((found - expected).abs() < 1e-6, "{load:?}: {found}");
        }
    }

    #[test]
    fn only_what_lost_something_is_marked() {
        let fresh = |mut row: Row| {
            match &mut row {
                Row::Detection(d) => d.degraded = false,
                Row::Track(t) => t.degraded = false,
                Row::Session(_) => {}
            }
            row
        };
        let check = |level: Degradation, row: Row, expected: bool| {
            let mut row = fresh(row);
            assert_eq!(level.apply(&mut row), expected, "{level:?} {row:?}");
            let marked = match row {
                Row::Detection(d) => d.degraded,
                Row::Track(t) => t.degraded,
                Row::Session(_) => false,
            };
            assert_eq!(marked, expected);
        };
        let mut unclassified = detection("c", 1);
        (unclassified.gender, unclassified.gender_confidence) = (None, None);
        let (none, some, most) = (
            Degradation::None,
            Degradation::Trajectories,
            Degradation::Genders,
        );
        check(none, Row::Track(track("c", 3)), false);
        check(some, Row::Track(track("c", 3)), true);
        check(some, Row::Track(track("c", 0)), false);
        check(most, Row::Track(track("c", 0)), true);
        check(some, Row::Detection(detection("c", 1)), false);
        check(most, Row::Detection(detection("c", 1)), true);
        check(most, Row::Detection(unclassified), false);
        check(most, Row::Session(session("s")), false);
    }
}
