//! What kind of fault an operation failed of, for counting.

use super::{Recovery, StoreError};

/// Kinds of faults, a few.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The connection broke or could not be made, or the server is on its way out or read-only.
    Connection,
    /// The server took too long, or somebody cancelled the statement.
    Timeout,
    /// Others hold a lock, or a deadlock was ended.
    Contention,
    /// The server has no memory, disk or connection left.
    Resources,
    /// A partition is missing, or a plan is older than a migration: a new connection mends it.
    Schema,
    /// A row can never be stored as it is.
    Data,
    /// An operator must act.
    Configuration,
}

impl Fault {
    /// All kinds, in order.
    pub const ALL: [Self; 7] = [
        Self::Connection,
        Self::Timeout,
        Self::Contention,
        Self::Resources,
        Self::Schema,
        Self::Data,
        Self::Configuration,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::Contention => "contention",
            Self::Resources => "resources",
            Self::Schema => "schema",
            Self::Data => "data",
            Self::Configuration => "configuration",
        }
    }

    /// Of what may be tried again, by its SQLSTATE.
    fn of_transient(code: &str) -> Self {
        match code {
            "57014" => Self::Timeout,
            "55P03" => Self::Contention,
            "58030" => Self::Resources,
            "23514" | "0A000" => Self::Schema,
            _ if code.starts_with("40") => Self::Contention,
            _ if code.starts_with("53") => Self::Resources,
            _ => Self::Connection,
        }
    }
}

impl StoreError {
    /// What kind of fault this is. [`StoreError::recovery`] says what to do about it.
    pub fn fault(&self) -> Fault {
        match (self.recovery(), self.db_error()) {
            (Recovery::DeadLetter, _) => Fault::Data,
            (Recovery::Stop, _) => Fault::Configuration,
            (Recovery::Retry, Some(db)) => Fault::of_transient(db.code().code()),
            (Recovery::Retry, None) if self.took_too_long() => Fault::Timeout,
            (Recovery::Retry, None) => Fault::Connection,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_tried_again_is_told_apart() {
        let check = |codes: &str, expected: Fault| {
            for code in codes.split_whitespace() {
                assert_eq!(Fault::of_transient(code), expected, "{code}");
            }
        };
        check("08006 57P01 57P03 25006 26000", Fault::Connection);
        check("57014", Fault::Timeout);
        check("40001 40P01 55P03", Fault::Contention);
        check("53100 53300 58030", Fault::Resources);
        check("23514 0A000", Fault::Schema);
    }
}
