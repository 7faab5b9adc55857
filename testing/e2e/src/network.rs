//! A whole network as one `opg up` process.

use crate::{OPG_START_TIMEOUT, Opg, PortLock, Rpc, port_base};
use serde_json::Value;
use std::{path::PathBuf, process::ExitStatus};

/// A running local network in a temporary home folder; ended when dropped.
#[derive(Debug)]
pub struct Network {
    home: tempfile::TempDir,
    base: u16,
    up: Option<Opg>,
    file: Value,
    _ports: PortLock,
}

impl Network {
    /// Starts `opg up` in an empty folder and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready; the panic shows its log.
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// The same with parameters of the genesis that differ from the usual ones.
    ///
    /// # Panics
    /// As [`Network::start`].
    pub fn start_with(parameters: Option<&Value>) -> Self {
        Self::start_of(4, parameters)
    }

    /// The same with another number of validators.
    ///
    /// # Panics
    /// As [`Network::start`].
    pub fn start_of(validators: u16, parameters: Option<&Value>) -> Self {
        let validators = validators.to_string();
        let home = tempfile::tempdir().expect("temporary folder");
        let (base, ports) = port_base();
        let mut network = Self {
            home,
            base,
            up: None,
            file: Value::Null,
            _ports: ports,
        };
        match parameters {
            Some(parameters) => {
                let path = network.home.path().join("parameters.json");
                std::fs::write(&path, parameters.to_string()).expect("parameters");
                let path = path.to_str().expect("utf-8 path");
                network.run_with(&["--validators", &validators, "--parameters", path]);
            }
            None => network.run_with(&["--validators", &validators]),
        }
        network
    }

    /// Starts `opg up` again in the same folder after [`Network::stop`].
    pub fn run(&mut self) {
        self.run_with(&[]);
    }

    fn run_with(&mut self, more: &[&str]) {
        let (dir, port) = (self.dir(), self.base.to_string());
        let arguments = ["up", "--dir", dir.to_str().expect("utf-8 path"), "--port-base", &port];
        let arguments = [&arguments[..], more].concat();
        let mut up = Opg::start(&self.home.path().join("logs"), "up", self.home.path(), &arguments);
        let starts = up.output().matches("network ready").count() + 1;
        up.wait_for("network ready", starts, OPG_START_TIMEOUT);
        self.up = Some(up);
        let bytes = std::fs::read(self.dir().join("network.json")).expect("network.json");
        self.file = serde_json::from_slice(&bytes).expect("network.json is JSON");
    }

    /// SIGTERM, and the status that the process ends with.
    pub fn stop(&mut self) -> ExitStatus {
        self.up.take().expect("running").terminate()
    }

    /// The user's home folder.
    pub fn home(&self) -> &std::path::Path {
        self.home.path()
    }

    /// The network's folder.
    pub fn dir(&self) -> PathBuf {
        self.home.path().join("net")
    }

    /// Content of `network.json`.
    pub fn file(&self) -> &Value {
        &self.file
    }

    /// JSON-RPC addresses of the four validators.
    pub fn rpc_urls(&self) -> Vec<&str> {
        let list = self.file["rpc"].as_array().expect("rpc");
        list.iter().map(|url| url.as_str().expect("url")).collect()
    }

    /// Clients of [`Network::rpc_urls`].
    pub fn rpcs(&self) -> Vec<Rpc> {
        self.rpc_urls().into_iter().map(Rpc::new).collect()
    }

    /// Address of the inference node.
    pub fn node_url(&self) -> &str {
        self.file["nodes"][0]["url"].as_str().expect("url of the node")
    }

    /// Key of the demo wallet, hex.
    pub fn demo_key(&self) -> String {
        std::fs::read_to_string(self.dir().join("demo.key"))
            .expect("demo key")
            .trim()
            .to_owned()
    }
}

impl Network {
    /// As [`Network::start`], with a genesis file that `edit` has changed.
    ///
    /// # Panics
    /// As [`Network::start`].
    pub fn start_edited(edit: impl FnOnce(&mut Value)) -> Self {
        Self::start_prepared(|dir| {
            let genesis = dir.join("genesis.json");
            let mut value = serde_json::from_slice(&std::fs::read(&genesis).expect("genesis.json")).expect("JSON");
            edit(&mut value);
            std::fs::write(&genesis, value.to_string()).expect("genesis.json");
        })
    }

    /// As [`Network::start`], after `prepare` has changed the network's folder.
    ///
    /// # Panics
    /// As [`Network::start`].
    pub fn start_prepared(prepare: impl FnOnce(&std::path::Path)) -> Self {
        let home = tempfile::tempdir().expect("temporary folder");
        let (base, ports) = port_base();
        let mut network = Self {
            home,
            base,
            up: None,
            file: Value::Null,
            _ports: ports,
        };
        let (dir, port) = (network.dir(), base.to_string());
        let path = dir.to_str().expect("utf-8 path");
        crate::opg(network.home(), &["up", "--split", path, "--port-base", &port]).expect_code(0);
        prepare(&dir);
        network.run();
        network
    }
}
