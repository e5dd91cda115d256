//! The entries this worker has read and not yet acknowledged.
//!
//! After a broken connection the reader reads its own history again, and a claim may return what is
//! the worker's own: this set tells those apart that are on their way already.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use passerby_shared::{EntryId, StreamKey};

use crate::batch::Origin;

/// Shared by the reader, who adds, and the acker, who removes.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<HashSet<Origin>>>);

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, HashSet<Origin>> {
        // The set is whole after each of the operations below, whoever panicked meanwhile.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
