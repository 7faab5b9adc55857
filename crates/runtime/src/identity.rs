//! What computed an answer: the runtime digest of receipts.

use crate::onnx::library;
use opg_primitives::{B256, domain::Tag, hash};

/// The engines and their exact versions, as hashed into the runtime digest.
pub const ENGINES: [&str; 4] = [
    concat!("opg-runtime ", env!("CARGO_PKG_VERSION")),
    "ort 2.0.0-rc.15",
    "candle 0.11.1",
    "tokenizers 1.0.0-rc.3",
];

/// Identity of the software that runs models in this process:
/// `tagged("opg/runtime/v1", engine, …, architecture, SHA-256 of the ONNX Runtime library)`.
///
/// Bits are comparable only between answers of the same digest, on processors of the same class. Without an ONNX
/// Runtime library its hash is zero; a node that serves ONNX models loads one before it answers.
#[must_use]
pub fn runtime_digest() -> B256 {
    let library = library::get().map(|library| library.sha256).unwrap_or_default();
    let mut parts: Vec<&[u8]> = ENGINES.iter().map(|engine| engine.as_bytes()).collect();
    parts.push(std::env::consts::ARCH.as_bytes());
    parts.push(library.as_slice());
    hash::tagged(Tag::Runtime, &parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names above are what Cargo really builds.
    #[test]
    fn engine_versions_are_those_of_the_lock_file() {
        let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock")).unwrap();
        for (package, engine) in [
            ("ort", ENGINES[1]),
            ("candle-core", ENGINES[2]),
            ("tokenizers", ENGINES[3]),
        ] {
            let version = engine.split(' ').nth(1).unwrap();
            assert!(
                lock.contains(&format!("name = \"{package}\"\nversion = \"{version}\"\n")),
                "{package} {version}"
            );
        }
    }

    #[test]
    fn the_digest_names_the_library() {
        let library = library::get().expect("ONNX Runtime library");
        assert_eq!(library.sha256, hash::sha256(&std::fs::read(&library.path).unwrap()));
        assert_eq!(runtime_digest(), runtime_digest());
        assert_ne!(runtime_digest(), B256::ZERO);
    }
}
