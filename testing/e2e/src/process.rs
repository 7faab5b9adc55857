//! Child processes: the `opg` binary as a long-running role or as one command.

use serde_json::Value;
use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// How long a network may take to say that it is ready. Generous: CI machines are loaded and builds are unoptimised.
pub const OPG_START_TIMEOUT: Duration = Duration::from_secs(90);

/// The `opg` binary built beside this test.
///
/// # Panics
/// If it is not there; `cargo xtask test` builds it.
pub fn opg_binary() -> PathBuf {
    let mut path = std::env::current_exe().expect("path of the test");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    let binary = path.join("opg");
    assert!(
        binary.exists(),
        "{} is missing: run `cargo build -p opg` first",
        binary.display()
    );
    binary
}

/// What one finished command left.
#[derive(Debug)]
pub struct CommandOutput {
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl CommandOutput {
    /// Exit code; -1 if ended by a signal.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Panics with both outputs unless the exit code is `code`.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| {
            panic!(
                "stdout is not one JSON document ({e}):\n{}\nstderr:\n{}",
                self.stdout, self.stderr
            )
        })
    }
}

/// Runs one `opg` command to its end, with an own home folder so that nothing of the user is touched.
#[track_caller]
pub fn opg(home: &Path, args: &[&str]) -> CommandOutput {
    let out = Command::new(opg_binary())
        .args(args)
        .env("HOME", home)
        .env("XDG_DATA_HOME", home.join("data"))
        .env_remove("OPG_NETWORK")
        .stdin(Stdio::null())
        .output()
        .expect("opg starts");
    CommandOutput {
        status: out.status,
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// A long-running `opg` process. Killed (by its own id) when dropped.
#[derive(Debug)]
pub struct Opg {
    child: Child,
    log: PathBuf,
    name: String,
}

impl Opg {
    /// Starts `opg ARGS`, both outputs into `logs/NAME.log` (appended, so that a restart keeps the history).
    pub fn start(logs: &Path, name: &str, home: &Path, args: &[&str]) -> Self {
        std::fs::create_dir_all(logs).expect("log folder");
        let log = logs.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log).expect("log file");
        let child = Command::new(opg_binary())
            .args(args)
            .env("HOME", home)
            .env("XDG_DATA_HOME", home.join("data"))
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("log file"))
            .stderr(out)
            .spawn()
            .expect("opg starts");
        Self {
            child,
            log,
            name: name.into(),
        }
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything the process printed so far.
    pub fn output(&self) -> String {
        let mut text = String::new();
        let _ = File::open(&self.log).and_then(|mut f| f.read_to_string(&mut text));
        text
    }

    /// Waits until the output contains `needle` for the `count`-th time.
    ///
    /// # Panics
    /// If the process ends or time runs out first; the panic shows the log.
    #[track_caller]
    pub fn wait_for(&mut self, needle: &str, count: usize, timeout: Duration) {
        let end = Instant::now() + timeout;
        loop {
            let output = self.output();
            if output.matches(needle).count() >= count {
                return;
            }
            if let Some(status) = self.child.try_wait().expect("wait") {
                panic!("{} ended ({status}) before it printed {needle:?}:\n{output}", self.name);
            }
            assert!(
                Instant::now() < end,
                "{} did not print {needle:?} within {timeout:?}:\n{output}",
                self.name
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, then waits for the end.
    ///
    /// # Panics
    /// If the process does not end within 30 s.
    #[track_caller]
    pub fn terminate(mut self) -> ExitStatus {
        let status = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()
            .expect("kill");
        assert!(status.success(), "kill -TERM failed");
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(
                Instant::now() < end,
                "{} ignores SIGTERM:\n{}",
                self.name,
                self.output()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Opg {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let output = self.output();
            let tail: Vec<&str> = output.lines().rev().take(60).collect();
            eprintln!("---- last lines of {} ----", self.name);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
