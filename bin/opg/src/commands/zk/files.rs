//! Files of `opg zk`: bounded before they are read, replaced in one step when they are written.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use opg_integer_program::{MAX_PROGRAM_BYTES, program::Program};

use crate::failure::Failure;

/// Largest ONNX file: protobuf itself ends there.
pub(super) const MAX_MODEL: usize = 2 << 30;
/// Largest JSON file: inputs, outputs, calibration data.
pub(super) const MAX_JSON: usize = 256 << 20;

/// Reads a whole file of at most `max` bytes.
pub(in crate::commands) fn read(path: &Path, what: &str, max: usize) -> Result<Vec<u8>, Failure> {
    let cannot = |error: io::Error| Failure::usage(format!("cannot read the {what} {}: {error}", path.display()));
    let file = File::open(path).map_err(cannot)?;
    let long = || Failure::usage(format!("the {what} {} is longer than {max} bytes", path.display()));
    // The length is asked for first, so that a huge file is refused before it fills memory.
    if file.metadata().map_err(cannot)?.len() > max as u64 {
        return Err(long());
    }
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > max { Err(long()) } else { Ok(bytes) }
}

/// Replaces a file in one step.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    opg_client::write_atomically(path, bytes).map_err(|error| Failure::usage(format!("cannot write {error}")))
}

/// Refuses a path that cannot be written, or that names one of the files that are read, before the work starts.
pub(super) fn check_place(path: &Path, option: &str, sources: &[&Path]) -> Result<(), Failure> {
    let refuse = |why: &str| Failure::usage(format!("{option} {}: {why}", path.display()));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if path.is_dir() {
        return Err(refuse("this is a folder; name a file in it"));
    }
    if !folder.unwrap_or(Path::new(".")).is_dir() {
        return Err(refuse("its folder does not exist; make it first"));
    }
    let same = |other: &&Path| match (path.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => path == *other,
    };
    if sources.iter().any(same) {
        return Err(refuse(
            "this file is used for something else by the same command; name another one",
        ));
    }
    Ok(())
}

/// Reads and validates a program file.
pub(in crate::commands) fn program(path: &Path) -> Result<Program, Failure> {
    let bytes = read(path, "program", MAX_PROGRAM_BYTES)?;
    Program::decode(&bytes).map_err(|error| {
        Failure::usage(format!(
            "{} is not a usable program: {error}; make one with `opg zk compile MODEL.onnx -o PROGRAM`",
            path.display()
        ))
    })
}
