//! What a worker gives up before it sees a model.
//!
//! | what | how | where |
//! |---|---|---|
//! | descriptors of the node | `close_range` | Linux 5.9 |
//! | living on without the node | `PR_SET_PDEATHSIG`; the socket's end | Linux; everywhere |
//! | memory without end | `RLIMIT_AS`; first to be killed when the machine has none (`oom_score_adj`) | everywhere; Linux |
//! | core files, many descriptors, other processes | `RLIMIT_CORE`, `RLIMIT_NOFILE`, `RLIMIT_NPROC` | everywhere |
//! | rights by set-user-id programs | `no_new_privs` | Linux |
//! | all files but `/proc/cpuinfo` and `/sys/devices/system/cpu`, TCP, signals to others | Landlock | Linux 5.13, 6.7, 6.12 |
//! | all system calls but some 50, and of these: no new process, no file opened for writing, no memory made executable | seccomp | Linux |
//!
//! A call that seccomp refuses fails with `EPERM`, so that a library that can do without it goes on.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod syscalls;

use serde::{Deserialize, Serialize};
use std::fmt;

/// How much of the sandbox must be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sandbox {
    /// Models run in locked-in processes; where the kernel cannot lock them in, they are not loaded.
    Required,
    /// Models run in processes of their own, locked in as far as the kernel can.
    #[default]
    BestEffort,
    /// Models run in the node's process.
    Off,
}

impl Sandbox {
    /// The word of the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::BestEffort => "best-effort",
            Self::Off => "off",
        }
    }
}

/// What is in force in a worker, as it reported after it had locked itself in and before it saw a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Protection {
    /// Version of Landlock's interface that restricts files (and from 4 on TCP, from 6 on signals); 0 without.
    pub landlock: u8,
    /// Whether system calls are filtered.
    pub seccomp: bool,
    /// Whether new programs could get more rights.
    pub no_new_privs: bool,
    /// Bytes of memory that may be added to the library's; 0 without a bound.
    pub memory: u64,
}

impl Protection {
    /// What is not in force, in words; none if all is.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        let missing: Vec<&str> = [
            (self.landlock == 0, "Landlock (Linux 5.13)"),
            (!self.seccomp, "seccomp filters"),
            (!self.no_new_privs, "no_new_privs"),
            (self.memory == 0, "bound on memory"),
        ]
        .into_iter()
        .filter_map(|(missing, name)| missing.then_some(name))
        .collect();
        (!missing.is_empty()).then(|| missing.join(", no "))
    }

    /// What is in force in both.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        Self {
            landlock: self.landlock.min(other.landlock),
            seccomp: self.seccomp && other.seccomp,
            no_new_privs: self.no_new_privs && other.no_new_privs,
            // Zero is no bound at all.
            memory: match (self.memory, other.memory) {
                (0, _) | (_, 0) => 0,
                (this, other) => this.max(other),
            },
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |on| if on { "on" } else { "OFF" };
        match self.landlock {
            0 => f.write_str("Landlock OFF")?,
            version => write!(f, "Landlock {version}")?,
        }
        write!(
            f,
            ", seccomp {}, no_new_privs {}, ",
            word(self.seccomp),
            word(self.no_new_privs)
        )?;
        match self.memory {
            0 => f.write_str("memory UNBOUNDED"),
            bytes => write!(f, "memory {} MiB", bytes >> 20),
        }
    }
}

/// Bounds of one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of address space beside what the process has when it locks itself in.
    pub memory: u64,
    /// Threads of one run; with one, no further can be started.
    pub threads: usize,
}

/// Why a process cannot be locked in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LockError(String);

/// Parts from the process that started this one: closes what was inherited, ends with the parent, leaves its signals to
/// it, makes no core files. What the system does not have is left out; [`lock_in`] reports what matters.
pub fn detach() {
    #[cfg(target_os = "linux")]
    linux::detach();
}

/// Locks this process in for the rest of its life. It must have one thread: Landlock holds threads, not processes, and
/// those that come later are held like the one that made them.
///
/// `start` starts what has threads of its own: it has no files any more, but still all system calls.
///
/// # Errors
/// The process has other threads; or something is missing and [`Sandbox::Required`] asks for all.
pub fn lock_in(sandbox: Sandbox, bounds: &Bounds, start: impl FnOnce()) -> Result<Protection, LockError> {
    if sandbox == Sandbox::Off {
        start();
        return Ok(Protection::default());
    }
    #[cfg(target_os = "linux")]
    let protection = linux::lock_in(bounds, start)?;
    #[cfg(not(target_os = "linux"))]
    let protection = {
        let _ = bounds;
        start();
        Protection::default()
    };
    match protection.missing() {
        Some(missing) if sandbox == Sandbox::Required => Err(LockError(missing)),
        _ => Ok(protection),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let all = Protection {
            landlock: 7,
            seccomp: true,
            no_new_privs: true,
            memory: 1 << 30,
        };
        assert_eq!(all.missing(), None);
        assert_eq!(
            all.to_string(),
            "Landlock 7, seccomp on, no_new_privs on, memory 1024 MiB"
        );
        assert_eq!(
            Protection::default().missing().unwrap(),
            "Landlock (Linux 5.13), no seccomp filters, no no_new_privs, no bound on memory"
        );
        assert_eq!(all.least(Protection::default()), Protection::default());
        assert_eq!(
            Protection::default().to_string(),
            "Landlock OFF, seccomp OFF, no_new_privs OFF, memory UNBOUNDED"
        );
    }

    /// The test harness has threads, which a sandbox would not hold.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_with_threads_is_not_locked_in() {
        let bounds = Bounds {
            memory: 1 << 30,
            threads: 1,
        };
        let error = lock_in(Sandbox::BestEffort, &bounds, || ()).unwrap_err();
        assert!(error.to_string().contains("threads"), "{error}");
    }
}
