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
        let of_parent = |what: &str| format!("/proc/{parent}/{what}");
        let writing = || fs::OpenOptions::new().write(true).open("/dev/null");
        let thread = || std::thread::Builder::new().spawn(|| ());
        vec![
            ("tcp socket", TcpListener::bind("127.0.0.1:0").map(drop)),
            ("tcp connect", TcpStream::connect("127.0.0.1:9").map(drop)),
            ("udp socket", UdpSocket::bind("127.0.0.1:0").map(drop)),
            ("unix socket", UnixStream::pair().map(drop)),
            ("write a file", fs::write(&in_temporary, "x")),
            ("write here", fs::write(&file, "x")),
            ("open for writing", writing().map(drop)),
            ("make a folder", fs::create_dir(&in_temporary)),
            ("remove a file", fs::remove_file(&in_temporary)),
            ("read /etc/passwd", fs::read("/etc/passwd").map(drop)),
            ("read the parent's memory", fs::File::open(of_parent("mem")).map(drop)),
            (
                "read the parent's environment",
                fs::read(of_parent("environ")).map(drop),
            ),
            ("list /", fs::read_dir("/").map(drop)),
            ("list here", fs::read_dir(".").map(drop)),
            ("exec", Command::new("/bin/true").status().map(drop)),
            ("exec itself", exec_itself()),
            ("fork", done(fork())),
            ("ptrace its parent", done(trace(parent))),
            ("signal its parent", done(signal(parent))),
            ("outlive its parent", done(outlive())),
            (
                "memory to run",
                done(map(4096, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC)),
            ),
            ("a terabyte", done(map(1 << 40, libc::PROT_READ))),
            ("a file in memory", done(file_in_memory())),
            ("a namespace", done(namespace())),
            ("io_uring", done(io_uring())),
            ("read /proc/cpuinfo", fs::read("/proc/cpuinfo").map(drop)),
            ("a thread", thread().map(|thread| drop(thread.join()))),
        ]
    }

    /// What a system call said that returns -1 and leaves its reason behind. Call it at once.
    fn done(returned: i64) -> io::Result<()> {
        if returned == -1 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    fn fork() -> i64 {
        // SAFETY: this process has one thread of ours; if it were allowed, the child would only leave.
        match unsafe { libc::fork() } {
            // SAFETY: ends the child at once, without running what belongs to the parent.
            0 => unsafe { libc::_exit(0) },
            pid => i64::from(pid),
        }
    }

    fn trace(parent: libc::pid_t) -> i64 {
        let none = null_mut::<libc::c_void>;
        // SAFETY: the pointers of this request are not followed; it would stop nothing.
        unsafe { libc::ptrace(libc::PTRACE_SEIZE, parent, none(), none()) }
    }

    fn signal(parent: libc::pid_t) -> i64 {
        // SAFETY: no pointers; signal 0 is none, it only asks whether one could be sent.
        i64::from(unsafe { libc::kill(parent, 0) })
    }

    fn outlive() -> i64 {
        // SAFETY: no pointers.
        i64::from(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) })
    }

    fn map(bytes: usize, protection: libc::c_int) -> i64 {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping where the kernel likes, never used.
        unsafe { libc::mmap(null_mut(), bytes, protection, flags, -1, 0) as i64 }
    }

    fn file_in_memory() -> i64 {
        // SAFETY: a constant text that ends with zero.
        i64::from(unsafe { libc::memfd_create(c"x".as_ptr(), 0) })
    }

    fn namespace() -> i64 {
        // SAFETY: no pointers.
        i64::from(unsafe { libc::unshare(libc::CLONE_NEWUSER) })
    }

    fn io_uring() -> i64 {
        // SAFETY: the kernel refuses a null pointer for the parameters itself, if nobody does before.
        unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, null_mut::<u8>()) }
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
