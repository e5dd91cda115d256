//! What a producer tells of itself in Redis: its books, for whoever asks what became of every row.
//!
//! Each producer writes its record into the hash [`KeyPrefix::producers`](crate::KeyPrefix::producers) about
//! once a second, under an ID of its own, whole: a Redis that lost everything has it again a second later.
//! Redis stamps it with its own clock, so that nobody's wrong clock makes a producer look dead.
//!
//! Workers fold the records of producers that are gone into one, under [`FOLDED`]. One that was only cut off comes
//! back and tells all it ever did: what was folded of it is remembered beside the hash, becomes a part of its
//! record again ([`ProducerRecord::folded`]), and is left out of the sum ([`ProducerRecord::without`]).

use std::{
    iter::Sum,
    ops::{AddAssign, SubAssign},
    time::Duration,
};

use chrono::{DateTime, Utc};
use redis::Cmd;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::KeyPrefix;

/// The ID under which the records of producers that are gone are added up.
pub const FOLDED: &str = "folded";

/// So long is remembered what was folded of a producer that ended without a word.
pub const FOLDED_EXPIRY: Duration = Duration::from_secs(30 * 86_400);

/// What a program tells of itself, with the time at which Redis was told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Stamped<T> {
    /// When it was written, by Redis' clock, in milliseconds since the Unix epoch.
    pub updated_ms: u64,
    /// What was written.
    #[serde(flatten)]
    pub told: T,
}

impl<T: DeserializeOwned> Stamped<T> {
    /// Reads what was written; `None` for what somebody else wrote.
    pub fn parse(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }
}

/// `KEYS[1]` the hash, `ARGV[1]` the field, `ARGV[2]` a JSON object that is not empty.
const TELL: &str = r#"
local time = redis.call('TIME')
local ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
return redis.call('HSET', KEYS[1], ARGV[1], '{"updated_ms":' .. ms .. ',' .. string.sub(ARGV[2], 2))"#;

/// The command that writes what a program tells of itself into a hash, stamped by Redis.
pub fn tell(hash: &str, field: &str, told: &impl Serialize) -> Cmd {
    let json = serde_json::to_string(told).expect("records are plain JSON objects");
    let mut command = redis::cmd("EVAL");
    command.arg(TELL).arg(1).arg(hash).arg(field).arg(json);
    command
}

/// As [`TELL`]; `KEYS[2]` what was folded under this field, `ARGV[3]` how long that is remembered. The text goes in
/// as it is: Lua would round large numbers.
const TELL_BOOKS: &str = r#"
local time = redis.call('TIME')
local stamp = string.format('"updated_ms":%.0f,', time[1] * 1000 + math.floor(time[2] / 1000))
local folded = redis.call('MGET', KEYS[2])[1]
if folded then
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
  stamp = stamp .. '"folded":' .. folded .. ','
end
return redis.call('HSET', KEYS[1], ARGV[1], '{' .. stamp .. string.sub(ARGV[2], 2))"#;

/// The command that writes a producer's books into [`KeyPrefix::producers`](crate::KeyPrefix::producers), stamped
/// by Redis, with what was folded of them.
pub fn tell_books(prefix: &KeyPrefix, producer_id: &str, told: &ProducerRecord) -> Cmd {
    let json = serde_json::to_string(told).expect("records are plain JSON objects");
    let mut command = redis::cmd("EVAL");
    command
        .arg(TELL_BOOKS)
        .arg(2)
        .arg(prefix.producers())
        .arg(prefix.producer_folded(producer_id))
        .arg(producer_id)
        .arg(json)
        .arg(FOLDED_EXPIRY.as_secs() * 1_000);
    command
}

