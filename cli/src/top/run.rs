//! The terminal: taken, drawn on when something has changed, and given back as it was.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use chrono::Utc;
use passerby_consumer::ops::Thresholds;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{Fetcher, Look, Model, Source, Update, draw};
use crate::{commands::Failure, render::Terminal};

/// How soon the thread that waits for keys notices that nobody wants them any more.
const KEY_POLL: Duration = Duration::from_millis(200);
/// Between two drawings, so that a slow line is not filled with what is old when it arrives.
const MIN_REDRAW: Duration = Duration::from_millis(100);

/// Shows what is going on until somebody has seen enough.
pub(crate) async fn run(
    source: Source,
    every: Duration,
    thresholds: Thresholds,
) -> Result<(), Failure> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::usage(
            "top needs a terminal: `passerby status --watch` shows the same, line by line",
        ));
    }
    let look = Look {
        is_unicode: Terminal::stdout().is_unicode,
        is_coloured: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    let failed = |error: io::Error| Failure::new(format_args!("draw on the terminal: {error}"));
    let mut signals = Signals::new().map_err(failed)?;
    // From here on a panic gives the terminal back before it says what happened.
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let mut events = read_events();
    let mut fetcher = Fetcher::start(source, every);
    let mut model = Model::new(every).judged_by(thresholds);
    let mut redraw = interval(MIN_REDRAW);
    redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut clock = interval(Duration::from_secs(1));
    let mut has_changed = true;
    let ended = loop {
        tokio::select! {
            update = fetcher.next() => {
                let Some(update) = update else {
                    break Err(Failure::new("top has lost what asks the servers"));
                };
                // After a pause or a resume the list of symptoms is what tells.
                let is_done = matches!(update, Update::Done(_));
                model.update(update);
                has_changed = true;
                if is_done {
                    redraw.reset_immediately();
                }
            }
            event = events.recv() => match event {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    if let Some(request) = model.key(key)
                        && !fetcher.ask(request)
                    {
                        model.update(Update::Done(Err(
                            "too much was asked for: the server does not answer".to_owned(),
                        )));
                    }
                    has_changed = true;
                }
                Some(_) => has_changed = true,
                None => break Ok(()),
            },
            _ = redraw.tick(), if has_changed => {
                if let Err(error) = terminal.draw(|frame| draw(frame, &model, Utc::now(), look)) {
                    break Err(failed(error));
                }
                has_changed = false;
            }
            _ = clock.tick() => has_changed = true,
            () = signals.any() => break Ok(()),
        }
        if model.has_quit() {
            break Ok(());
        }
    };
    ratatui::restore();
    ended
}

/// What ends a program, and must not leave a terminal behind that echoes nothing.
struct Signals([Signal; 4]);

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::quit())?,
        ]))
    }

    async fn any(&mut self) {
        let [terminate, hang_up, interrupt, quit] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
        }
    }
}

/// What the terminal says, read by a thread that ends when nobody listens.
fn read_events() -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(64);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            match event::poll(KEY_POLL) {
                Ok(false) => {}
                Ok(true) => match event::read() {
                    Ok(event) => {
                        if sender.blocking_send(event).is_err() {
                            return;
                        }
                    }
                    Err(_) => return,
                },
                Err(_) => return,
            }
        }
    });
    receiver
}
