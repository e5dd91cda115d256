//! What became of every row that producers accepted.
//!
//! ```text
//! accepted + accepted before the books = published + dropped + buffered + spooled + unheard of
//! published                            = settled (stored or dead-lettered) + in the stream + unaccounted for
//! ```
//!
//! A producer that ended without its last word left its books behind as they were. Where it had a spool, the
//! next producer on it tells the rest: rows are numbered through, and those that were left are found there.
//! Without a spool, what it had in memory when it was last heard of may have been published or not; nobody
//! knows, and the balance says so.

use passerby_shared::books::RowBooks;
use serde::Serialize;

use super::{RedisStatus, in_turn};
use crate::store::StoreBooks;

/// What became of every row, of all kinds together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Balance {
    /// Rows that producers accepted.
    pub accepted: u64,
    /// Rows found in spools whose producers are in no books.
    pub accepted_before: u64,
    /// Accepted rows that were dropped since.
    pub dropped: Dropped,
    /// Rows in producers' memory.
    pub buffered: u64,
    /// Rows in spools, those that closed producers left there included.
    pub spooled: u64,
    /// Rows in the memory of producers that were not heard of any more: published since, or lost.
    pub unheard: u64,
    /// Rows that came into the stream, by all of the above.
    pub published: u64,
    /// Rows of producers that are settled: stored, or in the dead letters.
    pub settled: u64,
    /// Entries of the stream that are not settled.
    pub in_stream_entries: u64,
    /// Rows of producers in the stream: what was published and is not settled.
    pub in_stream: u64,
    /// Rows that are certainly nowhere: of those published and not settled, what the entries in the stream
    /// cannot hold.
    pub unaccounted: u64,
    /// Rows settled that nobody's books know of: accepted in the last second, or sent by programs that
    /// write keys and keep no books, or by producers that gave them up while they were being sent.
    pub surplus: u64,
    /// Rows of programs that keep no books, settled.
    pub foreign: u64,
    /// Rows put back from the dead letters, settled again.
    pub requeued: u64,
    /// Rows that went into Postgres without a stream.
    pub direct: u64,
    /// Rows stored, of whatever kind and whoever sent them.
    pub stored: u64,
    /// Rows dead-lettered, as far as they could be counted.
    pub dead_lettered: u64,
}

/// Rows lost by policy or misfortune, by reason. The last three were never accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Dropped {
    /// They made room for newer ones.
    pub oldest: u64,
    /// They were not known to be published when their producer was closed.
    pub closed: u64,
    /// They made room in a full spool.
    pub spool_full: u64,
    /// They could not be read back from a spool.
    pub spool_damaged: u64,
    /// Refused because there was no room.
    pub newest: u64,
    /// Refused after waiting for room.
    pub block_timeouts: u64,
    /// Refused because they cannot be stored.
    pub invalid: u64,
}

impl Dropped {
    /// Rows that had been accepted.
    pub fn accepted(&self) -> u64 {
        self.oldest + self.closed + self.spool_full + self.spool_damaged
    }
}

/// Balances what producers tell against what is in the stream and in Postgres.
pub(super) fn balance(redis: &RedisStatus, store: &StoreBooks) -> Balance {
    let mut balance = Balance {
        foreign: store.rows_foreign,
        requeued: store.rows_requeued,
        direct: store.rows_direct,
        stored: store.rows_stored(),
        dead_lettered: store.dead_rows,
        settled: store.rows_of_producers(),
        in_stream_entries: redis.backlog_entries(),
        ..Balance::default()
    };
    let gone = &redis.producers_gone;
    let mut recovered = gone.rows().recovered;
    let mut handed_over = gone.handed_over;
    let mut largest_entry = gone.largest_entry_rows;
    balance.take_in(&gone.rows(), gone.accepted_unbooked);
    balance.unheard += gone.rows().waiting();
    for (_, record, next) in in_turn(&redis.producers) {
        let told = &record.told;
        let rows = told.rows();
        largest_entry = largest_entry.max(told.largest_entry_rows);
        recovered += rows.recovered;
        balance.take_in(&rows, told.accepted_unbooked);
        match next {
            // The next producer on its spool found what it left.
            Some(next) => {
                let found = next.told.rows().recovered;
                handed_over += found;
                balance.accepted += told.unbooked(&next.told);
            }
            None if told.spool.is_some() => {
                balance.spooled += rows.spooled;
                // What a producer has in memory is on its disk as well.
                balance.buffered += rows.buffered;
            }
            None if !told.closed && redis.is_silent(record.updated_ms) => {
                balance.unheard += rows.waiting();
            }
            None => balance.buffered += rows.waiting(),
        }
    }
    balance.accepted_before = recovered.saturating_sub(handed_over);
    // Rows that were handed over are with who has them now.
    let elsewhere = balance.dropped.accepted() + balance.buffered + balance.spooled;
    balance.published =
        (balance.accepted + balance.accepted_before).saturating_sub(elsewhere + balance.unheard);
    balance.in_stream = balance.published.saturating_sub(balance.settled);
    balance.surplus = balance.settled.saturating_sub(balance.published);
    let entries: u64 = redis
        .streams
        .iter()
        .map(|stream| {
            if stream.undelivered_is_exact {
                stream.pending + stream.undelivered
            } else {
                stream.pending + stream.length
            }
        })
        .sum();
    balance.unaccounted = balance
        .in_stream
        .saturating_sub(entries.saturating_mul(largest_entry));
    balance.in_stream -= balance.unaccounted;
    balance
}

