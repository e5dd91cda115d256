//! Counts every row by its identity, where it should be and everywhere else.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

use chrono::{DateTime, Utc};
use passerby_consumer::store::{DeadLetterFilter, DeadLetterRecord, LetterState, Store};
use passerby_shared::wire;
use serde_json::Value;
use tokio_postgres::Client;

use crate::{books::Account, rows::Source, world::World};

/// So many of a kind are shown.
const N_SHOWN: usize = 5;

/// What became of the rows of a round.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) n_accepted: u64,
    pub(crate) n_uncertain: u64,
    pub(crate) n_stored: u64,
    pub(crate) n_dead: u64,
    pub(crate) n_dropped: u64,
    problems: BTreeMap<&'static str, Vec<String>>,
}

impl Verdict {
    pub(crate) fn is_good(&self) -> bool {
        self.problems.is_empty()
    }

    pub(crate) fn problem(&mut self, kind: &'static str, what: String) {
        self.problems.entry(kind).or_default().push(what);
    }

    fn count(&mut self, account: &Account, found: &Found) {
        let session_id = &account.source.session_id;
        let rows = found.rows.get(session_id);
        let letters = found.letters.get(session_id);
        self.n_accepted += account.accepted.len() as u64;
        self.n_uncertain += account.uncertain.len() as u64;
        self.n_stored += rows.map_or(0, |rows| rows.values().map(Vec::len).sum()) as u64;
        self.n_dead += letters.map_or(0, |letters| letters.values().map(Vec::len).sum()) as u64;
        self.n_dropped += account.n_dropped;
    }

    /// How many problems there are of each kind.
    pub(crate) fn summary(&self) -> BTreeMap<&'static str, usize> {
        self.problems
            .iter()
            .map(|(kind, all)| (*kind, all.len()))
            .collect()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, all) in &self.problems {
            writeln!(f, "  {} {kind}:", all.len())?;
            for what in all.iter().take(N_SHOWN) {
                writeln!(f, "    {what}")?;
            }
        }
        Ok(())
    }
}

/// A row as it is stored.
struct StoredRow {
    timestamp: DateTime<Utc>,
    frame_number: i64,
    bbox_x: f32,
    channel_id: i32,
}

/// What is there, of some sessions.
#[derive(Default)]
struct Found {
    /// By session and number.
    rows: HashMap<String, BTreeMap<i64, Vec<StoredRow>>>,
    letters: HashMap<String, BTreeMap<i64, Vec<String>>>,
    /// Detections of each track.
    tracks: HashMap<String, BTreeMap<i64, i64>>,
    sessions: HashMap<String, Option<DateTime<Utc>>>,
    /// Sessions whose tracks are, some of them, in dead letters.
    dead_tracks: HashSet<String>,
    /// Letters that nobody can have caused.
    strange_letters: Vec<String>,
    /// Letters written twice.
    doubled_letters: Vec<String>,
}

/// Holds what is stored against the accounts: those of the round, which are counted, and those of
/// earlier ones.
pub(crate) async fn judge(world: &World, accounts: &[Account], earlier: &[Account]) -> Verdict {
    let all: Vec<&Account> = accounts.iter().chain(earlier).collect();
    let client = world.client().await;
    let found = find(world, &client, &all).await;
    let mut verdict = Verdict::default();
    for account in all {
        judge_rows(&mut verdict, account, &found);
        judge_tracks(&mut verdict, account, &found);
        judge_session(&mut verdict, account, &found);
    }
    for account in accounts {
        verdict.count(account, &found);
    }
    for letter in &found.strange_letters {
        verdict.problem("dead letters that nobody caused", letter.clone());
    }
    for letter in &found.doubled_letters {
        verdict.problem("dead letters doubled", letter.clone());
    }
    verdict
}

