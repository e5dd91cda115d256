//! Making files that keep their place on the disk.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use super::error::SpoolError;

/// Sets disk space aside for a file of this length, so that writing into it cannot fail for want of it.
pub(crate) fn allocate(file: &File, n_bytes: u64) -> io::Result<()> {
    match set_aside(file, n_bytes) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => fill(file, 0, n_bytes),
        done => done,
    }
}

/// Has a new, empty file written in place where the file system would rather write elsewhere: a page of
/// it that is in memory then never needs room that it does not have.
pub(crate) fn write_in_place(file: &File) {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
        // Others than btrfs do not know it, and do not need it.
        let flags = ioctl_getflags(file).unwrap_or(IFlags::empty());
        ioctl_setflags(file, flags | IFlags::NOCOW).unwrap_or_default();
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Writes zeros from one offset to another.
pub(crate) fn fill(file: &File, from: u64, to: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    // Fails at once where there is no room; some file systems do not know it.
    match set_aside(file, to) {
        Err(error) if error.kind() != io::ErrorKind::Unsupported => return Err(error),
        _ => {}
    }
    let mut at = from;
    while at < to {
        let n = usize::try_from(to - at).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        file.write_all_at(&ZEROS[..n], at)?;
        at += n as u64;
    }
    Ok(())
}

fn set_aside(file: &File, n_bytes: u64) -> io::Result<()> {
    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, n_bytes)
        .map_err(io::Error::from)
}

/// Forces a directory's entries onto the disk.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), SpoolError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(SpoolError::io("sync", dir))
}
