//! A pipeline in a process of its own, which can be killed with its producer and all it holds.
//!
//! The process is this program with a hidden subcommand. It says on its standard output what became of
//! each row, one line and one write for each, so that what it said before it was killed is not lost:
//! a pipe keeps what was written.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering::SeqCst},
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use clap::Args;
use passerby_producer::{Producer, Recorded, RedisUrl};
use tokio::time::{Instant, sleep};

use crate::{balance::Accepted, books::Account, producers, rows::Source, spool};

pub(crate) const ROWS_PER_SECOND: i64 = 400;
const FRAME: Duration = Duration::from_millis(20);
/// Between two looks at what Redis has acknowledged.
const FLUSH_EVERY: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(40);
/// Rows of one process are numbered from a multiple of this.
const PER_PROCESS: i64 = 1_000_000;

/// What the process is told.
#[derive(Debug, Args)]
pub(crate) struct PipelineArgs {
    #[arg(long)]
    redis_url: RedisUrl,
    #[arg(long)]
    session_id: String,
    /// The number of the first row.
    #[arg(long)]
    first: i64,
    #[arg(long)]
    spool: PathBuf,
}

/// Runs as the pipeline's process, until its standard input ends.
pub(crate) fn run(args: &PipelineArgs) {
    let mut config = producers::config(args.redis_url.clone());
    spool::configure(&mut config, &args.spool);
    let producer = Producer::start(config).unwrap();
    let source = Source::new(args.session_id.clone(), ROWS_PER_SECOND);
    let (stop, stopped) = mpsc::channel::<()>();
    thread::spawn(move || {
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        drop(stop);
    });
    let newest = Arc::new(AtomicI64::new(args.first - 1));
    let (flusher_stop, flusher_stopped) = mpsc::channel::<()>();
    let flusher = thread::spawn({
        let (producer, newest) = (producer.clone(), Arc::clone(&newest));
        move || {
            while flusher_stopped.recv_timeout(FLUSH_EVERY) == Err(RecvTimeoutError::Timeout) {
                note_flushed(&producer, &newest, Duration::from_millis(200));
            }
        }
    });
    let mut n = args.first;
    while stopped.recv_timeout(FRAME) == Err(RecvTimeoutError::Timeout) {
        for _ in 0..ROWS_PER_SECOND * 20 / 1_000 {
            match producer.record(source.detection(n)) {
                Ok(Recorded::Accepted) => {
                    note('a', n);
                    newest.store(n, SeqCst);
                }
                _ => note('d', n),
            }
            if n % 10 == 0
                && let Ok(Recorded::Accepted) = producer.track(source.track(n))
            {
                note('t', n);
            }
            n += 1;
        }
    }
    drop(flusher_stop);
    drop(flusher.join());
    note_flushed(&producer, &newest, PATIENCE);
    if let Ok(stats) = producer.close(Duration::from_secs(1))
        && stats.rows().balances()
    {
        note('b', 1);
    }
}

fn note_flushed(producer: &Producer, newest: &AtomicI64, patience: Duration) {
    let n = newest.load(SeqCst);
    if producer.flush(patience).is_ok() {
        note('f', n);
    }
}

fn note(what: char, n: i64) {
    // When nobody listens any more nothing matters.
    drop(std::io::stdout().write_all(format!("{what} {n}\n").as_bytes()));
    drop(std::io::stdout().flush());
}

/// The process as we see it. It is killed when dropped.
#[derive(Debug)]
pub(crate) struct Pipeline {
    redis_url: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    session_id: String,
    spool: PathBuf,
    running: Option<Running>,
    n_started: i64,
    ended: Vec<Notes>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    reader: JoinHandle<Notes>,
}

/// What one process said.
#[derive(Debug, Default)]
struct Notes {
    accepted: Vec<i64>,
    tracks: Vec<i64>,
    newest_flushed: Option<i64>,
    is_balanced: bool,
    /// The row that was being recorded when it ended.
    next: i64,
}

