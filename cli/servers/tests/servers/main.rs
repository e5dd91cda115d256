//! What a private server promises, against real ones: those of this machine and the fetched ones.
#![expect(clippy::unwrap_used, reason = "these helpers are tests too")]

mod eventually;
mod fetched;
mod lifetime;
mod postgres;
mod redis;
mod resp;

use passerby_servers::{Binaries, ServerError, Source};

fn from(source: Source) -> Binaries {
    Binaries {
        source: Some(source),
        ..Binaries::default()
    }
}

/// The server, or `None` where this machine has none of its own installed.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn installed<T>(started: Result<T, ServerError>) -> Option<T> {
    match started {
        Ok(server) => Some(server),
        Err(ServerError::Missing(missing)) if missing.source == Source::System => {
            eprintln!("skipped: {missing}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}
