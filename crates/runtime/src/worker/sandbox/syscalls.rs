//! The system calls that a worker keeps.

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
};
use std::collections::BTreeMap;

/// Allowed whatever their arguments. Memory, time, waiting, this process's own descriptors and signals.
const FREE: [c_long; 44] = [
    // the socket
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_close,
    // files that Landlock lets it read
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_faccessat,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_getdents64,
    // memory
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // threads
    libc::SYS_futex,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    // own signals
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // time and chance
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
    // what machine this is
    libc::SYS_uname,
    libc::SYS_sysinfo,
    // Refused by the second filter, in the words that the C library understands.
    libc::SYS_clone3,
    libc::SYS_getrusage,
];

/// Flags of a thread that shares all with its process, and those that a process or a namespace would have.
const THREAD: i64 =
    (libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_FS | libc::CLONE_FILES) as i64;
const NAMESPACES: i64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_PTRACE
    | libc::CLONE_VFORK) as i64;
/// Flags of a file that is changed or made.
const WRITING: i64 =
    (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND | (libc::O_TMPFILE & !libc::O_DIRECTORY)) as i64;

/// Filters the system calls of this process; whether that worked.
pub(super) fn filter() -> bool {
    let Ok((calls, threads)) = programs() else { return false };
    // The second one is installed with the first in force, which lets it: seccomp(2) would not be allowed otherwise.
    apply_filter_all_threads(&threads).is_ok() && apply_filter_all_threads(&calls).is_ok()
}

fn programs() -> Result<(BpfProgram, BpfProgram), BackendError> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let calls = SeccompFilter::new(
        rules()?,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        arch,
    )?;
    // The flags of clone3 are in memory, where a filter cannot read them. Told that the kernel does not have it, the C
    // library uses clone.
    let threads = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        arch,
    )?;
    Ok((calls.try_into()?, threads.try_into()?))
}

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let when = |argument: u8, length: Length, is: Is, value: i64| {
        SeccompRule::new(vec![SeccompCondition::new(argument, length, is, value as u64)?])
    };
    let none_of = |argument, flags: i64| when(argument, Length::Dword, Is::MaskedEq(flags as u64), 0);
    let equal = |argument, value: i64| when(argument, Length::Dword, Is::Eq, value);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = FREE.iter().map(|&call| (call, Vec::new())).collect();
    rules.extend([
        (libc::SYS_openat, vec![none_of(2, WRITING)?]),
        // Nothing that is written can be run: neither new code nor changed code.
        (libc::SYS_mmap, vec![none_of(2, i64::from(libc::PROT_EXEC))?]),
        (libc::SYS_mprotect, vec![none_of(2, i64::from(libc::PROT_EXEC))?]),
        (
            libc::SYS_clone,
            vec![when(
                0,
                Length::Qword,
                Is::MaskedEq((THREAD | NAMESPACES) as u64),
                THREAD,
            )?],
        ),
        // abort(3) sends a signal to itself; nobody else gets one.
        (libc::SYS_tgkill, vec![equal(0, i64::from(std::process::id()))?]),
        // Reads a limit; the new one is the third argument.
        (libc::SYS_prlimit64, vec![when(2, Length::Qword, Is::Eq, 0)?]),
        (
            libc::SYS_fcntl,
            vec![equal(1, i64::from(libc::F_GETFD))?, equal(1, i64::from(libc::F_GETFL))?],
        ),
        // Names of threads and of memory. Not the signal at the parent's death.
        (
            libc::SYS_prctl,
            vec![
                equal(0, i64::from(libc::PR_SET_NAME))?,
                equal(0, i64::from(libc::PR_SET_VMA))?,
            ],
        ),
    ]);
    #[cfg(target_arch = "x86_64")]
    rules.extend([
        (libc::SYS_open, vec![none_of(1, WRITING)?]),
        (libc::SYS_access, Vec::new()),
    ]);
    Ok(rules)
}