impl Balance {
    fn take_in(&mut self, rows: &RowBooks, unbooked: u64) {
        self.accepted += rows.accepted + unbooked;
        let dropped = &mut self.dropped;
        dropped.oldest += rows.dropped_oldest;
        dropped.closed += rows.dropped_closed;
        dropped.spool_full += rows.dropped_spool_full;
        dropped.spool_damaged += rows.dropped_spool_damaged;
        dropped.newest += rows.dropped_newest;
        dropped.block_timeouts += rows.block_timeouts;
        dropped.invalid += rows.invalid;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use passerby_shared::books::{ProducerRecord, SpoolRecord, Stamped};

    use super::{super::StreamStatus, *};

    const NOW_MS: u64 = 1_000_000;

    /// A producer's record, told so many ms ago.
    fn told(ms_ago: u64, accepted: u64, change: impl FnOnce(&mut ProducerRecord)) -> Record {
        let mut told = ProducerRecord::default();
        told.detections.accepted = accepted;
        told.largest_entry_rows = 10;
        change(&mut told);
        Stamped {
            updated_ms: NOW_MS - ms_ago,
            told,
        }
    }

    type Record = Stamped<ProducerRecord>;

    fn on_spool(record: &mut ProducerRecord, first_seq: u64) {
        record.spool = Some(SpoolRecord {
            id: "host:/spool".to_owned(),
            first_seq,
            ..SpoolRecord::default()
        });
    }

    /// Redis with these producers and so many entries, and Postgres with so many rows of producers settled.
    fn check(producers: Vec<Record>, entries: u64, settled: u64, expected: Balance) {
        let names = (0..).map(|n| format!("producer-{n}"));
        let redis = RedisStatus {
            now_ms: NOW_MS,
            producers: names.zip(producers).collect::<BTreeMap<_, _>>(),
            streams: vec![StreamStatus {
                undelivered: entries,
                undelivered_is_exact: true,
                ..StreamStatus::default()
            }],
            ..RedisStatus::default()
        };
        let store = StoreBooks {
            detections: settled,
            ..StoreBooks::default()
        };
        let expected = Balance {
            settled,
            stored: settled,
            in_stream_entries: entries,
            ..expected
        };
        assert_eq!(balance(&redis, &store), expected);
    }

    #[test]
    fn the_next_producer_on_a_spool_completes_the_books_of_one_that_died() {
        // It died with 7 rows on disk that it had told, and 5 more accepted since; the next one found all 12.
        let died = told(30_000, 100, |record| {
            on_spool(record, 0);
            record.detections.published = 93;
            record.detections.buffered = 7;
        });
        let next = told(500, 20, |record| {
            on_spool(record, 105);
            record.detections.recovered = 12;
            record.detections.published = 29;
            record.detections.spooled = 3;
        });
        check(
            vec![died, next],
            0,
            122,
            Balance {
                accepted: 125,
                spooled: 3,
                published: 122,
                ..Balance::default()
            },
        );
    }

    #[test]
    fn nobody_knows_what_became_of_the_memory_of_a_producer_that_died() {
        let died = told(30_000, 100, |record| record.detections.buffered = 7);
        check(
            vec![died],
            0,
            93,
            Balance {
                accepted: 100,
                published: 93,
                unheard: 7,
                ..Balance::default()
            },
        );
    }

    #[test]
    fn rows_are_unaccounted_for_only_where_the_stream_cannot_hold_them() {
        let producer = || vec![told(500, 100, |_| {})];
        let expected = |in_stream, unaccounted| Balance {
            accepted: 100,
            published: 100,
            in_stream,
            unaccounted,
            ..Balance::default()
        };
        check(producer(), 0, 100, expected(0, 0));
        check(producer(), 0, 70, expected(0, 30));
        check(producer(), 2, 70, expected(20, 10));
        check(producer(), 3, 70, expected(30, 0));
    }

    #[test]
    fn rows_of_a_spool_that_is_in_no_books_were_accepted_before() {
        let first = told(500, 10, |record| {
            on_spool(record, 90);
            record.detections.recovered = 4;
        });
        check(
            vec![first],
            0,
            14,
            Balance {
                accepted: 10,
                accepted_before: 4,
                published: 14,
                ..Balance::default()
            },
        );
    }

    #[test]
    fn what_is_stored_and_not_told_yet_is_no_loss() {
        let producer = told(900, 100, |record| record.detections.buffered = 10);
        check(
            vec![producer],
            0,
            115,
            Balance {
                accepted: 100,
                buffered: 10,
                published: 90,
                surplus: 25,
                ..Balance::default()
            },
        );
    }
}
