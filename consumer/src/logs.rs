//! What is logged, and how often.
//!
//! The same warning is not written a thousand times a minute: the first five of one place in the code within
//! ten seconds are written at once, the others are counted, and the count is written when the ten seconds are
//! over. State changes, as that storing works again, are places of their own and are written at once.
//!
//! Nothing that a driver says of parameters is ever written, whatever the filter: they are rows.

use std::{
    collections::HashMap,
    fmt,
    io::IsTerminal,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{
    Event, Level, Metadata, Subscriber,
    callsite::Identifier,
    error,
    field::{Field, Visit},
    warn,
};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, ParseError},
    fmt as lines,
    layer::{Context, Filter, SubscriberExt},
    util::SubscriberInitExt,
};

use crate::command_line::LogFormat;

/// Warnings of one place are counted over so long.
pub const WINDOW: Duration = Duration::from_secs(10);
/// So many of them are written at once.
pub const BURST: u64 = 5;

/// Counts warnings and errors that are the same again.
#[derive(Debug, Clone, Default)]
pub struct Repetitions(Arc<Mutex<HashMap<Identifier, Place>>>);

/// A place in the code that has something to say.
#[derive(Debug)]
struct Place {
    since: Instant,
    n_said: u64,
    n_kept: u64,
    level: Level,
    message: String,
}

impl Repetitions {
    fn lock(&self) -> MutexGuard<'_, HashMap<Identifier, Place>> {
        // The map is whole after each of the operations below, whoever panicked meanwhile.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this event is to be written now, or only counted.
    fn admit(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        // What is said below of what was counted is said once for each place and window.
        if *metadata.level() > Level::WARN || metadata.target() == module_path!() {
            return true;
        }
        let mut places = self.lock();
        let now = Instant::now();
        let place = places
            .entry(metadata.callsite())
            .or_insert_with(|| Place::new(metadata, now));
        // One that has kept some to itself is told of by `tell_counted` first.
        if place.n_kept == 0 && now - place.since >= WINDOW {
            *place = Place::new(metadata, now);
        }
        if place.n_said < BURST {
            place.n_said += 1;
            return true;
        }
        if place.n_kept == 0 {
            event.record(&mut MessageOf(&mut place.message));
        }
        place.n_kept += 1;
        false
    }

    /// Says how often what was counted was the same again, where the window is over, or now all of it.
    pub fn tell_counted(&self, all: bool) {
        let mut over = Vec::new();
        self.lock().retain(|_, place| {
            let is_over = all || place.since.elapsed() >= WINDOW;
            if is_over && place.n_kept > 0 {
                over.push((
                    place.level,
                    place.n_kept,
                    std::mem::take(&mut place.message),
                ));
            }
            !is_over
        });
        let seconds = WINDOW.as_secs();
        for (level, n_more, what) in over {
            if level == Level::ERROR {
                error!(what, n_more, seconds, "the same again");
            } else {
                warn!(what, n_more, seconds, "the same again");
            }
        }
    }

    /// Says so for ever.
    pub async fn keep_telling(self) {
        let mut tick = interval(WINDOW / 10);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.tell_counted(false);
        }
    }
}

impl Place {
    fn new(metadata: &Metadata<'_>, now: Instant) -> Self {
        Self {
            since: now,
            n_said: 0,
            n_kept: 0,
            level: *metadata.level(),
            message: String::new(),
        }
    }
}

impl<S: Subscriber> Filter<S> for Repetitions {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.admit(event)
    }
}

/// Takes an event's message, which is constant, and none of its values.
struct MessageOf<'a>(&'a mut String);

impl Visit for MessageOf<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            *self.0 = format!("{value:?}");
        }
    }
}

/// The driver of Postgres writes the parameters of each statement at level DEBUG.
fn may_hold_rows(metadata: &Metadata<'_>) -> bool {
    *metadata.level() > Level::INFO && metadata.target().starts_with("tokio_postgres")
}

