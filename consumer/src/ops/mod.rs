//! What operators do by hand: look at entries, pending ones above all, take them over, trim streams, put dead
//! letters back.
//!
//! These functions return data; the binary `passerby` renders it.

mod cameras;
mod claim;
mod committing;
mod consumers;
mod decoded;
mod doctor;
mod entry;
mod ledger;
mod letter;
mod partitions;
mod pause;
mod pending;
mod replay;
mod requeue;
mod status;
mod support_bundle;
mod tap;
mod trim;

use passerby_shared::{
    KeyPrefix, StreamKey,
    redis_connection::{ConnectError, RedisLink},
};
use redis::RedisError;

pub use cameras::{CameraArrivals, CameraSample, cameras};
pub use claim::{ClaimFilter, ClaimReport, ClaimedFrom, claim, claim_dry_run, hand_over};
pub use consumers::{ConsumerStatus, ConsumersReport, Retired, ShownConsumer, consumers, retire};
pub use decoded::{DecodedEntry, EntryRows};
pub use doctor::{
    CheckInfo, DoctorConfig, DoctorReport, Finding, Selection, Status, doctor, doctor_checks,
};
pub use entry::{Delivery, EntryName, EntryPlace, EntryReport, Whereabouts, entry};
pub use ledger::{Holder, LedgerOutlook, ledger_outlook};
pub use letter::{
    BrokenPayload, LetterContents, LetterField, LetterRow, RowProblem, ShownValue, read_letter,
};
pub use partitions::{
    DayKept, PartitionsDropped, PartitionsMade, days_ahead, drop_partitions, make_partitions,
    within_policy,
};
pub use pause::{RunningWorkers, pause, paused, resume, running_workers};
pub use pending::{
    ConsumerPending, PendingCount, PendingEntry, PendingFilter, PendingGroup, PendingReport,
    pending,
};
pub use replay::{
    Destination, Gap, ReplayFilter, ReplayReport, StreamWindow, replay, replay_dead_letters,
    replay_windows,
};
pub use requeue::{RequeueLimits, RequeueReport, Stopped, requeue, requeue_dry_run};
pub(crate) use status::in_turn;
pub use status::{
    Balance, Dropped, Flow, FlowSource, RedisStatus, SILENT_AFTER, Severity, StatusReport,
    StreamStatus, Symptom, Thresholds, WorkerStatus, fold_books, status,
};
pub use support_bundle::{BUNDLE_FILES, BundleConfig, BundleFile, support_bundle};
pub use tap::{Tap, TapCounts, TapFilter, Tapped};
pub use trim::{HeldBy, TrimReport, trim, trim_dry_run};

use crate::{
    reply::UnexpectedReply,
    store::StoreError,
    worker::{WorkerError, redis_advice},
};

/// An operator's command that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpsError {
    /// Redis could not be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A command failed.
    #[error("{doing} on stream `{stream}`")]
    Redis {
        /// What was tried.
        doing: &'static str,
        /// On which stream.
        stream: StreamKey,
        /// What came back.
        #[source]
        source: RedisError,
    },
    /// A command that is about no stream failed.
    #[error("{doing}")]
    Command {
        /// What was tried.
        doing: &'static str,
        /// What came back.
        #[source]
        source: RedisError,
    },
    /// The server answers in a way nobody knows.
    #[error(transparent)]
    Reply(#[from] UnexpectedReply),
    /// Postgres failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Storing failed in a way that waiting does not mend.
    #[error(transparent)]
    Commit(#[from] WorkerError),
}

impl OpsError {
    fn redis(doing: &'static str, stream: &StreamKey) -> impl FnOnce(RedisError) -> Self {
        let stream = stream.clone();
        move |source| Self::Redis {
            doing,
            stream,
            source,
        }
    }

    fn command(doing: &'static str) -> impl FnOnce(RedisError) -> Self {
        move |source| Self::Command { doing, source }
    }

    /// What an operator can do, in a few words.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Connect(error) => Some(redis_advice(error.redis_error())),
            Self::Redis { source, .. } if source.code() == Some("NOGROUP") => Some(
                "no worker has ever read this stream: check --key-prefix, --shards and --group"
                    .to_owned(),
            ),
            Self::Redis { source, .. } | Self::Command { source, .. } => Some(redis_advice(source)),
            Self::Store(error) => error.advice(),
            Self::Commit(error) => error.advice(),
            Self::Reply(_) => None,
        }
    }
}

/// The streams and the group that a command is about.
#[derive(Debug)]
pub struct Target {
    /// The server.
    pub link: RedisLink,
    /// What the keys begin with.
    pub key_prefix: KeyPrefix,
    /// The streams, one for each shard.
    pub streams: Vec<StreamKey>,
    /// The consumer group.
    pub group: String,
}
