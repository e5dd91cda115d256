//! The one place that prints.

use std::io::{self, Write};

use serde::Serialize;

use crate::render::{Cell, Column, Output, TableWriter, Terminal};

/// Prints a line of results.
pub(crate) fn line(text: &str) {
    raw(&format!("{text}\n"));
}

/// Prints results as they are. A reader that went away, as `head` does, ends the program quietly.
pub(crate) fn raw(text: &str) {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    if let Err(error) = written {
        std::process::exit(i32::from(error.kind() != io::ErrorKind::BrokenPipe));
    }
}

/// Prints a value as JSON.
pub(crate) fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(&text),
        Err(error) => warning(&format!("the result cannot be written as JSON: {error}")),
    }
}

/// Prints a value as JSON on one line.
pub(crate) fn json_line(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => line(&text),
        Err(error) => warning(&format!("the result cannot be written as JSON: {error}")),
    }
}

/// Prints a line about the command, not of its result.
#[expect(clippy::print_stderr, reason = "what is not a result goes to stderr")]
pub(crate) fn warning(text: &str) {
    eprintln!("{text}");
}

/// Prints a question, to be answered on the same line.
#[expect(clippy::print_stderr, reason = "what is not a result goes to stderr")]
pub(crate) fn question(text: &str) {
    eprint!("{text}");
}

/// Prints a table, or the same rows as JSON or CSV.
pub(crate) fn table(
    columns: &'static [Column],
    output: Output,
    rows: impl IntoIterator<Item = Vec<Cell>>,
) {
    let stdout = io::BufWriter::new(io::stdout());
    let mut writer = TableWriter::new(stdout, columns, output, Terminal::stdout());
    let written = rows
        .into_iter()
        .try_for_each(|row| writer.row(row))
        .and_then(|()| writer.finish());
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        warning(&format!("the table cannot be written: {error}"));
    }
}

/// The form that the switches ask for.
pub(crate) const fn form(json: bool, csv: bool) -> Output {
    if json {
        Output::Json
    } else if csv {
        Output::Csv
    } else {
        Output::Table
    }
}
