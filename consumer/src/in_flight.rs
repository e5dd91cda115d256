//! The entries this worker has read and not yet acknowledged.
//!
//! After a broken connection the reader reads its own history again, and a claim may return what is
//! the worker's own: this set tells those apart that are on their way already.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use passerby_shared::{EntryId, StreamKey};
use tokio::sync::Notify;

use crate::batch::Origin;

/// Shared by the reader, who adds, and the acker, who removes.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFlight(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    entries: Mutex<HashSet<Origin>>,
    removed: Notify,
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, HashSet<Origin>> {
        // The set is whole after each of the operations below, whoever panicked meanwhile.
        let entries = &self.0.entries;
        entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an entry; `false` when it was there.
    pub(crate) fn insert(&self, origin: &Origin) -> bool {
        self.lock().insert(origin.clone())
    }

    pub(crate) fn remove(&self, origins: &[Origin]) {
        let mut set = self.lock();
        for origin in origins {
            set.remove(origin);
        }
        self.0.removed.notify_one();
    }

    /// Returns once entries were removed since the last call. One task may wait, the reader.
    pub(crate) async fn removed(&self) {
        self.0.removed.notified().await;
    }

    /// The entries of one stream.
    pub(crate) fn ids_in(&self, stream: &StreamKey) -> Vec<EntryId> {
        let set = self.lock();
        set.iter()
            .filter(|origin| *origin.stream == *stream)
            .map(|origin| origin.id)
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}
