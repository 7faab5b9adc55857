//! What sources of models send: manifests, verified ranges and their headers.

use super::{target, words};
use crate::Target;
use opg_model_store::ranges::{self, Encoder, RANGE_LIMIT, Span};
use opg_models::{FileEntry, FileHasher, Format, Manifest, ManifestVersion};

/// Files of a small model, in all versions.
fn manifests() -> Vec<Vec<u8>> {
    let entry = |version, path: &str, bytes: &[u8]| -> FileEntry {
        let mut hasher = FileHasher::new(version, bytes.len() as u64);
        hasher.update(bytes);
        hasher.finish(path)
    };
    [ManifestVersion::V1, ManifestVersion::V2]
        .into_iter()
        .flat_map(|version| {
            let several = vec![
                entry(version, "m/net.onnx", b"net"),
                entry(version, "m/weights.bin", &[7; 3_000]),
            ];
            [
                Manifest::single(version, Format::Gguf, b"weights"),
                Manifest::new(version, Format::Onnx, "m/net.onnx", several).expect("a good manifest"),
            ]
        })
        .map(|manifest| manifest.encode().expect("a good manifest"))
        .collect()
}

/// A file of some groups.
fn file() -> Vec<u8> {
    (0..70_000u32).map(|i| (i * 31 + i / 253) as u8).collect()
}

fn span(size: u64) -> Span {
    Span::covering(16_384, 49_000, size).expect("a part of the file")
}

fn hashes() -> (Vec<u8>, [u8; 32]) {
    let (file, mut outboard) = (file(), Vec::new());
    let root = ranges::make_outboard(file.as_slice(), file.len() as u64, &mut outboard).expect("in memory");
    (outboard, root)
}

fn answer() -> Vec<u8> {
    let (file, (outboard, root)) = (file(), hashes());
    let size = file.len() as u64;
    let span = span(size);
    let from = file
        .get(usize::try_from(span.start()).expect("small")..)
        .expect("inside");
    let mut encoder = Encoder::new(root, size, span, from, outboard.as_slice());
    let mut answer = vec![0; 1 << 20];
    let length = encoder.fill(&mut answer).expect("a good file");
    answer.truncate(length);
    answer
}

pub(super) fn targets() -> Vec<Target> {
    let (good, (outboard, root)) = (file(), hashes());
    let size = good.len() as u64;
    let part = span(size);
    let (known, kept) = (good.clone(), outboard.clone());
    vec![
        target("model-manifest", manifests(), |input| {
            words(Manifest::decode(input), |manifest| {
                assert_eq!(manifest.encode().expect("what was read"), input, "one encoding");
                let json = serde_json::to_string(&manifest).expect("JSON");
                assert_eq!(serde_json::from_str::<Manifest>(&json).expect("JSON"), manifest);
                for older in manifest.versions() {
                    let root = older.root().expect("a version of what was read");
                    assert_eq!(manifest.with_root(root), Some(older));
                }
                format!("{} {} files", manifest.version.code(), manifest.files.len())
            })
        }),
        // An answer: nothing is written but what the file has.
        target("model-range", vec![answer()], move |input| {
            let (mut data, mut hashes, mut until) = (vec![0; good.len()], Vec::new(), part.start());
            let result = ranges::decode(root, size, part, input, &mut data, &mut hashes, |at| until = at);
            for (at, byte) in data.iter().enumerate() {
                let here = (part.start()..until).contains(&(at as u64));
                assert_eq!(*byte, if here { good[at] } else { 0 }, "byte {at}");
            }
            assert!(hashes.len() as u64 <= ranges::outboard_length(size));
            words(result, |()| until.to_string())
        }),
        // What a crash or a bad disk leaves of an outboard: nothing counts as here that is not proven.
        target("model-outboard", vec![outboard], move |input| {
            let missing = ranges::missing(root, size, known.as_slice(), input).expect("in memory");
            let length: u64 = missing.iter().map(|span| span.length()).sum();
            assert!(input.starts_with(&kept) || length > 0, "{input:?}");
            let whole = Span::covering(0, size, size).expect("not empty");
            let mut encoder = Encoder::new(root, size, whole, known.as_slice(), input);
            let sent = encoder.fill(&mut vec![0; 1 << 20]);
            assert_eq!(sent.is_ok(), length == 0);
            if length == 0 {
                "ok".to_owned()
            } else {
                format!("{} missing", missing.len())
            }
        }),
        target(
            "model-range-header",
            vec![b"bao-blake3=16384-49151".to_vec()],
            |input| {
                let text = String::from_utf8_lossy(input);
                let size = 70_000 + (input.len() as u64) * 100_000_000;
                match Span::of_header(&text, size) {
                    None => "another unit".to_owned(),
                    Some(span) => words(span, |span| {
                        assert!(span.length() > 0 && span.length() <= RANGE_LIMIT && span.end() <= size);
                        assert_eq!(Span::of_header(&span.range(), size), Some(Ok(span)));
                        assert!(span.encoded_length(size) >= span.length());
                        "a range".to_owned()
                    }),
                }
            },
        ),
    ]
}
