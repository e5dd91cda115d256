use std::fs;

use passerby_consumer::args::parse_duration;
use passerby_tests::{Tool, project, project_file};
use tempfile::TempDir;

use super::compose::default_grace_period;

const UNIT: &str = "passerby-worker@.service";
const TARGET: &str = "passerby-workers.target";
const INSTALL: &str = "it is part of systemd";

/// The last value of a setting.
fn setting(name: &str) -> String {
    let unit = project_file(&format!("deploy/systemd/{UNIT}"));
    let values = unit.lines().filter_map(|line| line.strip_prefix(name));
    let mut values = values.filter_map(|rest| rest.strip_prefix('='));
    values
        .next_back()
        .unwrap_or_else(|| panic!("no {name}="))
        .to_owned()
}

/// The units as they would be installed on a machine that has the program.
fn installed() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in [UNIT, TARGET] {
        let text = project_file(&format!("deploy/systemd/{name}"));
        let text = text.replace("/usr/local/bin/passerby-worker", "/bin/true");
        fs::write(folder.path().join(name), &text).unwrap();
        fs::write(folder.path().join(name.replace('@', "@1")), &text).unwrap();
    }
    folder
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let Some(tool) = Tool::find("systemd-analyze", INSTALL) else {
        return;
    };
    let folder = installed();
    let units = ["./passerby-worker@1.service", "./passerby-workers.target"];
    let args = [
        &["verify", "--man=no", "--recursive-errors=one"],
        &units[..],
    ]
    .concat();
    assert_eq!(tool.run(folder.path(), &args), "");
}

#[test]
fn systemd_counts_the_worker_among_the_well_confined() {
    let Some(tool) = Tool::find("systemd-analyze", INSTALL) else {
        return;
    };
    let folder = installed();
    let args = ["security", "--offline=true", "--no-pager", "--threshold=15"];
    let args = [&args[..], &["./passerby-worker@1.service"]].concat();
    let said = tool.run(folder.path(), &args);
    assert!(said.contains("Overall exposure level"), "{said}");
}

#[test]
fn a_worker_that_stops_is_given_more_than_its_grace_period() {
    let stop = parse_duration(&setting("TimeoutStopSec")).unwrap();
    assert!(stop > default_grace_period(), "{stop:?}");
    assert_eq!(setting("KillSignal"), "SIGTERM");
}

#[test]
fn a_worker_says_when_it_is_ready_and_that_it_lives() {
    assert_eq!(setting("Type"), "notify");
    parse_duration(&setting("WatchdogSec")).unwrap();
    assert_eq!(setting("Restart"), "always");
    assert_eq!(setting("DynamicUser"), "yes");
}

#[test]
fn secrets_come_from_a_file_and_not_from_the_unit() {
    let unit = project_file(&format!("deploy/systemd/{UNIT}"));
    assert!(unit.contains("EnvironmentFile=/etc/passerby/worker.env\n"));
    assert!(!unit.contains("\nEnvironment="), "{unit}");
    assert!(!unit.contains("_URL="));
    assert!(project().join("deploy/systemd/worker.env").is_file());
}
