//! How much may happen, so that everything that may happen can be tried.

/// How much of each thing there is, and how often each fault strikes at most.
///
/// What is not a fault is not bounded: a step that is due can happen at any time, or not for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Bounds {
    /// Entries that the producer makes, of one row each.
    pub entries: u8,
    /// Whether Postgres refuses the row of the first entry, until an operator mends what is wrong.
    pub first_is_poison: bool,
    /// Workers.
    pub workers: u8,
    /// Most entries of a batch.
    pub batch: u8,
    /// The faults and the interventions.
    pub faults: Faults,
    /// Keys that grow older than the ledger's retention.
    pub ages: u8,
    /// Whether the stream is trimmed.
    pub trims: bool,
}

/// How often each of these happens at most; in a state, how often it may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Faults {
    /// A worker dies, and another takes its place.
    pub crashes: u8,
    /// A worker loses its connection to Postgres within a commit, with the reply to COMMIT perhaps.
    pub lost_connections: u8,
    /// A worker that lives shows no sign of life for `min-idle`, so that others claim what it holds.
    pub suspicions: u8,
    /// The reply to an XADD is lost.
    pub lost_xadd_replies: u8,
    /// The reply to an XREADGROUP is lost.
    pub lost_reads: u8,
    /// A spool that the pruner has not heard of sends an entry again that Redis had acknowledged.
    pub spool_replays: u8,
    /// An operator puts a dead letter back.
    pub requeues: u8,
    /// An operator hands a pending entry to a worker.
    pub hand_overs: u8,
}
