//! Where the rows of a file go: nowhere, into Postgres, or through the stream.
//!
//! Every way is safe to repeat: rows go under keys derived from session, content and position.

use std::{
    collections::{BTreeSet, VecDeque},
    num::NonZeroU16,
    time::Duration,
};

use anyhow::{Context, bail};
use backon::{BackoffBuilder, ExponentialBuilder};
use passerby_consumer::store::{Recovery, Store, StoreError};
use passerby_shared::{
    Detection, ErrorChain, IdempotencyKey, KeyPrefix, Track,
    redis_connection::{RedisLink, RedisRecovery},
    shard_of,
    wire::{
        FIELD_KEY, FIELD_KIND, FIELD_PAYLOAD, FIELD_VERSION, Kind, WIRE_VERSION, encode_detections,
        encode_tracks,
    },
};
use tokio::time::Instant;
use tracing::warn;

/// An entry to be: its key and its rows.
pub(crate) type KeyedRows = (IdempotencyKey, Vec<Detection>);

/// Keys asked for in one look into the ledger.
const LEDGER_PAGE: usize = 1_000;
/// Entries that may be on their way before the next ones wait.
const MAX_UNSETTLED: usize = 50_000;
const POLL: Duration = Duration::from_millis(50);

/// What became of rows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Written {
    /// Rows stored now.
    pub(crate) stored: u64,
    /// Rows that were stored before.
    pub(crate) already: u64,
}

/// Where rows go.
#[derive(Debug)]
pub(crate) enum Sink {
    /// Only count.
    Report,
    /// Straight into Postgres.
    Postgres(Box<Store>),
    /// Through the stream, to the workers.
    Stream(Box<StreamSink>),
}

impl Sink {
    /// The database, where there is one.
    pub(crate) fn store(&mut self) -> Option<&mut Store> {
        match self {
            Self::Report => None,
            Self::Postgres(store) => Some(store),
            Self::Stream(sink) => Some(&mut sink.store),
        }
    }

    /// Writes entries, once each.
    pub(crate) async fn write(&mut self, entries: &[KeyedRows]) -> anyhow::Result<Written> {
        match self {
            Self::Report => Ok(Written::default()),
            Self::Postgres(store) => {
                let n_rows: u64 = entries.iter().map(|(_, rows)| rows.len() as u64).sum();
                let borrowed: Vec<_> = entries
                    .iter()
                    .map(|(key, rows)| (*key, &rows[..]))
                    .collect();
                let mut backoff = new_backoff();
                let report = loop {
                    match store.insert_entries_once(&borrowed).await {
                        Ok(report) => break report,
                        Err(error) => wait_or_fail(error, &mut backoff).await?,
                    }
                };
                Ok(Written {
                    stored: report.detections,
                    already: n_rows - report.detections,
                })
            }
            Self::Stream(sink) => {
                sink.publish_detections(entries).await?;
                Ok(Written::default())
            }
        }
    }

    /// Writes the newest snapshots of tracks.
    pub(crate) async fn write_tracks(&mut self, tracks: &[Track]) -> anyhow::Result<()> {
        if tracks.is_empty() {
            return Ok(());
        }
        match self {
            Self::Report => Ok(()),
            Self::Postgres(store) => {
                let mut backoff = new_backoff();
                while let Err(error) = store.bulk_upsert_tracks(tracks).await {
                    wait_or_fail(error, &mut backoff).await?;
                }
                Ok(())
            }
            Self::Stream(sink) => sink.publish_tracks(tracks).await,
        }
    }

    /// Waits until everything written is stored; `false` when for `patience` nothing more was.
    pub(crate) async fn settle(&mut self, patience: Duration) -> anyhow::Result<bool> {
        match self {
            Self::Report | Self::Postgres(_) => Ok(true),
            Self::Stream(sink) => sink.settle_below(1, patience).await,
        }
    }
}

/// Publishes entries under given keys, and looks into the ledger for what became of them.
#[derive(Debug)]
pub(crate) struct StreamSink {
    pub(crate) link: RedisLink,
    pub(crate) store: Store,
    pub(crate) key_prefix: KeyPrefix,
    pub(crate) shards: NonZeroU16,
    pub(crate) unsettled: VecDeque<IdempotencyKey>,
}

