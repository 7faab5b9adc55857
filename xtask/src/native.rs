//! libclang and ONNX Runtime: given by a variable, installed before, on the system, or downloaded.

use crate::context::{Library, text};
use crate::process::capture;
use crate::{toolchain, wheels};
use eyre::{Result, bail};
use std::path::{Path, PathBuf};

/// The oldest ONNX Runtime whose C API has what the `ort` crate is built for.
const OLDEST_ONNXRUNTIME: (u32, u32) = (1, 20);

/// Finds or installs both libraries. The caller holds the store's lock.
pub(crate) fn ensure(store: &Path, no_system: bool) -> Result<Vec<Library>> {
    Ok(vec![libclang(store, no_system)?, onnxruntime(store, no_system)?])
}

fn libclang(store: &Path, no_system: bool) -> Result<Library> {
    let (source, file) = if let Some(given) = given("LIBCLANG_PATH", no_system) {
        let file = libclang_in(&given).or_else(|| given.is_file().then(|| given.clone()));
        match file {
            Some(file) => ("LIBCLANG_PATH", file),
            None => bail!(
                "LIBCLANG_PATH={} has no libclang in it; unset it or correct it",
                given.display()
            ),
        }
    } else {
        choose("libclang", store, no_system, system_libclang)?
    };
    let dir = file.parent().unwrap_or(&file);
    let mut env = vec![("LIBCLANG_PATH".to_owned(), text(dir)?)];
    match std::env::var("BINDGEN_EXTRA_CLANG_ARGS") {
        Ok(args) => env.push(("BINDGEN_EXTRA_CLANG_ARGS".to_owned(), args)),
        Err(_) => env.extend(toolchain::bindgen_args().map(|args| ("BINDGEN_EXTRA_CLANG_ARGS".to_owned(), args))),
    }
    Ok(Library {
        name: "libclang",
        source,
        path: file,
        env,
    })
}

fn onnxruntime(store: &Path, no_system: bool) -> Result<Library> {
    let (source, file) = if let Some(given) = given("ORT_DYLIB_PATH", no_system) {
        if !given.is_file() {
            bail!(
                "ORT_DYLIB_PATH={} is not a file; unset it or correct it",
                given.display()
            );
        }
        ("ORT_DYLIB_PATH", given)
    } else {
        choose("onnxruntime", store, no_system, system_onnxruntime)?
    };
    let env = vec![("ORT_DYLIB_PATH".to_owned(), text(&file)?)];
    Ok(Library {
        name: "onnxruntime",
        source,
        path: file,
        env,
    })
}

fn given(variable: &str, no_system: bool) -> Option<PathBuf> {
    std::env::var_os(variable)
        .filter(|value| !value.is_empty() && !no_system)
        .map(PathBuf::from)
}

/// The cache before the system: a library that appears on the system later must not change the
/// environment of the next build, which would compile RocksDB once more.
fn choose(
    project: &'static str,
    store: &Path,
    no_system: bool,
    system: fn() -> Option<PathBuf>,
) -> Result<(&'static str, PathBuf)> {
    let pinned = wheels::pinned(project);
    if let Some(wheel) = pinned {
        let file = store.join(wheel.folder()).join(wheel.file);
        if std::fs::metadata(&file).is_ok_and(|metadata| metadata.len() == wheel.size) {
            return Ok(("cache", file));
        }
    }
    if let Some(file) = system().filter(|_| !no_system) {
        return Ok(("system", file));
    }
    match pinned {
        Some(wheel) => Ok(("installed", wheel.install(store)?)),
        None => bail!(
            "{project} is not on this system and there is no pinned build of it for {}-{}; install \
             it and set {}",
            std::env::consts::OS,
            std::env::consts::ARCH,
            if project == "libclang" {
                "LIBCLANG_PATH"
            } else {
                "ORT_DYLIB_PATH"
            }
        ),
    }
}

fn system_libclang() -> Option<PathBuf> {
    let mut dirs = Vec::new();
    let llvm_config = std::env::var("LLVM_CONFIG_PATH").unwrap_or_else(|_| "llvm-config".into());
    dirs.extend(capture(&llvm_config, &["--libdir"]).map(PathBuf::from));
    if cfg!(target_os = "macos") {
        dirs.push("/Library/Developer/CommandLineTools/usr/lib".into());
        dirs.push("/Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr/lib".into());
        dirs.push("/opt/homebrew/opt/llvm/lib".into());
        dirs.push("/usr/local/opt/llvm/lib".into());
    } else {
        // Newest first.
        let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib")
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let version = path.file_name()?.to_str()?.strip_prefix("llvm-")?.parse().ok()?;
                Some((version, path.join("lib")))
            })
            .collect();
        versions.sort_by(|a, b| b.cmp(a));
        dirs.extend(versions.into_iter().map(|(_, dir)| dir));
        dirs.extend(system_library_dirs());
    }
    dirs.iter().find_map(|dir| libclang_in(dir))
}

/// The file that bindgen's loader would take from a directory.
fn libclang_in(dir: &Path) -> Option<PathBuf> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_libclang))
        .collect();
    names.sort();
    // A dangling link is as good as nothing.
    names.into_iter().find(|path| path.is_file())
}

fn is_libclang(name: &str) -> bool {
    name == "libclang.dylib"
        || name == "libclang.so"
        || name.starts_with("libclang.so.")
        || (name.starts_with("libclang-") && name.contains(".so")) && !name.starts_with("libclang-cpp")
}

fn system_onnxruntime() -> Option<PathBuf> {
    let mut dirs = system_library_dirs();
    dirs.push("/opt/homebrew/lib".into());
    dirs.push("/opt/onnxruntime/lib".into());
    dirs.iter()
        .flat_map(|dir| ["libonnxruntime.so", "libonnxruntime.so.1", "libonnxruntime.dylib"].map(|name| dir.join(name)))
        .find(|path| {
            // The version stands in the name of the file behind the links.
            let real = path.canonicalize().ok();
            let version = real.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
            version
                .and_then(version_in)
                .is_some_and(|version| version >= OLDEST_ONNXRUNTIME)
        })
}

/// Major and minor of `libonnxruntime.so.1.21.0` or `libonnxruntime.1.21.0.dylib`.
fn version_in(name: &str) -> Option<(u32, u32)> {
    let mut numbers = name.split('.').filter_map(|part| part.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

fn system_library_dirs() -> Vec<PathBuf> {
    let arch = std::env::consts::ARCH;
    vec![
        "/usr/local/lib".into(),
        format!("/usr/lib/{arch}-linux-gnu").into(),
        "/usr/lib64".into(),
        "/usr/lib".into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_a_libclang_by_its_name() {
        for name in [
            "libclang.so",
            "libclang.so.1",
            "libclang-14.so.1",
            "libclang-18.so.18",
            "libclang.dylib",
        ] {
            assert!(is_libclang(name), "{name}");
        }
        for name in ["libclang-cpp.so.14", "libclangAST.a", "libclang-cpp.so"] {
            assert!(!is_libclang(name), "{name}");
        }
    }

    #[test]
    fn reads_the_version_from_the_name() {
        assert_eq!(version_in("libonnxruntime.so.1.21.0"), Some((1, 21)));
        assert_eq!(version_in("libonnxruntime.1.31.1.dylib"), Some((1, 31)));
        assert_eq!(version_in("libonnxruntime.so"), None);
        assert_eq!(version_in("libonnxruntime.so.1"), None);
    }
}
