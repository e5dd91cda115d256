//! What can go wrong with Postgres, and what to do about it.

use std::borrow::Cow;

use tokio_postgres::error::{DbError, SqlState};

use super::{DatabaseUrl, SourceMismatch, copy};

/// A failed operation on the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database could not be reached, or refused us.
    #[error("connect to {url}")]
    Connect {
        /// Where to.
        url: DatabaseUrl,
        /// What came back.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A statement failed.
    #[error("{doing}")]
    Statement {
        /// What the statement was to do.
        doing: Cow<'static, str>,
        /// What came back.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The server did not answer in time.
    #[error("{doing}: no answer from Postgres within {seconds} s")]
    TimedOut {
        /// What was waited for.
        doing: Cow<'static, str>,
        /// How long.
        seconds: u64,
    },
    /// The database's schema is not the one this program works with.
    #[error("{0}")]
    Schema(String),
    /// A migration failed; nothing of it was kept.
    #[error("migrate {url}")]
    Migrate {
        /// Which database.
        url: DatabaseUrl,
        /// What came back.
        #[source]
        source: Box<refinery::Error>,
    },
    /// A row cannot be stored.
    #[error("row {row_idx}")]
    Invalid {
        /// Index in the rows given.
        row_idx: usize,
        /// What is wrong with it.
        #[source]
        source: passerby_shared::Invalid,
    },
    /// A table cannot be written to for comparison.
    #[error("table `{table}` {what}")]
    Comparison {
        /// Its name, as it was given.
        table: String,
        /// Why not.
        what: String,
    },
    /// A file was read into the session before, in another way.
    #[error(transparent)]
    Source(#[from] SourceMismatch),
}

/// What to do after a failed operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// The fault is in transport, load or contention: the same operation may be tried again.
    Retry,
    /// A row is the fault: it can never be stored as it is.
    DeadLetter,
    /// An operator must act; the data is fine.
    Stop,
}

impl StoreError {
    pub(super) fn statement(
        doing: impl Into<Cow<'static, str>>,
    ) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Statement { doing, source }
    }

    /// What the server said, if it was the server.
    pub fn db_error(&self) -> Option<&DbError> {
        self.postgres_error()
            .and_then(tokio_postgres::Error::as_db_error)
    }

    fn postgres_error(&self) -> Option<&tokio_postgres::Error> {
        match self {
            Self::Connect { source, .. } | Self::Statement { source, .. } => Some(source),
            Self::Migrate { source, .. } => std::error::Error::source(source.as_ref())
                .and_then(|error| error.downcast_ref::<tokio_postgres::Error>()),
            _ => None,
        }
    }

    /// Judges the error by its SQLSTATE.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::TimedOut { .. } => Recovery::Retry,
            Self::Schema(_) | Self::Source(_) | Self::Comparison { .. } => Recovery::Stop,
            Self::Invalid { .. } => Recovery::DeadLetter,
            Self::Connect { .. } | Self::Statement { .. } | Self::Migrate { .. } => {
                match self.postgres_error() {
                    Some(error) => match error.as_db_error() {
                        Some(db) => by_sqlstate(db),
                        // Wrong settings never reach the server; everything else without a SQLSTATE
                        // is a connection that broke.
                        None if is_configuration(error) => Recovery::Stop,
                        None => Recovery::Retry,
                    },
                    None => Recovery::Stop,
                }
            }
        }
    }

    /// What was being done has this in its description.
    pub(super) fn is_about(&self, what: &str) -> bool {
        matches!(self, Self::Statement { doing, .. } if doing.contains(what))
    }

    /// Somebody else held a lock for too long.
    pub(crate) fn is_lock_timeout(&self) -> bool {
        self.db_error()
            .is_some_and(|db| *db.code() == SqlState::LOCK_NOT_AVAILABLE)
    }

    /// Somebody else held a lock for too long, or waited for one of ours, or the statement took too long and was
    /// taken back: it may be tried again.
    pub fn is_in_use(&self) -> bool {
        const IN_USE: [SqlState; 3] = [
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::QUERY_CANCELED,
        ];
        self.db_error().is_some_and(|db| IN_USE.contains(db.code()))
    }

    /// The server has no memory, disk or connection left.
    pub(crate) fn is_out_of_resources(&self) -> bool {
        self.db_error()
            .is_some_and(|db| db.code().code().starts_with("53"))
    }

    /// The operation took too long, or was cancelled: a smaller one may do.
    pub(crate) fn took_too_long(&self) -> bool {
        matches!(self, Self::TimedOut { .. })
            || self
                .db_error()
                .is_some_and(|db| *db.code() == SqlState::QUERY_CANCELED)
    }

    /// What an operator can do, in a few words.
    pub fn advice(&self) -> Option<String> {
        let url = match self {
            Self::Connect { url, .. } | Self::Migrate { url, .. } => Some(url),
            _ => None,
        };
        let Some(db) = self.db_error() else {
            return matches!(self, Self::Connect { .. }).then(|| {
                "check that Postgres is running there and that PASSERBY_DATABASE_URL names it"
                    .to_owned()
            });
        };
        let advice = match *db.code() {
            SqlState::INVALID_CATALOG_NAME => {
                let name = url.map_or("passerby", DatabaseUrl::database);
                format!("create it with `createdb {name}`, or correct PASSERBY_DATABASE_URL")
            }
            SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
                "correct the user or password in PASSERBY_DATABASE_URL".to_owned()
            }
            SqlState::INSUFFICIENT_PRIVILEGE => {
                "grant the role what the message names (docs/configuration.md lists what a worker \
                 needs), or use the owner's role"
                    .to_owned()
            }
            SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_COLUMN => {
                "run `passerby migrate`".to_owned()
            }
            SqlState::TOO_MANY_CONNECTIONS => {
                "raise max_connections or run fewer workers".to_owned()
            }
            SqlState::DISK_FULL => "free disk space on the Postgres server".to_owned(),
            SqlState::READ_ONLY_SQL_TRANSACTION => {
                "this server is a standby: name the primary in PASSERBY_DATABASE_URL".to_owned()
            }
            _ => return None,
        };
        Some(advice)
    }
}

