//! What makes a value valid, said once for `record()`, for the worker and for files.
//!
//! A producer refuses an invalid row with [`Invalid`]; a row of a foreign producer goes to the dead
//! letters with the same words.

use std::fmt;

/// Longest `session_id` and `camera_id`, in bytes of UTF-8.
pub const MAX_ID_BYTES: usize = 64;

/// 2000-01-01T00:00:00Z in microseconds since the Unix epoch.
pub(crate) const MIN_TIMESTAMP_US: i64 = 946_684_800_000_000;
/// 2100-01-01T00:00:00Z in microseconds since the Unix epoch.
pub(crate) const MAX_TIMESTAMP_US: i64 = 4_102_444_800_000_000;

/// A value that cannot be stored: which field it is in and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    field: &'static str,
    problem: String,
}

impl Invalid {
    /// Says that `field` cannot be stored because of `problem`.
    pub fn new(field: &'static str, problem: impl fmt::Display) -> Self {
        Self {
            field,
            problem: problem.to_string(),
        }
    }

    /// The name of the field, as in the wire format and the table.
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// What is wrong with the value.
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

pub(crate) fn id(field: &'static str, value: &str) -> Result<(), Invalid> {
    if value.is_empty() {
        return Err(Invalid::new(field, "is empty"));
    }
    if value.len() > MAX_ID_BYTES {
        return Err(Invalid::new(
            field,
            format_args!(
                "is {} bytes long, at most {MAX_ID_BYTES} are allowed",
                value.len()
            ),
        ));
    }
    text(field, value)
}

pub(crate) fn text(field: &'static str, value: &str) -> Result<(), Invalid> {
    if value.as_bytes().contains(&0) {
        return Err(Invalid::new(
            field,
            "contains a NUL character, which Postgres cannot store",
        ));
    }
    Ok(())
}

#[inline]
pub(crate) fn timestamp_us(field: &'static str, value: i64) -> Result<(), Invalid> {
    if (MIN_TIMESTAMP_US..MAX_TIMESTAMP_US).contains(&value) {
        return Ok(());
    }
    let shown = chrono::DateTime::from_timestamp_micros(value).map_or_else(
        || format!("{value} µs"),
        |t| t.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
    );
    Err(Invalid::new(
        field,
        format_args!("{shown} is outside 2000…2100 (a number means microseconds since 1970)"),
    ))
}

#[inline]
pub(crate) fn fraction(field: &'static str, value: f32) -> Result<(), Invalid> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    finite(field, value)?;
    Err(Invalid::new(field, format_args!("{value} is outside 0…1")))
}

#[inline]
pub(crate) fn finite(field: &'static str, value: f32) -> Result<(), Invalid> {
    if value.is_finite() {
        return Ok(());
    }
    Err(Invalid::new(
        field,
        format_args!("{value} is not a finite number"),
    ))
}

#[inline]
pub(crate) fn size(field: &'static str, value: f32) -> Result<(), Invalid> {
    finite(field, value)?;
    if value < 0.0 {
        return Err(Invalid::new(field, format_args!("{value} is negative")));
    }
    Ok(())
}
