//! A private Postgres.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Pid;

use crate::{
    error::ServerError,
    find::{self, Binaries, Kind},
    folders, port,
    supervisor::{Stop, Supervisor, pid_number},
    template,
    user::User,
};

const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest message that we wait for in full; the start-up messages are far shorter.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// What a private Postgres is like.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// Where the binaries come from.
    pub binaries: Binaries,
    /// Whether a commit waits for the disk. Without it, data survives a killed server and not a power
    /// cut, which is nothing to a server that goes with its process.
    pub fsync: bool,
    /// Further settings, unquoted; they come last and so win.
    pub settings: Vec<(String, String)>,
}

/// A Postgres of our own, on a free port of the loopback interface and a Unix socket. The user is
/// `postgres`, without a password. It is gone, with its data, when this value or the process is.
#[derive(Debug)]
pub struct PostgresServer {
    supervisor: Supervisor,
    port: u16,
    binary: find::Binary,
}

impl PostgresServer {
    /// Starts the server and waits until it accepts connections.
    ///
    /// # Errors
    ///
    /// See [`ServerError`]; [`ServerError::Missing`] is the one a user can do something about.
    pub fn start(options: PostgresOptions) -> Result<Self, ServerError> {
        let user = User::for_servers()?;
        let binary = find::find(Kind::Postgres, &options.binaries, user.as_ref())?;
        let command = ["-D", "data", "--config-file=postgresql.conf"].map(Path::new);
        let command = [&[&*binary.path], &command[..]].concat();
        let mut supervisor =
            Supervisor::spawn(Kind::Postgres, Stop::Quit, user.as_ref(), &command)?;
        template::make_data_dir(supervisor.dir(), &binary, &options.binaries, user.as_ref())?;
        let configure = |dir: &Path, port| {
            let path = dir.join("postgresql.conf");
            fs::write(&path, config(&options, dir, port)).map_err(ServerError::io("write", &path))
        };
        let port = port::start(&mut supervisor, Kind::Postgres, configure, accepts)?;
        Ok(Self {
            supervisor,
            port,
            binary,
        })
    }

    /// `postgresql://postgres@127.0.0.1:PORT/DBNAME`; `dbname` is not escaped.
    pub fn url(&self, dbname: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{dbname}", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The private directory, with the log, the data and the Unix socket.
    pub fn dir(&self) -> &Path {
        self.supervisor.dir()
    }

    /// The process ID of the postmaster; `None` once killed.
    pub fn pid(&self) -> Option<u32> {
        self.supervisor.pid().map(pid_number)
    }

    /// What the binary says its version is.
    pub fn version_line(&self) -> &str {
        &self.binary.version_line
    }

    /// The file that the server logs to.
    pub fn log_path(&self) -> PathBuf {
        self.dir().join("log")
    }

    /// A `psql` for people to look around with: the one that belongs to the server, or one on `PATH`.
    pub fn psql_path(&self) -> Option<PathBuf> {
        let beside = self.binary.path.with_file_name("psql");
        let on_path = folders::on_path().into_iter().map(|dir| dir.join("psql"));
        [beside]
            .into_iter()
            .chain(on_path)
            .find(|path| path.is_file())
    }

    /// Shuts the server down the immediate way (SIGQUIT), as a crash would, and waits for it and its
    /// children to be gone.
    ///
    /// # Errors
    ///
    /// [`ServerError::Unkillable`] when it does not go.
    pub fn kill(&mut self) -> Result<(), ServerError> {
        self.supervisor.kill()
    }

    /// Kills the server if it runs, and starts it on the same port and data. It recovers from its WAL.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start); also when somebody has taken the port meanwhile.
    pub fn restart(&mut self) -> Result<(), ServerError> {
        self.kill()?;
        let port = self.port;
        self.supervisor
            .start(|dir, pid| accepts(port, dir, pid))
            .map_err(|unready| self.supervisor.unready(&unready))
    }
}

fn config(options: &PostgresOptions, dir: &Path, port: u16) -> String {
    let on_off = |on| if on { "on" } else { "off" }.to_owned();
    let ours = [
        ("listen_addresses", "127.0.0.1".to_owned()),
        ("port", port.to_string()),
        ("unix_socket_directories", dir.display().to_string()),
        ("fsync", on_off(options.fsync)),
        ("full_page_writes", on_off(options.fsync)),
        ("timezone", "UTC".to_owned()),
        ("log_timezone", "UTC".to_owned()),
        ("logging_collector", "off".to_owned()),
    ];
    let ours = ours.iter().map(|(name, value)| (*name, value));
    let theirs = options
        .settings
        .iter()
        .map(|(name, value)| (name.as_str(), value));
    let mut config = String::from("include 'data/postgresql.conf'\n");
    for (name, value) in ours.chain(theirs) {
        let value = value.replace('\\', r"\\").replace('\'', "''");
        writeln!(config, "{name} = '{value}'").expect("writing to a String does not fail");
    }
    config
}

/// Whether the server `pid` accepts connections.
///
/// On a port that we lost to somebody else, their Postgres would answer; so the lock file in our own
/// data directory has to say first that ours has bound the port and is ready.
fn accepts(port: u16, dir: &Path, pid: Pid) -> bool {
    let lock_file = fs::read_to_string(dir.join("data/postmaster.pid")).unwrap_or_default();
    let is_ready = lock_file.lines().next() == Some(&pid_number(pid).to_string())
        && lock_file
            .lines()
            .nth(7)
            .is_some_and(|status| status.trim() == "ready");
    is_ready && matches!(handshake(port), Ok(true))
}

/// Starts a session and ends it. `false`: the server has refused, as it does with 57P03 while it
/// recovers.
fn handshake(port: u16) -> io::Result<bool> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    connection.set_read_timeout(Some(REPLY_TIMEOUT))?;
    let parameters = b"user\0postgres\0database\0postgres\0\0";
    let length = u32::try_from(8 + parameters.len()).map_err(io::Error::other)?;
    connection.write_all(&[&length.to_be_bytes()[..], &[0, 3, 0, 0], parameters].concat())?;
    loop {
        let mut header = [0; 5];
        connection.read_exact(&mut header)?;
        let [tag, length @ ..] = header;
        match tag {
            b'Z' => break,
            b'E' => return Ok(false),
            _ => {}
        }
        let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
        if !(4..=MAX_MESSAGE_BYTES).contains(&length) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        connection.read_exact(&mut vec![0; length - 4])?;
    }
    connection.write_all(b"X\0\0\0\x04")?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_quoted_and_the_callers_come_last() {
        let settings = vec![("port".to_owned(), r"it's \".to_owned())];
        let options = PostgresOptions {
            settings,
            ..PostgresOptions::default()
        };
        let config = config(&options, Path::new("/tmp/x"), 5432);
        assert!(config.contains("\nfsync = 'off'\n"), "{config}");
        assert!(config.ends_with("port = 'it''s \\\\'\n"), "{config}");
    }
}
