//! Whether what Postgres calls committed survives a crash.

use super::{
    check::{Outcome, Verdict},
    patient::Patient,
};

pub(super) async fn fsync(patient: &Patient<'_>) -> Outcome {
    let postgres = patient.postgres()?;
    let (fsync, pages) = (
        postgres.needed_setting("fsync")?,
        postgres.needed_setting("full_page_writes")?,
    );
    if fsync == "off" {
        return Ok(Verdict::problem(
            "fsync is off",
            "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf()",
        ));
    }
    if pages == "off" {
        return Ok(Verdict::warning(
            "full_page_writes is off",
            "ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf(); or be sure that the file \
             system writes 8 KiB at once or not at all",
        )
        .because("a crash of the machine can leave half a page behind, which no log mends"));
    }
    Ok(Verdict::ok("fsync and full_page_writes are on"))
}

const SYNCHRONOUS: &str = "
SELECT count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')),
       count(*) FILTER (WHERE sync_state IS NULL)
FROM pg_stat_replication";

pub(super) async fn synchronous_commit(patient: &Patient<'_>) -> Outcome {
    let postgres = patient.postgres()?;
    // Each transaction of a worker sets synchronous_commit = on for itself.
    let names = postgres.needed_setting("synchronous_standby_names")?;
    if names.is_empty() {
        return Ok(Verdict::ok("a commit waits for the server's own disk"));
    }
    let row = postgres.one(SYNCHRONOUS, &[]).await?;
    let (connected, hidden): (i64, i64) = (row.get(0), row.get(1));
    Ok(match (connected, hidden) {
        (0, 0) => Verdict::problem(
            format!("synchronous_standby_names is `{names}`, and no such standby is connected"),
            "bring a standby back, or ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf()",
        ),
        (0, _) => {
            return Err(
                super::check::Unknown::new("this role does not see the state of standbys")
                    .fix("GRANT pg_monitor to the role to have this checked"),
            );
        }
        (n, _) => Verdict::ok(format!(
            "a commit waits for a standby, of which {n} are connected"
        )),
    })
}
