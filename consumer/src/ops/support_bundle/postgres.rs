//! What Postgres tells.

use crate::{ops::doctor::Patient, store::HISTORY_TABLE};

/// Settings that are numbers, switches or choices: none of them can hold a password, as a command or a
/// connection string can.
const SETTINGS: &str = "
SELECT name, setting, unit, source
FROM pg_settings
WHERE vartype <> 'string'
   OR name IN ('server_version', 'server_encoding', 'lc_collate', 'TimeZone', 'synchronous_standby_names',
               'shared_preload_libraries', 'transaction_isolation', 'default_transaction_isolation')
ORDER BY name";

/// Passerby's tables and the partitions of `detections`.
const OURS: &str = "
    relid IN (to_regclass('detections_default'), to_regclass('tracks'), to_regclass('sessions'),
              to_regclass('session_sources'), to_regclass('ledger'), to_regclass('ledger_horizon'),
              to_regclass('dead_letters'), to_regclass('dead_letter_counts'), to_regclass('books'))
    OR relid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass('detections'))";

fn tables() -> String {
    format!(
        "SELECT relid::regclass::text AS table, n_live_tup, n_dead_tup, n_tup_ins, n_tup_upd, n_tup_del,
                last_vacuum, last_autovacuum, last_autoanalyze,
                pg_table_size(relid) AS bytes, pg_indexes_size(relid) AS bytes_of_indices
         FROM pg_stat_user_tables
         WHERE {OURS}
         ORDER BY pg_table_size(relid) DESC"
    )
}

fn indices() -> String {
    format!(
        "SELECT indexrelid::regclass::text AS index, relid::regclass::text AS table, idx_scan,
                idx_tup_read, pg_relation_size(indexrelid) AS bytes, indisvalid, indisunique
         FROM pg_stat_user_indexes
         JOIN pg_index USING (indexrelid)
         WHERE {OURS}
         ORDER BY pg_relation_size(indexrelid) DESC"
    )
}

fn migrations() -> String {
    format!("SELECT version, name, applied_on FROM {HISTORY_TABLE} ORDER BY version")
}

/// Without the queries, which hold values.
const SESSIONS: &str = "
SELECT pid, usename, application_name, backend_type, state, wait_event_type, wait_event,
       clock_timestamp() - xact_start AS in_transaction, clock_timestamp() - state_change AS in_state,
       pg_blocking_pids(pid) AS waits_for
FROM pg_stat_activity
WHERE datname = current_database()
ORDER BY xact_start";

/// Without fields, which are rows, and without messages, which may quote them.
const DEAD_LETTERS: &str = "
SELECT id, dead_lettered_at, stream, entry_id, row_idx, kind, reason, sqlstate, requeued_at, discarded_at
FROM dead_letters
ORDER BY id DESC
LIMIT 200";

pub(super) async fn collect(name: &str, patient: &Patient<'_>) -> Result<String, String> {
    let sql = match name {
        "postgres/settings.json" => SETTINGS.to_owned(),
        "postgres/tables.json" => tables(),
        "postgres/indices.json" => indices(),
        "postgres/migrations.json" => migrations(),
        "postgres/sessions.json" => SESSIONS.to_owned(),
        "postgres/dead-letters.json" => DEAD_LETTERS.to_owned(),
        name => return Err(format!("nobody knows what {name} is to hold")),
    };
    let postgres = patient.postgres().map_err(|unknown| unknown.reason)?;
    let rows = postgres
        .query(
            &format!("SELECT row_to_json(found)::text FROM ({sql}) AS found"),
            &[],
        )
        .await
        .map_err(|unknown| unknown.reason)?;
    let values = rows
        .iter()
        .map(|row| serde_json::from_str::<serde_json::Value>(row.get(0)));
    let values: Vec<_> = values
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    super::as_json(&values)
}
