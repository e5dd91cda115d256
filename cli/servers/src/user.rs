//! Decides which user the servers run as.
//!
//! Postgres refuses to run as root. Root therefore runs both servers as `postgres`, or as `nobody`
//! where that user does not exist; everybody else runs them as themselves.

use std::{
    env, fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::error::ServerError;

/// Longest temporary directory we use. A Unix socket's path has at most 104 bytes on macOS, 108 on
/// Linux, and `passerby.XXXXXX/.s.PGSQL.65535.lock` follows.
const MAX_PARENT_BYTES: usize = 64;
const NAMES: [&str; 3] = ["postgres", "_postgres", "nobody"];

/// A user other than our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    uid: u32,
    gid: u32,
}

impl User {
    /// The user to change to, or `None` to stay who we are.
    pub(crate) fn for_servers() -> Result<Option<Self>, ServerError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let path = Path::new("/etc/passwd");
        let passwd = fs::read_to_string(path).map_err(ServerError::io("read", path))?;
        parse_passwd(&passwd)
            .map(Some)
            .ok_or(ServerError::NoUser { names: &NAMES })
    }

    /// The first directory on the way down to `path` that the user may not enter.
    pub(crate) fn barrier(&self, path: &Path) -> Option<PathBuf> {
        let mut ancestors: Vec<_> = path.ancestors().collect();
        ancestors.reverse();
        let barrier = ancestors.into_iter().find(|dir| {
            fs::metadata(dir).is_ok_and(|found| found.is_dir() && !self.may(&found, 0o1))
        });
        barrier.map(Path::to_path_buf)
    }

    /// Whether the user has the `rwx` bits in `wanted`.
    fn may(&self, found: &fs::Metadata, wanted: u32) -> bool {
        let shift = match (found.uid() == self.uid, found.gid() == self.gid) {
            (true, _) => 6,
            (false, true) => 3,
            (false, false) => 0,
        };
        (found.mode() >> shift) & wanted == wanted
    }
}

/// A command that runs as `user`, from a directory that everybody may enter, and knows nothing of
/// the caller's own Postgres settings.
pub(crate) fn command(program: &Path, user: Option<&User>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").stdin(Stdio::null());
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    // On macOS Postgres stops with "postmaster became multithreaded" unless a locale is set, and
    // its messages must be in English for us to know them.
    command.env("LC_ALL", "C");
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    command
}

/// Where private directories go: the temporary directory unless its name is too long for a Unix
/// socket, or `user` could not remove what it made there.
pub(crate) fn private_dir_parent(user: Option<&User>) -> PathBuf {
    let parent = env::temp_dir();
    let is_usable = user.is_none_or(|user| {
        user.barrier(&parent).is_none()
            && fs::metadata(&parent).is_ok_and(|found| user.may(&found, 0o3))
    });
    if is_usable && parent.is_absolute() && parent.as_os_str().len() <= MAX_PARENT_BYTES {
        parent
    } else {
        PathBuf::from("/tmp")
    }
}

fn parse_passwd(passwd: &str) -> Option<User> {
    // macOS writes nobody's id as -2.
    let id = |text: &str| match text.parse::<u32>() {
        Ok(id) => Some(id),
        Err(_) => text.parse::<i32>().ok().map(i32::cast_unsigned),
    };
    NAMES.iter().find_map(|name| {
        let line = passwd
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        let (uid, gid) = (id(fields.next()?)?, id(fields.next()?)?);
        (uid != 0).then(|| User {
            name: (*name).to_owned(),
            uid,
            gid,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(passwd: &str, expected: Option<(&str, u32, u32)>) {
        let expected = expected.map(|(name, uid, gid)| User {
            name: name.to_owned(),
            uid,
            gid,
        });
        assert_eq!(parse_passwd(passwd), expected, "{passwd}");
    }

    #[test]
    fn postgres_is_preferred_and_root_is_never_chosen() {
        let root = "root:x:0:0:root:/root:/bin/sh\n";
        let nobody = "nobody:x:65534:65533:nobody:/:/usr/sbin/nologin\n";
        let postgres = "postgres:x:101:104:PostgreSQL,,,:/var/lib/postgresql:/bin/bash\n";
        check(root, None);
        check(
            &format!("{root}{nobody}{postgres}"),
            Some(("postgres", 101, 104)),
        );
        check(&format!("{root}{nobody}"), Some(("nobody", 65534, 65533)));
        check(
            &format!("postgres:x:0:0::/:\n{nobody}"),
            Some(("nobody", 65534, 65533)),
        );
        check(
            "nobody:*:-2:-2:x:/var/empty:/usr/bin/false",
            Some(("nobody", u32::MAX - 1, u32::MAX - 1)),
        );
        check("postgres:x:many", None);
    }
}
