//! `opg up`, or single validators, as child processes.

use crate::{Setting, rpc::Rpc};
use eyre::{Result, WrapErr, bail, eyre};
use opg_client::Network;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// A start that takes longer has failed.
const START: Duration = Duration::from_secs(180);
const STOP: Duration = Duration::from_secs(60);
/// Ports from one network's base to the next.
const PORTS: u16 = 700;

/// A network's folder and ports; running or not.
#[derive(Debug)]
pub(crate) struct Place {
    opg: PathBuf,
    folder: tempfile::TempDir,
    port_base: u16,
}

/// A running network. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// From the start of the process to its line `network ready`; zero for a single validator.
    pub(crate) ready: Duration,
}

impl Place {
    /// An empty folder. `slot` separates the ports of networks that follow each other closely.
    pub(crate) fn new(setting: &Setting, slot: u16) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("opg-bench-").tempdir()?;
        let port_base = setting.port_base + (slot % 16) * PORTS;
        Ok(Self {
            opg: setting.opg.clone(),
            folder,
            port_base,
        })
    }

    /// The network's own folder.
    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().join("network")
    }

    fn up(&self, args: &[&str]) -> Command {
        let mut command = self.command(&["up"]);
        command.args(args).arg("--port-base").arg(self.port_base.to_string());
        command
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.opg);
        // A home of its own: `opg up` notes the last network there, and the user's must stay the user's.
        command
            .args(args)
            .env("HOME", self.folder.path())
            .env("XDG_DATA_HOME", self.folder.path().join("data"));
        command.env_remove("OPG_NETWORK").stdin(Stdio::null());
        command
    }

    /// Writes keys, genesis and configurations without starting anything.
    pub(crate) fn write(&self) -> Result<()> {
        let dir = self.dir();
        let output = self.up(&["--split", &dir.to_string_lossy()]).output()?;
        if !output.status.success() {
            bail!("opg up --split: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Starts one validator of a network that [`Self::write`] wrote, as a process of its own. It does not serve yet.
    pub(crate) fn start_validator(&self, index: usize) -> Result<Running> {
        let config = self.dir().join(format!("validator-{index}/config.toml"));
        let mut command = self.command(&["node", "full", "--config", &config.to_string_lossy()]);
        command.stdout(Stdio::null()).stderr(self.log()?);
        let child = command
            .spawn()
            .wrap_err_with(|| format!("cannot start {}", self.opg.display()))?;
        Ok(Running {
            child,
            ready: Duration::ZERO,
        })
    }

    fn log(&self) -> Result<std::fs::File> {
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))?;
        Ok(file)
    }

    /// Starts the process; the caller waits until it serves.
    fn spawn(&self) -> Result<(Child, Instant)> {
        let log = self.log()?;
        let dir = self.dir();
        let mut command = self.up(&["--dir", &dir.to_string_lossy()]);
        command.stdout(Stdio::piped()).stderr(log);
        let start = Instant::now();
        let child = command
            .spawn()
            .wrap_err_with(|| format!("cannot start {}", self.opg.display()))?;
        Ok((child, start))
    }

    /// Starts the network and waits until it is ready.
    pub(crate) fn start(&self) -> Result<Running> {
        let (mut child, start) = self.spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| eyre!("no stdout"))?;
        let (send, receive) = channel();
        // Reads to the end, so that the child never waits for a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.trim() == "network ready" {
                    let _ = send.send(start.elapsed());
                }
            }
        });
        let mut running = Running {
            child,
            ready: Duration::ZERO,
        };
        match receive.recv_timeout(START) {
            Ok(ready) => running.ready = ready,
            Err(RecvTimeoutError::Timeout) => bail!("opg up is not ready after {START:?}:\n{}", self.log_tail()),
            Err(RecvTimeoutError::Disconnected) => bail!("opg up ended before it was ready:\n{}", self.log_tail()),
        }
        Ok(running)
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// The network's description, once it has been ready.
    pub(crate) fn network(&self) -> Result<Network> {
        Ok(Network::load(&self.dir())?)
    }

    /// JSON-RPC of each validator.
    pub(crate) fn rpcs(&self) -> Result<Vec<Rpc>> {
        self.network()?.file.rpc.iter().map(|url| Rpc::new(url)).collect()
    }
}

impl Running {
    /// Resident memory of the process in MiB.
    pub(crate) fn rss_mib(&self) -> Option<f64> {
        let id = self.child.id().to_string();
        let kib = match std::fs::read_to_string(Path::new("/proc").join(&id).join("status")) {
            Ok(text) => text
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:"))?
                .split_whitespace()
                .next()?
                .to_owned(),
            Err(_) => {
                let output = Command::new("ps").args(["-o", "rss=", "-p", &id]).output().ok()?;
                String::from_utf8(output.stdout).ok()?.trim().to_owned()
            }
        };
        Some(kib.parse::<f64>().ok()? / 1024.0)
    }

    /// Stops the process without ending it (SIGSTOP): to its peers it is a machine that hangs.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.signal("-STOP")
    }

    /// Lets a frozen process go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.signal("-CONT")
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let status = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status()?;
        if !status.success() {
            bail!("kill {signal} failed");
        }
        Ok(())
    }

    /// Stops the network in order.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.signal("-TERM")?;
        let start = Instant::now();
        while start.elapsed() < STOP {
            if let Some(status) = self.child.try_wait()? {
                if !status.success() {
                    bail!("opg ended with {status}");
                }
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("opg did not stop within {STOP:?}")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