/// What is written, with the repetitions that are counted.
fn layer<S>(filter: EnvFilter, repetitions: Repetitions, format: LogFormat) -> impl Layer<S>
where
    S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let safe = tracing_subscriber::filter::filter_fn(|metadata| !may_hold_rows(metadata));
    let filter = filter.and(safe).and(repetitions);
    let lines = lines::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Human => lines.with_target(false).with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    }
}

/// Writes the log of this process to stderr from now on.
///
/// # Errors
///
/// What is wrong with the filter.
pub fn init(filter: &str, format: LogFormat) -> Result<Repetitions, ParseError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let repetitions = Repetitions::default();
    tracing_subscriber::registry()
        .with(layer(filter, repetitions.clone(), format))
        .init();
    Ok(repetitions)
}

/// As [`init`], with the spans of batches for a collector.
///
/// # Errors
///
/// As [`init`].
#[cfg(feature = "otel")]
pub fn init_with_spans(
    filter: &str,
    format: LogFormat,
    spans: &crate::otel::Spans,
) -> Result<Repetitions, ParseError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let repetitions = Repetitions::default();
    tracing_subscriber::registry()
        .with(layer(filter, repetitions.clone(), format))
        .with(spans.layer())
        .init();
    Ok(repetitions)
}

#[cfg(test)]
mod tests {
    use tracing::{info, subscriber::with_default};

    use super::*;

    /// Lines as `message n_more`.
    #[derive(Debug, Clone, Default)]
    struct Written(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Written {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut line = String::new();
            event.record(&mut All(&mut line));
            self.0.lock().unwrap().push(line);
        }
    }

    struct All<'a>(&'a mut String);

    impl Visit for All<'_> {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            if field.name() != "seconds" {
                *self.0 += &format!("{}={value:?} ", field.name());
            }
        }
    }

    impl Written {
        fn take(&self) -> Vec<String> {
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_are_written_at_once_and_the_others_counted() {
        let (written, repetitions) = (Written::default(), Repetitions::default());
        let subscriber =
            tracing_subscriber::registry().with(written.clone().with_filter(repetitions.clone()));
        let fails = |n: u64| warn!(n, "commit failed");
        let flood = || (0..1_000).for_each(fails);
        with_default(subscriber, || {
            flood();
            assert_eq!(written.take().len(), 5);
            info!("storing again");
            warn!("something else");
            assert_eq!(written.take().len(), 2);
        });
        tokio::time::advance(WINDOW / 2).await;
        repetitions.tell_counted(false);
        assert_eq!(written.take(), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_counted_is_told_when_the_window_is_over() {
        let (written, repetitions) = (Written::default(), Repetitions::default());
        let subscriber =
            tracing_subscriber::registry().with(written.clone().with_filter(repetitions.clone()));
        let dispatch = tracing::Dispatch::new(subscriber);
        let fails =
            |n: u64| tracing::dispatcher::with_default(&dispatch, || warn!(n, "commit failed"));
        let tell =
            || tracing::dispatcher::with_default(&dispatch, || repetitions.tell_counted(false));
        (0..1_000).for_each(fails);
        written.take();
        tokio::time::advance(WINDOW).await;
        tell();
        let told = written.take();
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("the same again"), "{told:?}");
        assert!(told[0].contains("n_more=995"), "{told:?}");
        assert!(told[0].contains("commit failed"), "{told:?}");
        // Nothing is told twice, and the next one is written at once.
        tell();
        assert_eq!(written.take(), [""; 0]);
        fails(0);
        assert_eq!(written.take().len(), 1);
    }

    #[test]
    fn no_parameter_of_a_statement_is_written_whatever_the_filter() {
        let written = Written::default();
        let safe = tracing_subscriber::filter::filter_fn(|metadata| !may_hold_rows(metadata));
        let everything = EnvFilter::builder().parse("trace").unwrap();
        let subscriber =
            tracing_subscriber::registry().with(written.clone().with_filter(everything.and(safe)));
        with_default(subscriber, || {
            tracing::debug!(target: "tokio_postgres::query", "executing with parameters: [1]");
            tracing::info!(target: "tokio_postgres", "notice");
            tracing::trace!("ours");
        });
        assert_eq!(written.take().len(), 2);
    }
}
