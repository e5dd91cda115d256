//! A private Redis.

use std::{
    fmt::Write as _,
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    error::ServerError,
    find::{self, Binaries, Kind},
    port,
    supervisor::{Stop, Supervisor, pid_number},
    user::User,
};

const SOCKET: &str = "redis.sock";
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether Redis writes an append-only file, and when it syncs it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Appendonly {
    /// No file: whatever Redis held is lost when it is killed.
    #[default]
    No,
    /// Synced every second.
    EverySec,
    /// Synced before each reply.
    Always,
}

/// What a private Redis is like.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// Where the binary comes from.
    pub binaries: Binaries,
    /// The append-only file.
    pub appendonly: Appendonly,
    /// Further directives, as they would stand in `redis.conf`; they come last and so win.
    pub config: Vec<(String, String)>,
}

/// A Redis of our own, on a free port of the loopback interface. It keeps nothing but what
/// [`Appendonly`] says, never evicts, and is gone, with its directory, when this value or the process
/// is.
#[derive(Debug)]
pub struct RedisServer {
    supervisor: Supervisor,
    port: u16,
    version_line: String,
}

impl RedisServer {
    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    ///
    /// See [`ServerError`]; [`ServerError::Missing`] is the one a user can do something about.
    pub fn start(options: RedisOptions) -> Result<Self, ServerError> {
        let user = User::for_servers()?;
        let binary = find::find(Kind::Redis, &options.binaries, user.as_ref())?;
        let command = [&*binary.path, Path::new("redis.conf")];
        let mut supervisor = Supervisor::spawn(Kind::Redis, Stop::Kill, user.as_ref(), &command)?;
        let configure = |dir: &Path, port| {
            let path = dir.join("redis.conf");
            fs::write(&path, config(&options, port)).map_err(ServerError::io("write", &path))
        };
        let port = port::start(&mut supervisor, Kind::Redis, configure, |_, dir, _| {
            answers(dir)
        })?;
        Ok(Self {
            supervisor,
            port,
            version_line: binary.version_line,
        })
    }

    /// `redis://127.0.0.1:PORT/0`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// `redis+unix://PATH`
    pub fn unix_url(&self) -> String {
        format!("redis+unix://{}", self.dir().join(SOCKET).display())
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The private directory, with the log and the append-only file.
    pub fn dir(&self) -> &Path {
        self.supervisor.dir()
    }

    /// The process ID; `None` once killed.
    pub fn pid(&self) -> Option<u32> {
        self.supervisor.pid().map(pid_number)
    }

    /// What the binary says its version is.
    pub fn version_line(&self) -> &str {
        &self.version_line
    }

    /// The file that the server logs to.
    pub fn log_path(&self) -> PathBuf {
        self.dir().join("log")
    }

    /// Kills the server with SIGKILL and waits for it to be gone.
    ///
    /// # Errors
    ///
    /// [`ServerError::Unkillable`] when it does not go.
    pub fn kill(&mut self) -> Result<(), ServerError> {
        self.supervisor.kill()
    }

    /// Kills the server if it runs, and starts it on the same port and directory.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start); also when somebody has taken the port meanwhile.
    pub fn restart(&mut self) -> Result<(), ServerError> {
        self.kill()?;
        self.supervisor
            .start(|dir, _| answers(dir))
            .map_err(|unready| self.supervisor.unready(&unready))
    }

    /// Stops the server in its tracks (SIGSTOP): connections stay open and nothing answers.
    ///
    /// # Errors
    ///
    /// [`ServerError::NotRunning`] after [`kill`](Self::kill).
    pub fn pause(&mut self) -> Result<(), ServerError> {
        self.supervisor.signal(Signal::STOP)
    }

    /// Lets a paused server go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// [`ServerError::NotRunning`] after [`kill`](Self::kill).
    pub fn resume(&mut self) -> Result<(), ServerError> {
        self.supervisor.signal(Signal::CONT)
    }
}

fn config(options: &RedisOptions, port: u16) -> String {
    let (appendonly, appendfsync) = match options.appendonly {
        Appendonly::No => ("no", "no"),
        Appendonly::EverySec => ("yes", "everysec"),
        Appendonly::Always => ("yes", "always"),
    };
    let mut config = format!(
        "bind 127.0.0.1\n\
         port {port}\n\
         unixsocket {SOCKET}\n\
         unixsocketperm 700\n\
         save \"\"\n\
         appendonly {appendonly}\n\
         appendfsync {appendfsync}\n\
         maxmemory-policy noeviction\n"
    );
    for (name, value) in &options.config {
        writeln!(config, "{name} {value}").expect("writing to a String does not fail");
    }
    config
}

/// Whether the server has loaded its data and answers.
///
/// Asked on the socket in the private directory: on a port that we lost to somebody else, their Redis
/// would answer. The socket comes after the port, so the port is ours by then.
fn answers(dir: &Path) -> bool {
    let ping = || {
        let mut connection = UnixStream::connect(dir.join(SOCKET))?;
        connection.set_read_timeout(Some(REPLY_TIMEOUT))?;
        connection.write_all(b"PING\r\n")?;
        let mut reply = [0; 5];
        connection.read_exact(&mut reply)?;
        Ok::<_, std::io::Error>(reply)
    };
    // -NOAUTH: a password was among the caller's own directives.
    matches!(ping(), Ok(reply) if &reply == b"+PONG" || &reply == b"-NOAU")
}
