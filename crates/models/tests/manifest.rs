//! Manifests and roots.

use opg_models::{FileEntry, FileHasher, Format, GitId, Manifest, ManifestError, ManifestVersion};
use opg_primitives::{B256, hash};
use proptest::prelude::*;

fn file(path: &str, size: u64) -> FileEntry {
    FileEntry {
        path: path.into(),
        size,
        sha256: B256::repeat_byte(7),
        blake3: None,
        git_sha1: None,
    }
}

fn file_v2(path: &str, size: u64) -> FileEntry {
    FileEntry {
        blake3: Some(B256::repeat_byte(8)),
        git_sha1: Some(GitId::repeat_byte(9)),
        ..file(path, size)
    }
}

const V1: ManifestVersion = ManifestVersion::V1;
const V2: ManifestVersion = ManifestVersion::V2;

/// Both versions of all of it, against an implementation of its own.
#[test]
fn manifests_are_those_of_the_golden_vectors() {
    let vectors = opg_vectors::load("manifest");
    let content = |case: &serde_json::Value| {
        let byte = u8::try_from(case["byte"].as_u64().unwrap()).unwrap();
        vec![byte; usize::try_from(case["length"].as_u64().unwrap()).unwrap()]
    };
    for case in opg_vectors::list(&vectors["blake3"]) {
        let entry = Manifest::single(V2, Format::Onnx, &content(case)).files.remove(0);
        assert_eq!(
            entry.blake3.unwrap().to_vec(),
            opg_vectors::bytes(&case["hash"]),
            "{case}"
        );
    }
    let cases = opg_vectors::list(&vectors["manifests"]);
    assert_eq!(cases.len(), 12);
    for case in cases {
        let version = ManifestVersion::try_from(case["version"].as_u64().unwrap()).unwrap();
        let format = opg_vectors::text(&case["format"]).parse().unwrap();
        let files = opg_vectors::list(&case["files"]).iter().map(|file| {
            let bytes = content(file);
            let mut hasher = FileHasher::new(version, bytes.len() as u64);
            hasher.update(&bytes);
            hasher.finish(opg_vectors::text(&file["path"]))
        });
        let manifest = Manifest::new(version, format, opg_vectors::text(&case["entry"]), files.collect()).unwrap();
        let bytes = opg_vectors::bytes(&case["cbor"]);
        assert_eq!(manifest.encode().unwrap(), bytes, "{case}");
        assert_eq!(Manifest::decode(&bytes).unwrap(), manifest, "{case}");
        let root = manifest.root().unwrap();
        assert_eq!(root.0.to_vec(), opg_vectors::bytes(&case["root"]), "{case}");
        assert_eq!(manifest.with_root(root), Some(manifest));
    }
}

#[test]
fn a_version_has_its_hashes_and_no_others() {
    for (version, files) in [
        (V1, vec![file_v2("a", 1)]),
        (V2, vec![file("a", 1)]),
        (V2, vec![file_v2("a", 1), file("b", 1)]),
        (
            V2,
            vec![FileEntry {
                git_sha1: None,
                ..file_v2("a", 1)
            }],
        ),
        (
            V1,
            vec![FileEntry {
                blake3: None,
                ..file_v2("a", 1)
            }],
        ),
    ] {
        let refused = Manifest::new(version, Format::Onnx, "a", files);
        assert!(matches!(refused, Err(ManifestError::Hashes { .. })), "{refused:?}");
    }
    // An encoding of one version with the number of the other is none.
    for (version, other) in [(V1, 2), (V2, 1), (V2, 0), (V2, 3)] {
        let mut bytes = Manifest::single(version, Format::Onnx, b"x").encode().unwrap();
        assert_eq!(bytes[2], version.code() as u8);
        bytes[2] = other;
        assert!(Manifest::decode(&bytes).is_err(), "{version:?} as {other}");
    }
    // The older version of the same files is that of the same bytes.
    let newer = Manifest::single(V2, Format::Gguf, b"weights");
    let older = Manifest::single(V1, Format::Gguf, b"weights");
    assert_eq!(newer.versions().collect::<Vec<_>>(), [newer.clone(), older.clone()]);
    assert_eq!(older.versions().collect::<Vec<_>>(), vec![older.clone()]);
    assert_eq!(newer.with_root(older.root().unwrap()), Some(older.clone()));
    assert_eq!(older.with_root(newer.root().unwrap()), None);
    // JSON of the time when there was one version.
    let mut json = serde_json::to_value(&older).unwrap();
    assert_eq!(json["version"], 1);
    json.as_object_mut().unwrap().remove("version");
    assert_eq!(serde_json::from_value::<Manifest>(json.clone()).unwrap(), older);
    json["version"] = 3.into();
    assert!(serde_json::from_value::<Manifest>(json).is_err());
}

