//! Writes what fuzzing starts from to `tests/fuzz/seeds`, a folder for each target.
#![expect(clippy::unwrap_used, reason = "a tool for developers")]

use std::{fs, path::Path};

use passerby_tests::fuzzing::Target;

fn main() {
    for target in Target::ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/seeds")
            .join(target.as_str());
        fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in target.seeds() {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
}
