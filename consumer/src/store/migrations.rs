//! Brings the schema to this program's version.
//!
//! Migrations are numbered, forward-only, and embedded in the binary. refinery runs them but takes no
//! lock of its own, so an advisory lock around its runner makes sure that of ten workers that start
//! at once one migrates. All pending migrations are one transaction: nothing is ever half done.

use std::time::Duration;

use passerby_shared::ErrorChain;
use refinery::Runner;
use tracing::{info, warn};

use super::{
    Store, StoreError,
    connection::{Connection, within},
};

mod embedded {
    refinery::embed_migrations!("../migrations");
}

/// Where refinery notes what it has run; not its default name, which another program in the same
/// schema may use.
pub(crate) const HISTORY_TABLE: &str = "passerby_schema_history";

/// Longest wait for migrations, those of others included.
const MIGRATION_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// A migration that waits for a table which a long query reads holds up everybody who comes after it. So it
/// does not wait for long, and tries again.
const LOCK_LIMIT: &str = "SET lock_timeout = '2s'";
const LOCK_PAUSE: Duration = Duration::from_secs(3);

/// `passerby` in ASCII, cut to 8 bytes: the advisory lock of migrations and partitions.
pub(super) const MAINTENANCE_LOCK: i64 = 0x7061_7373_6572_6279;

/// What a migration did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MigrationReport {
    /// Schema version before; `None` for an empty database.
    pub from: Option<i32>,
    /// Schema version now.
    pub to: i32,
    /// The migrations that were applied, as `V1__initial_schema`.
    pub applied: Vec<String>,
}

fn runner() -> Runner {
    let mut runner = embedded::migrations::runner().set_grouped(true);
    runner.set_migration_table_name(HISTORY_TABLE);
    runner
}

/// The schema version that this program works with.
pub(crate) fn wanted_version() -> i32 {
    runner()
        .get_migrations()
        .iter()
        .map(refinery::Migration::version)
        .max()
        .unwrap_or(0)
}

impl Store {
    /// Applies the migrations that are missing; harmless when there are none, and when several
    /// programs do it at once.
    ///
    /// # Errors
    ///
    /// [`StoreError::Schema`] when the schema is newer than this program, or when tables of the same
    /// names that are not Passerby's stand in the way; nothing is changed then.
    pub async fn migrate(&mut self) -> Result<MigrationReport, StoreError> {
        self.migration(false).await
    }

    /// Says what [`Store::migrate`] would do, and does nothing.
    ///
    /// # Errors
    ///
    /// As [`Store::migrate`].
    pub async fn pending_migrations(&mut self) -> Result<MigrationReport, StoreError> {
        self.migration(true).await
    }

    async fn migration(&mut self, dry_run: bool) -> Result<MigrationReport, StoreError> {
        let mut connection = self.begin().await?;
        let url = self.url().clone();
        // A migration of a large table takes its time, and so does the wait for another one.
        let done = within("migrate", MIGRATION_LIMIT, async {
            connection
                .client
                .execute("SELECT pg_advisory_lock($1)", &[&MAINTENANCE_LOCK])
                .await
                .map_err(StoreError::statement("take the lock for migrations"))?;
            let set = StoreError::statement("set a limit for locks");
            connection.client.batch_execute(LOCK_LIMIT).await.map_err(set)?;
            let report = loop {
                match migrate(&mut connection, &url, dry_run).await {
                    Err(error) if error.is_lock_timeout() => {
                        warn!(
                            error = %ErrorChain(&error),
                            "a table is in use: trying to migrate again, and letting others through \
                             meanwhile"
                        );
                        tokio::time::sleep(LOCK_PAUSE).await;
                    }
                    done => break done?,
                }
            };
            let release = format!("RESET lock_timeout; SELECT pg_advisory_unlock({MAINTENANCE_LOCK})");
            connection
                .client
                .batch_execute(&release)
                .await
                .map_err(StoreError::statement("release the lock for migrations"))?;
            Ok(report)
        })
        .await;
        self.end(connection, done)
    }

