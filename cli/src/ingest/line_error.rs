//! What is wrong with one line of a file.

use std::sync::Arc;

use passerby_shared::Invalid;

use super::lines::MAX_LINE_BYTES;
use crate::visible::excerpt;

/// A line that holds no detection, displayed as `file:line: what is wrong`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct LineError {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// The line's number, counted from 1, comments and blank lines included.
    pub line: u64,
    /// What is wrong with it.
    pub problem: LineProblem,
}

/// What is wrong with a line, and what to do about it.
///
/// Complete in one line of text, without causes: thousands of these may be listed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// It is longer than any detection.
    #[error("the line is longer than {MAX_LINE_BYTES} bytes: write one detection a line")]
    TooLong,
    /// It is not text.
    #[error("byte {at} of the line is not UTF-8: save the file as UTF-8 text")]
    NotUtf8 {
        /// Where, counted from 1.
        at: usize,
    },
    /// It has too few or too many columns.
    #[error(
        "the number of columns is {found}, expected 6 to 10: frame, track id, left, top, width, \
         height, confidence, and up to 3 more"
    )]
    Columns {
        /// How many there are.
        found: usize,
    },
    /// It does not begin as an object does.
    #[error("`{found}` is no JSON object: write one object a line, {{\"timestamp\": …}}")]
    NotAnObject {
        /// The line's beginning.
        found: String,
    },
    /// It is no JSON.
    #[error("column {column}: {expected}")]
    Json {
        /// Where the parser gave up, counted from 1.
        column: usize,
        /// What the parser said, without the position.
        expected: String,
    },
    /// A field has a value that cannot be stored.
    #[error("{0}")]
    Field(Invalid),
}

impl LineProblem {
    pub(super) fn json(error: &serde_json::Error) -> Self {
        let said = error.to_string();
        // The parser saw one line and would say that it is line 1.
        let expected = said
            .rsplit_once(" at line ")
            .map_or(&*said, |(what, _)| what);
        Self::Json {
            column: error.column(),
            expected: excerpt(expected),
        }
    }
}

impl From<Invalid> for LineProblem {
    fn from(invalid: Invalid) -> Self {
        Self::Field(invalid)
    }
}

impl From<std::str::Utf8Error> for LineProblem {
    fn from(error: std::str::Utf8Error) -> Self {
        Self::NotUtf8 {
            at: error.valid_up_to() + 1,
        }
    }
}
