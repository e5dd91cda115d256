//! What a pipeline calls.

use std::{sync::mpsc, time::Duration};

use passerby_shared::{Detection, Embedding};
use redis::Value;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;

use super::{
    CacheError,
    query::{Query, decode, embedding, parse_id, present},
    queue::CacheQueue,
};

/// The track cache, for threads. Got from [`crate::Producer::cache`]; cheap to clone.
///
/// Writes return at once. Reads wait for the cache's `read_timeout` at most, 50 ms unless configured
/// otherwise, and give nothing where there is no answer.
#[derive(Clone)]
pub struct TrackCache {
    queue: CacheQueue,
}

/// The track cache, for async code. Got from [`crate::AsyncProducer::cache`]; cheap to clone.
///
/// As [`TrackCache`]; all methods are cancel safe.
#[derive(Clone)]
pub struct AsyncTrackCache {
    queue: CacheQueue,
}

impl TrackCache {
    pub(crate) fn new(queue: CacheQueue) -> Self {
        Self { queue }
    }

    /// Caches a payload of a track for `ttl`, replacing the one before; returns at once.
    ///
    /// # Errors
    ///
    /// [`CacheError`] when the payload cannot be encoded or the TTL is below 1 ms. That Redis is away
    /// is no error: the value is dropped and counted.
    pub fn cache_track<T: Serialize + ?Sized>(
        &self,
        session_id: &str,
        track_id: i64,
        payload: &T,
        ttl: Duration,
    ) -> Result<(), CacheError> {
        self.queue.cache_track(session_id, track_id, payload, ttl)
    }

    /// Caches a track's appearance for `ttl`, replacing the one before; returns at once.
    ///
    /// # Errors
    ///
    /// [`CacheError::Ttl`] when the TTL is below 1 ms.
    pub fn cache_embedding(
        &self,
        session_id: &str,
        track_id: i64,
        embedding: &Embedding,
        ttl: Duration,
    ) -> Result<(), CacheError> {
        self.queue
            .cache_embedding(session_id, track_id, embedding, ttl)
    }

    /// The payload last cached for a track; `None` when there is none, it has another form than `T`,
    /// or the cache does not answer.
    pub fn get_track<T: DeserializeOwned>(&self, session_id: &str, track_id: i64) -> Option<T> {
        self.get_tracks(session_id, &[track_id]).pop().flatten()
    }

    /// The payloads of many tracks of a session, in the order asked for: one `MGET`.
    pub fn get_tracks<T: DeserializeOwned>(
        &self,
        session_id: &str,
        track_ids: &[i64],
    ) -> Vec<Option<T>> {
        let query = Query::tracks(&self.queue, session_id, track_ids);
        query.values(&self.queue, self.read(&query), decode)
    }

    /// The tracks last cached in a session that have not expired, newest first, at most `n`.
    pub fn recent_tracks(&self, session_id: &str, n: usize) -> Vec<i64> {
        let query = Query::recent_tracks(&self.queue, session_id, n);
        present(query.values(&self.queue, self.read(&query), parse_id))
    }

    /// The appearance last cached for a track.
    pub fn get_embedding(&self, session_id: &str, track_id: i64) -> Option<Embedding> {
        self.get_embeddings(session_id, &[track_id]).pop().flatten()
    }

    /// The appearances of many tracks of a session, in the order asked for: one `MGET`.
    pub fn get_embeddings(&self, session_id: &str, track_ids: &[i64]) -> Vec<Option<Embedding>> {
        let query = Query::embeddings(&self.queue, session_id, track_ids);
        query.values(&self.queue, self.read(&query), embedding)
    }

    /// A camera's last published detections, newest first, at most `n`. Empty unless
    /// [`crate::CacheConfig::recent_detections`] is set; producers of the same camera share the list.
    pub fn recent_detections(&self, camera_id: &str, n: usize) -> Vec<Detection> {
        let query = Query::recent_detections(&self.queue, camera_id, n);
        present(query.values(&self.queue, self.read(&query), decode))
    }