    /// Checks that the schema is the one this program works with.
    ///
    /// # Errors
    ///
    /// [`StoreError::Schema`] says which of the two is older and what to do.
    pub async fn check_schema(&mut self) -> Result<(), StoreError> {
        let mut connection = self.begin().await?;
        let done = within("check the schema", self.limit(), async {
            match version(&mut connection).await? {
                Some(version) => refuse_newer(version).map(|()| version),
                None => Ok(0),
            }
        })
        .await;
        let version = self.end(connection, done)?;
        let wanted = wanted_version();
        if version < wanted {
            return Err(StoreError::Schema(format!(
                "the schema of {} has version {version}, this program needs {wanted}: run \
                 `passerby migrate`",
                self.url()
            )));
        }
        Ok(())
    }
}

async fn migrate(
    connection: &mut Connection,
    url: &super::DatabaseUrl,
    dry_run: bool,
) -> Result<MigrationReport, StoreError> {
    let from = version(connection).await?;
    match from {
        Some(version) => refuse_newer(version)?,
        None => refuse_foreign_tables(connection).await?,
    }
    let to = wanted_version();
    if dry_run {
        let applied = runner()
            .get_migrations()
            .iter()
            .filter(|m| from.is_none_or(|from| m.version() > from))
            .map(ToString::to_string)
            .collect();
        return Ok(MigrationReport { from, to, applied });
    }
    if from == Some(to) {
        return Ok(MigrationReport {
            from,
            to,
            applied: Vec::new(),
        });
    }
    let report = runner()
        .run_async(&mut connection.client)
        .await
        .map_err(|source| StoreError::Migrate {
            url: url.clone(),
            source: Box::new(source),
        })?;
    let applied: Vec<String> = report
        .applied_migrations()
        .iter()
        .map(ToString::to_string)
        .collect();
    if !applied.is_empty() {
        info!(from = from.unwrap_or(0), to, "schema migrated");
    }
    Ok(MigrationReport { from, to, applied })
}

async fn version(connection: &mut Connection) -> Result<Option<i32>, StoreError> {
    let exists: bool = connection
        .client
        .query_one("SELECT to_regclass($1) IS NOT NULL", &[&HISTORY_TABLE])
        .await
        .map_err(StoreError::statement("look for the schema's history"))?
        .get(0);
    if !exists {
        return Ok(None);
    }
    Ok(connection
        .client
        .query_one(&format!("SELECT max(version) FROM {HISTORY_TABLE}"), &[])
        .await
        .map_err(StoreError::statement("read the schema's history"))?
        .get(0))
}

fn refuse_newer(version: i32) -> Result<(), StoreError> {
    let wanted = wanted_version();
    if version > wanted {
        return Err(StoreError::Schema(format!(
            "the schema has version {version}, newer than this program, which knows up to \
             {wanted}: install the newer release"
        )));
    }
    Ok(())
}

/// Tables that stand where ours are to be belong to somebody: say so, and touch nothing.
async fn refuse_foreign_tables(connection: &mut Connection) -> Result<(), StoreError> {
    const OURS: [&str; 13] = [
        "detections",
        "detections_default",
        "tracks",
        "sessions",
        "session_sources",
        "ledger",
        "ledger_horizon",
        "dead_letters",
        "dead_letter_counts",
        "books",
        "people",
        "demographics_by_session",
        "demographics_by_camera_and_hour",
    ];
    let found = connection
        .client
        .query_opt(
            "SELECT quote_ident(nspname) || '.' || quote_ident(relname), nspname \
             FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace \
             WHERE nspname = current_schema() AND relname = ANY($1) \
             ORDER BY relname LIMIT 1",
            &[&OURS.as_slice()],
        )
        .await
        .map_err(StoreError::statement("look for tables in the way"))?;
    let Some(row) = found else { return Ok(()) };
    let (table, schema): (String, String) = (row.get(0), row.get(1));
    let rows = match connection
        .client
        .query_one(
            &format!("SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT 1000) AS t"),
            &[],
        )
        .await
    {
        Ok(row) => match row.get::<_, i64>(0) {
            0 => "which is empty".to_owned(),
            1000.. => "which holds 1000 rows or more".to_owned(),
            n => format!("which holds {n} rows"),
        },
        Err(_) => "which cannot be read".to_owned(),
    };
    Err(StoreError::Schema(format!(
        "{table} is in the way, {rows} and was not made by Passerby: use a database or a schema of \
         its own (as with ?options=-csearch_path%3Dpasserby in the URL), or move it out of schema \
         {schema}; nothing was changed"
    )))
}