/// A producer's books, and who it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ProducerRecord {
    /// Its machine.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// Its release of Passerby.
    pub version: String,
    /// When it was started, by its own clock.
    pub started_at: DateTime<Utc>,
    /// It was closed, and this is its last word.
    pub closed: bool,
    /// How many producers this record adds up: one, unless it is [`FOLDED`].
    pub producers: u64,
    /// What became of detections.
    pub detections: RowBooks,
    /// What became of tracks.
    pub tracks: RowBooks,
    /// What became of sessions.
    pub sessions: RowBooks,
    /// Rows that were accepted without being booked, as is known from the next producer on the same spool.
    pub accepted_unbooked: u64,
    /// Rows that it had when it ended and the next producer on the same spool found there.
    pub handed_over: u64,
    /// Entries that Redis acknowledged.
    pub entries_published: u64,
    /// Rows of the largest of them.
    pub largest_entry_rows: u64,
    /// Its spool, if it has one.
    pub spool: Option<SpoolRecord>,
    /// What it did in its last seconds.
    pub lately: Lately,
    /// How near the store is to its limits, in 0…1, as the producer sees it.
    pub pressure: f32,
    /// What of this record is in the sum of [`FOLDED`]: it was taken for gone, and came back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folded: Option<Box<Folded>>,
}

/// What the record of a producer added to the sum of those that are gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Folded {
    /// Of detections.
    pub detections: RowBooks,
    /// Of tracks.
    pub tracks: RowBooks,
    /// Of sessions.
    pub sessions: RowBooks,
    /// See [`ProducerRecord::accepted_unbooked`].
    pub accepted_unbooked: u64,
    /// See [`ProducerRecord::handed_over`].
    pub handed_over: u64,
    /// See [`ProducerRecord::entries_published`].
    pub entries_published: u64,
}

impl Default for ProducerRecord {
    fn default() -> Self {
        Self {
            host: String::new(),
            pid: 0,
            version: String::new(),
            started_at: DateTime::UNIX_EPOCH,
            closed: false,
            producers: 1,
            detections: RowBooks::default(),
            tracks: RowBooks::default(),
            sessions: RowBooks::default(),
            accepted_unbooked: 0,
            handed_over: 0,
            entries_published: 0,
            largest_entry_rows: 0,
            spool: None,
            lately: Lately::default(),
            pressure: 0.0,
            folded: None,
        }
    }
}

impl ProducerRecord {
    /// The rows of all kinds together.
    pub fn rows(&self) -> RowBooks {
        [self.detections, self.tracks, self.sessions]
            .into_iter()
            .sum()
    }

    /// Rows that this producer accepted after its last word, as the next one on its spool can tell.
    pub fn unbooked(&self, next: &Self) -> u64 {
        let (Some(spool), Some(next)) = (&self.spool, &next.spool) else {
            return 0;
        };
        let accepted = next.first_seq.saturating_sub(spool.first_seq);
        accepted.saturating_sub(self.rows().accepted + self.accepted_unbooked)
    }

    /// What [`ProducerRecord::take_over`] of this record adds.
    pub fn to_fold(&self, next: Option<&Self>) -> Folded {
        let mut sum = Self::default();
        sum.take_over(self, next);
        Folded {
            detections: sum.detections,
            tracks: sum.tracks,
            sessions: sum.sessions,
            accepted_unbooked: sum.accepted_unbooked,
            handed_over: sum.handed_over,
            entries_published: sum.entries_published,
        }
    }

    /// Takes out of a sum what the record of one producer added to it.
    pub fn without(&mut self, folded: &Folded) {
        self.producers = self.producers.saturating_sub(1);
        self.detections -= folded.detections;
        self.tracks -= folded.tracks;
        self.sessions -= folded.sessions;
        for (sum, folded) in [
            (&mut self.accepted_unbooked, folded.accepted_unbooked),
            (&mut self.handed_over, folded.handed_over),
            (&mut self.entries_published, folded.entries_published),
        ] {
            *sum = sum.saturating_sub(folded);
        }
    }

    /// Adds the record of a producer that is gone; of one with a spool, what it left is with `next`.
    pub fn take_over(&mut self, gone: &Self, next: Option<&Self>) {
        self.producers += gone.producers;
        self.detections += gone.detections;
        self.tracks += gone.tracks;
        self.sessions += gone.sessions;
        self.accepted_unbooked += gone.accepted_unbooked;
        self.handed_over += gone.handed_over;
        self.entries_published += gone.entries_published;
        self.largest_entry_rows = self.largest_entry_rows.max(gone.largest_entry_rows);
        if let Some(next) = next {
            self.accepted_unbooked += gone.unbooked(next);
            self.handed_over += next.rows().recovered;
            for (all, gone) in [
                (&mut self.detections, &gone.detections),
                (&mut self.tracks, &gone.tracks),
                (&mut self.sessions, &gone.sessions),
            ] {
                all.buffered -= gone.buffered;
                all.spooled -= gone.spooled;
            }
        }
    }
}

