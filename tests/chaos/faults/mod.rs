//! What goes wrong: each fault begins, lasts, and is taken back.

mod disks;
mod network;
mod operators;
mod processes;
mod servers;

use std::{fmt, sync::Arc, time::Duration};

use clap::ValueEnum;
use passerby_tests::Direction;
use tokio::time::{Instant, sleep_until};

use crate::world::{Link, World};

/// The kinds of faults, as `--without` and the report name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub(crate) enum Kind {
    /// SIGKILL of a worker, started again later.
    WorkerKill,
    /// SIGSTOP of a worker for longer than min-idle, then SIGCONT: a zombie.
    WorkerFreeze,
    /// SIGTERM of a worker, started again later.
    WorkerTerminate,
    /// SIGKILL of Redis, started again on its append-only file.
    RedisKill,
    /// SIGSTOP of Redis: connections stay open and nothing answers.
    RedisFreeze,
    /// `maxmemory` below what is used.
    RedisFull,
    /// `CLIENT KILL` of everybody, again and again.
    RedisClientKill,
    /// SIGKILL of the postmaster, started again on its WAL.
    PostgresKill,
    /// `pg_terminate_backend` of the workers' sessions, again and again.
    PostgresTerminate,
    /// `pg_cancel_backend` of the workers' sessions, again and again.
    PostgresCancel,
    /// Somebody holds `detections` and `tracks` ACCESS EXCLUSIVE.
    PostgresLock,
    /// The database is read-only, as a standby is that was a primary.
    PostgresReadOnly,
    /// No room where the tables are.
    PostgresDiskFull,
    /// No room where the WAL is: Postgres panics.
    PostgresWalFull,
    /// A connection is cut after so many bytes, again and again.
    Cut,
    /// Bytes of a link go nowhere for a while.
    BlackHole,
    /// Bytes of a link take their time.
    Delay,
    /// Connections are refused, and those that are open are cut.
    Refuse,
    /// The reply to COMMIT, XADD or XACK is lost, again and again.
    LoseReply,
    /// The clock of a camera steps, minutes or days, back or ahead.
    ClockStep,
    /// An operator claims everything that is pending.
    OperatorClaim,
    /// An operator hands everything that is pending to one worker.
    OperatorHandOver,
    /// An operator puts all dead letters back.
    OperatorRequeue,
    /// SIGKILL of the pipeline's process, and with it of its producer, again and again.
    PipelineKill,
    /// No room where the producer's spool is.
    SpoolDiskFull,
}

impl Kind {
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .expect("no kind is skipped")
            .get_name()
            .to_owned()
    }
}

/// A kind of fault with all that it needs to know.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    WorkerKill {
        slot: usize,
    },
    WorkerFreeze {
        slot: usize,
    },
    WorkerTerminate {
        slot: usize,
    },
    RedisKill,
    RedisFreeze,
    RedisFull,
    RedisClientKill,
    PostgresKill,
    PostgresTerminate,
    PostgresCancel,
    PostgresLock,
    PostgresReadOnly,
    PostgresDiskFull,
    PostgresWalFull,
    Cut {
        link: Link,
        direction: Direction,
        n_bytes: usize,
    },
    BlackHole {
        link: Link,
        direction: Direction,
    },
    Delay {
        link: Link,
        ms: u64,
    },
    Refuse {
        link: Link,
    },
    LoseReply {
        command: Command,
    },
    ClockStep {
        producer: usize,
        minutes: i64,
    },
    OperatorClaim,
    OperatorHandOver,
    OperatorRequeue,
    PipelineKill,
    SpoolDiskFull,
}

/// A command whose reply is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Xadd,
    Xack,
    Commit,
}

/// What a fault is done to. No two faults of a round are done to the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Worker(usize),
    Redis,
    RedisClients,
    Postgres,
    PostgresSessions,
    PostgresTables,
    PostgresMode,
    Link(Link),
    Clock(usize),
    Claimer,
    Requeuer,
    Pipeline,
    Spool,
}

/// What became of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Happened,
    /// It could not be done here, and why.
    Skipped(&'static str),
}

impl Fault {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::WorkerKill { .. } => Kind::WorkerKill,
            Self::WorkerFreeze { .. } => Kind::WorkerFreeze,
            Self::WorkerTerminate { .. } => Kind::WorkerTerminate,
            Self::RedisKill => Kind::RedisKill,
            Self::RedisFreeze => Kind::RedisFreeze,
            Self::RedisFull => Kind::RedisFull,
            Self::RedisClientKill => Kind::RedisClientKill,
            Self::PostgresKill => Kind::PostgresKill,
            Self::PostgresTerminate => Kind::PostgresTerminate,
            Self::PostgresCancel => Kind::PostgresCancel,
            Self::PostgresLock => Kind::PostgresLock,
            Self::PostgresReadOnly => Kind::PostgresReadOnly,
            Self::PostgresDiskFull => Kind::PostgresDiskFull,
            Self::PostgresWalFull => Kind::PostgresWalFull,
            Self::Cut { .. } => Kind::Cut,
            Self::BlackHole { .. } => Kind::BlackHole,
            Self::Delay { .. } => Kind::Delay,
            Self::Refuse { .. } => Kind::Refuse,
            Self::LoseReply { .. } => Kind::LoseReply,
            Self::ClockStep { .. } => Kind::ClockStep,
            Self::OperatorClaim => Kind::OperatorClaim,
            Self::OperatorHandOver => Kind::OperatorHandOver,
            Self::OperatorRequeue => Kind::OperatorRequeue,
            Self::PipelineKill => Kind::PipelineKill,
            Self::SpoolDiskFull => Kind::SpoolDiskFull,
        }
    }

    pub(crate) fn target(&self) -> Target {
        match *self {
            Self::WorkerKill { slot }
            | Self::WorkerFreeze { slot }
            | Self::WorkerTerminate { slot } => Target::Worker(slot),
            Self::RedisKill | Self::RedisFreeze | Self::RedisFull => Target::Redis,
            Self::RedisClientKill => Target::RedisClients,
            Self::PostgresKill | Self::PostgresDiskFull | Self::PostgresWalFull => Target::Postgres,
            Self::PostgresTerminate | Self::PostgresCancel => Target::PostgresSessions,
            Self::PostgresLock => Target::PostgresTables,
            Self::PostgresReadOnly => Target::PostgresMode,
            Self::Cut { link, .. }
            | Self::BlackHole { link, .. }
            | Self::Delay { link, .. }
            | Self::Refuse { link } => Target::Link(link),
            Self::LoseReply { command } => Target::Link(command.link()),
            Self::ClockStep { producer, .. } => Target::Clock(producer),
            Self::OperatorClaim | Self::OperatorHandOver => Target::Claimer,
            Self::OperatorRequeue => Target::Requeuer,
            Self::PipelineKill => Target::Pipeline,
            Self::SpoolDiskFull => Target::Spool,
        }
    }
}

