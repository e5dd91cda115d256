//! What is left on the disks that can be seen from here.

use std::path::Path;

use super::{
    check::{Outcome, Unknown, Verdict},
    patient::{Patient, Way},
};

const GIB: u64 = 1 << 30;

/// Space of the file system that a path is on.
#[derive(Debug, Clone, Copy)]
struct Space {
    free: u64,
    total: u64,
}

impl Space {
    fn at(path: &Path) -> Result<Self, Unknown> {
        let found = rustix::fs::statvfs(path).map_err(|error| {
            Unknown::new(format!(
                "{}: {error}; is it in a container?",
                path.display()
            ))
        })?;
        Ok(Self {
            free: found.f_bavail.saturating_mul(found.f_frsize),
            total: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }

    fn judge(self, path: &Path, least: u64) -> Verdict {
        let percent = self.free.saturating_mul(100) / self.total.max(1);
        let what = format!(
            "{:.1} GiB of {:.1} GiB are free at {}",
            as_gib(self.free),
            as_gib(self.total),
            path.display()
        );
        let fix = format!(
            "make room: `du -xh {} | sort -h | tail`, or give it a larger disk",
            path.display()
        );
        match percent {
            _ if self.free < least => Verdict::problem(what, fix),
            0..=2 => Verdict::problem(what, fix),
            3..=9 => Verdict::warning(what, fix),
            _ => Verdict::ok(what),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal place")]
fn as_gib(bytes: u64) -> f64 {
    bytes as f64 / GIB as f64
}

fn elsewhere(server: &str) -> Unknown {
    Unknown::new(format!("the disk of {server} cannot be seen from here"))
        .fix("run it there as well, or watch it with what watches the host")
}

pub(super) async fn redis(patient: &Patient<'_>) -> Outcome {
    let redis = patient.redis()?;
    if Way::to_redis(&redis.url).await?.0 != Way::Local {
        return Err(elsewhere("Redis"));
    }
    let dir = redis.setting("dir").await?;
    let dir = Path::new(&dir);
    Ok(Space::at(dir)?.judge(dir, patient.config.least_free))
}

pub(super) async fn postgres(patient: &Patient<'_>) -> Outcome {
    let postgres = patient.postgres()?;
    if Way::to_postgres(&postgres.url).await? != Way::Local {
        return Err(elsewhere("Postgres"));
    }
    let dir = Path::new(postgres.needed_setting("data_directory")?);
    Ok(Space::at(dir)?.judge(dir, patient.config.least_free))
}

pub(super) async fn spools(patient: &Patient<'_>) -> Outcome {
    let mut worst: Option<Verdict> = None;
    for dir in &patient.config.spools {
        let verdict = Space::at(dir)?.judge(dir, patient.config.least_free);
        if worst
            .as_ref()
            .is_none_or(|worst| verdict.status > worst.status)
        {
            worst = Some(verdict);
        }
    }
    worst.ok_or_else(Unknown::moot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Status;

    #[test]
    fn a_disk_is_judged_by_what_is_free() {
        let check = |free, total, expected| {
            let space = Space {
                free: free * GIB,
                total: total * GIB,
            };
            assert_eq!(space.judge(Path::new("/x"), GIB).status, expected);
        };
        check(50, 100, Status::Ok);
        check(9, 100, Status::Warning);
        check(2, 100, Status::Problem);
        check(0, 5, Status::Problem);
        check(2, 5, Status::Ok);
    }
}
