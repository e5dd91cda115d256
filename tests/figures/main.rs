//! Makes the table and the picture of `docs/benchmarks.md` of the figures in `docs/benchmarks/*.json`, which
//! the benchmarks print with `--json`.
//!
//! ```text
//! cargo figures
//! ```
#![expect(
    clippy::unwrap_used,
    reason = "a program for people who measure, which ends at what it does not understand"
)]

mod picture;
mod table;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// In the order of the table.
const REPORTS: &[&str] = &[
    "drain",
    "drain-fetched",
    "peers",
    "end-to-end",
    "worker",
    "producer",
    "record",
    "inserts",
    "inserts-fetched",
    "stored",
    "queries",
    "scale",
    "status",
];

const BEGIN: &str = "<!-- made by `cargo figures` -->\n";
const END: &str = "<!-- end of what it made -->\n";

/// The page and the picture, as they should be.
fn made() -> [(PathBuf, String); 2] {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let reports: Vec<Value> = REPORTS
        .iter()
        .map(|name| docs.join(format!("benchmarks/{name}.json")))
        .map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
        .collect();
    let path = docs.join("benchmarks.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let page = format!("{before}{BEGIN}{}{END}{after}", table::render(&reports));
    [
        (path, page),
        (
            docs.join("benchmarks/figures.svg"),
            picture::render(&reports),
        ),
    ]
}

fn main() {
    for (path, wanted) in made() {
        fs::write(path, wanted).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_and_the_picture_show_the_figures() {
        for (path, wanted) in made() {
            assert_eq!(
                fs::read_to_string(&path).unwrap(),
                wanted,
                "{}",
                path.display()
            );
        }
    }
}
