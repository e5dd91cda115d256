//! The schema: its version, and that nobody has taken out what promises rest on.

use super::{
    check::{Outcome, Verdict},
    patient::Patient,
};
use crate::store::{HISTORY_TABLE, wanted_version};

pub(super) async fn version(patient: &Patient<'_>) -> Outcome {
    let postgres = patient.postgres()?;
    let wanted = wanted_version();
    let found = postgres
        .one(
            &format!("SELECT to_regclass('{HISTORY_TABLE}') IS NOT NULL"),
            &[],
        )
        .await?;
    if !found.get::<_, bool>(0) {
        return Ok(Verdict::problem(
            format!("{} has no schema of Passerby", postgres.url),
            "passerby migrate",
        ));
    }
    let row = postgres
        .one(&format!("SELECT max(version) FROM {HISTORY_TABLE}"), &[])
        .await?;
    let version = row.get::<_, Option<i32>>(0).unwrap_or(0);
    Ok(match version.cmp(&wanted) {
        std::cmp::Ordering::Equal => Verdict::ok(format!("schema version {version}")),
        std::cmp::Ordering::Less => Verdict::problem(
            format!("schema version {version}, this program needs {wanted}"),
            "passerby migrate",
        ),
        std::cmp::Ordering::Greater => Verdict::problem(
            format!("schema version {version} is newer than this program, which knows {wanted}"),
            "install the newer release here, and on every host with a worker",
        ),
    })
}