/// A producer's spool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct SpoolRecord {
    /// Where it is: the machine and the folder.
    pub id: String,
    /// The number of the first row that this producer accepted. Rows are numbered through all producers of
    /// one spool.
    pub first_seq: u64,
    /// Bytes it holds.
    pub bytes: u64,
    /// Its disk failed, and the producer goes on in memory only.
    pub is_abandoned: bool,
}

/// What was done in the last seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Lately {
    /// In how many.
    pub seconds: f64,
    /// Rows accepted.
    pub accepted: u64,
    /// Rows published.
    pub published: u64,
    /// Entries published.
    pub entries: u64,
}

/// What became of rows of one kind. The producer's `RowStats` explain each.
///
/// At every moment `accepted + recovered` is the sum of `published`, the `dropped_…` up to
/// `dropped_spool_damaged`, `buffered` and `spooled`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct RowBooks {
    /// Rows answered with `Accepted`.
    pub accepted: u64,
    /// Rows that an earlier producer had accepted, found in the spool.
    pub recovered: u64,
    /// Rows that Redis acknowledged.
    pub published: u64,
    /// Accepted rows that made room for newer ones.
    pub dropped_oldest: u64,
    /// Accepted rows that were not known to be published when the producer had to end.
    pub dropped_closed: u64,
    /// Rows in the spool that made room for newer ones.
    pub dropped_spool_full: u64,
    /// Rows that could not be read back from the spool.
    pub dropped_spool_damaged: u64,
    /// Rows in memory that wait or are being sent.
    pub buffered: u64,
    /// Rows on disk that wait or are being sent.
    pub spooled: u64,
    /// Rows refused because there was no room: never accepted.
    pub dropped_newest: u64,
    /// Rows refused after waiting for room: never accepted.
    pub block_timeouts: u64,
    /// Rows refused because they cannot be stored: never accepted.
    pub invalid: u64,
}

impl RowBooks {
    /// Accepted rows that were dropped since, for whatever reason.
    pub fn dropped(&self) -> u64 {
        self.dropped_oldest
            + self.dropped_closed
            + self.dropped_spool_full
            + self.dropped_spool_damaged
    }

    /// Rows that wait or are being sent, in memory or on disk.
    pub fn waiting(&self) -> u64 {
        self.buffered + self.spooled
    }
}

impl AddAssign for RowBooks {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.recovered += other.recovered;
        self.published += other.published;
        self.dropped_oldest += other.dropped_oldest;
        self.dropped_closed += other.dropped_closed;
        self.dropped_spool_full += other.dropped_spool_full;
        self.dropped_spool_damaged += other.dropped_spool_damaged;
        self.buffered += other.buffered;
        self.spooled += other.spooled;
        self.dropped_newest += other.dropped_newest;
        self.block_timeouts += other.block_timeouts;
        self.invalid += other.invalid;
    }
}

/// Never below zero: somebody may have altered a sum by hand.
impl SubAssign for RowBooks {
    fn sub_assign(&mut self, other: Self) {
        for (sum, n) in [
            (&mut self.accepted, other.accepted),
            (&mut self.recovered, other.recovered),
            (&mut self.published, other.published),
            (&mut self.dropped_oldest, other.dropped_oldest),
            (&mut self.dropped_closed, other.dropped_closed),
            (&mut self.dropped_spool_full, other.dropped_spool_full),
            (&mut self.dropped_spool_damaged, other.dropped_spool_damaged),
            (&mut self.buffered, other.buffered),
            (&mut self.spooled, other.spooled),
            (&mut self.dropped_newest, other.dropped_newest),
            (&mut self.block_timeouts, other.block_timeouts),
            (&mut self.invalid, other.invalid),
        ] {
            *sum = sum.saturating_sub(n);
        }
    }
}

impl Sum for RowBooks {
    fn sum<I: Iterator<Item = Self>>(books: I) -> Self {
        books.fold(Self::default(), |mut sum, one| {
            sum += one;
            sum
        })
    }
}
