//! Which cameras and sessions a payload is about, however bad its rows are.

use std::collections::BTreeSet;

use super::{InspectedField, InspectedValue, Kind, inspect, plain::DEFAULT_SESSION};
use crate::validate;

/// More are not told apart: an entry comes from one shard, and most entries from one camera.
const MAX_IDS: usize = 1_000;

/// The cameras and sessions of a payload, as far as they can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Valid camera ids, in order.
    pub camera_ids: BTreeSet<String>,
    /// Valid session ids, in order.
    pub session_ids: BTreeSet<String>,
}

impl Sources {
    /// Reads the rows of a payload, good and bad, up to where its structure is broken. At most a thousand
    /// different ids of each are kept.
    pub fn of(kind: Kind, payload: &[u8]) -> Self {
        let mut sources = Self::default();
        let mut last_row = None;
        let mut has_session = true;
        let inspected = inspect(kind, payload, |field| {
            if last_row != Some(field.row_idx) {
                sources.end_row(has_session);
                last_row = Some(field.row_idx);
                has_session = false;
            }
            has_session |= sources.see(&field);
        });
        // The last row may be cut off before its session.
        sources.end_row(has_session || inspected.is_err());
        sources
    }

    /// Takes note of a field, and tells whether it is the row's session.
    fn see(&mut self, field: &InspectedField<'_>) -> bool {
        let ids = match &*field.name {
            "camera_id" => &mut self.camera_ids,
            "session_id" => &mut self.session_ids,
            _ => return false,
        };
        let is_session = field.name == "session_id" && field.value != InspectedValue::Nil;
        let id = match &field.value {
            InspectedValue::Int(id) => id.to_string(),
            InspectedValue::BigUint(id) => id.to_string(),
            InspectedValue::Text(id) => id.to_string(),
            InspectedValue::Binary(id) => String::from_utf8_lossy(id).into_owned(),
            _ => return is_session,
        };
        if validate::id("id", &id).is_ok() && ids.len() < MAX_IDS {
            ids.insert(id);
        }
        is_session
    }

    /// A row that names no session is of the default one.
    fn end_row(&mut self, has_session: bool) {
        if !has_session && self.session_ids.len() < MAX_IDS {
            self.session_ids.insert(DEFAULT_SESSION.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(payload: &[u8], cameras: &[&str], sessions: &[&str]) {
        let sources = Sources::of(Kind::Detections, payload);
        assert_eq!(Vec::from_iter(&sources.camera_ids), cameras);
        assert_eq!(Vec::from_iter(&sources.session_ids), sessions);
    }

    #[test]
    fn cameras_and_sessions_are_read_out_of_rows_that_are_bad() {
        // [{"camera_id": "a", "x": nil}, {"camera_id": 7, "session_id": "s"}, 5]
        let plain = b"\x93\x82\xa9camera_id\xa1a\xa1x\xc0\
                      \x82\xa9camera_id\x07\xaasession_id\xa1s\x05";
        check(plain, &["7", "a"], &["default", "s"]);
        // Cut within the second row.
        check(&plain[..plain.len() - 14], &["7", "a"], &["default"]);
        check(b"\xc1", &[], &[]);
        check(b"", &[], &[]);
        // [["s", "c", 0, [[]]]]: a row that is none.
        check(b"\x91\x94\xa1s\xa1c\x00\x91\x90", &["c"], &["s"]);
    }

    #[test]
    fn an_id_that_cannot_be_stored_is_none() {
        check(b"\x91\x81\xa9camera_id\xa3a\0b", &[], &["default"]);
    }
}
