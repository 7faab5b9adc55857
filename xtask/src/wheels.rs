//! Pinned wheels, and how the one library inside is taken out of them.
//!
//! The Python package index has both libraries for all platforms, needs no root and no compiler.
//! Only its ordinary client (`pip`) talks to it, so mirrors and proxies configured there work.

use crate::debian;
use crate::process::works;
use eyre::{Result, WrapErr, bail, ensure, eyre};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A wheel for one platform and the library in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wheel {
    /// `os-arch` as Rust names them.
    platform: &'static str,
    project: &'static str,
    version: &'static str,
    /// The platform tag to ask for.
    tag: &'static str,
    sha256: &'static str,
    /// The library's path in the archive.
    member: &'static str,
    /// Size in bytes and SHA-256 of the library.
    pub(crate) size: u64,
    member_sha256: &'static str,
    /// The name under which it is installed.
    pub(crate) file: &'static str,
    /// The variable that makes the build use another one.
    variable: &'static str,
}

const LIBCLANG: &str = "18.1.1";
const ONNXRUNTIME: &str = "1.31.1";

const WHEELS: [Wheel; 7] = [
    Wheel {
        platform: "linux-x86_64",
        project: "libclang",
        version: LIBCLANG,
        tag: "manylinux2010_x86_64",
        sha256: "c533091d8a3bbf7460a00cb6c1a71da93bffe148f172c7d03b1c31fbf8aa2a0b",
        member: "libclang-18.1.1.data/platlib/clang/native/libclang.so",
        size: 63_703_544,
        member_sha256: "a8612b1c9a7125701277f63e5616f1d1eb9c91410c4bf195878067868c927f94",
        file: "libclang.so",
        variable: "LIBCLANG_PATH",
    },
    Wheel {
        platform: "linux-aarch64",
        project: "libclang",
        version: LIBCLANG,
        tag: "manylinux2014_aarch64",
        sha256: "54dda940a4a0491a9d1532bf071ea3ef26e6dbaf03b5000ed94dd7174e8f9592",
        member: "libclang-18.1.1.data/platlib/clang/native/libclang.so",
        size: 60_393_984,
        member_sha256: "87cc443de7278fa112ed50fac8844b1d5c6344f549b8b514e4381f26da006f65",
        file: "libclang.so",
        variable: "LIBCLANG_PATH",
    },
    Wheel {
        platform: "macos-aarch64",
        project: "libclang",
        version: LIBCLANG,
        tag: "macosx_11_0_arm64",
        sha256: "0b2e143f0fac830156feb56f9231ff8338c20aecfe72b4ffe96f19e5a1dbb69a",
        member: "libclang-18.1.1.data/platlib/clang/native/libclang.dylib",
        size: 74_992_480,
        member_sha256: "58ed3e937d7d87fdf13b177e39b6d7b26089fe1460c0d1e958707661277b6454",
        file: "libclang.dylib",
        variable: "LIBCLANG_PATH",
    },
    Wheel {
        platform: "macos-x86_64",
        project: "libclang",
        version: LIBCLANG,
        tag: "macosx_10_9_x86_64",
        sha256: "6f14c3f194704e5d09769108f03185fce7acaf1d1ae4bbb2f30a72c2400cb7c5",
        member: "libclang-18.1.1.data/platlib/clang/native/libclang.dylib",
        size: 83_327_536,
        member_sha256: "4a141176c6e117d7fcda3b70dc8ce91af3518d4bfc605d8fd5c324428f0664ad",
        file: "libclang.dylib",
        variable: "LIBCLANG_PATH",
    },
    Wheel {
        platform: "linux-x86_64",
        project: "onnxruntime",
        version: ONNXRUNTIME,
        tag: "manylinux_2_28_x86_64",
        sha256: "5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f",
        member: "onnxruntime/capi/libonnxruntime.so.1.31.1",
        size: 29_352_200,
        member_sha256: "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
        file: "libonnxruntime.so",
        variable: "ORT_DYLIB_PATH",
    },
    Wheel {
        platform: "linux-aarch64",
        project: "onnxruntime",
        version: ONNXRUNTIME,
        tag: "manylinux_2_28_aarch64",
        sha256: "da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3",
        member: "onnxruntime/capi/libonnxruntime.so.1.31.1",
        size: 25_265_040,
        member_sha256: "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
        file: "libonnxruntime.so",
        variable: "ORT_DYLIB_PATH",
    },
    // There is none for macOS on x86_64: the project no longer publishes it.
    Wheel {
        platform: "macos-aarch64",
        project: "onnxruntime",
        version: ONNXRUNTIME,
        tag: "macosx_14_0_arm64",
        sha256: "60b6b69bfe580eab576cacc5d132a0e9cf2a37fcfd18d46dd191042b1d1ed0d7",
        member: "onnxruntime/capi/libonnxruntime.1.31.1.dylib",
        size: 33_037_336,
        member_sha256: "f8b06155feece624e55e49124340eea279da812529ae6fbc46a9f2be9c9cad2e",
        file: "libonnxruntime.dylib",
        variable: "ORT_DYLIB_PATH",
    },
];

