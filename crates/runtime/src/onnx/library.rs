//! Finds and loads the ONNX Runtime library, once per process.

use crate::RuntimeError;
use opg_primitives::{B256, hash};
use ort::environment::Environment;
use std::{
    env,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
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
    pub(crate) environment: Environment,
}

static LIBRARY: OnceLock<Library> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

/// The library, loaded by the first call that finds one.
///
/// It is looked for in this order: `ORT_DYLIB_PATH`; `$OPG_HOME/native/onnxruntime-1.31.1`;
/// `$XDG_CACHE_HOME/opg/native/…` or `~/.cache/opg/native/…`; the system's library folders.
///
/// # Errors
/// [`RuntimeError::LibraryNotFound`] with every place that was looked at, [`RuntimeError::Library`] if it cannot be
/// loaded. A later call tries again.
pub fn get() -> Result<&'static Library, RuntimeError> {
    if let Some(library) = LIBRARY.get() {
        return Ok(library);
    }
    let _loading = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = LIBRARY.get() {
        return Ok(library);
    }
    let loaded = load(&find(|name| env::var_os(name).map(PathBuf::from), Path::is_file)?)?;
    Ok(LIBRARY.get_or_init(|| loaded))
}

fn load(path: &Path) -> Result<Library, RuntimeError> {
    let bytes = std::fs::read(path).map_err(|source| RuntimeError::Read {
        path: path.to_owned(),
        source,
    })?;
    let refuse = |reason: String| RuntimeError::Library {
        path: path.to_owned(),
        reason,
    };
    let environment = ort::init_from(path)
        .map_err(|error| refuse(error.to_string()))?
        .with_name("opg")
        .with_telemetry(false)
        .build()
        .map_err(|error| refuse(error.to_string()))?;
    Ok(Library {
        path: path.to_owned(),
        sha256: hash::sha256(&bytes),
        environment,
    })
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
