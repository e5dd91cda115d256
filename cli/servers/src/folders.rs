//! The folders where servers are found, `PATH` and those that packages use without being on it.

use std::{
    cmp::Reverse,
    env, fs,
    path::{Path, PathBuf},
};

/// Looked into in this order. One `*` a pattern; the highest version comes first.
pub(crate) const USUAL: &[&str] = &[
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/Library/PostgreSQL/*/bin",
    "/opt/homebrew/bin",
    "/home/linuxbrew/.linuxbrew/bin",
    "/opt/local/bin",
    "/usr/local/pgsql/bin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/bin",
    "/usr/sbin",
];

/// The absolute folders of `PATH`; a relative one would depend on where we happen to stand.
pub(crate) fn on_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .collect()
}

/// The folders that a pattern stands for.
pub(crate) fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![PathBuf::from(pattern)];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = fs::read_dir(Path::new(parent)) else {
        return Vec::new();
    };
    let names = entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort_by_key(|name| Reverse(numbers(name)));
    names
        .iter()
        .map(|name| PathBuf::from(format!("{parent}/{name}{after}")))
        .collect()
}

/// The numbers in a name, so that 9.6 sorts before 10.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn highest_version_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["pgsql-9.6", "pgsql-17", "pgsql-10", "mysql-20"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let root = dir.path().display();

        let found = expand(&format!("{root}/pgsql-*/bin"));

        let expected = ["17", "10", "9.6"].map(|v| PathBuf::from(format!("{root}/pgsql-{v}/bin")));
        assert_eq!(found, expected);
        assert_eq!(
            expand(&format!("{root}/nothing/*/bin")),
            Vec::<PathBuf>::new()
        );
        assert_eq!(expand("/usr/bin"), [PathBuf::from("/usr/bin")]);
    }
}
