//! Makes entries of rows: one for each shard and kind, split where one would become too large.
//!
//! Rows of one shard and kind keep their order. The idempotency key of an entry is made here, once,
//! before its first attempt.

use std::{
    collections::HashMap,
    num::{NonZeroU16, NonZeroUsize},
};

use passerby_shared::{
    Detection, IdempotencyKey, Session, Traceparent, Track, shard_of,
    wire::{self, Kind},
};

use crate::{config::ProducerConfig, row::Row, saturation::Saturation};

/// One entry of a stream, encoded.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) shard: u16,
    pub(crate) kind: Kind,
    pub(crate) key: IdempotencyKey,
    pub(crate) payload: Vec<u8>,
    pub(crate) n_rows: usize,
    /// What the buffer charges for the rows.
    pub(crate) n_bytes: usize,
    /// What the track cache is to remember of the rows once they are published.
    pub(crate) recent: Vec<RecentDetections>,
    pub(crate) held: Held,
    /// The trace it belongs to.
    pub(crate) traceparent: Option<Traceparent>,
}

/// What keeps an entry's rows until Redis has them, and so which books they are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// The buffer.
    Memory,
    /// The spool.
    Spool,
}

/// A camera's last detections in an entry, oldest first, each encoded for the cache.
#[derive(Debug)]
pub(crate) struct RecentDetections {
    pub(crate) camera_id: String,
    pub(crate) detections: Vec<Vec<u8>>,
}

pub(crate) struct Batcher {
    shards: NonZeroU16,
    max_rows: usize,
    max_bytes: usize,
    recent_per_camera: Option<NonZeroUsize>,
    saturation: Saturation,
}

/// An entry's rows, collected where they lie.
struct Open<'a> {
    shard: u16,
    rows: Rows<'a>,
    n_rows: usize,
    n_bytes: usize,
}

