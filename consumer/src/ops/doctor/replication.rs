//! What replication holds back on the server.

use super::{
    check::{Outcome, Verdict},
    patient::Patient,
};

const SLOTS: &str = "
SELECT slot_name::text,
       coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint,
       coalesce(wal_status, 'unknown')
FROM pg_replication_slots
WHERE NOT active
ORDER BY 2 DESC
LIMIT 1";

pub(super) async fn slots(patient: &Patient<'_>) -> Outcome {
    let postgres = patient.postgres()?;
    let rows = postgres.query(SLOTS, &[]).await?;
    let Some(row) = rows.first() else {
        return Ok(Verdict::ok("no replication slot is without its consumer"));
    };
    let (slot, held, wal_status): (&str, i64, &str) = (row.get(0), row.get(1), row.get(2));
    let what = format!(
        "nobody reads slot {slot}, which holds {} MiB of WAL",
        held >> 20
    );
    let fix = format!("bring its consumer back, or SELECT pg_drop_replication_slot('{slot}')");
    // Beyond max_wal_size the server keeps WAL for this slot alone.
    let is_bounded = postgres
        .setting("max_slot_wal_keep_size")
        .is_some_and(|size| size != "-1");
    Ok(match wal_status {
        "lost" => Verdict::warning(format!("slot {slot} has lost its WAL"), fix)
            .because("its consumer cannot go on: it has to be set up anew"),
        "extended" | "unreserved" if !is_bounded => Verdict::problem(what, fix),
        _ => Verdict::warning(what, fix),
    })
}
