//! Whether Postgres tidies up behind workers.

use super::{
    check::{Outcome, Verdict},
    patient::Patient,
};

const TURNED_OFF: &str = "
SELECT pg_class.oid::regclass::text
FROM pg_class
WHERE EXISTS (SELECT FROM unnest(reloptions) AS option
              WHERE option IN ('autovacuum_enabled=false', 'autovacuum_enabled=off'))
  AND (oid IN (to_regclass('ledger'), to_regclass('tracks'), to_regclass('sessions'),
               to_regclass('books'), to_regclass('dead_letter_counts'), to_regclass('dead_letters'))
       OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass('detections')))
ORDER BY 1";

pub(super) async fn autovacuum(patient: &Patient<'_>) -> Outcome {
    let postgres = patient.postgres()?;
    for name in ["autovacuum", "track_counts"] {
        if postgres.needed_setting(name)? == "off" {
            return Ok(Verdict::problem(
                format!("{name} is off"),
                format!("ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()"),
            ));
        }
    }
    let rows = postgres.query(TURNED_OFF, &[]).await?;
    let tables: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    Ok(match tables.first() {
        None => Verdict::ok("autovacuum is on"),
        Some(table) => Verdict::warning(
            format!("autovacuum is off for {}", tables.join(", ")),
            format!("ALTER TABLE {table} RESET (autovacuum_enabled)"),
        ),
    })
}

/// Dead rows below this number are not worth a word.
const MANY: i64 = 100_000;

const BLOATED: &str = "
SELECT relid::regclass::text, n_dead_tup, n_live_tup
FROM pg_stat_user_tables
WHERE relid IN (to_regclass('ledger'), to_regclass('tracks'), to_regclass('sessions'),
                to_regclass('books'), to_regclass('dead_letter_counts'), to_regclass('dead_letters'))
  AND n_dead_tup > 2 * n_live_tup
ORDER BY n_dead_tup DESC
LIMIT 1";

pub(super) async fn bloat(patient: &Patient<'_>) -> Outcome {
    let postgres = patient.postgres()?;
    postgres.has_schema().await?;
    let rows = postgres.query(BLOATED, &[]).await?;
    match rows.first() {
        Some(row) if row.get::<_, i64>(1) >= MANY => Ok(Verdict::warning(
            format!(
                "{} has {} dead rows for {} that live",
                row.get::<_, &str>(0),
                row.get::<_, i64>(1),
                row.get::<_, i64>(2)
            ),
            format!(
                "end what holds vacuum up (postgres.long_transactions), then VACUUM {}",
                row.get::<_, &str>(0)
            ),
        )),
        _ => Ok(Verdict::ok(
            "no table has more than twice as many dead rows as live ones",
        )),
    }
}

const NOT_SUMMARIZED: &str = "
SELECT index.oid::regclass::text
FROM pg_index
JOIN pg_class AS index ON index.oid = indexrelid
JOIN pg_am ON pg_am.oid = index.relam AND amname = 'brin'
WHERE index.relkind = 'i'
  AND (indrelid = to_regclass('ledger')
       OR indrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass('detections')))
  AND NOT EXISTS (SELECT FROM unnest(index.reloptions) AS option
                  WHERE option IN ('autosummarize=on', 'autosummarize=true'))
ORDER BY 1";

pub(super) async fn brin(patient: &Patient<'_>) -> Outcome {
    let postgres = patient.postgres()?;
    postgres.has_schema().await?;
    let rows = postgres.query(NOT_SUMMARIZED, &[]).await?;
    Ok(match rows.first().map(|row| row.get::<_, &str>(0)) {
        None => Verdict::ok("all BRIN indices summarize new rows by themselves"),
        Some(index) => Verdict::warning(
            format!(
                "{} BRIN indices do not summarize new rows, as {index}",
                rows.len()
            ),
            format!(
                "ALTER INDEX {index} SET (autosummarize = on); SELECT brin_summarize_new_values('{index}')"
            ),
        ),
    })
}