/// The pinned wheel of a project for this machine.
pub(crate) fn pinned(project: &str) -> Option<&'static Wheel> {
    if cfg!(all(target_os = "linux", not(target_env = "gnu"))) {
        return None;
    }
    let platform = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    WHEELS
        .iter()
        .find(|wheel| wheel.project == project && wheel.platform == platform)
}

impl Wheel {
    /// Folder below the store.
    pub(crate) fn folder(&self) -> String {
        format!("{}-{}", self.project, self.version)
    }

    /// Downloads, checks and unpacks the library; returns its path. The caller holds the lock.
    pub(crate) fn install(&self, store: &Path) -> Result<PathBuf> {
        let target = store.join(self.folder());
        let scratch = Scratch::new(store, self.project)?;
        let pip = Pip::find(scratch.path()).map_err(|reason| {
            eyre!(
                "{} {} is missing and cannot be downloaded: {reason}. Install python3 with pip \
                 (Debian, Ubuntu: python3-pip), or set {} to your own copy",
                self.project,
                self.version,
                self.variable
            )
        })?;
        eprintln!("downloading {} {} ({})", self.project, self.version, self.tag);
        let wheel = self.download(&pip, scratch.path())?;
        let got = sha256(&mut File::open(&wheel)?)?;
        ensure!(
            got == self.sha256,
            "{} has SHA-256 {got}, expected {}: not used",
            wheel.file_name().unwrap_or_default().to_string_lossy(),
            self.sha256
        );
        let fresh = scratch.path().join("library");
        std::fs::create_dir(&fresh)?;
        self.unpack(&wheel, &fresh.join(self.file))?;
        // One rename: whoever sees the folder sees a whole library in it. A leftover without the
        // right file in it (the caller looked) goes first.
        if target.exists() {
            std::fs::rename(&target, scratch.path().join("replaced"))?;
        }
        std::fs::rename(&fresh, &target)
            .wrap_err_with(|| format!("cannot move the library to {}", target.display()))?;
        Ok(target.join(self.file))
    }

    fn download(&self, pip: &Pip, into: &Path) -> Result<PathBuf> {
        let output = pip
            .command()
            .args(["download", "--no-deps", "--only-binary=:all:"])
            .args(["--disable-pip-version-check", "--no-input", "--progress-bar", "off"])
            // The interpreter does not matter, only the library inside: always the same wheel.
            .args(["--platform", self.tag, "--implementation", "cp"])
            .args(["--python-version", "3.11", "--abi", "cp311", "--abi", "none"])
            .arg("--dest")
            .arg(into)
            .arg(format!("{}=={}", self.project, self.version))
            .env("PIP_REQUIRE_VIRTUALENV", "0")
            .output()
            .wrap_err("cannot start pip")?;
        if !output.status.success() {
            bail!(
                "pip cannot download {}=={}: is the network there? Or set {} to your own copy.\n{}",
                self.project,
                self.version,
                self.variable,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let mut wheels = std::fs::read_dir(into)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "whl"));
        match (wheels.next(), wheels.next()) {
            (Some(wheel), None) => Ok(wheel),
            _ => bail!("pip said it downloaded {}, but there is not one wheel", self.project),
        }
    }

