//! The producers that Redis knows of, one after the other.

use std::collections::BTreeMap;

use passerby_shared::books::{ProducerRecord, Stamped};

type Record = Stamped<ProducerRecord>;

/// The producers with their IDs, each with the next one on the same spool.
pub(crate) fn in_turn(
    producers: &BTreeMap<String, Record>,
) -> impl Iterator<Item = (&str, &Record, Option<&Record>)> {
    let mut by_spool = BTreeMap::<&str, Vec<(&str, &Record)>>::new();
    let mut alone = Vec::new();
    for (id, record) in producers {
        match &record.told.spool {
            Some(spool) => by_spool.entry(&spool.id).or_default().push((id, record)),
            None => alone.push((id.as_str(), record, None)),
        }
    }
    let on_spools = by_spool.into_values().flat_map(|mut records| {
        records.sort_by_key(|(_, record)| {
            let first_seq = record.told.spool.as_ref().map(|spool| spool.first_seq);
            (first_seq, record.told.started_at)
        });
        let next: Vec<Option<&Record>> = records[1..]
            .iter()
            .map(|(_, next)| Some(*next))
            .chain([None])
            .collect();
        let with_next = records.into_iter().zip(next);
        with_next.map(|((id, record), next)| (id, record, next))
    });
    alone.into_iter().chain(on_spools)
}
