use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

/// A Python with the packages of `benches/peers/requirements.txt`, which runs the programs beside it.
#[derive(Debug, Clone)]
pub struct Python {
    program: PathBuf,
}

impl Python {
    /// Makes it, where that is not done yet, in `target`: not while the clock runs.
    ///
    /// That is the `CARGO_TARGET_TMPDIR` of a benchmark, which cargo does not tell a library.
    ///
    /// # Panics
    ///
    /// Without python3, or without a registry to install from.
    #[must_use]
    pub fn install(target: &Path) -> Self {
        let requirements = peers().join("requirements.txt");
        let wanted = fs::read_to_string(&requirements).unwrap();
        let dir = target.join("peers");
        let program = dir.join("bin/python");
        // It is written last: without it, or with others, the rest is not to be relied on.
        let installed = dir.join("requirements.txt");
        if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
            return Self { program };
        }
        let run = |what: &str, command: &mut Command| match command.stdin(Stdio::null()).output() {
            Ok(output) => assert!(
                output.status.success(),
                "{what}: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
            Err(error) => panic!(
                "{what}: {error}; this benchmark needs python3 (3.9 or later), with venv and pip"
            ),
        };
        let venv = ["-m", "venv", "--clear"];
        run(
            "make a virtual environment",
            Command::new("python3").args(venv).arg(&dir),
        );
        let install = ["-m", "pip", "install", "--quiet", "--requirement"];
        run(
            "install the packages of peers/requirements.txt",
            Command::new(&program).args(install).arg(&requirements),
        );
        fs::write(installed, wanted).unwrap();
        Self { program }
    }

    /// Runs a program of `benches/peers` to its end; returns the JSON object that it prints.
    pub fn run<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> Value {
        let output = Command::new(&self.program)
            .arg(peers().join(program))
            .args(args)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "{program}: {}", output.status);
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers")
}