    fn unpack(&self, wheel: &Path, to: &Path) -> Result<()> {
        let mut archive = zip::ZipArchive::new(File::open(wheel)?)?;
        let member = archive
            .by_name(self.member)
            .wrap_err_with(|| format!("{} is not in the wheel", self.member))?;
        // The pinned size bounds what is written, whatever the archive's header says.
        let mut member = member.take(self.size + 1);
        let mut file = File::create(to)?;
        let copied = std::io::copy(&mut member, &mut file)?;
        ensure!(
            copied == self.size,
            "{} has {copied} bytes, expected {}",
            self.member,
            self.size
        );
        file.flush()?;
        file.sync_all()?;
        let got = sha256(&mut File::open(to)?)?;
        ensure!(
            got == self.member_sha256,
            "{} has SHA-256 {got}, expected {}",
            self.member,
            self.member_sha256
        );
        Ok(())
    }
}

/// The package index's own client.
#[derive(Debug)]
struct Pip {
    python: &'static str,
    /// Where pip's modules lie, if they do not belong to that Python.
    modules: Option<PathBuf>,
}

impl Pip {
    /// The installed one. Debian has Python without pip on many machines; then its package is unpacked for the moment.
    fn find(scratch: &Path) -> Result<Self> {
        let pythons = ["python3", "python"];
        if let Some(python) = pythons
            .into_iter()
            .find(|name| works(name, &["-m", "pip", "--version"]))
        {
            return Ok(Self { python, modules: None });
        }
        let Some(python) = pythons.into_iter().find(|name| works(name, &["--version"])) else {
            bail!("there is no python3");
        };
        ensure!(debian::available(), "{python} has no pip");
        let tree = debian::unpack("python3-pip", scratch).wrap_err_with(|| format!("{python} has no pip"))?;
        let pip = Self {
            python,
            modules: Some(tree.join("usr/lib/python3/dist-packages")),
        };
        let usable = pip
            .command()
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success());
        ensure!(
            usable,
            "{python} has no pip, and that of python3-pip does not run with it"
        );
        Ok(pip)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.python);
        if let Some(modules) = &self.modules {
            // Only these modules and the standard library.
            command.arg("-S").env("PYTHONPATH", modules);
        }
        command.args(["-m", "pip"]);
        command
    }
}

fn sha256(from: &mut impl Read) -> Result<String> {
    let mut hasher = Sha256::new();
    std::io::copy(from, &mut hasher)?;
    Ok(hex::encode(hasher.finalize()))
}

/// A folder that goes away again, on the store's own file system so that a rename can leave it.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(store: &Path, name: &str) -> Result<Self> {
        let path = store.join(format!(".{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(member: &'static str, sha: &'static str, size: u64) -> Wheel {
        Wheel {
            platform: "any",
            project: "sample",
            version: "1",
            tag: "any",
            sha256: "",
            member,
            size,
            member_sha256: sha,
            file: "lib.so",
            variable: "SAMPLE",
        }
    }

    fn archive(dir: &Path) -> PathBuf {
        let path = dir.join("sample.whl");
        let mut writer = zip::ZipWriter::new(File::create(&path).unwrap());
        let options = zip::write::SimpleFileOptions::default();
        writer.start_file("a/lib.so", options).unwrap();
        writer.write_all(b"abc").unwrap();
        writer.finish().unwrap();
        path
    }

    // SHA-256 of "abc", FIPS 180-4 appendix.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn takes_the_pinned_member_only() {
        let dir = tempfile::tempdir().unwrap();
        let wheel = archive(dir.path());
        let to = dir.path().join("out");
        sample("a/lib.so", ABC, 3).unpack(&wheel, &to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"abc");

        let error = sample("a/lib.so", ABC, 2).unpack(&wheel, &to).unwrap_err();
        assert!(error.to_string().contains("expected 2"), "{error}");
        let error = sample("a/lib.so", "00", 3).unpack(&wheel, &to).unwrap_err();
        assert!(error.to_string().contains("SHA-256"), "{error}");
        assert!(sample("b/lib.so", ABC, 3).unpack(&wheel, &to).is_err());
    }

    #[test]
    fn the_table_is_well_formed() {
        for (i, wheel) in WHEELS.iter().enumerate() {
            for digest in [wheel.sha256, wheel.member_sha256] {
                assert_eq!(digest.len(), 64, "{wheel:?}");
                assert!(hex::decode(digest).is_ok(), "{wheel:?}");
            }
            for other in &WHEELS[..i] {
                assert_ne!((wheel.project, wheel.platform), (other.project, other.platform));
                assert_ne!(wheel.sha256, other.sha256);
            }
        }
    }
}
