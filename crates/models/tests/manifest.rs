//! Manifests and roots.

use opg_models::{FileEntry, FileHasher, Format, Manifest, ManifestError};
use opg_primitives::{B256, hash};
use proptest::prelude::*;

fn file(path: &str, size: u64) -> FileEntry {
    FileEntry {
        path: path.into(),
        size,
        sha256: B256::repeat_byte(7),
    }
}

#[test]
fn the_encoding_is_the_written_one() {
    let manifest = Manifest::single(Format::Gguf, b"abc");
    // {1: 1, 2: 2, 3: [{1: "model.gguf", 2: 3, 3: sha256("abc")}], 4: "model.gguf"}, by hand.
    let mut expected = vec![0xa4, 0x01, 0x01, 0x02, 0x02, 0x03, 0x81, 0xa3, 0x01, 0x6a];
    expected.extend(b"model.gguf");
    expected.extend([0x02, 0x03, 0x03, 0x58, 0x20]);
    expected.extend(hash::sha256(b"abc"));
    expected.extend([0x04, 0x6a]);
    expected.extend(b"model.gguf");
    assert_eq!(manifest.encode().unwrap(), expected);
    // tagged(tag, part) = SHA-256(len || tag || len as u64 || part)
    let mut input = vec![12];
    input.extend(b"opg/model/v1");
    input.extend((expected.len() as u64).to_be_bytes());
    input.extend(&expected);
    assert_eq!(manifest.root().unwrap().0, hash::sha256(&input));
}

#[test]
fn the_root_depends_on_everything_that_is_loaded() {
    let base = Manifest::single(Format::Onnx, b"weights");
    let roots = [
        base.root().unwrap(),
        Manifest::single(Format::Gguf, b"weights").root().unwrap(),
        Manifest::single(Format::Onnx, b"weightz").root().unwrap(),
        Manifest::new(Format::Onnx, "a.onnx", vec![file("a.onnx", 7)])
            .unwrap()
            .root()
            .unwrap(),
        Manifest::new(Format::Onnx, "a.onnx", vec![file("a.onnx", 7), file("b", 1)])
            .unwrap()
            .root()
            .unwrap(),
        Manifest::new(Format::Onnx, "b", vec![file("a.onnx", 7), file("b", 1)])
            .unwrap()
            .root()
            .unwrap(),
    ];
    let unique: std::collections::BTreeSet<_> = roots.iter().collect();
    assert_eq!(unique.len(), roots.len());
}

#[test]
fn unsafe_and_ambiguous_paths_are_refused() {
    for path in [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "./a",
        "a//b",
        "a/",
        ".hidden",
        "a/.git",
        "a\\b",
        "C:x",
        "a b",
        "é",
        "a\0",
        "a/b/c/d/e/f/g/h/i",
        &"x".repeat(256),
    ] {
        let result = Manifest::new(Format::Onnx, path, vec![file(path, 1)]);
        assert!(matches!(result, Err(ManifestError::Path { .. })), "{path:?}");
    }
    let two = |a: &str, b: &str| Manifest::new(Format::Onnx, a, vec![file(a, 1), file(b, 1)]).map(|_| ());
    assert!(two("a", "a").unwrap_err().to_string().contains("unique"));
    assert!(two("A", "a").unwrap_err().to_string().contains("case"));
    assert!(two("a", "a/b").unwrap_err().to_string().contains("folder"));
    assert!(two("a", "A/b").unwrap_err().to_string().contains("folder"));
    assert_eq!(two("a", "b"), Ok(()));
    assert!(matches!(
        Manifest::new(Format::Onnx, "x", vec![file("a", 1)]),
        Err(ManifestError::Entry { .. })
    ));
    assert!(matches!(
        Manifest::new(Format::Onnx, "x", vec![]),
        Err(ManifestError::Files { .. })
    ));
    let huge = vec![file("a", u64::MAX), file("b", 1)];
    assert_eq!(Manifest::new(Format::Onnx, "a", huge), Err(ManifestError::Size));
}

#[test]
fn only_the_canonical_bytes_are_read() {
    let bytes = Manifest::new(Format::Onnx, "m.onnx", vec![file("m.onnx", 9), file("n", 1)])
        .unwrap()
        .encode()
        .unwrap();
    assert!(Manifest::decode(&bytes).is_ok());
    for at in 0..bytes.len() {
        assert!(Manifest::decode(&bytes[..at]).is_err());
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            // Whatever is still a manifest is another one, and is itself canonical.
            if let Ok(manifest) = Manifest::decode(&changed) {
                assert_eq!(manifest.encode().unwrap(), changed);
            }
        }
    }
}

#[test]
fn json_round_trip_is_strict() {
    let manifest = Manifest::single(Format::Onnx, b"x");
    let text = serde_json::to_string(&manifest).unwrap();
    assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest);
    assert!(serde_json::from_str::<Manifest>(&text.replacen('{', "{\"x\":1,", 1)).is_err());
}

proptest! {
    #[test]
    fn pieces_of_any_size_hash_to_the_same_entry(bytes in prop::collection::vec(any::<u8>(), 0..2_000), cut in 1usize..200) {
        let mut hasher = FileHasher::new();
        for piece in bytes.chunks(cut) {
            hasher.update(piece);
        }
        prop_assert_eq!(Manifest::single_hashed(Format::Onnx, hasher), Manifest::single(Format::Onnx, &bytes));
    }

    #[test]
    fn valid_manifests_survive_encoding(
        names in prop::collection::btree_set("[a-z]{1,6}(/[a-z0-9_-]{1,8}\\.bin)?", 1..12),
        size in 0u64..1 << 40,
    ) {
        let files: Vec<_> = names.iter().map(|name| file(name, size)).collect();
        let entry = files[0].path.clone();
        if let Ok(manifest) = Manifest::new(Format::Gguf, &entry, files) {
            prop_assert_eq!(Manifest::decode(&manifest.encode().unwrap()).unwrap(), manifest);
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Manifest::decode(&bytes);
    }
}
