//! Finds the ONNX Runtime library, and loads it in the process that runs models.
//!
//! A node that runs its models in workers only finds and hashes the library; the workers load it.

use crate::RuntimeError;
use opg_primitives::{B256, hash};
use ort::environment::{Environment, EnvironmentBuilder};
use std::{
    env,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
    time::SystemTime,
};

/// Folder of the pinned library under a cache: what `cargo xtask setup` unpacks.
const FOLDER: &str = "onnxruntime-1.31.1";

/// The library of this process.
#[derive(Debug)]
pub struct Library {
    /// Where it was found.
    pub path: PathBuf,
    /// SHA-256 of the file, part of the runtime digest.
    pub sha256: B256,
    /// Length and date of the file when it was hashed.
    stamp: (u64, SystemTime),
}

static LIBRARY: OnceLock<Library> = OnceLock::new();
static LOADED: OnceLock<Environment> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

/// The library, found and hashed by the first call that finds one.
///
/// It is looked for in this order: `ORT_DYLIB_PATH`; `$OPG_HOME/native/onnxruntime-1.31.1`;
/// `$XDG_CACHE_HOME/opg/native/…` or `~/.cache/opg/native/…`; the system's library folders.
///
/// # Errors
/// [`RuntimeError::LibraryNotFound`] with every place that was looked at, [`RuntimeError::Read`] if it cannot be read.
/// A later call tries again.
pub fn get() -> Result<&'static Library, RuntimeError> {
    if let Some(library) = LIBRARY.get() {
        return Ok(library);
    }
    let _loading = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = LIBRARY.get() {
        return Ok(library);
    }
    let found = hashed(find(|name| env::var_os(name).map(PathBuf::from), Path::is_file)?)?;
    Ok(LIBRARY.get_or_init(|| found))
}

impl Library {
    /// Checks that the file is still the one that was hashed: receipts name its hash.
    ///
    /// # Errors
    /// [`RuntimeError::Library`] if length or date have changed, [`RuntimeError::Read`] if it cannot be read.
    pub(crate) fn unchanged(&self) -> Result<(), RuntimeError> {
        if stamp(&self.path)? == self.stamp {
            return Ok(());
        }
        Err(RuntimeError::Library {
            path: self.path.clone(),
            reason: "it was replaced while this process ran; restart, so that receipts name the new one".into(),
        })
    }
}

fn hashed(path: PathBuf) -> Result<Library, RuntimeError> {
    let stamp = stamp(&path)?;
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Library {
            sha256: hash::sha256(&bytes),
            path,
            stamp,
        }),
        Err(source) => Err(RuntimeError::Read { path, source }),
    }
}

fn stamp(path: &Path) -> Result<(u64, SystemTime), RuntimeError> {
    let read = |path: &Path| {
        let file = std::fs::metadata(path)?;
        Ok((file.len(), file.modified()?))
    };
    read(path).map_err(|source| RuntimeError::Read {
        path: path.to_owned(),
        source,
    })
}

/// The library's environment in this process, loaded by the first call.
///
/// # Errors
/// As [`get`], and [`RuntimeError::Library`] if it cannot be loaded.
pub(crate) fn load() -> Result<&'static Environment, RuntimeError> {
    match LOADED.get() {
        Some(environment) => Ok(environment),
        None => load_from(&get()?.path),
    }
}

/// Opens a library without starting anything.
///
/// # Errors
/// [`RuntimeError::Library`] if it cannot be loaded.
pub(crate) fn open(path: &Path) -> Result<EnvironmentBuilder, RuntimeError> {
    ort::init_from(path).map_err(|error| RuntimeError::Library {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// As [`load`], from a given file: a worker is told which.
///
/// # Errors
/// [`RuntimeError::Library`] if it cannot be loaded.
pub(crate) fn load_from(path: &Path) -> Result<&'static Environment, RuntimeError> {
    let _loading = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = LOADED.get() {
        return Ok(environment);
    }
    let environment = open(path)?.with_name("opg").with_telemetry(false).build();
    let environment = environment.map_err(|error| RuntimeError::Library {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(LOADED.get_or_init(|| environment))
}

/// Picks the first candidate that exists. An `ORT_DYLIB_PATH` that is set and wrong is an error, not a reason to take
/// another library.
fn find(variable: impl Fn(&str) -> Option<PathBuf>, exists: impl Fn(&Path) -> bool) -> Result<PathBuf, RuntimeError> {
    let file = format!("{}onnxruntime{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let variable = |name: &str| variable(name).filter(|path| !path.as_os_str().is_empty());
    let mut candidates = Vec::new();
    if let Some(path) = variable("ORT_DYLIB_PATH") {
        candidates.push(path);
    } else {
        if let Some(home) = variable("OPG_HOME") {
            candidates.push(home.join("native").join(FOLDER).join(&file));
        }
        if let Some(cache) = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache"))) {
            candidates.push(cache.join("opg/native").join(FOLDER).join(&file));
        }
        for folder in [
            "/usr/local/lib",
            "/usr/lib",
            "/usr/lib64",
            "/usr/lib/x86_64-linux-gnu",
            "/usr/lib/aarch64-linux-gnu",
        ] {
            candidates.push(Path::new(folder).join(&file));
        }
    }
    match candidates.iter().find(|path| exists(path)) {
        // The loader resolves relative paths against the executable, not the working directory.
        Some(path) => std::path::absolute(path).map_err(|source| RuntimeError::Read {
            path: path.clone(),
            source,
        }),
        None => Err(RuntimeError::LibraryNotFound { searched: candidates }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<PathBuf> + 'a {
        move |name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| PathBuf::from(value))
        }
    }

    #[test]
    fn the_variable_wins_and_is_not_replaced_when_wrong() {
        let set = [("ORT_DYLIB_PATH", "/a/lib.so"), ("HOME", "/home/u")];
        assert_eq!(find(with(&set), |_| true).unwrap(), Path::new("/a/lib.so"));
        let error = find(with(&set), |path| path != Path::new("/a/lib.so"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/a/lib.so") && !error.contains("/home"), "{error}");
    }

    #[test]
    fn then_home_cache_and_system() {
        let file = format!("{}onnxruntime{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
        let set = [("OPG_HOME", "/o"), ("HOME", "/home/u"), ("ORT_DYLIB_PATH", "")];
        assert_eq!(
            find(with(&set), |_| true).unwrap(),
            Path::new("/o/native/onnxruntime-1.31.1").join(&file)
        );
        let cache = Path::new("/home/u/.cache/opg/native/onnxruntime-1.31.1").join(&file);
        assert_eq!(find(with(&set), |path| path == cache).unwrap(), cache);
        let xdg = [("XDG_CACHE_HOME", "/x"), ("HOME", "/home/u")];
        let RuntimeError::LibraryNotFound { searched } = find(with(&xdg), |_| false).unwrap_err() else {
            panic!()
        };
        assert_eq!(searched[0], Path::new("/x/opg/native/onnxruntime-1.31.1").join(&file));
        assert!(searched.contains(&Path::new("/usr/lib").join(&file)));
    }
}
