use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

/// Builds a program of the workspace from the sources as they are, and says where it is. Cargo builds
/// the programs of a package only for the package's own tests.
pub fn build(name: &str) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    // What cargo tells this process of its package is not about what is built: a build script that
    // asks for it (that of ring does) would run anew each time, here and in the next `cargo test`, and
    // with it half of the dependencies.
    let of_this_package = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_CRATE_",
        "CARGO_BIN_",
    ];
    for (variable, _) in env::vars_os() {
        let text = variable.to_string_lossy();
        if of_this_package
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            cargo.env_remove(variable);
        }
    }
    // The same features as everything else in the workspace, or half of it would be built anew.
    let output = cargo
        .args(["build", "--workspace", "--bin", name, "--quiet"])
        .args(["--message-format", "json-render-diagnostics"])
        .args((!cfg!(debug_assertions)).then_some("--release"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "build {name}: {stderr}");
    stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo says where it put the program")
}
