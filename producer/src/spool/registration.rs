//! Tells the workers up to when everything of this spool has been sent.
//!
//! The workers' ledger forgets old keys, and must not forget those that a spool may still bring. A producer
//! with a spool therefore notes in Redis, in the hash [`KeyPrefix::spools`](passerby_shared::KeyPrefix), a
//! time before which it has nothing left to send. While it is cut off the note grows old, and holds the
//! ledger back. A producer that ends with an empty spool takes its note away.

use std::{path::Path, time::Duration};

use chrono::{DateTime, Utc};
use passerby_shared::host_name;
use redis::Cmd;
use tokio::time::Instant;

use crate::config::ProducerConfig;

/// How often the note is brought up to date while rows are published.
const EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Registration {
    hash: String,
    spool_id: String,
    /// What was recorded below this number was recorded before this time, and the rest after it.
    mark: (u64, DateTime<Utc>),
    due: Option<Instant>,
}

impl Registration {
    /// Of a producer that has a spool; `next_seq` is the number of the next row that is recorded.
    pub(crate) fn new(config: &ProducerConfig, next_seq: u64) -> Option<Self> {
        let spool = config.spool.as_ref()?;
        Some(Self {
            hash: config.key_prefix.spools(),
            spool_id: spool_id(&spool.dir),
            mark: (next_seq, Utc::now()),
            due: None,
        })
    }

    /// The number below which nothing must be left for the note to be brought up to date now; `None` when
    /// it is not yet time.
    pub(crate) fn due(&self) -> Option<u64> {
        let is_due = self.due.is_none_or(|due| Instant::now() >= due);
        is_due.then_some(self.mark.0)
    }

    /// The command that notes that everything below the mark has been sent.
    pub(crate) fn note(&mut self, next_seq: u64) -> Cmd {
        let mut command = redis::cmd("HSET");
        command
            .arg(&self.hash)
            .arg(&self.spool_id)
            .arg(self.mark.1.timestamp_millis());
        self.mark = (next_seq, Utc::now());
        self.due = Some(Instant::now() + EVERY);
        command
    }

    /// The command that takes the note away.
    pub(crate) fn forget(&self) -> Cmd {
        let mut command = redis::cmd("HDEL");
        command.arg(&self.hash).arg(&self.spool_id);
        command
    }
}

/// What operators see of a spool in Redis: where it is.
pub(crate) fn spool_id(dir: &Path) -> String {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
    format!("{}:{}", host_name(), dir.display())
}
