//! One run of a tracker over one source.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::validate::{self, Invalid};

/// Longest description of a session's source, in bytes of UTF-8.
const MAX_SOURCE_BYTES: usize = 1024;

/// What a pipeline says of a session: that it began, what it looks at, that it ended.
///
/// Saying it again is harmless; what is `None` is left as it was. A session that detections name
/// exists without being announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Session {
    /// The session's name, at most 64 bytes of UTF-8.
    pub session_id: String,
    /// When it began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended; its summary is then made once all its rows are stored.
    pub ended_at: Option<DateTime<Utc>>,
    /// What it looks at, for people: a file name, a camera's address without credentials.
    pub source: Option<String>,
}

impl Session {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// Names the first field that cannot be stored and says why.
    pub fn validate(&self) -> Result<(), Invalid> {
        validate::id("session_id", &self.session_id)?;
        if let Some(t) = self.started_at {
            validate::timestamp_us("started_at", t.timestamp_micros())?;
        }
        if let Some(t) = self.ended_at {
            validate::timestamp_us("ended_at", t.timestamp_micros())?;
        }
        if let Some(source) = &self.source {
            if source.len() > MAX_SOURCE_BYTES {
                return Err(Invalid::new(
                    "source",
                    format_args!("is {} bytes long, at most {MAX_SOURCE_BYTES}", source.len()),
                ));
            }
            validate::text("source", source)?;
        }
        Ok(())
    }
}

/// Who was seen in a session: people, not rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionSummary {
    /// Rows stored.
    pub detections: i64,
    /// Unique people: tracks of the session.
    pub people: i64,
    /// Of these, classified as male.
    pub male: i64,
    /// Of these, classified as female.
    pub female: i64,
    /// Of these, without a verdict or never classified.
    pub unknown: i64,
}
