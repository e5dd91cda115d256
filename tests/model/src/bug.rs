//! Rules of the protocol that can be broken one at a time, to see that the checker notices.

/// One rule broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// XACK leaves with COMMIT instead of after it.
    AckBeforeCommit,
    /// A lost reply to COMMIT is taken for a success.
    AckWhenCommitIsInDoubt,
    /// A lost reply to COMMIT is taken for a failure: the rows are stored under another key.
    NewKeyWhenCommitIsInDoubt,
    /// The fast path enters no keys.
    NoLedgerOnFastPath,
    /// Keys are committed before the rows are, in a transaction of their own.
    LedgerCommittedFirst,
    /// A key that another transaction has entered counts as taken before that one has committed.
    UncommittedKeyCountsAsTaken,
    /// Keys are entered in the order of the batch instead of their own.
    KeysUnsorted,
    /// A refused row is dead-lettered in a transaction of its own, before its batch commits.
    DeadLetterCommittedFirst,
    /// What is delivered again is dead-lettered: a limit to the delivery count.
    DeadLetterByDeliveryCount,
    /// A producer that does not know what became of an XADD repeats it under a new key.
    NewKeyOnResend,
    /// A dead letter goes back under a new key each time.
    NewKeyOnRequeue,
    /// A letter that is `too-old` is put back like any other, though its row may be stored.
    RequeueOfTooOld,
    /// DELCONSUMER without looking whether entries are pending.
    LeaveWhilePending,
    /// The heartbeat keeps everything alive that is pending under its consumer's name.
    HeartbeatKeepsWhatItLacks,
    /// Trimming looks at the last delivered ID only.
    TrimToLastDelivered,
    /// Trimming looks at the stream's length only, as `MAXLEN` does.
    TrimByLength,
    /// Pruning looks at the keys' age only.
    PruneWithoutLookingAtPending,
    /// No producer tells of its spool.
    SpoolsUnannounced,
    /// Keys are removed first, and the horizon moves then.
    PruneBeforeHorizonMoves,
    /// Keys that do not tell their age are pruned like others.
    PruneKeysWithoutTime,
    /// A commit reads the horizon first, and enters its keys then.
    HorizonReadBeforeKeys,
    /// Nobody looks at the horizon.
    NoHorizon,
    /// The heartbeat claims its entries back from whoever claimed them. Harmless.
    HeartbeatStealsBack,
    /// A reader does not look into its own history after a lost reply. Harmless.
    NoHistoryAfterLostRead,
}