fn is_configuration(error: &tokio_postgres::Error) -> bool {
    // The driver has no predicate for it: `Kind::Config` displays as "invalid configuration", and
    // `Kind::Authentication` as "authentication error".
    let text = error.to_string();
    text.starts_with("invalid configuration") || text.starts_with("authentication error")
}

/// What of an error decides what is done about it.
struct Verdict<'a> {
    code: &'a str,
    message: &'a str,
    /// The violated constraint has a name.
    names_constraint: bool,
    /// Postgres names the line of the COPY that it refuses.
    names_line: bool,
}

fn by_sqlstate(db: &DbError) -> Recovery {
    Verdict {
        code: db.code().code(),
        message: db.message(),
        names_constraint: db.constraint().is_some(),
        names_line: copy::line_of(db).is_some(),
    }
    .recovery()
}

impl Verdict<'_> {
    fn recovery(&self) -> Recovery {
        match self.code {
            // A missing partition looks like a CHECK violation, without a constraint's name: the row
            // is fine.
            "23514" if !self.names_constraint => Recovery::Retry,
            // "cached plan must not change result type" after a migration: a new connection mends it.
            "0A000" if self.message.contains("cached plan") => Recovery::Retry,
            // A field of wrong length in COPY data is class 08, and a missing version byte of jsonb is
            // an "internal error": both are the row's fault where a line is named. Without a line the
            // one is a broken conversation, and the other is for an operator to see.
            "08P01" | "XX000" if self.names_line => Recovery::DeadLetter,
            // Read-only, failed or unknown transactions and statements, and servers going away: another
            // connection, perhaps to another server, will do.
            "25006" | "25P02" | "25P03" | "25P04" | "26000" | "42P05" | "57P01" | "57P02"
            | "57P03" | "57P05" => Recovery::Retry,
            // Cancelled by a timeout or by hand; lock timeout; input/output error.
            "57014" | "55P03" | "58030" => Recovery::Retry,
            code => match code.get(..2) {
                // Connection; serialization, deadlock; resources (disk full, memory, connections).
                Some("08" | "40" | "53") => Recovery::Retry,
                // Data exception; integrity constraint; program limit (row or index entry too large).
                Some("22" | "23" | "54") => Recovery::DeadLetter,
                // Authorization, catalog, schema, privileges, undefined things, corruption, the unknown.
                _ => Recovery::Stop,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(codes: &str, expected: Recovery) {
        for code in codes.split_whitespace() {
            let verdict = Verdict {
                code,
                message: "",
                names_constraint: true,
                names_line: false,
            };
            assert_eq!(verdict.recovery(), expected, "{code}");
        }
    }

    #[test]
    fn each_sqlstate_has_its_recovery() {
        // Connection.
        check("08000 08001 08003 08004 08006 08007 08P01", Recovery::Retry);
        check(
            "57P01 57P02 57P03 57P05 25006 25P02 25P03 25P04",
            Recovery::Retry,
        );
        check("26000 42P05", Recovery::Retry);
        // Contention and resources.
        check("40001 40P01 40003 55P03 57014 58030", Recovery::Retry);
        check("53000 53100 53200 53300 53400", Recovery::Retry);
        // Rows that can never be stored.
        check("22021 22P05 22P02 22008 22P04 22003", Recovery::DeadLetter);
        check("23502 23503 23505 23514 23P01 54000", Recovery::DeadLetter);
        // Only an operator can help.
        check("28000 28P01 3D000 3F000 42501 42P01 42703", Recovery::Stop);
        check("57P04 0A000 XX000 XX001 XX002 58P01 P0001", Recovery::Stop);
    }

    #[test]
    fn a_missing_partition_is_no_fault_of_the_row() {
        let verdict = Verdict {
            code: "23514",
            message: "no partition of relation \"detections\" found for row",
            names_constraint: false,
            names_line: true,
        };
        assert_eq!(verdict.recovery(), Recovery::Retry);
    }

    #[test]
    fn errors_of_other_classes_are_the_rows_where_a_line_is_named() {
        for code in ["08P01", "XX000"] {
            let verdict = Verdict {
                code,
                message: "",
                names_constraint: false,
                names_line: true,
            };
            assert_eq!(verdict.recovery(), Recovery::DeadLetter, "{code}");
        }
    }

    #[test]
    fn a_stale_plan_needs_a_new_connection() {
        let verdict = Verdict {
            code: "0A000",
            message: "cached plan must not change result type",
            names_constraint: false,
            names_line: false,
        };
        assert_eq!(verdict.recovery(), Recovery::Retry);
    }
}