    fn read(&self, query: &Query) -> Option<Value> {
        let command = query.command.clone()?;
        let (sender, receiver) = mpsc::sync_channel(1);
        self.queue
            .read(command, move |value| drop(sender.send(value)));
        receiver
            .recv_timeout(self.queue.shared.config.read_timeout)
            .ok()
    }
}

impl AsyncTrackCache {
    pub(crate) fn new(queue: CacheQueue) -> Self {
        Self { queue }
    }

    /// See [`TrackCache::cache_track`].
    ///
    /// # Errors
    ///
    /// [`CacheError`] when the payload cannot be encoded or the TTL is below 1 ms.
    pub fn cache_track<T: Serialize + ?Sized>(
        &self,
        session_id: &str,
        track_id: i64,
        payload: &T,
        ttl: Duration,
    ) -> Result<(), CacheError> {
        self.queue.cache_track(session_id, track_id, payload, ttl)
    }

    /// See [`TrackCache::cache_embedding`].
    ///
    /// # Errors
    ///
    /// [`CacheError::Ttl`] when the TTL is below 1 ms.
    pub fn cache_embedding(
        &self,
        session_id: &str,
        track_id: i64,
        embedding: &Embedding,
        ttl: Duration,
    ) -> Result<(), CacheError> {
        self.queue
            .cache_embedding(session_id, track_id, embedding, ttl)
    }

    /// See [`TrackCache::get_track`].
    pub async fn get_track<T: DeserializeOwned>(
        &self,
        session_id: &str,
        track_id: i64,
    ) -> Option<T> {
        self.get_tracks(session_id, &[track_id])
            .await
            .pop()
            .flatten()
    }

    /// See [`TrackCache::get_tracks`].
    pub async fn get_tracks<T: DeserializeOwned>(
        &self,
        session_id: &str,
        track_ids: &[i64],
    ) -> Vec<Option<T>> {
        let query = Query::tracks(&self.queue, session_id, track_ids);
        query.values(&self.queue, self.read(&query).await, decode)
    }

    /// See [`TrackCache::recent_tracks`].
    pub async fn recent_tracks(&self, session_id: &str, n: usize) -> Vec<i64> {
        let query = Query::recent_tracks(&self.queue, session_id, n);
        present(query.values(&self.queue, self.read(&query).await, parse_id))
    }

    /// See [`TrackCache::get_embedding`].
    pub async fn get_embedding(&self, session_id: &str, track_id: i64) -> Option<Embedding> {
        self.get_embeddings(session_id, &[track_id])
            .await
            .pop()
            .flatten()
    }

    /// See [`TrackCache::get_embeddings`].
    pub async fn get_embeddings(
        &self,
        session_id: &str,
        track_ids: &[i64],
    ) -> Vec<Option<Embedding>> {
        let query = Query::embeddings(&self.queue, session_id, track_ids);
        query.values(&self.queue, self.read(&query).await, embedding)
    }

    /// See [`TrackCache::recent_detections`].
    pub async fn recent_detections(&self, camera_id: &str, n: usize) -> Vec<Detection> {
        let query = Query::recent_detections(&self.queue, camera_id, n);
        present(query.values(&self.queue, self.read(&query).await, decode))
    }

    async fn read(&self, query: &Query) -> Option<Value> {
        let command = query.command.clone()?;
        let (sender, receiver) = oneshot::channel();
        self.queue
            .read(command, move |value| drop(sender.send(value)));
        let timeout = self.queue.shared.config.read_timeout;
        tokio::time::timeout(timeout, receiver).await.ok()?.ok()
    }
}

impl std::fmt::Debug for TrackCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrackCache").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for AsyncTrackCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AsyncTrackCache").finish_non_exhaustive()
    }
}
