//! Stores dead letters at once, without putting them back into a stream.
//!
//! A letter goes by the key that putting it back gives it, so that it is stored once whichever way it takes,
//! and by both.

use std::sync::Arc;

use passerby_shared::{
    EntryId, IdempotencyKey, StreamKey,
    wire::{FIELD_KEY, FIELD_PAYLOAD},
};
use tokio_util::sync::CancellationToken;

use super::{Destination, ReplayFilter, ReplayReport, Sink};
use crate::{
    batch::Origin,
    decoder::FIELD_REQUEUED,
    ops::{OpsError, requeue},
    reply::Delivered,
    store::{DatabaseUrl, DeadLetterFilter, DeadLetterRecord, LetterState, Reason, Store},
};

/// Letters replayed at a time.
const PAGE: i64 = 500;

/// Replays the dead letters of a span of time that wait. What is refused again comes as a new letter.
///
/// Letters that hold nothing are not matching; those that are `too-old` are left alone, as nobody can tell
/// whether they were stored.
///
/// # Errors
///
/// [`OpsError`] when Postgres cannot be reached or refuses. Repeating it is safe.
pub async fn replay_dead_letters(
    database_url: &DatabaseUrl,
    filter: &ReplayFilter,
    destination: &Destination,
    stop: &CancellationToken,
    mut progress: impl FnMut(u64, &ReplayReport),
) -> Result<ReplayReport, OpsError> {
    let mut store = Store::connect(database_url).await?;
    let mut letters = DeadLetterFilter {
        camera_id: filter.camera_id.clone(),
        session_id: filter.session_id.clone(),
        from: filter.from,
        to: filter.to,
        state: Some(LetterState::Waiting),
        up_to: Some(store.last_dead_letter().await?),
        limit: PAGE,
        ..DeadLetterFilter::default()
    };
    let mut report = ReplayReport::default();
    let mut sink = Sink::open(database_url, destination).await?;
    while !stop.is_cancelled() {
        // Marked when they are stored, and not otherwise: a table for comparison settles nothing.
        let taken = match destination {
            Destination::Main => match store.take_dead_letters(&letters).await? {
                Some(taken) => Taken::Locked(taken),
                None => break,
            },
            _ => match store.query_dead_letters(&letters).await? {
                found if found.is_empty() => break,
                found => Taken::Read(found),
            },
        };
        letters.after = taken.last();
        report.found += taken.letters().len() as u64;
        let mut stored = Vec::new();
        let mut entries = Vec::new();
        for letter in taken.letters() {
            if letter.reason == Reason::TooOld.as_str() {
                report.too_old += 1;
            } else if let Some(entry) = entry(letter) {
                stored.push((letter.id, requeue::key_of(letter)));
                entries.push(entry);
            } else {
                report.not_matching += 1;
            }
        }
        // The letters match already, by the columns or by what can be read.
        sink.take(entries, &rows_of(filter, destination), &mut report)
            .await?;
        sink.flush(&mut report).await?;
        if let Taken::Locked(taken) = taken {
            store.mark_requeued(taken, &stored).await?;
        }
        progress(report.found, &report);
    }
    report.interrupted = stop.is_cancelled();
    sink.close(&mut report).await?;
    Ok(report)
}

/// Rows are chosen where a table is written; else letters are stored whole.
fn rows_of(filter: &ReplayFilter, destination: &Destination) -> ReplayFilter {
    match destination {
        Destination::Table { .. } => filter.clone(),
        _ => ReplayFilter::default(),
    }
}

#[expect(clippy::large_enum_variant, reason = "there is one of them")]
enum Taken {
    Locked(crate::store::TakenLetters),
    Read(Vec<DeadLetterRecord>),
}

impl Taken {
    fn letters(&self) -> &[DeadLetterRecord] {
        match self {
            Self::Locked(taken) => taken.letters(),
            Self::Read(letters) => letters,
        }
    }

    fn last(&self) -> i64 {
        match self {
            Self::Locked(taken) => taken.last(),
            Self::Read(letters) => letters.last().map_or(i64::MAX, |letter| letter.id),
        }
    }
}

/// The entry that putting a letter back would make; `None` when it holds nothing.
fn entry(letter: &DeadLetterRecord) -> Option<Delivered> {
    let is = |name: &[u8], field: &str| name == field.as_bytes();
    (letter.fields.iter()).find(|(name, _)| is(name, FIELD_PAYLOAD))?;
    let mut fields = letter.fields.clone();
    fields.retain(|(name, _)| !is(name, FIELD_KEY) && !is(name, FIELD_REQUEUED));
    let key: IdempotencyKey = requeue::key_of(letter);
    fields.push((FIELD_KEY.into(), key.as_bytes().to_vec().into()));
    fields.push((FIELD_REQUEUED.into(), letter.id.to_string().into()));
    Some(Delivered {
        origin: Origin {
            stream: Arc::new(StreamKey::from_name(letter.stream.clone())),
            id: letter.entry_id.parse().unwrap_or(EntryId::MIN),
        },
        fields: Some(fields),
        again: true,
    })
}