fn judge_rows(verdict: &mut Verdict, account: &Account, found: &Found) {
    let session_id = &account.source.session_id;
    let (no_rows, no_letters) = (BTreeMap::new(), BTreeMap::new());
    let rows = found.rows.get(session_id).unwrap_or(&no_rows);
    let letters = found.letters.get(session_id).unwrap_or(&no_letters);
    let mut lost = Vec::new();
    for &n in account.accepted.union(&account.uncertain) {
        let (stored, dead) = (rows.get(&n), letters.get(&n));
        let (n_stored, n_dead) = (stored.map_or(0, Vec::len), dead.map_or(0, Vec::len));
        let is_certain = account.accepted.contains(&n);
        let identity = || format!("{session_id}#{n}");
        match n_stored + n_dead {
            0 if is_certain => lost.push(identity()),
            0 | 1 => {}
            _ => verdict.problem(
                "rows doubled",
                format!(
                    "{}: stored {n_stored} times, {n_dead} dead letters {dead:?}",
                    identity()
                ),
            ),
        }
        let is_bad = account.dead.contains(&n);
        if is_bad && n_stored > 0 {
            verdict.problem("bad rows stored", identity());
        }
        if !is_bad && !Source::is_refused(n) && n_dead > 0 {
            verdict.problem(
                "good rows dead-lettered",
                format!("{}: {dead:?}", identity()),
            );
        }
        let wanted = account.source.detection(n);
        for row in stored.into_iter().flatten() {
            let is_same = row.timestamp == wanted.timestamp
                && row.frame_number == wanted.frame_number
                && row.bbox_x.to_bits() == wanted.bbox_x.to_bits()
                && row.channel_id == wanted.channel_id;
            if !is_same {
                verdict.problem("rows altered", identity());
            }
        }
    }
    if lost.len() as u64 != account.n_dropped {
        if account.n_dropped > 0 {
            verdict.problem(
                "producers that dropped another number of rows than they say",
                format!(
                    "{session_id}: {} of {} missing",
                    lost.len(),
                    account.n_dropped
                ),
            );
        } else {
            for identity in lost {
                verdict.problem("rows lost", identity);
            }
        }
    }
    let is_known = |n: &&i64| account.accepted.contains(n) || account.uncertain.contains(n);
    for n in rows.keys().filter(|n| !is_known(n)) {
        verdict.problem(
            "rows stored that nobody recorded",
            format!("{session_id}#{n}"),
        );
    }
    for n in letters.keys().filter(|n| !is_known(n)) {
        verdict.problem(
            "dead letters that nobody caused",
            format!("{session_id}#{n}"),
        );
    }
}

fn judge_tracks(verdict: &mut Verdict, account: &Account, found: &Found) {
    let session_id = &account.source.session_id;
    let none = BTreeMap::new();
    let tracks = found.tracks.get(session_id).unwrap_or(&none);
    for (track_id, &(must, may)) in &account.tracks {
        // Of what is lost by policy, or refused until that is mended, nobody knows how new it was.
        let may_be_older = account.n_dropped_tracks > 0 || found.dead_tracks.contains(session_id);
        let must = if may_be_older { -1 } else { must };
        let count_after = |n: i64| {
            if n < 0 {
                0
            } else {
                account.source.track(n).detection_count
            }
        };
        let is = tracks.get(track_id).copied().unwrap_or(0);
        if is < count_after(must) || is > count_after(may) {
            verdict.problem(
                "tracks without their newest snapshot",
                format!(
                    "{session_id} track {track_id}: stored as of {is} detections, sent as of {} to {}",
                    count_after(must),
                    count_after(may)
                ),
            );
        }
    }
    for track_id in tracks.keys().filter(|id| !account.tracks.contains_key(id)) {
        verdict.problem(
            "tracks stored that nobody recorded",
            format!("{session_id} track {track_id}"),
        );
    }
}

fn judge_session(verdict: &mut Verdict, account: &Account, found: &Found) {
    let Some(n) = account.ended_after else { return };
    let wanted = account.source.session(Some(n)).ended_at;
    let session_id = &account.source.session_id;
    match found.sessions.get(session_id) {
        Some(ended_at) if *ended_at == wanted => {}
        other => {
            let what = format!("{session_id}: {other:?} and not {wanted:?}");
            verdict.problem("sessions without their end", what);
        }
    }
}

