//! What fuzzing starts from and what it has found, through the bodies of its targets.
//!
//! A program of its own: memory is counted for the whole process, so one test runs at a time and
//! nothing runs beside it.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::{
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use passerby_tests::fuzzing::{PeakAlloc, Seed, Target};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[test]
fn payloads_are_read_or_refused() {
    replay(Target::Payload);
}

#[test]
fn entries_are_stored_or_dead_lettered() {
    replay(Target::Entry);
}

#[test]
fn lines_of_mot_are_read_or_refused() {
    replay(Target::Mot);
}

#[test]
fn lines_of_ndjson_are_read_or_refused() {
    replay(Target::Ndjson);
}

#[test]
fn spools_are_recovered_or_given_up() {
    replay(Target::Spool);
}

#[test]
fn an_input_cut_off_anywhere_harms_nothing() {
    let _alone = alone();
    for target in Target::ALL {
        for (name, bytes) in target.seeds() {
            // The others are cut off or nonsense as they are.
            if !name.starts_with("vector-") && !name.starts_with("line-") {
                continue;
            }
            for len in 0..bytes.len() {
                let outcome = catch_unwind(|| target.run(&bytes[..len]));
                assert!(outcome.is_ok(), "{target:?}: {len} bytes of {name}");
            }
        }
    }
}

fn replay(target: Target) {
    let _alone = alone();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let corpus = files(&folder.join("corpus").join(target.as_str()));
    let findings = files(&folder.join("findings").join(target.as_str()));
    let failed: Vec<String> = target
        .seeds()
        .into_iter()
        .chain(corpus)
        .chain(findings)
        .filter(|(_, bytes)| catch_unwind(|| target.run(bytes)).is_err())
        .map(|(name, _)| name)
        .collect();
    assert_eq!(failed, [""; 0], "what {target:?} does not survive");
}

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn files(folder: &Path) -> Vec<Seed> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.display().to_string(), fs::read(path).unwrap()))
        .collect()
}
