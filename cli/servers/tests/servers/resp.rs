//! As much of a Redis client as these tests need.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

/// Sends one inline command and returns the reply, of a bulk string its content.
pub(crate) fn ask(port: u16, command: &str) -> String {
    let mut connection = connect(port);
    writeln!(connection, "{command}\r").unwrap();
    read_reply(connection)
}

pub(crate) fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).unwrap()
}

pub(crate) fn read_reply(connection: TcpStream) -> String {
    let mut reader = BufReader::new(connection);
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let first = first.trim_end();
    let Some(n_bytes) = first.strip_prefix('$') else {
        return first.to_owned();
    };
    let mut content = vec![0; n_bytes.parse().unwrap()];
    reader.read_exact(&mut content).unwrap();
    String::from_utf8(content).unwrap()
}
