//! The spool's directory: whose it is, what it was made for, and who uses it now.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    num::NonZeroU16,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use passerby_shared::KeyPrefix;

use super::{error::SpoolError, files};

/// The version of everything in the directory.
const VERSION: u32 = 1;
const META: &str = "spool";
const LOCK: &str = "lock";
pub(crate) const RING: &str = "buffer.ring";

/// What a spool was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) key_prefix: KeyPrefix,
    pub(crate) shards: NonZeroU16,
}

/// Proof that no other producer uses the directory, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Makes the directory if it is not there.
pub(crate) fn make(dir: &Path) -> Result<(), SpoolError> {
    match fs::metadata(dir) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(SpoolError::NotADirectory {
            path: dir.to_path_buf(),
        }),
        Err(_) => fs::create_dir_all(dir).map_err(SpoolError::io("create", dir)),
    }
}

/// Takes the lock of a directory.
pub(crate) fn lock(dir: &Path) -> Result<Lock, SpoolError> {
    /// Someone may just be looking whether it is taken.
    const ATTEMPTS: u32 = 5;
    let path = dir.join(LOCK);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(SpoolError::allocate(&path, 16))?;
    for attempt in 1.. {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if attempt < ATTEMPTS => {
                thread::park_timeout(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(SpoolError::InUse {
                    dir: dir.to_path_buf(),
                    pid: read_pid(&mut file),
                });
            }
            Err(TryLockError::Error(source)) => return Err(SpoolError::io("lock", &path)(source)),
        }
    }
    let write_pid = |mut file: &File| {
        file.set_len(0)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes())
    };
    write_pid(&file).map_err(SpoolError::allocate(&path, 16))?;
    Ok(Lock { _file: file })
}

/// The process that holds the lock of a directory, if one does. 0 when it does not say which it is.
pub(crate) fn held_by(dir: &Path) -> Option<u32> {
    let mut file = File::open(dir.join(LOCK)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(read_pid(&mut file).unwrap_or(0)),
        _ => None,
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Reads what a spool was made for; `None` when there is none yet.
pub(crate) fn read_meta(dir: &Path) -> Result<Option<Meta>, SpoolError> {
    let path = dir.join(META);
    let mut text = String::new();
    match File::open(&path).and_then(|file| file.take(4096).read_to_string(&mut text)) {
        Ok(_) => parse_meta(&path, &text).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // Somebody named the directory above.
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(SpoolError::Unreadable {
            path,
            what: "is no description of a spool".to_owned(),
        }),
        Err(error) => Err(SpoolError::io("read", &path)(error)),
    }
}

fn parse_meta(path: &Path, text: &str) -> Result<Meta, SpoolError> {
    let bad = |what: &str| SpoolError::Unreadable {
        path: path.to_path_buf(),
        what: what.to_owned(),
    };
    let value = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
    };
    let version = value("passerby-spool").and_then(|version| version.parse::<u32>().ok());
    match version {
        Some(VERSION) => {}
        Some(version) if version > VERSION => {
            return Err(SpoolError::Newer {
                path: path.to_path_buf(),
                version,
                known: VERSION,
            });
        }
        _ => return Err(bad("is no description of a spool")),
    }
    let key_prefix = value("key-prefix").and_then(|prefix| prefix.parse().ok());
    let shards = value("shards").and_then(|shards| shards.parse().ok());
    Ok(Meta {
        key_prefix: key_prefix.ok_or_else(|| bad("names no key prefix"))?,
        shards: shards.ok_or_else(|| bad("names no number of shards"))?,
    })
}

/// Writes what a spool is made for, whole or not at all.
pub(crate) fn write_meta(dir: &Path, meta: &Meta) -> Result<(), SpoolError> {
    let path = dir.join(META);
    let partial = dir.join("spool.partial");
    let text = format!(
        "passerby-spool {VERSION}\nkey-prefix {}\nshards {}\n",
        meta.key_prefix, meta.shards
    );
    let write = |path: &PathBuf| {
        let mut file = File::create(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write(&partial).map_err(SpoolError::allocate(&partial, text.len() as u64))?;
    fs::rename(&partial, &path).map_err(SpoolError::io("rename", &partial))?;
    files::sync_dir(dir)
}
