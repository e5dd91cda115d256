//! `passerby`: demo, ingest, queries and operations.

use std::process::ExitCode;

fn main() -> ExitCode {
    passerby::run()
}