impl Pipeline {
    pub(crate) fn new(redis_url: String) -> Self {
        Self {
            redis_url,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the process of a round.
    pub(crate) fn start(&self, session_id: String, spool: PathBuf) {
        let mut state = self.state();
        *state = State {
            session_id,
            spool,
            ..State::default()
        };
        state.start(&self.redis_url);
    }

    /// SIGKILL, and a new process.
    pub(crate) fn kill(&self) {
        let mut state = self.state();
        if let Some(mut running) = state.running.take() {
            drop(running.child.kill());
            drop(running.child.wait());
            let notes = running.reader.join().unwrap();
            state.ended.push(notes);
            state.start(&self.redis_url);
        }
    }

    /// Tells the process to finish, and returns what must be there, and what went wrong.
    pub(crate) async fn finish(&self) -> (Account, Accepted, Vec<String>) {
        let mut running = self.state().running.take().expect("started with the round");
        drop(running.child.stdin.take());
        let deadline = Instant::now() + PATIENCE + Duration::from_secs(5);
        let mut errors = Vec::new();
        while running.child.try_wait().unwrap().is_none() {
            if Instant::now() >= deadline {
                errors.push("the pipeline's process does not end".to_owned());
                drop(running.child.kill());
                drop(running.child.wait());
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        let last = running.reader.join().unwrap();
        if !last.is_balanced || last.newest_flushed != last.accepted.last().copied() {
            errors.push(format!(
                "the pipeline's process ended with rows left, or its books do not balance: {:?}",
                last.newest_flushed
            ));
        }
        let mut state = self.state();
        state.ended.push(last);
        let source = Source::new(state.session_id.clone(), ROWS_PER_SECOND);
        let mut account = Account::new(source);
        let n_ended = state.ended.len();
        let n_rows = |notes: &Notes| (notes.accepted.len() + notes.tracks.len()) as u64;
        let accepted = Accepted {
            certain: state.ended.iter().map(n_rows).sum(),
            // A detection, or the track after it.
            uncertain: n_ended as u64 - 1,
            dropped: 0,
        };
        for (at, notes) in state.ended.drain(..).enumerate() {
            notes.enter(&mut account, at + 1 < n_ended);
        }
        (account, accepted, errors)
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if let Some(mut running) = self.state().running.take() {
            drop(running.child.kill());
            drop(running.child.wait());
        }
    }
}

impl State {
    fn start(&mut self, redis_url: &str) {
        let first = self.n_started * PER_PROCESS;
        self.n_started += 1;
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["pipeline", "--redis-url", redis_url])
            .args([
                "--session-id",
                &self.session_id,
                "--first",
                &first.to_string(),
                "--spool",
            ])
            .arg(&self.spool)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().expect("piped");
        let reader = thread::spawn(move || Notes::read(first, stdout));
        self.running = Some(Running { child, reader });
    }
}

impl Notes {
    fn read(first: i64, from: impl Read) -> Self {
        let mut notes = Self {
            next: first,
            ..Self::default()
        };
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let Some((what, n)) = line.split_once(' ') else {
                continue;
            };
            let n: i64 = n.parse().unwrap();
            match what {
                "a" => {
                    notes.accepted.push(n);
                    notes.next = n + 1;
                }
                "d" => notes.next = n + 1,
                "t" => notes.tracks.push(n),
                "f" => notes.newest_flushed = Some(n),
                "b" => notes.is_balanced = true,
                _ => unreachable!("notes are ours"),
            }
        }
        notes
    }

    fn enter(self, account: &mut Account, was_killed: bool) {
        // Killed or not: what was accepted is in the spool.
        account.accepted.extend(&self.accepted);
        if was_killed {
            account.uncertain.insert(self.next);
        }
        let mut tracks = self.tracks;
        if was_killed && self.next % 10 == 0 {
            tracks.push(self.next);
        }
        for n in tracks {
            let newest = account
                .tracks
                .entry(account.source.track(n).track_id)
                .or_insert((-1, n));
            newest.1 = n;
            if n != self.next {
                newest.0 = n;
            }
        }
    }
}
