//! Full disks.

use super::{End, Outcome};
use crate::disk::SmallDisk;

pub(super) async fn fill(disk: Result<&SmallDisk, &&'static str>, end: End) -> Outcome {
    let disk = match disk {
        Ok(disk) => disk,
        Err(reason) => return Outcome::Skipped(reason),
    };
    // What is freed while the disk is full is taken away again.
    while !end.left().is_zero() {
        disk.fill();
        tokio::time::sleep(end.left().min(std::time::Duration::from_millis(50))).await;
    }
    disk.free();
    Outcome::Happened
}
