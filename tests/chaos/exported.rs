//! Holds what workers export at `/metrics` against `passerby status`, and against a count by hand when a round is
//! over.

use std::net::SocketAddr;

use passerby_consumer::ops::Balance;
use passerby_tests::Scrape;
use tokio::time::timeout;

use crate::{
    balance::{Accepted, PATIENCE},
    world::World,
};

const LETTERS: &str =
    "SELECT count(*) FROM dead_letters WHERE requeued_at IS NULL AND discarded_at IS NULL";

/// What became of rows, as one worker exports it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rows {
    accepted: f64,
    dropped: f64,
    /// In producers, in spools, and in the memory of producers that are not heard of.
    with_producers: f64,
    in_stream: f64,
    settled: f64,
    unaccounted: f64,
    surplus: f64,
}

impl Rows {
    fn of(scrape: &Scrape) -> Self {
        let rows = |state| scrape.value("consumer_group_rows", &[("state", state)]);
        Self {
            accepted: rows("accepted"),
            dropped: rows("dropped"),
            with_producers: rows("buffered") + rows("spooled") + rows("unheard"),
            in_stream: rows("in-stream"),
            settled: rows("settled"),
            unaccounted: rows("unaccounted"),
            surplus: rows("surplus"),
        }
    }

    /// Not while a server does not answer.
    fn is_known(&self) -> bool {
        (self.accepted + self.settled).is_finite()
    }

    /// All of them are whole numbers far below 2^53.
    fn balance(&self) -> bool {
        let found = self.dropped + self.with_producers + self.in_stream + self.settled;
        self.accepted == found + self.unaccounted - self.surplus
    }
}

/// What all workers export that answer, each twice: gauges are set one after the other, and a look in between sees
/// some of them new.
async fn scrapes(world: &World) -> Vec<(SocketAddr, [Scrape; 2])> {
    let mut told = Vec::new();
    for address in world.workers.addresses() {
        let looks = async { Some([Scrape::of(address).await?, Scrape::of(address).await?]) };
        // A frozen one does not answer.
        if let Ok(Some(looks)) = timeout(PATIENCE, looks).await {
            told.push((address, looks));
        }
    }
    told
}

/// While faults come: nothing is unaccounted for, the books balance, and nobody tells of rows that are not there.
/// `status` was asked for after the scrape, and a worker's figures are older than that.
pub(crate) struct Looked(Vec<(SocketAddr, [Rows; 2])>);

impl Looked {
    pub(crate) async fn at(world: &World) -> Self {
        let told = scrapes(world).await.into_iter();
        Self(
            told.map(|(address, looks)| (address, looks.each_ref().map(Rows::of)))
                .collect(),
        )
    }

    /// What is wrong, beside what `status` says after it.
    pub(crate) fn compare(&self, balance: &Balance) -> Result<(), String> {
        for (address, looks) in &self.0 {
            let known: Vec<&Rows> = looks.iter().filter(|rows| rows.is_known()).collect();
            if known.len() == 2 && !known.iter().any(|rows| rows.balance()) {
                return Err(format!(
                    "{address} exports books that do not balance: {known:?}"
                ));
            }
            for rows in known {
                let settled = balance.settled as f64;
                if rows.unaccounted > 0.0 || rows.settled > settled {
                    return Err(format!(
                        "{address} exports {rows:?}, and status says {balance:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// When all is settled: what every worker exports that lives is what was counted by hand.
pub(crate) async fn differs(world: &World, by_hand: Accepted) -> Option<String> {
    let letters = world.try_query(LETTERS, PATIENCE).await?;
    let n_letters: i64 = letters.first()?.get(0);
    let told = scrapes(world).await;
    if told.is_empty() {
        return Some("no worker exports anything".to_owned());
    }
    let may_be = by_hand.certain as f64..=(by_hand.certain + by_hand.uncertain) as f64;
    let dropped = by_hand.dropped as f64;
    for (address, [_, scrape]) in &told {
        let rows = Rows::of(scrape);
        let is_good = may_be.contains(&rows.accepted)
            && rows.dropped == dropped
            && rows.settled == rows.accepted - dropped
            && [
                rows.with_producers,
                rows.in_stream,
                rows.unaccounted,
                rows.surplus,
            ] == [0.0; 4]
            && scrape.get("consumer_group_backlog_entries") == 0.0
            && scrape.get("consumer_group_pending_entries") == 0.0
            && scrape.get("consumer_group_waiting_dead_letters") == n_letters as f64;
        if !is_good {
            return Some(format!(
                "{address} exports {rows:?} and {} waiting dead letters; by hand {by_hand:?} and {n_letters}",
                scrape.get("consumer_group_waiting_dead_letters")
            ));
        }
    }
    None
}
