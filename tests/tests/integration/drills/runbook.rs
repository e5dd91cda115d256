//! The runbook shows what the drills have recorded, and nothing that nobody has seen.

use std::{collections::BTreeSet, fmt::Write, fs};

use passerby_tests::{compare_with_file, project, project_file};

const RUNBOOK: &str = "docs/runbook.md";
/// Before a block: which part of `tests/cmd/drill_<name>.txt` it shows.
const MARKER: &str = "<!-- recorded: ";

/// What differs from night to night, as it may look.
const EXAMPLES: &[(&str, &str)] = &[
    ("[SPAN]", "4 m 12 s"),
    ("[CONSUMER]", "gate-1-5f3a09c1"),
    ("hh:mm:ss.sss", "03:12:45.120"),
    ("hh:mm:ss", "03:12:45"),
    ("2000-01-01", "2026-11-22"),
    ("20000101", "20261122"),
];

/// A part of what a drill recorded: what follows the note of this number, which begins at 1.
fn recorded(drill: &str, part: usize) -> String {
    let recorded = project_file(&format!("tests/cmd/drill_{drill}.txt"));
    let mut parts = Vec::<String>::new();
    for line in recorded.lines() {
        if line.starts_with("# ") {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            writeln!(part, "{line}").unwrap();
        }
    }
    let part = parts
        .get(part - 1)
        .unwrap_or_else(|| panic!("drill_{drill}.txt has no part {part}"));
    let mut shown = part.trim_end().to_owned();
    for (general, example) in EXAMPLES {
        shown = shown.replace(general, example);
    }
    shown
}

#[test]
fn the_runbook_shows_what_the_drills_recorded() {
    let runbook = project_file(RUNBOOK);
    let mut shown = String::new();
    let mut drills = BTreeSet::new();
    let mut lines = runbook.lines();
    while let Some(line) = lines.next() {
        writeln!(shown, "{line}").unwrap();
        let Some(what) = line.strip_prefix(MARKER) else {
            continue;
        };
        let what = what.strip_suffix(" -->").expect("a comment ends");
        let (drill, part) = what.split_once(", part ").expect("a drill and a part");
        drills.insert(format!("drill_{drill}.txt"));
        assert_eq!(lines.next(), Some("```console"), "after {line}");
        assert!(
            lines.any(|line| line == "```"),
            "the block after {line} ends"
        );
        let recorded = recorded(drill, part.parse().unwrap());
        write!(shown, "```console\n{recorded}\n```\n").unwrap();
    }
    compare_with_file(&shown, &project().join(RUNBOOK));

    let files = fs::read_dir(project().join("tests/cmd")).unwrap();
    let of_drills = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("drill_"));
    assert_eq!(drills, of_drills.collect(), "each drill is in the runbook");
}

#[test]
fn the_runbook_types_commands_that_there_are() {
    let runbook = project_file(RUNBOOK);
    let help = |name: &str| project().join(format!("tests/cmd/help/{name}.txt"));
    let typed = runbook.split(['`', '\n']);
    let mut n_typed = 0;
    for typed in typed.filter_map(|text| text.strip_prefix("passerby ")) {
        let mut words = typed.split_whitespace();
        let mut name = words.next().expect("a command").to_owned();
        let group = fs::read_to_string(help(&name));
        let group = group.unwrap_or_else(|error| panic!("passerby {typed}: {error}"));
        if group.contains("\nCommands:\n") {
            name = format!("{name}-{}", words.next().expect("one of its commands"));
            assert!(help(&name).is_file(), "passerby {typed}");
        }
        n_typed += 1;
    }
    assert!(n_typed > 10);
}
