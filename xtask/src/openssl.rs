//! OpenSSL's headers on Linux.
//!
//! One dependency of the execution engine links the system's OpenSSL. Debian and Ubuntu have the
//! library on every machine but the headers in a package of their own; without root that package
//! can still be downloaded (apt checks its signature) and unpacked.

use crate::context::{Library, text};
use crate::debian;
use crate::process::{capture, works};
use crate::wheels::Scratch;
use eyre::{Result, WrapErr, bail, ensure};
use std::path::{Path, PathBuf};

const FOLDER: &str = "openssl-dev";

/// Finds or installs the headers; nothing on other systems, where the platform's own TLS is used.
/// The caller holds the store's lock.
pub(crate) fn ensure(store: &Path, no_system: bool) -> Result<Option<Library>> {
    if !cfg!(target_os = "linux") {
        return Ok(None);
    }
    if !no_system {
        if let Some(dir) = std::env::var_os("OPENSSL_DIR").or_else(|| std::env::var_os("OPENSSL_LIB_DIR")) {
            return Ok(Some(library("OPENSSL_DIR", dir.into(), Vec::new())));
        }
        // The build script asks the same question and takes the answer from there.
        if let Some(dir) = capture("pkg-config", &["--variable=libdir", "openssl >= 1.1"])
            && works("pkg-config", &["--exists", "openssl >= 1.1"])
        {
            return Ok(Some(library("system", dir.into(), Vec::new())));
        }
        if let Some((include, lib)) = without_pkg_config() {
            return Ok(Some(library("system", lib.clone(), variables(&include, &lib)?)));
        }
    }
    let target = store.join(FOLDER);
    let source = if target.join("include/openssl/ssl.h").is_file() && target.join("lib/libssl.so").is_file() {
        "cache"
    } else {
        install(store, &target)?;
        "installed"
    };
    let lib = target.join("lib");
    let env = variables(&target.join("include"), &lib)?;
    Ok(Some(library(source, lib, env)))
}

fn library(source: &'static str, path: PathBuf, env: Vec<(String, String)>) -> Library {
    Library {
        name: "openssl",
        source,
        path,
        env,
    }
}

fn variables(include: &Path, lib: &Path) -> Result<Vec<(String, String)>> {
    Ok(vec![
        ("OPENSSL_INCLUDE_DIR".to_owned(), text(include)?),
        ("OPENSSL_LIB_DIR".to_owned(), text(lib)?),
    ])
}

fn library_dirs() -> [PathBuf; 4] {
    [
        format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH).into(),
        "/usr/lib64".into(),
        "/usr/lib".into(),
        format!("/lib/{}-linux-gnu", std::env::consts::ARCH).into(),
    ]
}

/// Headers and library are there, only the tool that would say so is not.
fn without_pkg_config() -> Option<(PathBuf, PathBuf)> {
    let include = PathBuf::from("/usr/include");
    let lib = library_dirs().into_iter().find(|dir| dir.join("libssl.so").is_file())?;
    include.join("openssl/ssl.h").is_file().then_some((include, lib))
}

fn install(store: &Path, target: &Path) -> Result<()> {
    const HINT: &str = "install OpenSSL's headers (Debian, Ubuntu: libssl-dev; Fedora: openssl-devel) \
                        or set OPENSSL_DIR";
    if !debian::available() {
        bail!("OpenSSL's headers are missing; {HINT}");
    }
    let scratch = Scratch::new(store, FOLDER)?;
    let tree = debian::unpack("libssl-dev", scratch.path())
        .wrap_err_with(|| format!("OpenSSL's headers are missing and cannot be downloaded; {HINT}"))?;

    let fresh = scratch.path().join("openssl");
    let include = fresh.join("include/openssl");
    let lib = fresh.join("lib");
    std::fs::create_dir_all(&include)?;
    std::fs::create_dir_all(&lib)?;
    // Debian keeps configuration.h and opensslconf.h in a folder of the architecture.
    let arch = format!("usr/include/{}-linux-gnu/openssl", std::env::consts::ARCH);
    for from in ["usr/include/openssl", arch.as_str()] {
        for entry in std::fs::read_dir(tree.join(from)).into_iter().flatten() {
            let entry = entry?;
            std::fs::copy(entry.path(), include.join(entry.file_name()))?;
        }
    }
    ensure!(include.join("ssl.h").is_file(), "there is no ssl.h in libssl-dev");
    for name in ["libssl.so", "libcrypto.so"] {
        let runtime = runtime_library(name)
            .ok_or_else(|| eyre::eyre!("the system has no {name}.3, which belongs to libssl-dev; {HINT}"))?;
        std::os::unix::fs::symlink(runtime, lib.join(name))?;
    }
    if target.exists() {
        std::fs::rename(target, scratch.path().join("replaced"))?;
    }
    std::fs::rename(&fresh, target)?;
    Ok(())
}

/// The shared library that programs on this system load.
fn runtime_library(name: &str) -> Option<PathBuf> {
    let file = format!("{name}.3");
    library_dirs()
        .into_iter()
        .map(|dir| dir.join(&file))
        .find(|path| path.is_file())
}
