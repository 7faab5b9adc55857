//! One worker, seen from the node: a process, a socket, and a clock.

use super::{
    Program, Protection, Task, WorkerFault, keeper,
    wire::{self, Body, Failure, FrameError, Frames, Malformed, Message, Setup},
};
use crate::onnx::{
    engine::Ports,
    value::{Output, Tensor},
};
use std::{
    io::{self, ErrorKind, Read, Write as _},
    os::{
        fd::OwnedFd,
        unix::{
            net::UnixStream,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// How long a worker that closed its socket may take to end before it is killed.
const ENDING: Duration = Duration::from_millis(100);
/// What the dynamic linker needs where the library's own dependencies are in unusual places. Nothing else is passed on.
const VARIABLES: [&str; 1] = ["LD_LIBRARY_PATH"];

/// Why a worker did not do what it was asked.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It answered that it could not; it works on.
    Failed(Failure),
    /// It cannot be used any more.
    Fault(WorkerFault),
    /// It was gone before it had read what it was asked: nothing has happened.
    Gone(WorkerFault),
}

impl From<WorkerFault> for Refusal {
    fn from(fault: WorkerFault) -> Self {
        Self::Fault(fault)
    }
}

/// A running worker. Dropping kills and reaps it.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    socket: UnixStream,
    patience: Patience,
    message: Message,
    frames: Frames,
}

/// The timeouts that the socket has now, so that they are set only when they change.
#[derive(Debug, Default)]
struct Patience {
    read: Duration,
    write: Duration,
}

impl Worker {
    /// Starts a worker that is not locked in yet.
    ///
    /// # Errors
    /// [`WorkerFault::Start`].
    pub(super) fn start(program: &Program) -> Result<Self, WorkerFault> {
        let (socket, theirs) = UnixStream::pair().map_err(WorkerFault::Start)?;
        let mut command = Command::new(&program.path);
        command
            .args(&program.arguments)
            .env_clear()
            .envs(VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .current_dir("/")
            // Ctrl-C in a terminal is for the node, which lets running calls finish.
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(Self {
            child: keeper::start(command).map_err(WorkerFault::Start)?,
            socket,
            patience: Patience::default(),
            message: Message::default(),
            frames: Frames::default(),
        })
    }

    /// Process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Makes it load the library and lock itself in.
    pub(super) fn setup(&mut self, setup: &Setup, time: Duration) -> Result<Protection, Refusal> {
        self.message.setup(setup);
        let body = self.ask(Task::Setup, &[], time, wire::SMALL_ANSWER, wire::READY)?;
        let read = body.ready();
        read.map_err(|reason| nonsense(Task::Setup, reason))
    }

    /// Makes it load a model.
    pub(super) fn load(&mut self, model: &[u8], time: Duration) -> Result<Ports, Refusal> {
        self.message.start(wire::LOAD).finish(model.len());
        let body = self.ask(Task::Load, model, time, wire::SMALL_ANSWER, wire::LOADED)?;
        let read = body.loaded();
        read.map_err(|reason| nonsense(Task::Load, reason))
    }

    /// Makes it run the model.
    pub(super) fn run(
        &mut self,
        inputs: &[Tensor],
        time: Duration,
        output_elements: usize,
    ) -> Result<Vec<Output>, Refusal> {
        self.message.run(inputs);
        let limit = wire::answer_limit(output_elements);
        let body = self.ask(Task::Run, &[], time, limit, wire::DONE)?;
        let read = body.done(output_elements);
        read.map_err(|reason| nonsense(Task::Run, reason))
    }

    /// Sends the message and `more`, and reads the answer, which must be of a kind or a failure.
    fn ask(&mut self, task: Task, more: &[u8], time: Duration, limit: usize, kind: u8) -> Result<Body<'_>, Refusal> {
        let deadline = Instant::now() + time;
        let mut clocked = Clocked {
            socket: &self.socket,
            patience: &mut self.patience,
            time,
            deadline,
            first: true,
        };
        let asked = clocked.write(self.message.bytes()).and_then(|()| clocked.write(more));
        if let Err(error) = asked {
            let error = match error.kind() {
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => FrameError::Unheard,
                _ => FrameError::Io(error),
            };
            return Err(self.refusal(task, error, time));
        }
        clocked.first = true;
        let read = self.frames.read(&mut clocked, limit);
        match read {
            Ok(got) if got == kind => Ok(Body::new(self.frames.body())),
            Ok(wire::FAILED) => match Body::new(self.frames.body()).failed() {
                Ok(failure) => Err(Refusal::Failed(failure)),
                Err(reason) => Err(nonsense(task, reason)),
            },
            Ok(other) => Err(nonsense(task, Malformed(format!("an answer of kind {other}")))),
            Err(error) => Err(self.refusal(task, error, time)),
        }
    }

    fn refusal(&mut self, task: Task, error: FrameError, limit: Duration) -> Refusal {
        match error {
            FrameError::Malformed(reason) => nonsense(task, reason),
            FrameError::Io(error) if error.kind() == ErrorKind::TimedOut => {
                Refusal::Fault(WorkerFault::Late { task, limit })
            }
            FrameError::Closed | FrameError::Io(_) => Refusal::Fault(WorkerFault::Died {
                task,
                how: self.ended(),
            }),
            FrameError::Unheard => Refusal::Gone(WorkerFault::Died {
                task,
                how: self.ended(),
            }),
        }
    }

    /// How a worker that closed its socket ended.
    fn ended(&mut self) -> String {
        let until = Instant::now() + ENDING;
        while Instant::now() < until {
            match self.child.try_wait() {
                Ok(Some(status)) => return describe(status),
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => return error.to_string(),
            }
        }
        "it closed its socket and went on; it was killed".into()
    }

    /// Whether it ended; it is reaped then.
    pub(super) fn has_ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(describe)
    }
}

fn nonsense(task: Task, Malformed(reason): Malformed) -> Refusal {
    Refusal::Fault(WorkerFault::Nonsense { task, reason })
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Errors mean that it has ended and was reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(9) => "killed by signal 9 (SIGKILL), from outside or for memory".into(),
        Some(6) => "it gave up (SIGABRT), as for memory that it could not have".into(),
        Some(signal) => format!("killed by signal {signal}"),
        None => status.to_string(),
    }
}

/// A socket with a deadline. While everything goes with one system call, the deadline costs none.
struct Clocked<'a> {
    socket: &'a UnixStream,
    patience: &'a mut Patience,
    time: Duration,
    deadline: Instant,
    /// Nothing came or went yet: the whole time is left, nearly.
    first: bool,
}

impl Clocked<'_> {
    fn left(&mut self) -> io::Result<Duration> {
        if std::mem::take(&mut self.first) {
            return Ok(self.time);
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(ErrorKind::TimedOut.into())
        } else {
            Ok(left)
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let left = self.left()?;
            if self.patience.write != left {
                self.socket.set_write_timeout(Some(left))?;
                self.patience.write = left;
            }
            match self.socket.write(bytes) {
                Ok(0) => return Err(ErrorKind::BrokenPipe.into()),
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(timed(error)),
            }
        }
        Ok(())
    }
}

impl Read for Clocked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left()?;
        if self.patience.read != left {
            self.socket.set_read_timeout(Some(left))?;
            self.patience.read = left;
        }
        self.socket.read(buffer).map_err(timed)
    }
}

/// The system calls a socket's timeout "would block".
fn timed(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
        _ => error,
    }
}
