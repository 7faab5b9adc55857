//! A worker by itself: what the tests of this crate start, and programs that embed it and are not `opg`.
//!
//! With `probe MEMORY_BYTES` it locks itself in as a worker does, tries what a worker must not do, and prints one line
//! for each try: the tests read them.
#![deny(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    if let Some(memory) = probe::asked() {
        return probe::run(memory);
    }
    opg_runtime::worker::main()
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "what is tried are system calls that std has no function for")]
mod probe {
    use opg_runtime::worker::{
        Sandbox,
        sandbox::{Bounds, detach, lock_in},
    };
    use std::{
        fs,
        io::{self, ErrorKind},
        net::{TcpListener, TcpStream, UdpSocket},
        os::unix::{net::UnixStream, process::parent_id},
        process::{Command, ExitCode},
        ptr::null_mut,
    };

    pub(super) fn asked() -> Option<u64> {
        let mut arguments = std::env::args().skip(1);
        (arguments.next()? == "probe").then(|| arguments.next()?.parse().ok())?
    }

    pub(super) fn run(memory: u64) -> ExitCode {
        // Asking is refused later.
        let parent = parent_id() as libc::pid_t;
        detach();
        let bounds = Bounds { memory, threads: 1 };
        match lock_in(Sandbox::Required, &bounds, || ()) {
            Ok(protection) => println!("locked: {protection}"),
            Err(error) => {
                println!("not locked: no {error}");
                return ExitCode::FAILURE;
            }
        }
        for (name, outcome) in tries(parent) {
            match outcome {
                Ok(()) => println!("{name}: DONE"),
                Err(error) => println!(
                    "{name}: {:?} {}",
                    error.kind(),
                    error.raw_os_error().unwrap_or_default()
                ),
            }
        }
        ExitCode::SUCCESS
    }

    fn tries(parent: libc::pid_t) -> Vec<(&'static str, io::Result<()>)> {
        // A name that exists nowhere: if it were made, it would be made here.
        let file = format!("opg-probe-{}", std::process::id());
        let in_temporary = std::env::temp_dir().join(&file);
        vec![
            ("tcp socket", TcpListener::bind("127.0.0.1:0").map(drop)),
            ("tcp connect", TcpStream::connect("127.0.0.1:9").map(drop)),
            ("udp socket", UdpSocket::bind("127.0.0.1:0").map(drop)),
            ("unix socket", UnixStream::pair().map(drop)),
            ("write a file", fs::write(&in_temporary, "x")),
            ("write here", fs::write(&file, "x")),
            (
                "open for writing",
                fs::OpenOptions::new().write(true).open("/dev/null").map(drop),
            ),
            ("make a folder", fs::create_dir(&in_temporary)),
            ("remove a file", fs::remove_file(&in_temporary)),
            ("read /etc/passwd", fs::read("/etc/passwd").map(drop)),
            (
                "read the parent's memory",
                fs::File::open(format!("/proc/{parent}/mem")).map(drop),
            ),
            (
                "read the parent's environment",
                fs::read(format!("/proc/{parent}/environ")).map(drop),
            ),
            ("list /", fs::read_dir("/").map(drop)),
            ("list here", fs::read_dir(".").map(drop)),
            ("exec", Command::new("/bin/true").status().map(drop)),
            ("exec itself", exec_itself()),
            // SAFETY: if it were allowed, the child would only leave.
            (
                "fork",
                call(|| unsafe {
                    match libc::fork() {
                        0 => libc::_exit(0),
                        pid => i64::from(pid),
                    }
                }),
            ),
            // SAFETY: no pointers; attaches to nothing that this process would then touch.
            (
                "ptrace its parent",
                call(|| unsafe {
                    libc::ptrace(
                        libc::PTRACE_SEIZE,
                        parent,
                        null_mut::<libc::c_void>(),
                        null_mut::<libc::c_void>(),
                    )
                }),
            ),
            // SAFETY: signal 0 is none; it only asks whether one could be sent.
            (
                "signal its parent",
                call(|| unsafe { i64::from(libc::kill(parent, 0)) }),
            ),
            // SAFETY: no pointers.
            (
                "outlive its parent",
                call(|| unsafe { i64::from(libc::prctl(libc::PR_SET_PDEATHSIG, 0)) }),
            ),
            // SAFETY: a fresh anonymous mapping, never used.
            (
                "memory to run",
                call(|| unsafe {
                    let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
                    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                    libc::mmap(null_mut(), 4096, prot, flags, -1, 0) as i64
                }),
            ),
            // SAFETY: a fresh anonymous mapping of 1 TiB, never used.
            (
                "a terabyte",
                call(|| unsafe {
                    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
                    libc::mmap(null_mut(), 1 << 40, libc::PROT_READ, flags, -1, 0) as i64
                }),
            ),
            ("a file in memory", {
                // SAFETY: a constant text that ends with zero.
                call(|| unsafe { i64::from(libc::memfd_create(c"x".as_ptr(), 0)) })
            }),
            // SAFETY: no pointers.
            (
                "a namespace",
                call(|| unsafe { i64::from(libc::unshare(libc::CLONE_NEWUSER)) }),
            ),
            // SAFETY: the parameters may be anything: the call is refused before they are read.
            (
                "io_uring",
                call(|| unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, null_mut::<u8>()) }),
            ),
            ("read /proc/cpuinfo", fs::read("/proc/cpuinfo").map(drop)),
            (
                "a thread",
                std::thread::Builder::new()
                    .spawn(|| ())
                    .map(|thread| drop(thread.join())),
            ),
        ]
    }

    fn call(call: impl FnOnce() -> i64) -> io::Result<()> {
        if call() == -1 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    fn exec_itself() -> io::Result<()> {
        use std::os::unix::process::CommandExt as _;
        let error = Command::new("/proc/self/exe").arg("never").exec();
        match error.kind() {
            ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        }
    }
}
