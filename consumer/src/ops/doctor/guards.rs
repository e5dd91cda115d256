//! What promises rest on in the schema, and hands may have altered.

use super::{
    check::{Outcome, Verdict},
    patient::Patient,
};

/// Unique, whole and for all rows: no second transaction enters the same key.
const HAS_LEDGER_KEY: &str = "
SELECT EXISTS (
    SELECT FROM pg_index
    JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
    WHERE indrelid = to_regclass('ledger') AND indisunique AND indisvalid AND indpred IS NULL
      AND indnkeyatts = 1 AND attname = 'idempotency_key'
), EXISTS (
    SELECT FROM pg_index
    WHERE indrelid = to_regclass('tracks') AND indisprimary AND indisvalid
)";

const UNLOGGED: &str = "
SELECT pg_class.oid::regclass::text
FROM pg_class
WHERE relpersistence = 'u' AND relkind IN ('r', 'p')
  AND (oid IN (to_regclass('ledger'), to_regclass('tracks'), to_regclass('sessions'),
               to_regclass('dead_letters'), to_regclass('books'), to_regclass('ledger_horizon'))
       OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass('detections')))
ORDER BY 1";

/// Row triggers and volatile defaults turn off COPY's buffered insert.
const SLOW_COPY: &str = "
SELECT 'the trigger ' || quote_ident(tgname)
FROM pg_trigger
WHERE tgrelid = to_regclass('detections') AND NOT tgisinternal AND tgtype & 1 = 1 AND tgenabled <> 'D'
UNION ALL
SELECT 'the default of ' || quote_ident(attname)
FROM pg_attrdef
JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
WHERE adrelid = to_regclass('detections')
ORDER BY 1";

const INVALID: &str = "
SELECT indexrelid::regclass::text
FROM pg_index
WHERE NOT indisvalid
  AND (indrelid IN (to_regclass('detections'), to_regclass('ledger'), to_regclass('tracks'),
                    to_regclass('sessions'), to_regclass('dead_letters'))
       OR indrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass('detections')))
ORDER BY 1";

pub(super) async fn guards(patient: &Patient<'_>) -> Outcome {
    let postgres = patient.postgres()?;
    postgres.has_schema().await?;
    let keys = postgres.one(HAS_LEDGER_KEY, &[]).await?;
    if !keys.get::<_, bool>(0) {
        return Ok(Verdict::problem(
            "the ledger has no unique index on idempotency_key",
            "stop the workers; ALTER TABLE ledger ADD CONSTRAINT ledger_pkey PRIMARY KEY (idempotency_key)",
        )
        .because("whatever is delivered twice is stored twice"));
    }
    if !keys.get::<_, bool>(1) {
        return Ok(Verdict::problem(
            "tracks has no primary key",
            "ALTER TABLE tracks ADD CONSTRAINT tracks_pkey PRIMARY KEY (session_id, camera_id, track_id)",
        )
        .because("tracks cannot be merged, and no batch with one is stored"));
    }
    let names = async |sql| {
        let rows = postgres.query(sql, &[]).await?;
        Ok::<Vec<String>, super::check::Unknown>(rows.iter().map(|row| row.get(0)).collect())
    };
    let unlogged = names(UNLOGGED).await?;
    if let Some(table) = unlogged.first() {
        return Ok(Verdict::problem(
            format!("not logged: {}", unlogged.join(", ")),
            format!("ALTER TABLE {table} SET LOGGED"),
        )
        .because("a crash of Postgres empties a table that is not logged"));
    }
    let slow = names(SLOW_COPY).await?;
    if !slow.is_empty() {
        return Ok(Verdict::warning(
            format!("detections has {}", slow.join(", ")),
            "drop it, or have it on a table that is filled from detections later",
        )
        .because("COPY then inserts row by row, which takes several times as long"));
    }
    let invalid = names(INVALID).await?;
    if let Some(index) = invalid.first() {
        return Ok(Verdict::warning(
            format!("not valid: {}", invalid.join(", ")),
            format!("REINDEX INDEX CONCURRENTLY {index}, or drop it"),
        )
        .because("an index that is not valid is written and never read"));
    }
    Ok(Verdict::ok(
        "keys, logged tables, a COPY without detours, and valid indices",
    ))
}
