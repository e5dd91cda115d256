//! Remembers what was published last, for a Redis that has forgotten it.
//!
//! A Redis that crashes and comes back has lost what its append-only file did not get; after a
//! failover, what was not replicated is gone. Neither can be seen in any reply. What can be seen is
//! that it is another server than before: then the entries of the last seconds are sent again, with
//! their keys. The workers' ledger removes those that had survived.
//!
//! Entries grow old only while newer ones are acknowledged, or while the server is found to be the same. One
//! that fell silent may have crashed right after its last reply, however long ago that is.

use std::{collections::VecDeque, time::Duration};

use passerby_shared::{
    IdempotencyKey,
    redis_connection::{RedisRecovery, recovery},
    wire::Kind,
};
use redis::{RedisError, RedisResult, aio::MultiplexedConnection};
use tokio::time::Instant;

use crate::{batcher::Entry, config::ProducerConfig};

/// Which server it is, and which history its data has. Both change when it is started anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerId {
    run_id: String,
    replid: String,
}

/// An entry that Redis acknowledged.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) shard: u16,
    pub(crate) kind: Kind,
    pub(crate) key: IdempotencyKey,
    pub(crate) payload: Vec<u8>,
    at: Instant,
}

#[derive(Debug)]
pub(crate) struct ResendWindow {
    length: Duration,
    max_bytes: usize,
    entries: VecDeque<Sent>,
    n_bytes: usize,
    /// The server that has the entries.
    server: Option<ServerId>,
    /// How many of the entries are to be sent again, the newest ones.
    n_due: usize,
}

impl ResendWindow {
    pub(crate) fn new(config: &ProducerConfig) -> Self {
        Self {
            length: config.resend_window,
            max_bytes: config.resend_bytes,
            entries: VecDeque::new(),
            n_bytes: 0,
            server: None,
            n_due: 0,
        }
    }

    /// Whether anything is remembered at all.
    pub(crate) fn is_on(&self) -> bool {
        !self.length.is_zero() && self.max_bytes > 0
    }

    /// Remembers an entry that was acknowledged. Returns how many were forgotten before their time.
    pub(crate) fn published(&mut self, entry: Entry) -> u64 {
        if !self.is_on() {
            return 0;
        }
        let now = Instant::now();
        self.n_bytes += entry.payload.len();
        self.entries.push_back(Sent {
            shard: entry.shard,
            kind: entry.kind,
            key: entry.key,
            payload: entry.payload,
            at: now,
        });
        let mut n_cut = 0;
        while let Some(oldest) = self.entries.front() {
            let is_old = now.duration_since(oldest.at) > self.length;
            if !is_old && self.n_bytes <= self.max_bytes {
                break;
            }
            n_cut += u64::from(!is_old);
            self.n_bytes -= oldest.payload.len();
            self.entries.pop_front();
        }
        n_cut
    }

    /// Whether there is anything that a new server would have to be told.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The server is still the one that has the entries: forgets those whose time is over.
    pub(crate) fn confirmed(&mut self) {
        let now = Instant::now();
        while let Some(oldest) = self.entries.front() {
            if self.n_due > 0 || now.duration_since(oldest.at) <= self.length {
                break;
            }
            self.n_bytes -= oldest.payload.len();
            self.entries.pop_front();
        }
    }

    /// A connection was made, to this server; `None` when it does not say who it is. Returns whether
    /// entries are to be sent again that were not before.
    pub(crate) fn connected(&mut self, server: Option<ServerId>) -> bool {
        let is_same = server.is_some() && server == self.server;
        let is_first = self.server.is_none() && self.entries.is_empty();
        self.server = server;
        if is_same || is_first {
            return false;
        }
        self.n_due = self.entries.len();
        self.n_due > 0
    }

    /// Entries that are to be sent again, oldest first: at most so many.
    pub(crate) fn due(&self, limit: usize) -> impl ExactSizeIterator<Item = &Sent> {
        let from = self.entries.len() - self.n_due;
        self.entries.range(from..).take(limit)
    }

    /// So many of the entries that were due have been acknowledged.
    pub(crate) fn resent(&mut self, n_entries: usize) {
        self.n_due -= n_entries.min(self.n_due);
    }
}

/// Asks a server who it is; `None` when it may not be asked.
pub(crate) async fn server_id(
    connection: &mut MultiplexedConnection,
) -> Result<Option<ServerId>, RedisError> {
    let mut pipe = redis::pipe();
    pipe.cmd("INFO").arg("server");
    pipe.cmd("INFO").arg("replication");
    pipe.ignore_errors();
    let replies: Vec<RedisResult<String>> = pipe.query_async(connection).await?;
    let mut said = String::new();
    for reply in replies {
        match reply {
            Ok(text) => said.push_str(&text),
            // It may not be asked, or it is a proxy that does not know.
            Err(error) if recovery(&error) == RedisRecovery::Stop => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let field = |name: &str| {
        said.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|value| value.trim().to_owned())
    };
    Ok(field("run_id:").map(|run_id| ServerId {
        run_id,
        replid: field("master_replid:").unwrap_or_default(),
    }))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::{
        batcher::Batcher,
        config::tests::config,
        row::{Row, tests::detection},
    };

    fn entry(id: i64) -> Entry {
        let mut config = config();
        config.max_rows = NonZeroUsize::MIN;
        let mut rows = [Row::Detection(detection("c", id))];
        Batcher::new(&config, crate::saturation::Saturation::default())
            .batch(rows.iter_mut())
            .remove(0)
    }

    fn server(run_id: &str) -> Option<ServerId> {
        Some(ServerId {
            run_id: run_id.to_owned(),
            replid: "history".to_owned(),
        })
    }

    fn window(max_bytes: usize) -> ResendWindow {
        let mut config = config();
        config.resend_bytes = max_bytes;
        ResendWindow::new(&config)
    }

    #[tokio::test(start_paused = true)]
    async fn another_server_gets_what_the_last_one_had() {
        let mut window = window(1 << 20);
        assert!(!window.connected(server("a")));
        let keys: Vec<_> = (0..5)
            .map(|id| {
                let entry = entry(id);
                let key = entry.key;
                assert_eq!(window.published(entry), 0);
                key
            })
            .collect();
        assert!(!window.connected(server("a")));
        assert_eq!(window.due(9).len(), 0);

        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(window.connected(server("b")));
        assert_eq!(window.due(9).map(|sent| sent.key).collect::<Vec<_>>(), keys);
        window.resent(2);
        assert_eq!(window.due(9).next().map(|sent| sent.key), Some(keys[2]));
        // It is lost again before it had them all.
        assert!(window.connected(server("c")));
        assert_eq!(window.due(9).len(), 5);
        window.resent(5);
        assert!(window.connected(None));
    }

    #[tokio::test(start_paused = true)]
    async fn entries_are_forgotten_when_newer_ones_are_acknowledged() {
        let mut window = window(1 << 20);
        assert!(!window.connected(server("a")));
        window.published(entry(0));
        tokio::time::advance(Duration::from_secs(9)).await;
        window.published(entry(1));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(window.published(entry(2)), 0);
        assert!(window.connected(server("b")));
        assert_eq!(window.due(9).len(), 2);
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let n_bytes = entry(0).payload.len();
        let mut window = window(2 * n_bytes);
        let n_cut: u64 = (0..5).map(|id| window.published(entry(id))).sum();
        assert_eq!((n_cut, window.entries.len()), (3, 2));
    }
}
