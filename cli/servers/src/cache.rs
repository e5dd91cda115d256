//! Keeps what is costly to make: fetched servers and initialised data directories.
//!
//! An entry is a directory. It is built under another name and renamed when complete, so one that is
//! there can be used, whatever happened to the process that made it. A lock file lets one process
//! build while the others wait.

use std::{
    env,
    fs::{self, File, Permissions, TryLockError},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{error::ServerError, user::User};

/// A directory of finished entries.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// Opens the cache in `chosen`, or else where the environment says, making it if need be.
    pub(crate) fn open(chosen: Option<&Path>, user: Option<&User>) -> Result<Self, ServerError> {
        let root = match chosen {
            Some(dir) => dir.to_path_buf(),
            None => default_dir(user),
        };
        let dir = root.join("servers");
        // Only what is there already can be in the way: what we make is open.
        if let Some(user) = user
            && let Some(barrier) = user.barrier(&dir)
        {
            let user = user.name.clone();
            return Err(ServerError::CacheOutOfReach { dir, barrier, user });
        }
        make_dirs(&dir)?;
        Ok(Self { dir })
    }

    /// Returns the entry `name`, after filling an empty directory with `build` if there is none yet.
    ///
    /// `on_wait` is called when another process is building it.
    pub(crate) fn entry<E: From<ServerError>>(
        &self,
        name: &str,
        on_wait: impl FnOnce(),
        build: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let entry = self.dir.join(name);
        if entry.is_dir() {
            return Ok(entry);
        }
        let lock_path = self.dir.join(format!("{name}.lock"));
        let lock = File::create(&lock_path).map_err(ServerError::io("create", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                on_wait();
                lock.lock().map_err(ServerError::io("lock", &lock_path))?;
            }
            Err(TryLockError::Error(source)) => {
                return Err(ServerError::io("lock", &lock_path)(source).into());
            }
        }
        if entry.is_dir() {
            return Ok(entry);
        }

        // Left by a process that was killed here; we hold the lock, so nobody is using it.
        let partial = self.dir.join(format!("{name}.partial"));
        remove_dir(&partial)?;
        make_dirs(&partial)?;
        let built = build(&partial).and_then(|()| {
            // The rename must not survive a power cut that the files do not survive.
            rustix::fs::sync();
            fs::rename(&partial, &entry).map_err(ServerError::io("rename", &partial))?;
            Ok(entry)
        });
        if built.is_err() {
            remove_dir(&partial)?;
        }
        built
    }
}

/// Makes a directory and those above it, open to the servers' user whatever the umask says.
pub(crate) fn make_dirs(dir: &Path) -> Result<(), ServerError> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_dirs(parent)?;
    }
    match fs::create_dir(dir) {
        Err(error) if !dir.is_dir() => Err(ServerError::io("create", dir)(error)),
        // Another process was faster.
        Err(_) => Ok(()),
        Ok(()) => fs::set_permissions(dir, Permissions::from_mode(0o755))
            .map_err(ServerError::io("set the permissions of", dir)),
    }
}

fn remove_dir(dir: &Path) -> Result<(), ServerError> {
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(ServerError::io("remove", dir))?;
    }
    Ok(())
}

fn default_dir(user: Option<&User>) -> PathBuf {
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if let Some(dir) = absolute("PASSERBY_CACHE_DIR") {
        return dir;
    }
    if user.is_some() {
        // Root's home is closed to the user that the servers run as.
        return PathBuf::from("/var/cache/passerby");
    }
    let home = absolute("HOME").unwrap_or_else(env::temp_dir);
    if let Some(dir) = absolute("XDG_CACHE_HOME") {
        dir.join("passerby")
    } else if cfg!(target_os = "macos") {
        home.join("Library/Caches/passerby")
    } else {
        home.join(".cache/passerby")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> Cache {
        Cache::open(Some(dir), None).unwrap()
    }

    #[test]
    fn entry_is_built_once() {
        let dir = tempfile::tempdir().unwrap();
        let build = |dir: &Path| {
            fs::write(dir.join("file"), "content").unwrap();
            Ok::<(), ServerError>(())
        };
        let entry = open(dir.path()).entry("entry", || {}, build).unwrap();
        assert_eq!(fs::read_to_string(entry.join("file")).unwrap(), "content");

        let again = open(dir.path()).entry(
            "entry",
            || {},
            |_| -> Result<(), ServerError> { panic!("built twice") },
        );
        assert_eq!(again.unwrap(), entry);
    }

    #[test]
    fn half_built_entry_is_never_used() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(dir.path());
        fs::create_dir(cache.dir.join("entry.partial")).unwrap();
        fs::write(cache.dir.join("entry.partial/old"), "").unwrap();

        let failed = cache.entry(
            "entry",
            || {},
            |dir| {
                fs::write(dir.join("half"), "").unwrap();
                Err(ServerError::NotRunning {
                    kind: crate::Kind::Redis,
                })
            },
        );
        assert!(failed.is_err());
        assert!(!cache.dir.join("entry").exists());

        let entry = cache
            .entry("entry", || {}, |_| Ok::<(), ServerError>(()))
            .unwrap();
        assert_eq!(fs::read_dir(entry).unwrap().count(), 0);
    }
}
