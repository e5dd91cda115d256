//! Asks the servers, each question in a task of its own: what hangs keeps nothing else waiting.

use std::{fmt, time::Duration};

use passerby_consumer::{
    Paused,
    ops::{self, OpsError, PendingFilter, Target},
    store::{DatabaseUrl, DeadLetterFilter, LetterState, Store, StoreTimeouts},
};
use passerby_shared::{
    ErrorChain, KeyPrefix, StreamKey,
    redis_connection::{RedisLink, RedisTimeouts, RedisUrl},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::{Request, Update};
use crate::commands::operator;

/// Entries and dead letters that a list has.
const MAX_LISTED: u16 = 100;
/// Sampling cameras reads entries whole, so it is done no more often.
const MIN_SAMPLING: Duration = Duration::from_secs(1);
/// What is on its way to the screen.
const MAX_UPDATES: usize = 16;

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Source {
    /// Redis.
    pub redis_url: RedisUrl,
    /// Postgres.
    pub database_url: DatabaseUrl,
    /// What the keys begin with.
    pub key_prefix: KeyPrefix,
    /// The streams.
    pub streams: Vec<StreamKey>,
    /// The group.
    pub group: String,
}

impl Source {
    fn target(&self) -> Target {
        Target {
            link: RedisLink::new(self.redis_url.clone(), timeouts()),
            key_prefix: self.key_prefix.clone(),
            streams: self.streams.clone(),
            group: self.group.clone(),
        }
    }

    fn store(&self) -> Store {
        Store::new(
            self.database_url.clone(),
            StoreTimeouts {
                connect: Duration::from_secs(3),
                ..StoreTimeouts::default()
            },
        )
    }
}

/// Whoever looks wants to know soon that nobody answers.
fn timeouts() -> RedisTimeouts {
    RedisTimeouts {
        connect: Duration::from_secs(3),
        response: Duration::from_secs(5),
    }
}

/// The tasks that ask. They end with it.
pub struct Fetcher {
    requests: mpsc::Sender<Request>,
    updates: mpsc::Receiver<Update>,
    tasks: JoinSet<()>,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").finish_non_exhaustive()
    }
}

impl Fetcher {
    /// Begins to ask, every `every`.
    pub fn start(source: Source, every: Duration) -> Self {
        let (update, updates) = mpsc::channel(MAX_UPDATES);
        let (requests, request) = mpsc::channel(MAX_UPDATES);
        let mut tasks = JoinSet::new();
        tasks.spawn(statuses(source.clone(), every, update.clone()));
        tasks.spawn(cameras(
            source.clone(),
            every.max(MIN_SAMPLING),
            update.clone(),
        ));
        tasks.spawn(requested(source, request, update));
        Self {
            requests,
            updates,
            tasks,
        }
    }

    /// The next answer; `None` when a task that asks has ended, which none does by itself.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Update> {
        tokio::select! {
            update = self.updates.recv() => update,
            _ = self.tasks.join_next() => None,
        }
    }

    /// Asks for something; `false` when too much was asked for already.
    pub fn ask(&self, request: Request) -> bool {
        self.requests.try_send(request).is_ok()
    }
}

async fn statuses(source: Source, every: Duration, updates: mpsc::Sender<Update>) {
    let (mut target, mut store) = (source.target(), source.store());
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let report = ops::status(&mut target, &mut store).await;
        if updates
            .send(Update::Status(Box::new(report)))
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn cameras(source: Source, every: Duration, updates: mpsc::Sender<Update>) {
    let mut target = source.target();
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let sample = ops::cameras(&mut target).await;
        if sample.is_err() {
            target.link.disconnect();
        }
        let sample = sample.map_err(in_words);
        if updates.send(Update::Cameras(sample)).await.is_err() {
            return;
        }
    }
}

async fn requested(
    source: Source,
    mut requests: mpsc::Receiver<Request>,
    updates: mpsc::Sender<Update>,
) {
    let (mut target, mut store) = (source.target(), source.store());
    while let Some(request) = requests.recv().await {
        let update = answer(request, &mut target, &mut store).await;
        if is_failure(&update) {
            target.link.disconnect();
        }
        if updates.send(update).await.is_err() {
            return;
        }
    }
}

async fn answer(request: Request, target: &mut Target, store: &mut Store) -> Update {
    match request {
        Request::Pending => {
            let filter = PendingFilter {
                limit: usize::from(MAX_LISTED),
                decode: true,
                ..PendingFilter::default()
            };
            Update::Pending(ops::pending(target, &filter).await.map_err(in_words))
        }
        Request::Letters => {
            let filter = DeadLetterFilter {
                state: Some(LetterState::Waiting),
                limit: i64::from(MAX_LISTED),
                ..DeadLetterFilter::default()
            };
            let letters = store.query_dead_letters(&filter).await;
            Update::Letters(letters.map_err(|error| in_words(OpsError::Store(error))))
        }
        Request::Pause => {
            let paused = Paused {
                by: operator(),
                reason: Some("from top".to_owned()),
            };
            let done = ops::pause(target, &paused).await;
            Update::Done(
                done.map(|()| "paused: workers stop reading within a second".to_owned())
                    .map_err(in_words),
            )
        }
        Request::Resume => {
            let done = ops::resume(target).await;
            Update::Done(
                done.map(|_was_paused| "resumed: workers read again".to_owned())
                    .map_err(in_words),
            )
        }
    }
}

fn is_failure(update: &Update) -> bool {
    matches!(
        update,
        Update::Pending(Err(_)) | Update::Letters(Err(_)) | Update::Done(Err(_))
    )
}

fn in_words(error: OpsError) -> String {
    let advice = error
        .advice()
        .map(|advice| format!("; {advice}"))
        .unwrap_or_default();
    format!("{}{advice}", ErrorChain(&error))
}
