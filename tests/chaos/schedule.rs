//! What happens in which round: decided by the seed alone.

use std::{collections::HashSet, fmt, time::Duration};

use clap::ValueEnum;
use passerby_tests::Direction;

use crate::{
    faults::{Command, Fault, Kind, Target},
    producers,
    random::{self, Random},
    workers::{MIN_IDLE, N_WORKERS},
    world::Link,
};

/// Most and fewest faults in a round.
const N_FAULTS: (u64, u64) = (2, 5);

/// A fault and its time, from the beginning of the round.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) fault: Fault,
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.at.as_secs_f64(), (self.at + self.lasts).as_secs_f64());
        write!(f, "{from:5.2} s to {to:5.2} s  {}", self.fault)
    }
}

/// What happens in one round.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    pub(crate) round: u64,
    pub(crate) faults: Vec<Planned>,
    /// Whether, at the end, what Postgres refused is mended and put back.
    pub(crate) is_mended: bool,
}

/// The schedules of all rounds, one after the other. Kinds are dealt from a shuffled deck, so that none
/// is long in coming; what a round cannot use goes to the next.
#[derive(Debug)]
pub(crate) struct Schedules {
    random: Random,
    round: u64,
    deck: Vec<Kind>,
    length: Duration,
}

impl Schedules {
    /// Rounds of this length.
    pub(crate) fn new(seed: u64, length: Duration) -> Self {
        Self {
            random: Random::new(random::mix(seed)),
            round: 0,
            deck: Vec::new(),
            length,
        }
    }

    /// The next round.
    pub(crate) fn deal(&mut self) -> Schedule {
        self.round += 1;
        let n_faults = self.random.between(N_FAULTS.0, N_FAULTS.1);
        let mut faults = Vec::<Planned>::new();
        let mut taken = HashSet::<Target>::new();
        let mut put_back = Vec::new();
        while (faults.len() as u64) < n_faults {
            if self.deck.is_empty() {
                self.deck.extend(Kind::value_variants());
                self.random.shuffle(&mut self.deck);
            }
            let kind = self.deck.pop().expect("filled above");
            let planned = self.plan(kind);
            if taken.insert(planned.fault.target()) {
                faults.push(planned);
            } else {
                put_back.push(kind);
            }
        }
        self.deck.extend(put_back);
        faults.sort_by_key(|planned| planned.at);
        Schedule {
            round: self.round,
            faults,
            // Now and then in any case: letters that are put back and refused again must stay few, or
            // workers take it for a mistake in the schema, and stop.
            is_mended: self.random.below(2) == 0 || self.round.is_multiple_of(3),
        }
    }

    fn plan(&mut self, kind: Kind) -> Planned {
        let fault = self.fault(kind);
        // In thousandths of the round.
        let at = self.length * small(self.random.between(50, 550)) / 1000;
        let mut lasts = self.length * small(self.random.between(120, 400)) / 1000;
        if kind == Kind::WorkerFreeze {
            lasts = lasts.max(MIN_IDLE * 2);
        }
        Planned { fault, at, lasts }
    }

    fn fault(&mut self, kind: Kind) -> Fault {
        let random = &mut self.random;
        let slot = usize::try_from(random.below(N_WORKERS as u64)).expect("small");
        let link = random.pick(&Link::ALL);
        let direction = random.pick(&[Direction::ToServer, Direction::ToClient, Direction::Both]);
        match kind {
            Kind::WorkerKill => Fault::WorkerKill { slot },
            Kind::WorkerFreeze => Fault::WorkerFreeze { slot },
            Kind::WorkerTerminate => Fault::WorkerTerminate { slot },
            Kind::RedisKill => Fault::RedisKill,
            Kind::RedisFreeze => Fault::RedisFreeze,
            Kind::RedisFull => Fault::RedisFull,
            Kind::RedisClientKill => Fault::RedisClientKill,
            Kind::PostgresKill => Fault::PostgresKill,
            Kind::PostgresTerminate => Fault::PostgresTerminate,
            Kind::PostgresCancel => Fault::PostgresCancel,
            Kind::PostgresLock => Fault::PostgresLock,
            Kind::PostgresReadOnly => Fault::PostgresReadOnly,
            Kind::PostgresDiskFull => Fault::PostgresDiskFull,
            Kind::PostgresWalFull => Fault::PostgresWalFull,
            Kind::Cut => Fault::Cut {
                link,
                direction: random.pick(&[Direction::ToServer, Direction::ToClient]),
                n_bytes: usize::try_from(random.between(1, 60_000)).expect("small"),
            },
            Kind::BlackHole => Fault::BlackHole { link, direction },
            Kind::Delay => Fault::Delay {
                link,
                ms: random.between(2, 60),
            },
            Kind::Refuse => Fault::Refuse { link },
            Kind::LoseReply => Fault::LoseReply {
                command: random.pick(&[Command::Xadd, Command::Xack, Command::Commit]),
            },
            Kind::ClockStep => Fault::ClockStep {
                producer: usize::try_from(random.below(producers::N_PRODUCERS as u64))
                    .expect("small"),
                minutes: clock_step(random),
            },
            Kind::OperatorClaim => Fault::OperatorClaim,
            Kind::OperatorHandOver => Fault::OperatorHandOver,
            Kind::OperatorRequeue => Fault::OperatorRequeue,
            Kind::PipelineKill => Fault::PipelineKill,
            Kind::SpoolDiskFull => Fault::SpoolDiskFull,
        }
    }
}

/// Minutes back and forth, a day ahead, days that have no partition yet or never will.
fn clock_step(random: &mut Random) -> i64 {
    const DAY: i64 = 24 * 60;
    let days = random.between(2, 300).cast_signed();
    let minutes = random.between(1, 90).cast_signed();
    random.pick(&[
        minutes,
        -minutes,
        DAY,
        -DAY,
        -days * DAY,
        8 * DAY,
        days * 80 * DAY,
        -days * 20 * DAY,
    ])
}

fn small(n: u64) -> u32 {
    u32::try_from(n).expect("small")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedules(seed: u64, n_rounds: usize) -> Vec<Schedule> {
        let mut schedules = Schedules::new(seed, Duration::from_secs(5));
        (0..n_rounds).map(|_| schedules.deal()).collect()
    }

    fn texts(seed: u64) -> Vec<String> {
        let faults = schedules(seed, 20)
            .into_iter()
            .flat_map(|schedule| schedule.faults);
        faults.map(|planned| planned.to_string()).collect()
    }

    #[test]
    fn a_seed_gives_the_same_faults_each_time() {
        assert_eq!(texts(7), texts(7));
        assert_ne!(texts(7), texts(8));
    }

    #[test]
    fn every_kind_comes_within_a_dozen_rounds() {
        let rounds = schedules(7, 12);
        let dealt: HashSet<Kind> = rounds
            .iter()
            .flat_map(|schedule| &schedule.faults)
            .map(|planned| planned.fault.kind())
            .collect();
        assert_eq!(dealt.len(), Kind::value_variants().len());
    }

    #[test]
    fn no_two_faults_of_a_round_are_done_to_the_same() {
        for schedule in schedules(7, 50) {
            let targets: HashSet<Target> = schedule
                .faults
                .iter()
                .map(|planned| planned.fault.target())
                .collect();
            assert_eq!(targets.len(), schedule.faults.len());
        }
    }
}
