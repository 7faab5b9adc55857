//! The worker's side: locks itself in, then does what it is asked until its socket closes.

use super::{
    sandbox,
    wire::{self, Body, Failure, FrameError, Frames, Malformed, Message, Setup},
};
use crate::onnx::{engine::Engine, library};
use std::{
    io::{self, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    process::ExitCode,
};

/// Runs this process as a worker of the node that started it: the hidden command `opg engine-worker`.
///
/// Call it first thing in `main`, before any other thread exists: a sandbox holds the threads that come after it.
/// Standard input must be a socket.
#[must_use]
pub fn main() -> ExitCode {
    sandbox::detach();
    let served = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map(UnixStream::from)
        .map_err(|error| error.to_string())
        .and_then(|mut socket| match socket.peer_addr() {
            Ok(_) => serve(&mut socket),
            Err(_) => Err("this command is started by the node, with a socket as its standard input".to_owned()),
        });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::from(2)
        }
    }
}

fn serve(socket: &mut UnixStream) -> Result<(), String> {
    let (mut frames, mut message) = (Frames::default(), Message::default());
    let mut setup: Option<Setup> = None;
    let mut engine: Option<Engine> = None;
    loop {
        // Whoever starts a worker bounds what it sends; the bound here is that of the longest model.
        let kind = match frames.read(socket, wire::MODEL) {
            Ok(kind) => kind,
            Err(FrameError::Closed | FrameError::Unheard) => return Ok(()),
            Err(FrameError::Io(error)) => return Err(error.to_string()),
            Err(FrameError::Malformed(Malformed(reason))) => return Err(reason),
        };
        let body = Body::new(frames.body());
        let bad = |Malformed(reason)| reason;
        let answer = match (kind, &setup, &mut engine) {
            (wire::SETUP, None, _) => {
                let asked = body.setup().map_err(bad)?;
                match lock_in(&asked) {
                    Ok(protection) => {
                        setup = Some(asked);
                        message.ready(&protection)
                    }
                    Err(failure) => message.failed(&failure),
                }
            }
            (wire::LOAD, Some(setup), None) => match Engine::load(frames.body(), setup.threads) {
                Ok(loaded) => {
                    let answer = message.loaded(loaded.ports());
                    engine = Some(loaded);
                    answer
                }
                Err(error) => message.failed(&error.into()),
            },
            (wire::RUN, Some(setup), Some(engine)) => {
                match engine.run(body.run().map_err(bad)?, setup.output_elements) {
                    Ok(outputs) => message.done(&outputs),
                    Err(error) => message.failed(&error.into()),
                }
            }
            (other, ..) => return Err(format!("a request of kind {other} out of order")),
        };
        if let Err(error) = socket.write_all(answer) {
            return match error.kind() {
                io::ErrorKind::BrokenPipe => Ok(()),
                _ => Err(error.to_string()),
            };
        }
        if kind == wire::LOAD {
            // The model's bytes are not needed any more, and the buffer has their size.
            frames = Frames::default();
        }
    }
}

fn lock_in(setup: &Setup) -> Result<sandbox::Protection, Failure> {
    // The library is the operator's, and it is opened while its own dependencies can be read. It starts a thread of its own
    // when it is first used: by then that thread is held, too.
    library::open(&setup.library)?;
    let bounds = sandbox::Bounds {
        memory: setup.memory,
        threads: setup.threads,
    };
    let mut started = Ok(());
    let start = || started = library::load_from(&setup.library).map(drop);
    let protection =
        sandbox::lock_in(setup.sandbox, &bounds, start).map_err(|error| Failure::NotLocked(error.to_string()))?;
    started?;
    Ok(protection)
}
