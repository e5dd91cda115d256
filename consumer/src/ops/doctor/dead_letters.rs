//! Dead letters that nobody has looked at.

use super::{
    check::{Outcome, Verdict},
    patient::Patient,
};

const WAITING: &str = "
SELECT reason, sum(waiting)::bigint
FROM dead_letter_counts
GROUP BY reason
HAVING sum(waiting) > 0
ORDER BY 2 DESC, 1";

pub(super) async fn waiting(patient: &Patient<'_>) -> Outcome {
    let postgres = patient.postgres()?;
    postgres.has_schema().await?;
    let rows = postgres.query(WAITING, &[]).await?;
    if rows.is_empty() {
        return Ok(Verdict::ok("none waits for anybody"));
    }
    let reasons: Vec<String> = rows
        .iter()
        .map(|row| format!("{} {}", row.get::<_, i64>(1), row.get::<_, &str>(0)))
        .collect();
    Ok(Verdict::warning(
        format!("waiting for somebody: {}", reasons.join(", ")),
        "passerby dead-letters list; after a fix requeue them, else discard them",
    ))
}
