//! Puts dead letters back into their stream, after whatever was wrong has been mended.
//!
//! A letter goes back under an idempotency key derived from its number: put back twice, it is stored
//! once. If it is refused again it becomes a new dead letter with a number of its own. A letter that is
//! `too-old` may have been stored before the ledger forgot it, and under its new key would be stored a second
//! time: it is put back only when somebody asks for it by number or reason.
//!
//! A page of letters is locked, put back in one pipeline and marked. Whoever dies in between leaves letters in
//! the stream that still wait: putting them back again is what the derived key is for. A flood waits for the
//! workers: producers that saw a large backlog would begin to leave fields out.

use std::{collections::BTreeSet, time::Duration};

use passerby_shared::{
    IdempotencyKey, StreamKey, backlog,
    wire::{FIELD_KEY, FIELD_PAYLOAD},
};
use redis::{RedisError, Value};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{OpsError, Target};
use crate::{
    decoder::FIELD_REQUEUED,
    store::{DeadLetterFilter, DeadLetterRecord, Reason, Store, TakenLetters},
};

/// Between two looks at a backlog that is too large.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What became of the letters.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// Letters of streams that are not among those named, and that perhaps nobody reads: put back only when
    /// their stream is given.
    pub elsewhere: usize,
    /// Why it stopped before all were put back.
    pub stopped: Option<Stopped>,
}

/// Why letters were left that could have been put back.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case", tag = "why")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Stopped {
    /// Somebody asked for it.
    Interrupted,
    /// The workers do not get on with what is in the stream.
    Backlog {
        /// Entries that are not acknowledged.
        entries: u64,
    },
    /// Redis has little memory left.
    Memory {
        /// Of `maxmemory`.
        percent: u64,
    },
}

/// How much may be put into Redis.
#[derive(Debug, Clone)]
pub struct RequeueLimits {
    /// While so many entries are not acknowledged, no more are added.
    pub max_backlog: u64,
    /// Stop when the backlog has not become smaller for so long.
    pub patience: Duration,
    /// Stop when Redis has used so much of `maxmemory`.
    pub max_memory_percent: u64,
}

impl Default for RequeueLimits {
    /// Half of the backlog, and less than the memory, at which producers begin to leave fields out.
    fn default() -> Self {
        Self {
            max_backlog: 5_000,
            patience: Duration::from_secs(30),
            max_memory_percent: 70,
        }
    }
}

/// Counts what [`requeue`] would do with the dead letters that match.
///
/// # Errors
///
/// [`OpsError`] when Postgres cannot be reached or refuses.
pub async fn requeue_dry_run(
    target: &Target,
    store: &mut Store,
    filter: &DeadLetterFilter,
) -> Result<RequeueReport, OpsError> {
    let mut report = RequeueReport::default();
    let mut left = filter.clone();
    while left.limit > 0 {
        let page = DeadLetterFilter {
            limit: left.limit.min(1_000),
            ..left.clone()
        };
        let letters = store.list_dead_letters(&page).await?;
        let Some(last) = letters.last() else { break };
        left.after = last.id;
        left.limit -= i64::try_from(letters.len()).unwrap_or(i64::MAX);
        for letter in &letters {
            report.matched += 1;
            match fate(target, filter, letter) {
                Fate::PutBack if letter.reason == Reason::Lost.as_str() => report.empty += 1,
                Fate::PutBack => {}
                fate => report.count(fate),
            }
        }
    }
    Ok(report)
}

/// Puts the dead letters that match back into their streams.
///
/// `progress` is told after each page. When `stop` fires the page in hand is finished.
///
/// # Errors
///
/// [`OpsError`] when a server cannot be reached or refuses. Repeating the command is safe.
pub async fn requeue(
    target: &mut Target,
    store: &mut Store,
    filter: &DeadLetterFilter,
    limits: &RequeueLimits,
    stop: &CancellationToken,
    mut progress: impl FnMut(&RequeueReport),
) -> Result<RequeueReport, OpsError> {
    let mut report = RequeueReport::default();
    let mut left = filter.clone();
    // What a worker refuses again becomes a new letter at once, which is not to be put back by the same
    // command, again and again.
    let newest = store.last_dead_letter().await?;
    left.up_to = Some(filter.up_to.map_or(newest, |up_to| up_to.min(newest)));
    let mut streams: BTreeSet<StreamKey> = target.streams.iter().cloned().collect();
    while left.limit > 0 {
        let room = match wait_for_room(target, &streams, limits, stop).await? {
            Ok(room) => i64::try_from(room).unwrap_or(i64::MAX),
            Err(stopped) => {
                report.stopped = Some(stopped);
                break;
            }
        };
        let page = DeadLetterFilter {
            limit: left.limit.min(room),
            ..left.clone()
        };
        let Some(taken) = store.take_dead_letters(&page).await? else {
            break;
        };
        left.after = taken.last();
        left.limit -= i64::try_from(taken.letters().len()).unwrap_or(i64::MAX);
        // Those alone that something is put into: of another stream nobody here may read anything.
        streams.extend(
            (taken.letters().iter())
                .filter(|letter| fate(target, filter, letter) == Fate::PutBack)
                .map(|letter| StreamKey::from_name(letter.stream.clone())),
        );
        let done = put_back(target, store, filter, taken, &mut report).await;
        progress(&report);
        done?;
    }
    Ok(report)
}

impl RequeueReport {
    fn count(&mut self, fate: Fate) {
        *match fate {
            Fate::PutBack => &mut self.requeued,
            Fate::Empty => &mut self.empty,
            Fate::Doubtful => &mut self.doubtful,
            Fate::Elsewhere => &mut self.elsewhere,
        } += 1;
    }
}

