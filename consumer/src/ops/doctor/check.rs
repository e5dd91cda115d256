//! The checks, and what one of them may answer.

use futures_util::future::BoxFuture;
use passerby_shared::ErrorChain;
use redis::RedisError;

use super::{
    Status, clients, clocks, dead_letters, disk, durability, groups, guards, ledger, partitions,
    patient::Patient, persistence, postgres_server, privileges, redis_memory, redis_server,
    replication, schema, sessions, streams, vacuum,
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
    Both,
    Neither,
}

impl Needs {
    pub(super) const fn redis(self) -> bool {
        matches!(self, Self::Redis | Self::Both)
    }

    pub(super) const fn postgres(self) -> bool {
        matches!(self, Self::Postgres | Self::Both)
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
pub(in crate::ops) struct Unknown {
    pub(in crate::ops) reason: String,
    pub(super) fix: Option<String>,
    /// There is nothing to look at, and nothing to say.
    pub(super) is_moot: bool,
}

impl Unknown {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            fix: None,
            is_moot: false,
        }
    }

    /// There is nothing to look at.
    pub(super) fn moot() -> Self {
        Self {
            is_moot: true,
            ..Self::new("")
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
    "stream.group" Redis groups::present,
        "entries of a stream without the workers' group are not being stored";
    "stream.other_groups" Redis groups::others,
        "a stream is trimmed only up to what every group has acknowledged: Redis fills up";
    "stream.consumers" Redis groups::consumers,
        "entries of a dead worker are stored when another one takes them over, and nobody does";
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
    "postgres.pooler" Postgres sessions::pooler,
        "prepared statements, advisory locks and settings of a session do not survive transaction pooling";
    "postgres.schema" Postgres schema::version,
        "a worker does not start on a schema that is not its own";
    "postgres.guards" Postgres guards::guards,
        "promises rest on keys and tables that hands can alter";
    "postgres.privileges" Postgres privileges::privileges,
        "a worker that may not do what a batch needs stops";
    "postgres.fsync" Postgres durability::fsync,
        "a crash of the machine can destroy the database, and Redis no longer has what was stored";
    "postgres.synchronous_commit" Postgres durability::synchronous_commit,
        "a commit that waits for a standby that is not there never ends, and nothing is stored";
    "postgres.timeouts" Postgres sessions::timeouts,
        "a limit that is too short ends sound work, again and again";
    "postgres.connections" Postgres sessions::connections,
        "a worker that gets no connection stores nothing";
    "postgres.long_transactions" Postgres sessions::long_transactions,
        "a transaction that stays open keeps vacuum from every table, and may hold locks";
    "postgres.partitions" Postgres partitions::ahead,
        "rows of a day without a partition go to the default one, which retention and plans do not know";
    "postgres.default_partition" Postgres partitions::quarantine,
        "rows in the default partition come from wrong clocks, and are in the way of real partitions";
    "postgres.autovacuum" Postgres vacuum::autovacuum,
        "tables grow without end, and new rows are not summarized in BRIN indices";
    "postgres.bloat" Postgres vacuum::bloat,
        "every look at a table reads its dead rows, too";
    "postgres.brin" Postgres vacuum::brin,
        "a query by time reads every row that no BRIN index summarizes";
    "postgres.slots" Postgres replication::slots,
        "a replication slot without a consumer keeps WAL until the disk is full";
    "ledger.retention" Both ledger::retention,
        "what is older than the ledger remembers is dead-lettered as too-old instead of stored";
    "ledger.spools" Both ledger::spools,
        "what a spool brings later than the ledger remembers is dead-lettered as too-old";
    "ledger.pruning" Both ledger::pruning,
        "a ledger that forgets nothing grows without end";
    "dead_letters.waiting" Postgres dead_letters::waiting,
        "rows in the dead letters are stored only when somebody puts them back";
    "clocks.agree" Both clocks::clocks,
        "clocks decide in which partition a row lies, what the ledger forgets, and how old a backlog is";
    "disk.redis" Redis disk::redis,
        "a Redis that cannot write its append-only file refuses new entries";
    "disk.postgres" Postgres disk::postgres,
        "a Postgres without room for its WAL stops";
    "disk.spools" Neither disk::spools,
        "a spool without room keeps nothing for when Redis is away";
};
