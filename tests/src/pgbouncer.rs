use std::{
    env, fs,
    net::{TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{Env, eventually};

/// Whom the pooler runs as where we are root, which it refuses to be.
const NOBODY: u32 = 65_534;

/// The pooler `pgbouncer`, where the machine has it.
#[derive(Debug)]
pub struct PgBouncer(PathBuf);

/// A pooler, running. It is killed when dropped.
#[derive(Debug)]
pub struct RunningPgBouncer {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl PgBouncer {
    /// Looks for it on the path and where Debian puts it.
    pub fn find() -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
        let mut files = folders.map(|folder| folder.join("pgbouncer"));
        files.find(|file| file.is_file()).map(Self)
    }

    /// Starts it before a test's database, in this pool mode.
    pub async fn start(&self, test: &Env, mode: &str) -> RunningPgBouncer {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("pgbouncer.ini");
        // A port that nobody listens on: the pooler takes it before somebody else does, or the test fails.
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let database = test.database();
        let text = format!(
            "[databases]\n{database} = host=127.0.0.1 port={} user=postgres\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = {mode}\nlogfile =\npidfile =\n",
            test.servers.postgres_port(),
        );
        fs::write(&config, text).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let child = self.command(&config).spawn().unwrap();
        let running = RunningPgBouncer {
            child,
            port,
            _dir: dir,
        };
        eventually("the pooler listens", async || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
        .await;
        running
    }

    fn command(&self, config: &Path) -> Command {
        let mut command = Command::new(&self.0);
        command
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

impl RunningPgBouncer {
    /// The test's database, through the pooler.
    pub fn url(&self, test: &Env) -> String {
        format!(
            "postgresql://postgres@127.0.0.1:{}/{}",
            self.port,
            test.database()
        )
    }
}

impl Drop for RunningPgBouncer {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