/// What is done with a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    PutBack,
    Empty,
    Doubtful,
    Elsewhere,
}

fn fate(target: &Target, filter: &DeadLetterFilter, letter: &DeadLetterRecord) -> Fate {
    let is_named = filter
        .ids
        .iter()
        .any(|ids| ids.start() == ids.end() && ids.contains(&letter.id));
    let is_doubtful = letter.reason == Reason::TooOld.as_str();
    if is_doubtful && !is_named && filter.reason.as_deref() != Some(&*letter.reason) {
        return Fate::Doubtful;
    }
    let is_ours = target
        .streams
        .iter()
        .any(|stream| stream.as_str() == letter.stream);
    if !is_ours && filter.stream.as_deref() != Some(&*letter.stream) {
        return Fate::Elsewhere;
    }
    Fate::PutBack
}

/// Waits until there is room for more and returns for how many entries, or why there will be none.
async fn wait_for_room(
    target: &mut Target,
    streams: &BTreeSet<StreamKey>,
    limits: &RequeueLimits,
    stop: &CancellationToken,
) -> Result<Result<u64, Stopped>, OpsError> {
    let mut least = u64::MAX;
    let mut since = Instant::now();
    loop {
        if stop.is_cancelled() {
            return Ok(Err(Stopped::Interrupted));
        }
        let percent = memory_percent(target).await?;
        if percent >= limits.max_memory_percent {
            return Ok(Err(Stopped::Memory { percent }));
        }
        let entries = n_unsettled(target, streams).await?;
        if entries < limits.max_backlog {
            return Ok(Ok(limits.max_backlog - entries));
        }
        if entries < least {
            (least, since) = (entries, Instant::now());
        } else if since.elapsed() >= limits.patience {
            return Ok(Err(Stopped::Backlog { entries }));
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

/// How much of `maxmemory` Redis has used; 0 where it has no limit.
async fn memory_percent(target: &mut Target) -> Result<u64, OpsError> {
    let memory: Result<redis::InfoDict, RedisError> = redis::cmd("INFO")
        .arg("memory")
        .query_async(target.link.get().await?)
        .await;
    let memory = memory.map_err(OpsError::redis("look at the memory", &target.streams[0]))?;
    let bytes = |name: &str| memory.get::<u64>(name).unwrap_or(0);
    Ok((bytes("used_memory").saturating_mul(100))
        .checked_div(bytes("maxmemory"))
        .unwrap_or(0))
}

async fn n_unsettled(target: &mut Target, streams: &BTreeSet<StreamKey>) -> Result<u64, OpsError> {
    let mut entries = 0;
    for stream in streams {
        let backlog = backlog::measure(target.link.get().await?, stream, &target.group)
            .await
            .map_err(OpsError::redis("measure the backlog", stream))?;
        entries += backlog.entries();
    }
    Ok(entries)
}

/// Puts a page of letters back, and marks those that are in their streams then.
async fn put_back(
    target: &mut Target,
    store: &mut Store,
    filter: &DeadLetterFilter,
    taken: TakenLetters,
    report: &mut RequeueReport,
) -> Result<(), OpsError> {
    let mut pipe = redis::pipe();
    pipe.ignore_errors();
    let mut sent = Vec::new();
    for letter in taken.letters() {
        report.matched += 1;
        let is_empty = !letter
            .fields
            .iter()
            .any(|(name, _)| name == FIELD_PAYLOAD.as_bytes());
        match fate(target, filter, letter) {
            Fate::PutBack if is_empty => report.count(Fate::Empty),
            Fate::PutBack => {
                let key = key_of(letter);
                pipe.add_command(add(letter, key));
                sent.push((letter.id, key, StreamKey::from_name(letter.stream.clone())));
            }
            fate => report.count(fate),
        }
    }
    let mut failure = None;
    let mut put_back = Vec::with_capacity(sent.len());
    if let Some((_, _, first)) = sent.first() {
        let doing = "put dead letters back";
        let connection = target.link.get().await?;
        let answers: Vec<Result<Value, RedisError>> = pipe
            .query_async(connection)
            .await
            .map_err(OpsError::redis(doing, first))?;
        for ((id, key, stream), answer) in sent.iter().zip(answers) {
            match answer {
                Ok(_) => put_back.push((*id, *key)),
                Err(error) if failure.is_none() => {
                    failure = Some(OpsError::redis(doing, stream)(error));
                }
                Err(_) => {}
            }
        }
    }
    store.mark_requeued(taken, &put_back).await?;
    report.requeued += put_back.len();
    failure.map_or(Ok(()), Err)
}

/// The key that a letter is put back with, however often. Its number alone would not do: another database that
/// reads the same stream counts its own letters, and a table that was restored or emptied counts anew.
pub(super) fn key_of(letter: &DeadLetterRecord) -> IdempotencyKey {
    let row_idx = letter.row_idx.unwrap_or(-1);
    IdempotencyKey::derived_from(
        "requeue",
        &[
            &letter.id.to_be_bytes(),
            letter.key.as_bytes(),
            &row_idx.to_be_bytes(),
            &letter.dead_lettered_at.timestamp_micros().to_be_bytes(),
        ],
    )
}

fn add(letter: &DeadLetterRecord, key: IdempotencyKey) -> redis::Cmd {
    let mut command = redis::cmd("XADD");
    command.arg(&letter.stream).arg("*");
    for (name, value) in &letter.fields {
        if name != FIELD_KEY.as_bytes() && name != FIELD_REQUEUED.as_bytes() {
            command.arg(&name[..]).arg(&value[..]);
        }
    }
    command
        .arg(FIELD_KEY)
        .arg(key.as_bytes())
        .arg(FIELD_REQUEUED)
        .arg(letter.id);
    command
}
