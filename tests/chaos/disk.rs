//! A disk that can be full: a small tmpfs.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// How much fits in: a run of hours.
const SIZE_KIB: u64 = 4 << 20;

/// A file system of its own. It is taken away when dropped.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Mounts one at `dir`, which is made, owned by whom `like` is owned by.
    ///
    /// # Errors
    ///
    /// Says why there is none.
    pub(crate) fn mount(dir: &Path, like: &Path) -> Result<Self, &'static str> {
        if !cfg!(target_os = "linux") {
            return Err("only Linux has a tmpfs");
        }
        if !rustix::process::geteuid().is_root() {
            return Err("only root may mount a tmpfs");
        }
        fs::create_dir_all(dir).unwrap();
        let options = format!("size={SIZE_KIB}k,mode=0700");
        if !mount(&["-t", "tmpfs", "-o", &options, "tmpfs"], dir) {
            return Err("this system does not let root mount a tmpfs");
        }
        let owner = fs::metadata(like).unwrap();
        chown(dir, Some(owner.uid()), Some(owner.gid())).unwrap();
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Leaves room for nothing more: the disk shrinks to what is used.
    pub(crate) fn fill(&self) {
        for _ in 0..20 {
            let space = rustix::fs::statvfs(&self.dir).unwrap();
            let used_kib = (space.f_blocks - space.f_bfree) * space.f_frsize / 1024;
            // Refused when more is in use by now.
            if mount(
                &["-o", &format!("remount,size={}k", used_kib.max(4))],
                &self.dir,
            ) {
                return;
            }
        }
    }

    /// Makes room again.
    pub(crate) fn free(&self) {
        let size = format!("remount,size={SIZE_KIB}k");
        assert!(
            mount(&["-o", &size], &self.dir),
            "remount {}",
            self.dir.display()
        );
    }

    /// Takes the disk away, and leaves in its place a directory with what was on it.
    pub(crate) fn replace_by_copy(&self) {
        let copy = self.dir.with_extension("copy");
        let copied = quiet("cp").arg("-a").arg(&self.dir).arg(&copy).status();
        assert!(copied.unwrap().success(), "copy {}", self.dir.display());
        self.unmount();
        fs::remove_dir(&self.dir).unwrap();
        fs::rename(&copy, &self.dir).unwrap();
    }

    fn unmount(&self) {
        // Lazily: a server may still be closing its files. Nothing may be mounted any more.
        drop(quiet("umount").arg("-l").arg(&self.dir).status());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.unmount();
    }
}

fn mount(args: &[&str], dir: &Path) -> bool {
    let status = quiet("mount").args(args).arg(dir).status();
    status.is_ok_and(|status| status.success())
}

fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}
