//! What the fuzz targets do with their bytes, and how much memory that may take.
//!
//! The targets themselves are in `tests/fuzz`, outside of the workspace; they call [`Target::run`] and
//! nothing else. `tests/tests/hostile` calls it with every committed input, so that what fuzzing once
//! found is tested by `cargo test`.
//!
//! A body panics where a promise is broken: hostile bytes never panic, never take more memory than a
//! small multiple of their length, and whatever is decoded from them is valid and survives being
//! encoded again.

mod entry;
mod files;
mod memory;
mod payload;
mod seeds;
mod spool;

pub use peak_alloc::PeakAlloc;
pub use seeds::Seed;

/// A fuzz target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Any bytes as the payload of each kind of entry.
    Payload,
    /// Entries with any fields, through the worker's decoder into a batch.
    Entry,
    /// A file of MOTChallenge text.
    Mot,
    /// A file of NDJSON.
    Ndjson,
    /// What a producer left on disk.
    Spool,
}

impl Target {
    /// Every target.
    pub const ALL: [Self; 5] = [
        Self::Payload,
        Self::Entry,
        Self::Mot,
        Self::Ndjson,
        Self::Spool,
    ];

    /// Its name: of the program, and of its folders of inputs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Payload => "payload",
            Self::Entry => "entry",
            Self::Mot => "mot",
            Self::Ndjson => "ndjson",
            Self::Spool => "spool",
        }
    }

    /// What fuzzing starts from.
    pub fn seeds(self) -> Vec<Seed> {
        seeds::of(self)
    }

    /// Does with these bytes what the target does.
    ///
    /// [`PeakAlloc`] must be the program's allocator, and no other thread be busy: memory is counted
    /// for the process.
    pub fn run(self, data: &[u8]) {
        match self {
            Self::Payload => payload::run(data),
            Self::Entry => entry::run(data),
            Self::Mot => files::run(passerby::ingest::FileFormat::Mot, data),
            Self::Ndjson => files::run(passerby::ingest::FileFormat::Ndjson, data),
            Self::Spool => spool::run(data),
        }
    }
}
