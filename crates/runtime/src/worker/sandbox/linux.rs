//! Linux.
#![allow(
    unsafe_code,
    reason = "prctl, setrlimit, signal and close_range have no safe form in the packages that we use"
)]

use super::{Bounds, LockError, Protection, syscalls};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, LandlockStatus, RestrictionStatus, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use libc::{c_int, c_uint, rlimit};

/// What may still be read: how the engine learns what the processor can do. It says nothing about the machine's users.
const READABLE: [&str; 2] = ["/proc/cpuinfo", "/sys/devices/system/cpu"];
/// Descriptors that a worker may have: its socket twice, the null device, and a file of the above.
const DESCRIPTORS: u64 = 16;
/// Address space of a thread: its stack and an arena of the allocator.
const PER_THREAD: u64 = 160 << 20;

#[cfg(target_env = "musl")]
type Resource = c_int;
#[cfg(not(target_env = "musl"))]
type Resource = libc::__rlimit_resource_t;

pub(super) fn detach() {
    // A terminal's Ctrl-C and a service manager's SIGTERM reach the whole group or control group: the node decides when its
    // workers end, by closing their sockets.
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: ignoring a signal installs no code of ours; no other thread exists that could mind.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // SAFETY: no pointers; changes only how this process ends.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // SAFETY: this is the start of `main`: nothing in this process owns a descriptor but the three standard streams, so
    // what is closed here was inherited by mistake and nobody will use its number. Linux before 5.9 has no such call and
    // refuses it.
    unsafe { libc::syscall(libc::SYS_close_range, 3, c_uint::MAX, 0) };
    limit(libc::RLIMIT_CORE, 0);
    limit(libc::RLIMIT_NOFILE, DESCRIPTORS);
    // When the machine has no memory left, this process goes first. Raising it needs no right.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

pub(super) fn lock_in(bounds: &Bounds, start: impl FnOnce()) -> Result<Protection, LockError> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads != 1 {
        return Err(LockError(format!(
            "way to hold the {threads} threads that this process has already (expected 1, read from /proc/self/task)"
        )));
    }
    let extra = PER_THREAD.saturating_mul(bounds.threads.saturating_sub(1) as u64);
    let memory = bounds.memory.saturating_add(extra);
    let bounded = address_space().is_some_and(|now| limit(libc::RLIMIT_AS, now.saturating_add(memory)));
    // SAFETY: no pointers; the other arguments must be zero.
    let no_new_privs = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } == 0;
    let landlock = restrict().map_or(0, |status| version(&status));
    start();
    if bounds.threads <= 1 {
        // Counts threads too, and all of the user's: with a limit of none, none can be added. Root is exempt.
        limit(libc::RLIMIT_NPROC, 0);
    }
    // For all threads: those that were just started, too.
    let seccomp = syscalls::filter();
    Ok(Protection {
        landlock,
        seccomp,
        no_new_privs,
        memory: if bounded { memory } else { 0 },
    })
}

/// Bytes of address space in use.
fn address_space() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Sets a soft and hard limit; whether that worked.
fn limit(what: Resource, most: u64) -> bool {
    let limit = rlimit {
        rlim_cur: most,
        rlim_max: most,
    };
    // SAFETY: the pointer is to a whole rlimit on the stack, which the call only reads.
    let done: c_int = unsafe { libc::setrlimit(what, &raw const limit) };
    done == 0
}

/// No file, no TCP, no signal or abstract socket of others, as far as the kernel knows these.
fn restrict() -> Result<RestrictionStatus, RulesetError> {
    // Of newer interfaces the package takes what the kernel has.
    let newest = ABI::V7;
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(newest))?
        .handle_access(AccessNet::from_all(newest))?
        .scope(Scope::from_all(newest))?
        .create()?
        .add_rules(path_beneath_rules(READABLE, AccessFs::ReadFile | AccessFs::ReadDir))?
        .restrict_self()
}

fn version(status: &RestrictionStatus) -> u8 {
    match (&status.ruleset, &status.landlock) {
        (RulesetStatus::NotEnforced, _) => 0,
        (_, LandlockStatus::Available { effective_abi, .. }) => u8::try_from(*effective_abi as i32).unwrap_or(0),
        _ => 0,
    }
}
