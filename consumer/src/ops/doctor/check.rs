//! The checks, and what one of them may answer.

use futures_util::future::BoxFuture;
use passerby_shared::ErrorChain;
use redis::RedisError;

use super::{
    Status, clients, patient::Patient, persistence, postgres_server, redis_memory, redis_server,
    schema, streams,
};

/// One check.
pub(super) struct Check {
    pub(super) id: &'static str,
    /// Why it matters, whatever it finds.
    pub(super) why: &'static str,
    pub(super) needs: Needs,
    pub(super) run: for<'a> fn(&'a Patient<'a>) -> BoxFuture<'a, Outcome>,
}

/// Which servers a check looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    Redis,
    Postgres,
}

impl Needs {
    pub(super) const fn redis(self) -> bool {
        matches!(self, Self::Redis)
    }

    pub(super) const fn postgres(self) -> bool {
        matches!(self, Self::Postgres)
    }
}

/// What a check found, or why it could not look.
pub(super) type Outcome = Result<Verdict, Unknown>;

/// What a check found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) status: Status,
    pub(super) what: String,
    /// Where it is another reason than the check's.
    pub(super) why: Option<String>,
    pub(super) fix: Option<String>,
}

impl Verdict {
    fn new(status: Status, what: impl Into<String>, fix: Option<String>) -> Self {
        Self {
            status,
            what: what.into(),
            why: None,
            fix,
        }
    }

    /// All is well.
    pub(super) fn ok(what: impl Into<String>) -> Self {
        Self::new(Status::Ok, what, None)
    }

    /// It will hurt under circumstances that may come.
    pub(super) fn warning(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Status::Warning, what, Some(fix.into()))
    }

    /// It hurts, or data is at risk.
    pub(super) fn problem(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Status::Problem, what, Some(fix.into()))
    }

    /// Another reason than the check's.
    pub(super) fn because(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }
}

/// Why a check could not look.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    pub(super) reason: String,
    pub(super) fix: Option<String>,
}

impl Unknown {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            fix: None,
        }
    }

    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// A command that Redis refused.
    pub(super) fn redis(command: &str, error: &RedisError) -> Self {
        let unknown = Self::new(format!("{command}: {}", ErrorChain(error)));
        match error.code() {
            Some("NOPERM") => unknown.fix(format!(
                "grant the user `+{}` to have this checked",
                command.to_lowercase().replace(' ', "|")
            )),
            _ => unknown,
        }
    }
}

impl From<tokio_postgres::Error> for Unknown {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::new(match error.as_db_error() {
            Some(db) => format!("Postgres says: {}", db.message()),
            None => ErrorChain(&error).to_string(),
        })
    }
}

macro_rules! checks {
    ($($id:literal $needs:ident $run:path, $why:literal;)*) => {
        &[$(Check {
            id: $id,
            why: $why,
            needs: Needs::$needs,
            run: |patient| Box::pin($run(patient)),
        }),*]
    };
}

/// All checks, in the order of the report.
pub(super) const CHECKS: &[Check] = checks! {
    "redis.reachable" Redis redis_server::reachable,
        "without Redis, producers keep what they record in their buffers and spools, and workers do nothing";
    "redis.tls" Redis redis_server::tls,
        "whoever can listen on the way reads detections and the password";
    "redis.version" Redis redis_server::version,
        "some versions of Redis have bugs that Passerby runs into";
    "redis.role" Redis redis_server::role,
        "streams are written: by producers and, with every delivery and acknowledgement, by workers";
    "redis.privileges" Redis redis_server::privileges,
        "a worker whose Redis user may not run a command stops when it first needs it";
    "redis.eviction" Redis redis_memory::eviction,
        "under an allkeys policy a full Redis evicts whole streams, with all that nobody has stored yet";
    "redis.memory" Redis redis_memory::memory,
        "a full Redis refuses new entries, and producers fall back to their spools, or drop";
    "redis.aof" Redis persistence::aof,
        "without the append-only file a crash of Redis loses every entry that is not stored yet";
    "redis.fsync" Redis persistence::fsync,
        "what Redis has not forced onto the disk is lost with the machine; producers send the last 10 s again";
    "redis.disk_writes" Redis persistence::disk_writes,
        "a Redis that cannot write to its disk refuses new entries, or forgets them when it is restarted";
    "redis.output_limits" Redis clients::output_limits,
        "a worker that reads more at once than the limit is disconnected, and never gets past that place";
    "redis.clients" Redis clients::connections,
        "a Redis that has no connection left turns producers and workers away";
    "redis.idle_clients" Redis clients::idle_clients,
        "connections that are closed for being idle cost a reconnect, those that are never closed add up";
    "stream.type" Redis streams::key_type,
        "a key of another type in a stream's place stops producers and workers";
    "stream.shards" Redis streams::shards,
        "entries in a stream that no worker reads are never stored";
    "stream.nodes" Redis streams::nodes,
        "the size of a stream's nodes decides how much memory an entry takes, and how long an XADD copies";
    "postgres.reachable" Postgres postgres_server::reachable,
        "without Postgres nothing is stored, and Redis fills up";
    "postgres.tls" Postgres postgres_server::tls,
        "whoever can listen on the way reads detections";
    "postgres.version" Postgres postgres_server::version,
        "some versions of Postgres have bugs that cost data, or get no fixes any more";
    "postgres.encoding" Postgres postgres_server::encoding,
        "text that the database cannot represent is dead-lettered";
    "postgres.schema" Postgres schema::version,
        "a worker does not start on a schema that is not its own";
};
