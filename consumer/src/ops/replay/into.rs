//! Writes what is replayed into a table for comparison, in one transaction.

use passerby_shared::{
    IdempotencyKey,
    wire::{self, EntryFields, Kind},
};

use super::{ReplayFilter, ReplayReport};
use crate::{
    decoder,
    ops::OpsError,
    reply::Delivered,
    store::{ComparisonTable, CopyBuffer, Store},
};

pub(super) struct Writing {
    table: ComparisonTable,
}

impl Writing {
    pub(super) async fn begin(
        store: &mut Store,
        name: &str,
        create: bool,
    ) -> Result<Self, OpsError> {
        let table = store.begin_comparison(name, create).await?;
        Ok(Self { table })
    }

    pub(super) async fn write(
        &mut self,
        entries: Vec<(IdempotencyKey, Delivered)>,
        filter: &ReplayFilter,
        report: &mut ReplayReport,
    ) -> Result<(), OpsError> {
        let mut pieces = Vec::with_capacity(entries.len());
        for (key, entry) in entries {
            let fields = entry.fields.unwrap_or_default();
            let mut rows = CopyBuffer::new();
            let mut n_bad = 0;
            let decoded = EntryFields::parse(decoder::pairs(&fields)).and_then(|entry| {
                if entry.kind != Kind::Detections {
                    return Ok(false);
                }
                wire::decode_detections(entry.payload, |_, row| match row {
                    Ok(d) if filter.is_about(d.camera_id, d.session_id) => rows.push(&d),
                    Ok(_) => {}
                    Err(_) => n_bad += 1,
                })
                .map(|_| true)
            });
            match decoded {
                Ok(true) => {
                    report.dead_letters += n_bad;
                    pieces.push((key, rows.freeze()));
                }
                Ok(false) => report.other_kinds += 1,
                Err(_) => report.dead_letters += 1,
            }
        }
        let n_entries = pieces.len() as u64;
        let (n_new, n_rows) = self.table.write(pieces).await?;
        report.replayed += n_new;
        report.known += n_entries - n_new;
        report.detections += n_rows;
        Ok(())
    }

    pub(super) async fn commit(self) -> Result<(), OpsError> {
        Ok(self.table.commit().await?)
    }
}
