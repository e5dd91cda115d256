//! Partitions of `detections`: there before they are needed, and nothing in the quarantine.

use super::{
    check::{Outcome, Verdict},
    patient::Patient,
};

/// Days from today on that no partition is for.
const MISSING: &str = "
WITH bounds AS (
    SELECT regexp_match(pg_get_expr(relpartbound, pg_class.oid),
                        'FROM \\(''([^'']+)''\\) TO \\(''([^'']+)''\\)') AS bound
    FROM pg_inherits
    JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = to_regclass('detections')
)
SELECT n
FROM generate_series(0, 7) AS n
WHERE NOT EXISTS (
    SELECT FROM bounds
    WHERE bound[1]::timestamptz <= date_trunc('day', clock_timestamp(), 'UTC') + n * interval '1 day'
      AND bound[2]::timestamptz > date_trunc('day', clock_timestamp(), 'UTC') + n * interval '1 day'
)
ORDER BY n";

pub(super) async fn ahead(patient: &Patient<'_>) -> Outcome {
    const FIX: &str =
        "passerby migrate, as the owner of the tables; workers that are the owner make them hourly";
    let postgres = patient.postgres()?;
    postgres.has_schema().await?;
    let rows = postgres.query(MISSING, &[]).await?;
    let missing: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    Ok(match missing.as_slice() {
        // The last one is due in the course of the day.
        [] | [7] => Verdict::ok("there are partitions for the week ahead"),
        [0, ..] => Verdict::problem("there is no partition for today", FIX),
        [1, ..] => Verdict::problem("there is no partition for tomorrow", FIX),
        [first, ..] => Verdict::warning(format!("in {first} days there is no partition"), FIX),
    })
}

/// Counted so far.
const MOST: i64 = 10_000;

pub(super) async fn quarantine(patient: &Patient<'_>) -> Outcome {
    let postgres = patient.postgres()?;
    postgres.has_schema().await?;
    let row = postgres
        .one(
            &format!(
                "SELECT count(*), min(timestamp)::text, max(timestamp)::text
                 FROM (SELECT timestamp FROM detections_default LIMIT {MOST}) AS first"
            ),
            &[],
        )
        .await?;
    let n_rows: i64 = row.get(0);
    let (Some(oldest), Some(newest)) =
        (row.get::<_, Option<&str>>(1), row.get::<_, Option<&str>>(2))
    else {
        return Ok(Verdict::ok("detections_default is empty"));
    };
    let or_more = if n_rows == MOST { " or more" } else { "" };
    Ok(Verdict::warning(
        format!("detections_default holds {n_rows} rows{or_more}, from {oldest} to {newest}"),
        "mend the clock of the camera: SELECT camera_id, count(*) FROM detections_default GROUP BY 1; then \
         passerby partitions repair",
    ))
}
