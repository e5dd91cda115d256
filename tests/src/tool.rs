use std::{
    env,
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Set to `required` where nothing may be skipped, as in CI.
const POLICY: &str = "PASSERBY_TOOLS";

/// A program that is not ours and that not every machine has: a test that needs one it cannot find is
/// skipped and says so, or fails where `PASSERBY_TOOLS=required`.
#[derive(Debug)]
pub struct Tool {
    path: PathBuf,
}

impl Tool {
    /// The program of this name on PATH. `None` is said aloud, with what would bring the program.
    ///
    /// # Panics
    ///
    /// When the program is missing and `PASSERBY_TOOLS=required`.
    pub fn find(name: &str, how_to_install: &str) -> Option<Self> {
        let path = env::split_paths(&env::var_os("PATH").unwrap_or_default())
            .map(|folder| folder.join(name))
            .find(|path| path.is_file());
        if let Some(path) = path {
            return Some(Self { path });
        }
        let missing = format!("no `{name}` on PATH: {how_to_install}");
        assert!(
            env::var_os(POLICY).is_none_or(|policy| policy != "required"),
            "{missing}"
        );
        let test = std::thread::current();
        let test = test.name().unwrap_or("a test").to_owned();
        // Not with `eprintln!`, which nobody sees of a test that passes.
        let line = format!("SKIPPED {test}: {missing}\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        None
    }

    /// A command that runs it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.stdin(Stdio::null());
        command
    }

    /// Runs it in a folder, and returns all it has said, or panics with that when it fails.
    #[track_caller]
    pub fn run(&self, folder: &Path, args: &[&str]) -> String {
        let output = self
            .command()
            .args(args)
            .current_dir(folder)
            .output()
            .unwrap();
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            write!(
                said,
                "\n{} {args:?}: {}",
                self.path.display(),
                output.status
            )
            .unwrap();
            panic!("{said}");
        }
        said
    }
}

/// The folder that holds the whole project.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate is a folder of the project")
}

/// Reads a file of the project.
pub fn project_file(path: &str) -> String {
    let path = project().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
