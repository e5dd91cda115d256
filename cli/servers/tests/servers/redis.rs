use std::{io::Write, path::Path};

use passerby_servers::{Appendonly, RedisOptions, RedisServer, Source};

use crate::{
    from, installed,
    resp::{ask, connect, read_reply},
};

fn options(source: Source) -> RedisOptions {
    RedisOptions {
        binaries: from(source),
        ..RedisOptions::default()
    }
}

#[test]
fn server_answers_where_its_url_says_and_never_evicts() {
    for source in [Source::System, Source::Fetched] {
        let Some(server) = installed(RedisServer::start(options(source))) else {
            continue;
        };
        assert_eq!(
            server.url(),
            format!("redis://127.0.0.1:{}/0", server.port())
        );
        let socket = server.unix_url().replace("redis+unix://", "");
        assert!(Path::new(&socket).exists(), "{socket}");
        assert!(
            server.version_line().contains(" v="),
            "{}",
            server.version_line()
        );
        assert_eq!(ask(server.port(), "SET key value"), "+OK");
        assert_eq!(ask(server.port(), "GET key"), "value");
        let memory = ask(server.port(), "INFO memory");
        assert!(memory.contains("maxmemory_policy:noeviction"), "{memory}");
    }
}

#[test]
fn acknowledged_writes_survive_a_kill_with_appendonly_always() {
    for source in [Source::System, Source::Fetched] {
        let options = RedisOptions {
            appendonly: Appendonly::Always,
            ..options(source)
        };
        let Some(mut server) = installed(RedisServer::start(options)) else {
            continue;
        };
        let (port, pid) = (server.port(), server.pid());
        assert_eq!(ask(port, "SET key value"), "+OK");

        server.kill().unwrap();
        assert_eq!(server.pid(), None);
        server.restart().unwrap();

        assert_eq!(server.port(), port);
        assert_ne!(server.pid(), pid);
        assert_eq!(ask(port, "GET key"), "value");
    }
}

#[test]
fn without_appendonly_a_restart_starts_empty() {
    let mut server = RedisServer::start(options(Source::Auto)).unwrap();
    assert_eq!(ask(server.port(), "SET key value"), "+OK");
    server.restart().unwrap();
    assert_eq!(ask(server.port(), "EXISTS key"), ":0");
}

#[test]
fn paused_server_keeps_connections_and_answers_when_resumed() {
    let mut server = RedisServer::start(options(Source::Auto)).unwrap();
    let mut connection = connect(server.port());
    connection.set_nonblocking(true).unwrap();

    server.pause().unwrap();
    connection.write_all(b"PING\r\n").unwrap();
    let blocked = connection.peek(&mut [0]).unwrap_err();
    assert_eq!(blocked.kind(), std::io::ErrorKind::WouldBlock);

    server.resume().unwrap();
    connection.set_nonblocking(false).unwrap();
    assert_eq!(read_reply(connection), "+PONG");
}

#[test]
fn paused_server_still_goes_with_its_value() {
    let mut server = RedisServer::start(options(Source::Auto)).unwrap();
    server.pause().unwrap();
    let dir = server.dir().to_path_buf();
    drop(server);
    assert!(!dir.exists());
}

#[test]
fn callers_directives_win_and_a_wrong_one_is_shown() {
    let directive = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let config = directive("maxclients", "77");
    let server = RedisServer::start(RedisOptions {
        config,
        ..options(Source::Auto)
    })
    .unwrap();
    let clients = ask(server.port(), "INFO clients");
    assert!(clients.contains("maxclients:77"), "{clients}");

    let config = directive("no-such-directive", "1");
    let error = RedisServer::start(RedisOptions {
        config,
        ..options(Source::Auto)
    })
    .unwrap_err();
    assert!(error.to_string().contains("no-such-directive"), "{error}");
}

#[test]
fn servers_run_side_by_side() {
    let servers = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| RedisServer::start(options(Source::Auto))))
            .collect();
        starts
            .into_iter()
            .map(|start| start.join().unwrap().unwrap())
            .collect::<Vec<_>>()
    });
    for (number, server) in servers.iter().enumerate() {
        assert_eq!(ask(server.port(), &format!("SET number {number}")), "+OK");
    }
    for (number, server) in servers.iter().enumerate() {
        assert_eq!(ask(server.port(), "GET number"), number.to_string());
    }
}
