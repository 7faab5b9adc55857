//! Harness for tests that run the real `opg` binary over real sockets.
//!
//! Purpose: start networks and single roles as child processes, talk to them as a stranger would (JSON-RPC, HTTP, the command
//! line), stop or kill them by process id, and show their logs when a test fails. Nothing here links the node crates: what
//! these tests see is what a user sees. A validator that breaks the rules is made of the consensus library.

#![forbid(unsafe_code)]

pub mod abi;
mod cast;
mod equivocator;
mod network;
mod process;
mod rpc;
pub mod tls;

pub use cast::Cast;
pub use equivocator::{Equivocator, Traitor, notarize};
pub use network::Network;
pub use process::{CommandOutput, OPG_START_TIMEOUT, Opg, opg, opg_binary};
pub use rpc::{Rpc, wait_until};

use std::{
    fs::OpenOptions,
    path::PathBuf,
    sync::atomic::{AtomicU16, Ordering},
};

/// Folder of the repository's test fixtures.
pub fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

/// A port base such that all ports a network uses (JSON-RPC, p2p, inference node, metrics) lie in a block that no other test
/// of this machine uses. Tests of one process count up; processes are told apart by a lock file per block.
///
/// # Panics
/// If no free block is left.
pub fn port_base() -> (u16, PortLock) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let dir = std::env::temp_dir().join("opg-e2e-ports");
    std::fs::create_dir_all(&dir).expect("folder for port locks");
    for _ in 0..36 {
        let slot = NEXT.fetch_add(1, Ordering::Relaxed) % 36;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join(slot.to_string()))
            .expect("lock file");
        if file.try_lock().is_err() {
            continue;
        }
        // a network uses base … base + 155 and base + 555 … base + 559; below the range of ephemeral ports
        let base = 10_000 + slot * 600;
        return (base, PortLock(file));
    }
    panic!("no free block of ports");
}

/// Keeps a block of ports for one test; released when dropped, also when the process dies.
#[derive(Debug)]
pub struct PortLock(#[expect(dead_code, reason = "held for its lock")] std::fs::File);
