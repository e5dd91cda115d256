//! Everything that can happen, one step at a time.

use std::fmt;

use crate::{
    stream::Consumer,
    world::{Key, Row},
};

/// One step of one party.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "`Display` says what each of them is")]
pub enum Action {
    Publish,
    PublishAndLoseReply,
    Respool { row: Row },
    Read { worker: u8 },
    ReadAndLoseReply { worker: u8 },
    ReadHistory { worker: u8 },
    Claim { worker: u8, from: Consumer },
    ClaimFromLiving { worker: u8, slow: u8 },
    StealBack { worker: u8 },
    HandOver { id: u8, to: u8 },
    DeleteDeadConsumers,
    EnterKey { worker: u8 },
    WriteRows { worker: u8 },
    SendCommit { worker: u8 },
    Commit { worker: u8 },
    LoseConnection { worker: u8 },
    Crash { worker: u8 },
    AbortOrphan { at: u8 },
    CommitOrphan { at: u8 },
    Ack { worker: u8 },
    Trim,
    Age,
    FindHorizon,
    MoveHorizon,
    Prune { key: Key },
    Mend,
    Requeue { letter: u8 },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Publish => write!(f, "producer: XADD the next entry"),
            Self::PublishAndLoseReply => {
                write!(f, "producer: XADD the next entry; the reply is lost")
            }
            Self::Respool { row } => write!(f, "a forgotten spool holds entry {row} still"),
            Self::Read { worker } => write!(f, "worker {worker}: XREADGROUP new entries"),
            Self::ReadAndLoseReply { worker } => {
                write!(f, "worker {worker}: XREADGROUP; the reply is lost")
            }
            Self::ReadHistory { worker } => write!(f, "worker {worker}: reads its own history"),
            Self::Claim {
                worker,
                from: Consumer::Dead,
            } => write!(f, "worker {worker}: XAUTOCLAIM from the dead"),
            Self::Claim {
                worker,
                from: Consumer::Worker(owner),
            } => write!(
                f,
                "worker {worker}: XAUTOCLAIM what worker {owner} never received"
            ),
            Self::ClaimFromLiving { worker, slow } => {
                write!(
                    f,
                    "worker {worker}: XAUTOCLAIM from worker {slow}, which seems dead"
                )
            }
            Self::StealBack { worker } => write!(f, "worker {worker}: heartbeat claims back"),
            Self::HandOver { id, to } => write!(f, "operator: hands {id}-0 to worker {to}"),
            Self::DeleteDeadConsumers => write!(f, "DELCONSUMER of the dead"),
            Self::EnterKey { worker } => write!(f, "worker {worker}: enters the next key"),
            Self::WriteRows { worker } => {
                write!(f, "worker {worker}: reads the horizon, COPY of the rows")
            }
            Self::SendCommit { worker } => write!(f, "worker {worker}: sends COMMIT"),
            Self::Commit { worker } => write!(f, "postgres: commits for worker {worker}"),
            Self::LoseConnection { worker } => {
                write!(f, "worker {worker}: loses its connection to Postgres")
            }
            Self::Crash { worker } => write!(f, "worker {worker}: crashes"),
            Self::AbortOrphan { at } => write!(f, "postgres: aborts orphan {at}"),
            Self::CommitOrphan { at } => write!(f, "postgres: commits orphan {at}"),
            Self::Ack { worker } => write!(f, "worker {worker}: XACK"),
            Self::Trim => write!(f, "XTRIM of the first entry"),
            Self::Age => write!(f, "the next key grows older than the retention"),
            Self::FindHorizon => write!(f, "keeper: finds a horizon good"),
            Self::MoveHorizon => write!(f, "keeper: moves the horizon"),
            Self::Prune { key } => write!(f, "keeper: prunes {key:?}"),
            Self::Mend => write!(f, "operator: mends what was wrong"),
            Self::Requeue { letter } => write!(f, "operator: puts letter {letter} back"),
        }
    }
}
