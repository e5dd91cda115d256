use std::{
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use passerby_servers::{
    Appendonly, PostgresOptions, PostgresServer, RedisOptions, RedisServer, Source,
};
use rustix::process::{Pid, Signal, getpgid, kill_process, test_kill_process};

use crate::{eventually::eventually, from};

const ANNOUNCEMENT: &str = "servers:";

fn is_alive(pid: u32) -> bool {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
}

/// A process that holds both servers, and what it said about them.
struct Holder {
    process: Child,
    pids: [u32; 2],
    dirs: [PathBuf; 2],
}

impl Holder {
    fn start() -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "lifetime::holds_both_servers_until_killed",
                "--ignored",
            ])
            .arg("--nocapture")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let said = lines.find_map(|line| Some(line.split_once(ANNOUNCEMENT)?.1.to_owned()));
        let said = said.expect("the holder started both servers");
        let [pid, dir, other_pid, other_dir] = said.split_whitespace().collect::<Vec<_>>()[..]
        else {
            panic!("{said}");
        };
        let pids = [pid, other_pid].map(|pid| pid.parse().unwrap());
        Self {
            process,
            pids,
            dirs: [dir, other_dir].map(PathBuf::from),
        }
    }

    fn nothing_is_left(&self) {
        for pid in self.pids {
            eventually("the server is gone", || !is_alive(pid));
        }
        for dir in &self.dirs {
            eventually("its directory is gone", || !dir.exists());
        }
    }
}

#[test]
#[ignore = "runs in a process of its own, started and killed by other tests"]
fn holds_both_servers_until_killed() {
    let redis = RedisServer::start(RedisOptions {
        appendonly: Appendonly::Always,
        binaries: from(Source::Auto),
        ..RedisOptions::default()
    });
    let redis = redis.unwrap();
    let postgres = PostgresServer::start(PostgresOptions::default()).unwrap();
    println!(
        "{ANNOUNCEMENT} {} {} {} {}",
        redis.pid().unwrap(),
        redis.dir().display(),
        postgres.pid().unwrap(),
        postgres.dir().display()
    );
    loop {
        thread::park();
    }
}

#[test]
fn servers_go_with_a_process_killed_by_sigkill() {
    let mut holder = Holder::start();
    assert!(
        holder.pids.iter().all(|pid| is_alive(*pid)),
        "{:?}",
        holder.pids
    );
    assert!(
        holder.dirs.iter().all(|dir| dir.exists()),
        "{:?}",
        holder.dirs
    );

    holder.process.kill().unwrap();
    holder.process.wait().unwrap();

    holder.nothing_is_left();
}

#[test]
fn servers_go_with_a_process_ended_by_ctrl_c() {
    let mut holder = Holder::start();
    let pid = Pid::from_child(&holder.process);
    for server in holder.pids {
        let server = Pid::from_raw(server.try_into().unwrap()).unwrap();
        // A terminal signals a process group, and the servers are in others.
        assert_ne!(getpgid(Some(server)).unwrap(), getpgid(Some(pid)).unwrap());
    }

    kill_process(pid, Signal::INT).unwrap();
    holder.process.wait().unwrap();

    holder.nothing_is_left();
}

#[test]
fn servers_and_directories_go_with_their_values() {
    let redis = RedisServer::start(RedisOptions::default()).unwrap();
    let postgres = PostgresServer::start(PostgresOptions::default()).unwrap();
    let pids = [redis.pid().unwrap(), postgres.pid().unwrap()];
    let dirs = [redis.dir(), postgres.dir()].map(Path::to_path_buf);

    drop((redis, postgres));

    assert!(!pids.into_iter().any(is_alive), "{pids:?}");
    assert!(!dirs.iter().any(|dir| dir.exists()), "{dirs:?}");
}

#[test]
fn server_that_never_started_leaves_nothing() {
    let settings = vec![("port".to_owned(), "nonsense".to_owned())];
    let options = PostgresOptions {
        settings,
        ..PostgresOptions::default()
    };
    let error = PostgresServer::start(options).unwrap_err();
    assert!(error.to_string().contains("nonsense"), "{error}");
}