enum Rows<'a> {
    Detections(Vec<&'a Detection>),
    Tracks(Vec<&'a Track>),
    Sessions(Vec<&'a Session>),
}

impl Batcher {
    pub(crate) fn new(config: &ProducerConfig, saturation: Saturation) -> Self {
        Self {
            saturation,
            shards: config.shards,
            max_rows: config.max_rows.get(),
            max_bytes: config.max_bytes.get(),
            recent_per_camera: config.cache.recent_detections.map(|r| r.per_camera),
        }
    }

    /// Makes entries of rows. The entries of a shard are in the order of their first rows.
    pub(crate) fn batch<'a>(&self, rows: impl Iterator<Item = &'a mut Row>) -> Vec<Entry> {
        let mut entries: Vec<Open<'_>> = Vec::new();
        let mut filling: HashMap<(u16, Kind), usize> = HashMap::new();
        let mut last = None;
        for row in rows {
            // The buffer has charged the whole row, and is told so when it is published.
            let (kind, n_bytes) = (row.kind(), row.n_bytes());
            self.saturation.degrade(row);
            let shard = shard_of(row.shard_id(), self.shards);
            // Rows of one shard and kind mostly follow one another, which spares the hash.
            let open = match last {
                Some((last, at)) if last == (shard, kind) => Some(at),
                _ => filling.get(&(shard, kind)).copied(),
            };
            let at = open
                .filter(|&at| self.fits(&entries[at], n_bytes))
                .unwrap_or_else(|| {
                    filling.insert((shard, kind), entries.len());
                    entries.push(Open::new(shard, kind));
                    entries.len() - 1
                });
            entries[at].push(row, n_bytes);
            last = Some(((shard, kind), at));
        }
        entries
            .into_iter()
            .map(|open| open.encode(self.recent_per_camera))
            .collect()
    }

    fn fits(&self, open: &Open<'_>, n_bytes: usize) -> bool {
        open.n_rows < self.max_rows && open.n_bytes.saturating_add(n_bytes) <= self.max_bytes
    }
}

impl<'a> Open<'a> {
    fn new(shard: u16, kind: Kind) -> Self {
        Self {
            shard,
            rows: match kind {
                Kind::Detections => Rows::Detections(Vec::new()),
                Kind::Tracks => Rows::Tracks(Vec::new()),
                Kind::Sessions => Rows::Sessions(Vec::new()),
            },
            n_rows: 0,
            n_bytes: 0,
        }
    }

    fn push(&mut self, row: &'a Row, n_bytes: usize) {
        match (&mut self.rows, row) {
            (Rows::Detections(rows), Row::Detection(row)) => rows.push(row),
            (Rows::Tracks(rows), Row::Track(row)) => rows.push(row),
            (Rows::Sessions(rows), Row::Session(row)) => rows.push(row),
            _ => unreachable!("entries are looked up by their kind"),
        }
        self.n_rows += 1;
        self.n_bytes += n_bytes;
    }

    fn encode(self, recent_per_camera: Option<NonZeroUsize>) -> Entry {
        let mut payload = Vec::with_capacity(64 * self.n_rows);
        let mut recent = Vec::new();
        let kind = match &self.rows {
            Rows::Detections(rows) => {
                wire::encode_detections(rows, &mut payload);
                if let Some(n) = recent_per_camera {
                    recent = recent_detections(rows, n.get());
                }
                Kind::Detections
            }
            Rows::Tracks(rows) => {
                wire::encode_tracks(rows, &mut payload);
                Kind::Tracks
            }
            Rows::Sessions(rows) => {
                wire::encode_sessions(rows, &mut payload);
                Kind::Sessions
            }
        };
        Entry {
            shard: self.shard,
            kind,
            key: IdempotencyKey::generate(),
            payload,
            n_rows: self.n_rows,
            n_bytes: self.n_bytes,
            recent,
            held: Held::Memory,
            traceparent: None,
        }
    }
}

/// The last `n` detections of each camera: a longer list would be cut to that anyway.
fn recent_detections(rows: &[&Detection], n: usize) -> Vec<RecentDetections> {
    let mut by_camera: HashMap<&str, Vec<Vec<u8>>> = HashMap::new();
    for detection in rows.iter().rev() {
        let detections = by_camera.entry(&detection.camera_id).or_default();
        if detections.len() < n {
            // A detection holds nothing that MessagePack cannot; a cache may go without it anyway.
            detections.extend(rmp_serde::to_vec_named(detection));
        }
    }
    by_camera
        .into_iter()
        .map(|(camera_id, mut detections)| {
            detections.reverse();
            RecentDetections {
                camera_id: camera_id.to_owned(),
                detections,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cache::RecentDetectionsConfig,
        config::tests::{config, size},
        row::tests::{detection, session, track},
    };

    fn batch(change: impl FnOnce(&mut ProducerConfig), rows: Vec<Row>) -> Vec<Entry> {
        let mut config = config();
        change(&mut config);
        let mut rows = rows;
        Batcher::new(&config, Saturation::default()).batch(rows.iter_mut())
    }

    fn detection_ids(entry: &Entry) -> Vec<i64> {
        let mut ids = Vec::new();
        wire::decode_detections(&entry.payload, |_, row| ids.push(row.unwrap().detection_id))
            .unwrap();
        ids
    }

    #[test]
    fn an_entry_holds_at_most_max_rows_of_one_kind_in_order() {
        let mut rows: Vec<Row> = (0..7)
            .map(|id| Row::Detection(detection("c", id)))
            .collect();
        rows.insert(3, Row::Track(track("c", 1)));
        rows.insert(0, Row::Session(session("s")));
        let entries = batch(|c| c.max_rows = size(3), rows);

        let kinds: Vec<&str> = entries.iter().map(|e| e.kind.as_str()).collect();
        assert_eq!(kinds, ["s", "d", "t", "d", "d"]);
        assert_eq!(detection_ids(&entries[1]), [0, 1, 2]);
        assert_eq!(detection_ids(&entries[3]), [3, 4, 5]);
        assert_eq!(detection_ids(&entries[4]), [6]);
        assert_eq!(entries.iter().map(|e| e.n_rows).sum::<usize>(), 9);
    }

    #[test]
    fn a_payload_stays_within_max_bytes_unless_one_row_is_larger() {
        let rows = || (0..50).map(|_| Row::Track(track("c", 100))).collect();
        for entry in batch(|c| c.max_bytes = size(8192), rows()) {
            assert!(entry.n_rows > 1 && entry.n_bytes <= 8192 && entry.payload.len() <= 8192);
        }
        let large = vec![Row::Track(track("c", 1000)), Row::Track(track("c", 1))];
        let entries = batch(|c| c.max_bytes = size(8192), large);
        assert_eq!(entries.iter().map(|e| e.n_rows).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn a_camera_stays_on_its_shard_and_no_two_entries_share_a_key() {
        let shards = NonZeroU16::new(4).unwrap();
        let rows = (0..100)
            .map(|id| Row::Detection(detection(&format!("camera-{}", id % 10), id)))
            .collect();
        let entries = batch(|c| c.shards = shards, rows);
        assert!(entries.len() > 1);
        for entry in &entries {
            wire::decode_detections(&entry.payload, |_, row| {
                assert_eq!(shard_of(row.unwrap().camera_id, shards), entry.shard);
            })
            .unwrap();
        }
        let mut keys: Vec<_> = entries.iter().map(|e| e.key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), entries.len());
    }

    #[test]
    fn the_cache_is_given_the_last_detections_of_each_camera() {
        let rows = (0..10)
            .map(|id| Row::Detection(detection(if id % 2 == 0 { "a" } else { "b" }, id)))
            .collect();
        let recent = RecentDetectionsConfig {
            per_camera: size(2),
            ..RecentDetectionsConfig::default()
        };
        let entries = batch(|c| c.cache.recent_detections = Some(recent), rows);
        let mut found: Vec<_> = entries[0]
            .recent
            .iter()
            .map(|camera| {
                let ids = camera.detections.iter().map(|bytes| {
                    let detection: Detection = rmp_serde::from_slice(bytes).unwrap();
                    detection.detection_id
                });
                (camera.camera_id.as_str(), ids.collect::<Vec<_>>())
            })
            .collect();
        found.sort();
        assert_eq!(found, [("a", vec![6, 8]), ("b", vec![7, 9])]);
    }
}
