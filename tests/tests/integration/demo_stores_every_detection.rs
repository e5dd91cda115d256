//! The demo tells the truth: it counts in Postgres, and leaves nothing behind.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use passerby_tests::{Passerby, eventually};

/// Processes that work in a folder.
fn n_processes_in(folder: &Path) -> usize {
    let processes = fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|process| fs::read_link(process.ok()?.path().join("cwd")).ok())
        .filter(|cwd| cwd.starts_with(folder))
        .count()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn every_detection_is_stored_and_the_servers_go() {
    // Where its servers live. They may run as another user, who must get in.
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let demo = Passerby::alone().with("TMPDIR", folder.path().to_str().unwrap());

    let running = demo.start(&["demo", "--speed", "0", "--json"]).await;
    eventually("both servers run", async || {
        n_processes_in(folder.path()) >= 2
    })
    .await;
    let report = running.finished().await.json();

    assert_eq!(report["accepted"], 2_522 + 222);
    assert_eq!(report["stored"], 2_522 + 222);
    for nothing in ["dead_lettered", "dropped", "buffered", "in_stream"] {
        assert_eq!(report[nothing], 0, "{nothing}");
    }
    let cameras = report["cameras"].as_array().unwrap();
    let stored: Vec<_> = cameras.iter().map(|c| c["detections"].clone()).collect();
    assert_eq!(stored, [2_522, 222]);
    assert_eq!(cameras[1]["people"]["people"], 13);
    eventually("nothing runs any more", async || {
        n_processes_in(folder.path()) == 0
    })
    .await;
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