async fn find(world: &World, client: &Client, accounts: &[&Account]) -> Found {
    let ids: Vec<&str> = accounts
        .iter()
        .map(|account| &*account.source.session_id)
        .collect();
    let mut found = Found::default();
    let rows = "SELECT session_id, detection_id, timestamp, frame_number, bbox_x, channel_id
                FROM detections WHERE session_id = ANY($1)";
    for row in client.query(rows, &[&ids]).await.unwrap() {
        let stored = StoredRow {
            timestamp: row.get(2),
            frame_number: row.get(3),
            bbox_x: row.get(4),
            channel_id: row.get(5),
        };
        let of_session = found.rows.entry(row.get(0)).or_default();
        of_session.entry(row.get(1)).or_default().push(stored);
    }
    let tracks = "SELECT session_id, track_id, detection_count
                  FROM tracks WHERE session_id = ANY($1)";
    for row in client.query(tracks, &[&ids]).await.unwrap() {
        found
            .tracks
            .entry(row.get(0))
            .or_default()
            .insert(row.get(1), row.get(2));
    }
    let sessions = "SELECT session_id, ended_at FROM sessions WHERE session_id = ANY($1)";
    for row in client.query(sessions, &[&ids]).await.unwrap() {
        found.sessions.insert(row.get(0), row.get(1));
    }
    let mut store = Store::connect(&world.database_url()).await.unwrap();
    let live = DeadLetterFilter {
        state: Some(LetterState::Waiting),
        limit: i64::MAX,
        ..DeadLetterFilter::default()
    };
    for letter in store.query_dead_letters(&live).await.unwrap() {
        let said = format!(
            "letter {}, {}: {}",
            letter.id, letter.reason, letter.message
        );
        match Held::by(&letter) {
            Held::Rows(rows) if !rows.is_empty() => {
                for (session_id, n) in rows {
                    let of_session = found.letters.entry(session_id).or_default();
                    of_session.entry(n).or_default().push(said.clone());
                }
            }
            Held::Tracks(sessions)
                if letter.reason == "refused"
                    && sessions
                        .iter()
                        .all(|id| Source::new(id.clone(), 1).has_refused_tracks()) =>
            {
                found.dead_tracks.extend(sessions);
            }
            _ => found.strange_letters.push(said),
        }
    }
    let doubled = "SELECT format('%s row %s: %s times', idempotency_key, row_idx, count(*))
                   FROM dead_letters GROUP BY idempotency_key, row_idx HAVING count(*) > 1";
    let doubled = client.query(doubled, &[]).await.unwrap();
    found
        .doubled_letters
        .extend(doubled.iter().map(|row| row.get::<_, String>(0)));
    found
}

/// What a dead letter holds.
enum Held {
    /// Detections, by session and number.
    Rows(Vec<(String, i64)>),
    /// Tracks of these sessions.
    Tracks(Vec<String>),
}

impl Held {
    fn by(letter: &DeadLetterRecord) -> Self {
        let field = |wanted: &[u8]| {
            let found = letter.fields.iter().rev().find(|(name, _)| name == wanted);
            found.map(|(_, value)| &value[..])
        };
        let payload = field(b"p").unwrap_or_default();
        if field(b"k") != Some(b"t") {
            return Self::Rows(rows_in(payload));
        }
        let mut sessions = Vec::new();
        let decoded = wire::decode_tracks(payload, |_, track| {
            sessions.extend(track.ok().map(|track| track.session_id));
        });
        decoded.map_or(Self::Rows(Vec::new()), |_| Self::Tracks(sessions))
    }
}

/// The detections of a payload, however broken it is.
fn rows_in(payload: &[u8]) -> Vec<(String, i64)> {
    if let [0xc1, tag @ ..] = payload {
        let tag = String::from_utf8_lossy(tag);
        let identity = tag.split_once('#').and_then(|(session_id, n)| {
            let n = n.parse().ok()?;
            Some((session_id.to_owned(), n))
        });
        return identity.into_iter().collect();
    }
    // Plain maps, whatever is wrong with their values.
    if let Ok(maps) = rmp_serde::from_slice::<Vec<Value>>(payload)
        && maps.iter().all(Value::is_object)
    {
        return maps
            .iter()
            .filter_map(|map| {
                Some((
                    map["session_id"].as_str()?.to_owned(),
                    map["detection_id"].as_i64()?,
                ))
            })
            .collect();
    }
    let mut found = Vec::new();
    let decoded = wire::decode_detections(payload, |_, row| {
        if let Ok(row) = row {
            found.push((row.session_id.to_string(), row.detection_id));
        }
    });
    decoded.map(|_| found).unwrap_or_default()
}