#[test]
fn the_encoding_is_the_written_one() {
    let manifest = Manifest::single(V1, Format::Gguf, b"abc");
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
    let base = Manifest::single(V1, Format::Onnx, b"weights");
    let roots = [
        base.root().unwrap(),
        Manifest::single(V1, Format::Gguf, b"weights").root().unwrap(),
        Manifest::single(V1, Format::Onnx, b"weightz").root().unwrap(),
        Manifest::single(V2, Format::Onnx, b"weights").root().unwrap(),
        Manifest::new(V1, Format::Onnx, "a.onnx", vec![file("a.onnx", 7)])
            .unwrap()
            .root()
            .unwrap(),
        Manifest::new(V1, Format::Onnx, "a.onnx", vec![file("a.onnx", 7), file("b", 1)])
            .unwrap()
            .root()
            .unwrap(),
        Manifest::new(V1, Format::Onnx, "b", vec![file("a.onnx", 7), file("b", 1)])
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
        let result = Manifest::new(V1, Format::Onnx, path, vec![file(path, 1)]);
        assert!(matches!(result, Err(ManifestError::Path { .. })), "{path:?}");
    }
    let two = |a: &str, b: &str| Manifest::new(V1, Format::Onnx, a, vec![file(a, 1), file(b, 1)]).map(|_| ());
    assert!(two("a", "a").unwrap_err().to_string().contains("unique"));
    assert!(two("A", "a").unwrap_err().to_string().contains("case"));
    assert!(two("a", "a/b").unwrap_err().to_string().contains("folder"));
    assert!(two("a", "A/b").unwrap_err().to_string().contains("folder"));
    assert_eq!(two("a", "b"), Ok(()));
    assert!(matches!(
        Manifest::new(V1, Format::Onnx, "x", vec![file("a", 1)]),
        Err(ManifestError::Entry { .. })
    ));
    assert!(matches!(
        Manifest::new(V1, Format::Onnx, "x", vec![]),
        Err(ManifestError::Files { .. })
    ));
    let huge = vec![file("a", u64::MAX), file("b", 1)];
    assert_eq!(Manifest::new(V1, Format::Onnx, "a", huge), Err(ManifestError::Size));
}

#[test]
fn only_the_canonical_bytes_are_read() {
    for (version, file) in [(V1, file as fn(&str, u64) -> FileEntry), (V2, file_v2)] {
        let bytes = Manifest::new(version, Format::Onnx, "m.onnx", vec![file("m.onnx", 9), file("n", 1)])
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
}

#[test]
fn json_round_trip_is_strict() {
    for version in [V1, V2] {
        let manifest = Manifest::single(version, Format::Onnx, b"x");
        let text = serde_json::to_string(&manifest).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest);
        assert!(serde_json::from_str::<Manifest>(&text.replacen('{', "{\"x\":1,", 1)).is_err());
    }
}

proptest! {
    #[test]
    fn pieces_of_any_size_hash_to_the_same_entry(bytes in prop::collection::vec(any::<u8>(), 0..2_000), cut in 1usize..200) {
        for version in [V1, V2] {
            let mut hasher = FileHasher::new(version, bytes.len() as u64);
            for piece in bytes.chunks(cut) {
                hasher.update(piece);
            }
            let hashed = Manifest::single_hashed(version, Format::Onnx, hasher);
            prop_assert_eq!(hashed, Manifest::single(version, Format::Onnx, &bytes));
        }
    }

    #[test]
    fn valid_manifests_survive_encoding(
        names in prop::collection::btree_set("[a-z]{1,6}(/[a-z0-9_-]{1,8}\\.bin)?", 1..12),
        size in 0u64..1 << 40,
    ) {
        for (version, file) in [(V1, file as fn(&str, u64) -> FileEntry), (V2, file_v2)] {
            let files: Vec<_> = names.iter().map(|name| file(name, size)).collect();
            let entry = files[0].path.clone();
            if let Ok(manifest) = Manifest::new(version, Format::Gguf, &entry, files) {
                prop_assert_eq!(Manifest::decode(&manifest.encode().unwrap()).unwrap(), manifest);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Manifest::decode(&bytes);
    }
}