impl Command {
    pub(crate) fn link(self) -> Link {
        match self {
            Self::Xadd => Link::ProducersToRedis,
            Self::Xack => Link::WorkersToRedis,
            Self::Commit => Link::WorkersToPostgres,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind().name())?;
        match self {
            Self::WorkerKill { slot }
            | Self::WorkerFreeze { slot }
            | Self::WorkerTerminate { slot } => write!(f, " worker {slot}"),
            Self::Cut {
                link,
                direction,
                n_bytes,
            } => {
                write!(f, " {link} {} every {n_bytes} bytes", name(*direction))
            }
            Self::BlackHole { link, direction } => write!(f, " {link} {}", name(*direction)),
            Self::Delay { link, ms } => write!(f, " {link} by {ms} ms"),
            Self::Refuse { link } => write!(f, " {link}"),
            Self::LoseReply { command } => write!(f, " to {command:?}"),
            Self::ClockStep { producer, minutes } => {
                write!(f, " of producer {producer} by {minutes} min")
            }
            _ => Ok(()),
        }
    }
}

fn name(direction: Direction) -> &'static str {
    match direction {
        Direction::ToServer => "to the server",
        Direction::ToClient => "to the client",
        Direction::Both => "both ways",
    }
}

/// When a fault ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End(Instant);

impl End {
    async fn reached(self) {
        sleep_until(self.0).await;
    }

    /// How much is left.
    fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// Lets a fault begin at `at`, last, and end.
pub(crate) async fn inflict(
    fault: Fault,
    at: Instant,
    lasts: Duration,
    world: Arc<World>,
) -> Outcome {
    sleep_until(at).await;
    let end = End(at + lasts);
    match fault {
        Fault::WorkerKill { slot } => processes::kill_worker(&world, slot, end).await,
        Fault::WorkerFreeze { slot } => processes::freeze_worker(&world, slot, end).await,
        Fault::WorkerTerminate { slot } => processes::terminate_worker(&world, slot, end).await,
        Fault::PipelineKill => processes::kill_pipeline(&world, end).await,
        Fault::RedisKill => servers::kill_redis(&world, end).await,
        Fault::RedisFreeze => servers::freeze_redis(&world, end).await,
        Fault::RedisFull => servers::fill_redis(&world, end).await,
        Fault::RedisClientKill => servers::kill_clients(&world, end).await,
        Fault::PostgresKill => servers::kill_postgres(&world, end).await,
        Fault::PostgresTerminate => {
            servers::to_backends(&world, "pg_terminate_backend", end).await;
        }
        Fault::PostgresCancel => servers::to_backends(&world, "pg_cancel_backend", end).await,
        Fault::PostgresLock => servers::lock_tables(&world, end).await,
        Fault::PostgresReadOnly => servers::make_read_only(&world, end).await,
        Fault::PostgresDiskFull => return disks::fill(world.disks.tables.as_ref(), end).await,
        Fault::PostgresWalFull => {
            let filling = disks::fill(world.disks.wal.as_ref(), end);
            let (outcome, ()) = tokio::join!(filling, servers::use_up_wal(&world, end));
            servers::revive_postgres(&world).await;
            return outcome;
        }
        Fault::SpoolDiskFull => return disks::fill(world.spool.disk.as_ref(), end).await,
        Fault::Cut {
            link,
            direction,
            n_bytes,
        } => {
            network::cut(&world, link, direction, n_bytes, end).await;
        }
        Fault::BlackHole { link, direction } => {
            network::black_hole(&world, link, direction, end).await;
        }
        Fault::Delay { link, ms } => network::delay(&world, link, ms, end).await,
        Fault::Refuse { link } => network::refuse(&world, link, end).await,
        Fault::LoseReply { command } => network::lose_replies(&world, command, end).await,
        // The rows were made with it: see `rows::ClockStep`.
        Fault::ClockStep { .. } => {}
        Fault::OperatorClaim => operators::claim(&world, end).await,
        Fault::OperatorHandOver => operators::hand_over(&world, end).await,
        Fault::OperatorRequeue => operators::requeue(&world, end).await,
    }
    Outcome::Happened
}

pub(crate) use operators::put_all_back;