impl StreamSink {
    async fn publish_detections(&mut self, entries: &[KeyedRows]) -> anyhow::Result<()> {
        let mut pipe = redis::pipe();
        for (key, rows) in entries {
            let Some(first) = rows.first() else { continue };
            let mut payload = Vec::with_capacity(rows.len() * 48);
            encode_detections(rows, &mut payload);
            self.add(
                &mut pipe,
                Kind::Detections,
                &first.camera_id,
                *key,
                &payload,
            );
            self.unsettled.push_back(*key);
        }
        self.publish(&pipe).await?;
        // Do not pour a file into a Redis whose workers are away.
        if self.unsettled.len() > MAX_UNSETTLED {
            self.settle_below(MAX_UNSETTLED, Duration::from_secs(3600))
                .await?;
        }
        Ok(())
    }

    async fn publish_tracks(&mut self, tracks: &[Track]) -> anyhow::Result<()> {
        let mut pipe = redis::pipe();
        for track in tracks {
            let mut payload = Vec::new();
            encode_tracks(std::slice::from_ref(track), &mut payload);
            let key = IdempotencyKey::derived_from("ingest-track", &[&payload]);
            self.add(&mut pipe, Kind::Tracks, &track.camera_id, key, &payload);
            self.unsettled.push_back(key);
        }
        self.publish(&pipe).await
    }

    fn add(
        &self,
        pipe: &mut redis::Pipeline,
        kind: Kind,
        camera_id: &str,
        key: IdempotencyKey,
        payload: &[u8],
    ) {
        let stream = self.key_prefix.stream(shard_of(camera_id, self.shards));
        pipe.cmd("XADD")
            .arg(stream)
            .arg("*")
            .arg(FIELD_VERSION)
            .arg(WIRE_VERSION)
            .arg(FIELD_KIND)
            .arg(kind.as_str())
            .arg(FIELD_KEY)
            .arg(key.as_bytes())
            .arg(FIELD_PAYLOAD)
            .arg(payload)
            .ignore();
    }

    /// Sends a pipeline until it was sent. What a broken connection leaves in doubt is sent again:
    /// the keys stay the same.
    async fn publish(&mut self, pipe: &redis::Pipeline) -> anyhow::Result<()> {
        // Nothing came since the last time, as at a recorded pace.
        if pipe.is_empty() {
            return Ok(());
        }
        let mut backoff = new_backoff();
        loop {
            let failure = match self.link.get().await {
                Ok(connection) => match pipe.query_async::<()>(connection).await {
                    Ok(()) => return Ok(()),
                    Err(error) => {
                        let recovery = self.link.judge(&error);
                        let error = anyhow::Error::new(error).context("publish to the stream");
                        if recovery == RedisRecovery::Stop {
                            return Err(error);
                        }
                        error
                    }
                },
                Err(error) => anyhow::Error::new(error),
            };
            let Some(wait) = backoff.next() else {
                return Err(failure.context(
                    "gave up publishing; run the same command again, nothing is stored twice",
                ));
            };
            warn!(error = %format_args!("{failure:#}"), "publishing failed: trying again");
            tokio::time::sleep(wait).await;
        }
    }

    /// Waits until fewer than `n` entries are on their way; `false` when for `patience` none
    /// arrived.
    async fn settle_below(&mut self, n: usize, patience: Duration) -> anyhow::Result<bool> {
        let mut last_progress = Instant::now();
        let mut n_found = 0;
        while self.unsettled.len() >= n {
            let n_asked = self.unsettled.len().min(LEDGER_PAGE);
            // A file named twice has each key twice, and the ledger has it once.
            let page: BTreeSet<_> = self.unsettled.iter().take(n_asked).copied().collect();
            let page = Vec::from_iter(page);
            let found = self
                .store
                .count_in_ledger(&page)
                .await
                .context("wait for the workers")?;
            if found > n_found {
                n_found = found;
                last_progress = Instant::now();
            }
            if found == page.len() {
                self.unsettled.drain(..n_asked);
                n_found = 0;
            } else if last_progress.elapsed() > patience {
                return Ok(false);
            } else {
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(true)
    }
}

fn new_backoff() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .with_max_times(12)
        .with_jitter()
        .build()
}

async fn wait_or_fail(
    error: StoreError,
    backoff: &mut impl Iterator<Item = Duration>,
) -> anyhow::Result<()> {
    if error.recovery() != Recovery::Retry {
        return Err(error.into());
    }
    let Some(wait) = backoff.next() else {
        bail!(
            anyhow::Error::new(error)
                .context("gave up storing; run the same command again, nothing is stored twice")
        );
    };
    warn!(error = %ErrorChain(&error), "storing failed: trying again");
    tokio::time::sleep(wait).await;
    Ok(())
}
