//! Sends what a spool holds whose pipeline is gone.

use std::{path::Path, time::Duration};

use passerby_shared::redis_connection::RedisUrl;

use super::{SpoolConfig, directory, error::SpoolError};
use crate::{
    async_producer::AsyncProducer,
    config::ProducerConfig,
    health::Health,
    lifecycle::{CloseError, FlushError, StartError},
    stats::Stats,
};

/// A spool that is being sent: in order, with the keys its entries have, to the streams it was made
/// for.
///
/// It is safe to end it at any moment and to do it again: what was sent twice is stored once.
#[derive(Debug)]
pub struct Drain {
    producer: AsyncProducer,
}

impl Drain {
    /// Takes the lock of a spool and begins to send it. Redis may be away.
    ///
    /// # Errors
    ///
    /// [`StartError::Spool`] when there is no spool there, or a living pipeline uses it.
    pub fn start(dir: &Path, redis_url: RedisUrl) -> Result<Self, StartError> {
        if dir.exists() && !dir.is_dir() {
            let path = dir.to_path_buf();
            return Err(StartError::Spool(SpoolError::NotADirectory { path }));
        }
        let meta = directory::read_meta(dir).map_err(StartError::Spool)?;
        let meta = meta.ok_or_else(|| {
            StartError::Spool(SpoolError::NoSpool {
                dir: dir.to_path_buf(),
            })
        })?;
        let mut config = ProducerConfig::new(redis_url);
        config.key_prefix = meta.key_prefix;
        config.shards = meta.shards;
        config.spool = Some(SpoolConfig::new(dir));
        let producer = AsyncProducer::start(config)?;
        Ok(Self { producer })
    }

    /// Waits until everything has been sent.
    ///
    /// # Errors
    ///
    /// [`FlushError`] when rows are left after `timeout`; they are still being sent.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait(&self, timeout: Duration) -> Result<(), FlushError> {
        self.producer.flush(timeout).await
    }

    /// What has been sent and what is left, in `published` and `spooled` of the rows.
    pub fn stats(&self) -> Stats {
        self.producer.stats()
    }

    /// Whether entries get through.
    pub fn health(&self) -> Health {
        self.producer.health()
    }

    /// Ends it; what is left stays in the spool.
    ///
    /// # Errors
    ///
    /// [`CloseError`] when the spool's disk failed, and rows that were in memory are lost.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn close(self) -> Result<Stats, CloseError> {
        self.producer.close(Duration::ZERO).await
    }
}
