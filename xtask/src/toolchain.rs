//! The C and C++ compilers, and how many of them to run.

use crate::process::{capture, works};
use eyre::{Result, bail};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The C compiler that build scripts will use.
pub(crate) fn cc() -> String {
    std::env::var("CC").unwrap_or_else(|_| "cc".to_owned())
}

/// Compiles one C++17 file: RocksDB needs a compiler with its standard library, and says so only
/// minutes into the build.
pub(crate) fn check_cxx(scratch: &Path) -> Result<()> {
    let cxx = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let object = scratch.join(format!(".cxx-{}.o", std::process::id()));
    let child = Command::new(&cxx)
        .args(["-std=c++17", "-x", "c++", "-c", "-", "-o"])
        .arg(&object)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let hint = if cfg!(target_os = "macos") {
        "install the command line tools: xcode-select --install"
    } else {
        "install g++ 9 or newer (Debian, Ubuntu: the package build-essential), or set CXX"
    };
    let mut child = match child {
        Ok(child) => child,
        Err(error) => bail!("there is no C++ compiler `{cxx}` ({error}); {hint}"),
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A compiler that dies early closes the pipe; its message says more than ours.
        let _ = stdin.write_all(b"#include <filesystem>\n#include <optional>\nstd::optional<int> x;\n");
    }
    let output = child.wait_with_output()?;
    let _ = std::fs::remove_file(&object);
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("`{cxx}` cannot compile C++17; {hint}\n{}", message.trim());
    }
    if !works(&cc(), &["--version"]) {
        bail!("there is no C compiler `{}`; {hint}, or set CC", cc());
    }
    Ok(())
}

/// Arguments that let libclang find `stddef.h` and the system headers: a bare libclang brings none
/// of its own.
pub(crate) fn bindgen_args() -> Option<String> {
    let cc = cc();
    if cfg!(target_os = "macos") {
        let sdk = capture("xcrun", &["--show-sdk-path"])?;
        let resources = capture(&cc, &["-print-resource-dir"])?;
        return Some(format!("-isysroot {sdk} -I{resources}/include"));
    }
    // GCC prints a path, or the bare name if it has no such directory.
    let include = capture(&cc, &["-print-file-name=include"]).filter(|path| path.starts_with('/'));
    let include = include.or_else(|| capture(&cc, &["-print-resource-dir"]).map(|dir| format!("{dir}/include")))?;
    Some(format!("-I{include}"))
}

/// Parallel compilations: one per core, but at least 3 GiB of memory for each, because the two
/// crates that instantiate the engines need that much.
pub(crate) fn build_jobs() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        let kib: usize = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib / (1024 * 1024))
    });
    memory.map_or(cores, |gib| cores.min((gib / 3).max(1)))
}
