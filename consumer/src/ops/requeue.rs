//! Puts dead letters back into their stream, after whatever was wrong has been mended.
//!
//! A letter goes back under an idempotency key derived from its number: put back twice, it is stored
//! once. If it is refused again it becomes a new dead letter with a number of its own. A letter that is
//! `too-old` may have been stored before the ledger forgot it, and under its new key would be stored a second
//! time: it is put back only when somebody asks for it by number or reason.

use passerby_shared::{
    IdempotencyKey, StreamKey,
    wire::{FIELD_KEY, FIELD_PAYLOAD},
};

use super::{OpsError, Target};
use crate::{
    decoder::FIELD_REQUEUED,
    store::{DeadLetterFilter, DeadLetterRecord, Reason, Store},
};

/// Dead letters read at a time.
const PAGE: i64 = 100;

/// What became of the letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct RequeueReport {
    /// Letters that matched.
    pub matched: usize,
    /// Letters put back.
    pub requeued: usize,
    /// Letters that hold nothing to put back, such as those of entries lost in Redis.
    pub empty: usize,
    /// Letters that are `too-old`, and may have been stored long ago: put back only when their numbers or
    /// their reason are given.
    pub doubtful: usize,
}

/// Puts the dead letters that match back into their streams; with `dry_run` only counts them.
///
/// # Errors
///
/// [`OpsError`] when a server cannot be reached or refuses. Repeating the command is safe.
pub async fn requeue(
    target: &mut Target,
    store: &mut Store,
    filter: &DeadLetterFilter,
    dry_run: bool,
) -> Result<RequeueReport, OpsError> {
    let mut report = RequeueReport::default();
    let mut left = filter.limit;
    let mut page_filter = filter.clone();
    // What a worker refuses again becomes a new letter at once, which is not to be put back by the same
    // command, again and again.
    page_filter.up_to = Some(store.last_dead_letter().await?);
    while left > 0 {
        page_filter.limit = left.min(PAGE);
        let letters = store.query_dead_letters(&page_filter).await?;
        let Some(last) = letters.last() else { break };
        page_filter.after = last.id;
        left -= i64::try_from(letters.len()).unwrap_or(i64::MAX);
        for letter in letters {
            report.matched += 1;
            if letter.reason == Reason::TooOld.as_str() && !is_meant(&letter, filter) {
                report.doubtful += 1;
            } else if !letter
                .fields
                .iter()
                .any(|(name, _)| name == FIELD_PAYLOAD.as_bytes())
            {
                report.empty += 1;
            } else if !dry_run {
                put_back(target, store, &letter).await?;
                report.requeued += 1;
            }
        }
    }
    Ok(report)
}

/// Whether a letter was asked for by its number or its reason.
fn is_meant(letter: &DeadLetterRecord, filter: &DeadLetterFilter) -> bool {
    filter.ids.contains(&letter.id) || filter.reason.as_deref() == Some(&*letter.reason)
}

async fn put_back(
    target: &mut Target,
    store: &mut Store,
    letter: &DeadLetterRecord,
) -> Result<(), OpsError> {
    let key = IdempotencyKey::derived_from("requeue", &[&letter.id.to_be_bytes()]);
    let stream = StreamKey::from_name(letter.stream.clone());
    let mut command = redis::cmd("XADD");
    command.arg(&stream).arg("*");
    for (name, value) in &letter.fields {
        if name != FIELD_KEY.as_bytes() && name != FIELD_REQUEUED.as_bytes() {
            command.arg(name).arg(value);
        }
    }
    command
        .arg(FIELD_KEY)
        .arg(key.as_bytes())
        .arg(FIELD_REQUEUED)
        .arg(letter.id);
    let connection = target.link.get().await?;
    let _id: String = command
        .query_async(connection)
        .await
        .map_err(OpsError::redis("put a dead letter back", &stream))?;
    store.mark_requeued(letter.id, key).await?;
    Ok(())
}
