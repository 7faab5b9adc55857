//! GGUF headers, Llama hyperparameters and tokenizers: the real file, impossible files, and mutations.

mod common;

use common::{Gguf, fixture, text};
use opg_models::{
    gguf::{Array, GgmlType, GgufError, GgufHeader, Limits, Value},
    llama::LlamaConfig,
    tokenizer::{BpeVocabulary, TokenKind},
};
use proptest::prelude::*;

const FILE: &str = "tiny-llama/trained-Q8_0.gguf";

fn real() -> (Vec<u8>, GgufHeader) {
    let bytes = fixture(FILE);
    let header = GgufHeader::parse(&bytes, bytes.len() as u64).unwrap();
    (bytes, header)
}

/// The numbers of the fixture's README.
#[test]
fn reads_the_tiny_llama() {
    let (bytes, header) = real();
    assert_eq!(header.version, 3);
    assert_eq!(header.tensors.len(), 3 + 4 * 9);
    let config = LlamaConfig::read(&header).unwrap();
    assert_eq!(
        config,
        LlamaConfig {
            layers: 4,
            width: 256,
            feed_forward: 768,
            heads: 4,
            kv_heads: 2,
            context: 1_024,
            vocabulary: 1_024,
            rope_base: 10_000.0,
            norm_epsilon: 1e-5,
        }
    );
    let parameters: u64 = header
        .tensors
        .iter()
        .map(|tensor| tensor.dims.iter().product::<u64>())
        .sum();
    assert_eq!(parameters, 3_672_320);
    let embedding = header.tensor("token_embd.weight").unwrap();
    assert_eq!(
        (embedding.ty, embedding.dims.as_slice()),
        (GgmlType::Q8_0, &[256, 1_024][..])
    );
    // The header alone is enough, and one byte less is not.
    let front = header.data_offset as usize;
    assert_eq!(GgufHeader::parse(&bytes[..front], bytes.len() as u64), Ok(header));
    assert!(matches!(
        GgufHeader::parse(&bytes[..front / 2], bytes.len() as u64),
        Err(GgufError::Truncated { .. })
    ));
}

/// The tokenizer in the file is the one that `tokenizer.json`, written by the training tool, has.
#[test]
fn the_vocabulary_is_that_of_the_tokenizer_file() {
    let (_, header) = real();
    let vocabulary = BpeVocabulary::read(&header).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&fixture("tiny-llama/tok1k.json")).unwrap();
    let expected = json["model"]["vocab"].as_object().unwrap();
    assert_eq!(vocabulary.tokens.len(), expected.len());
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        assert_eq!(expected[token].as_u64(), Some(id as u64), "{token}");
    }
    let merges: Vec<(String, String)> = serde_json::from_value(json["model"]["merges"].clone()).unwrap();
    assert_eq!(vocabulary.merges, merges);
    let control: Vec<_> = (0..1_024)
        .filter(|&id| vocabulary.kinds[id] == TokenKind::Control)
        .collect();
    assert_eq!(control, [0, 1, 2]);
    assert_eq!(
        (vocabulary.control("<|im_start|>"), vocabulary.control("<|im_end|>")),
        (Some(1), Some(2))
    );
    assert_eq!(vocabulary.control("the"), None);
    assert_eq!(
        (vocabulary.begin, vocabulary.ends.iter().copied().collect::<Vec<_>>()),
        (None, vec![2])
    );
    assert_eq!(vocabulary.chat_template, None);
    assert_eq!(vocabulary.bytes(2), b"");
    assert_eq!(vocabulary.bytes(223), b" ");
    assert_eq!(vocabulary.bytes(9_999), b"");
}

#[test]
fn metadata_has_every_type() {
    let mut texts = 8u32.to_le_bytes().to_vec();
    texts.extend(2u64.to_le_bytes());
    texts.extend(text("a"));
    texts.extend(text(""));
    let mut numbers = 5u32.to_le_bytes().to_vec();
    numbers.extend(2u64.to_le_bytes());
    numbers.extend((-1i32).to_le_bytes());
    numbers.extend(7i32.to_le_bytes());
    let file = Gguf::new()
        .entry("u8", 0, [200])
        .entry("i8", 1, [0xff])
        .entry("u16", 2, 60_000u16.to_le_bytes())
        .entry("i16", 3, (-2i16).to_le_bytes())
        .u32("u32", 5)
        .entry("i32", 5, (-3i32).to_le_bytes())
        .entry("f32", 6, 1.5f32.to_le_bytes())
        .entry("bool", 7, [1])
        .text("text", "ü")
        .entry("texts", 9, texts)
        .entry("numbers", 9, numbers)
        .entry("u64", 10, u64::MAX.to_le_bytes())
        .entry("i64", 11, i64::MIN.to_le_bytes())
        .entry("f64", 12, 2.5f64.to_le_bytes())
        .build(0);
    let header = GgufHeader::parse(&file, file.len() as u64).unwrap();
    assert_eq!(header.metadata["i8"], Value::I8(-1));
    assert_eq!(header.metadata["u64"], Value::U64(u64::MAX));
    assert_eq!(header.metadata["text"], Value::Text("ü".into()));
    assert_eq!(header.texts("texts").unwrap(), ["a", ""]);
    let Value::Array(array @ Array::Numbers { .. }) = &header.metadata["numbers"] else {
        panic!()
    };
    assert_eq!((array.len(), array.as_i32s()), (2, Some(vec![-1, 7])));
    assert_eq!(
        header.u32("text").unwrap_err().to_string(),
        "text: expected an integer (u32), got the text \"ü\"",
    );
    assert_eq!(
        header.u32("none").unwrap_err().to_string(),
        "none: expected an integer (u32), got nothing"
    );
}

#[test]
fn refuses_impossible_headers() {
    let parse = |bytes: &[u8]| GgufHeader::parse(bytes, bytes.len() as u64);
    assert!(matches!(parse(b""), Err(GgufError::Truncated { at: 0, missing: 4 })));
    assert!(matches!(parse(b"ggml\0\0\0\0"), Err(GgufError::Magic { .. })));
    for version in [0, 1, 4, 3u32.swap_bytes()] {
        let file = Gguf { version, ..Gguf::new() }.build(0);
        assert_eq!(parse(&file), Err(GgufError::Version { got: version }));
    }
    // Counts that no file could hold are refused before memory is reserved for them.
    for (tensors, entries) in [(u64::MAX, 0), (0, u64::MAX), (60_000, 0), (0, 4_000)] {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend(tensors.to_le_bytes());
        file.extend(entries.to_le_bytes());
        assert!(matches!(
            parse(&file),
            Err(GgufError::Limit { .. } | GgufError::Truncated { .. })
        ));
    }
    let array = |code: u32, count: u64| {
        let mut bytes = code.to_le_bytes().to_vec();
        bytes.extend(count.to_le_bytes());
        parse(&Gguf::new().entry("a", 9, bytes).build(0))
    };
    assert!(matches!(array(0, u64::MAX), Err(GgufError::Limit { .. })));
    assert!(matches!(array(12, 4_000_000), Err(GgufError::Truncated { .. })));
    assert!(matches!(array(8, 4_000_000), Err(GgufError::Truncated { .. })));
    assert!(matches!(array(9, 1), Err(GgufError::ValueType { got: 9, .. })));
    assert!(matches!(
        parse(&Gguf::new().entry("a", 13, []).build(0)),
        Err(GgufError::ValueType { got: 13, .. })
    ));
    assert!(matches!(
        parse(&Gguf::new().entry("a", 7, [2]).build(0)),
        Err(GgufError::Bool { got: 2, .. })
    ));
    assert!(matches!(
        parse(&Gguf::new().u32("a", 1).u32("a", 2).build(0)),
        Err(GgufError::Duplicate { .. })
    ));
    assert!(matches!(
        parse(&Gguf::new().u32("", 1).build(0)),
        Err(GgufError::Text { .. })
    ));
    assert!(matches!(
        parse(&Gguf::new().u32("a\n", 1).build(0)),
        Err(GgufError::Text { .. })
    ));
    let mut invalid = 2u64.to_le_bytes().to_vec();
    invalid.extend([0xc3, 0x28]);
    assert!(matches!(
        parse(&Gguf::new().entry("a", 8, invalid).build(0)),
        Err(GgufError::Text { .. })
    ));
    for alignment in [0, 7, 12, 4, 1 << 20] {
        let file = Gguf::new().u32("general.alignment", alignment).build(0);
        assert!(matches!(parse(&file), Err(GgufError::Metadata { .. })), "{alignment}");
    }
}

#[test]
fn tensors_fill_the_file_in_order() {
    let parse = |file: Gguf, data: usize| {
        let bytes = file.build(data);
        GgufHeader::parse(&bytes, bytes.len() as u64).map(|header| header.tensors.len())
    };
    let two = |offset| Gguf::new().tensor("a", &[5], 0, 0).tensor("b", &[8], 0, offset);
    // 20 bytes padded to 32, then 32.
    assert_eq!(parse(two(32), 64), Ok(2));
    for (what, result) in [
        ("overlap", parse(two(0), 64)),
        ("overlap inside", parse(two(16), 64)),
        ("hole", parse(two(64), 96)),
        ("past the end", parse(two(32), 63)),
        ("no dimension", parse(Gguf::new().tensor("a", &[], 0, 0), 0)),
        ("five dimensions", parse(Gguf::new().tensor("a", &[1; 5], 0, 0), 32)),
        ("size 0", parse(Gguf::new().tensor("a", &[4, 0], 0, 0), 32)),
        (
            "overflow",
            parse(Gguf::new().tensor("a", &[1 << 32, 1 << 32], 0, 0), 32),
        ),
        (
            "overflow of 63 bits",
            parse(Gguf::new().tensor("a", &[1 << 32, 1 << 31], 0, 0), 32),
        ),
        (
            "rows of half blocks",
            parse(Gguf::new().tensor("a", &[16, 2], 8, 0), 64),
        ),
        ("unknown type", parse(Gguf::new().tensor("a", &[32], 99, 0), 64)),
        (
            "offset past 2^64",
            parse(Gguf::new().tensor("a", &[8], 0, u64::MAX), 64),
        ),
    ] {
        assert!(matches!(result, Err(GgufError::Tensor { .. })), "{what}: {result:?}");
    }
    assert!(matches!(parse(two(32), 65), Err(GgufError::Tail { .. })));
    let twice = Gguf::new().tensor("a", &[8], 0, 0).tensor("a", &[8], 0, 32);
    assert!(matches!(parse(twice, 64), Err(GgufError::Duplicate { .. })));
    // The last tensor may end without its padding.
    assert_eq!(parse(Gguf::new().tensor("a", &[5], 0, 0), 20), Ok(1));
}

#[test]
fn llamas_that_would_be_computed_wrongly_are_refused() {
    let (_, header) = real();
    let with = |key: &str, value: Value| {
        let mut header = header.clone();
        header.metadata.insert(key.into(), value);
        LlamaConfig::read(&header)
    };
    for (key, value) in [
        ("general.architecture", Value::Text("qwen2".into())),
        ("llama.expert_count", Value::U32(8)),
        ("llama.rope.scaling.type", Value::Text("yarn".into())),
        ("llama.rope.dimension_count", Value::U32(32)),
        ("llama.attention.head_count", Value::U32(0)),
        ("llama.attention.head_count", Value::U32(3)),
        ("llama.attention.head_count_kv", Value::U32(3)),
        ("llama.attention.head_count_kv", Value::U32(0)),
        ("llama.attention.key_length", Value::U32(128)),
        ("llama.block_count", Value::U32(u32::MAX)),
        ("llama.embedding_length", Value::I32(256)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(f32::NAN)),
        ("llama.rope.freq_base", Value::F32(f32::INFINITY)),
    ] {
        let error = with(key, value.clone()).unwrap_err();
        assert!(
            matches!(&error, GgufError::Metadata { key: got, .. } if got == key),
            "{key} {value:?}: {error}"
        );
    }
    assert!(matches!(
        with("llama.block_count", Value::U32(5)),
        Err(GgufError::Tensor { .. })
    ));
    assert!(matches!(
        with("llama.block_count", Value::U32(3)),
        Err(GgufError::Tensor { .. })
    ));
    assert!(matches!(
        with("llama.feed_forward_length", Value::U32(700)),
        Err(GgufError::Tensor { .. })
    ));
    assert!(with("llama.rope.scaling.type", Value::Text("none".into())).is_ok());
    let mut extra = header.clone();
    extra.tensors[5].name = "rope_freqs.weight".into();
    assert!(matches!(LlamaConfig::read(&extra), Err(GgufError::Tensor { .. })));
}

#[test]
fn tokenizers_that_would_encode_wrongly_are_refused() {
    let (_, header) = real();
    let with = |key: &str, value: Value| {
        let mut header = header.clone();
        header.metadata.insert(key.into(), value);
        BpeVocabulary::read(&header).map(|_| ()).unwrap_err().to_string()
    };
    let tokens = header.texts("tokenizer.ggml.tokens").unwrap().to_vec();
    let merges = header.texts("tokenizer.ggml.merges").unwrap().to_vec();
    let changed = |texts: &[String], at: usize, text: &str| {
        let mut texts = texts.to_vec();
        texts[at] = text.into();
        Value::Array(Array::Texts(texts))
    };
    let token = |at, text: &str| with("tokenizer.ggml.tokens", changed(&tokens, at, text));
    assert!(token(10, "").contains("1 to 1024 bytes"));
    assert!(token(1_000, "a b").contains("byte-level alphabet"));
    assert!(token(1_000, &tokens[999].clone()).contains("twice"));
    assert!(token(223, "zzzz").contains("none for byte 32"));
    let merge = |text: &str| with("tokenizer.ggml.merges", changed(&merges, 7, text));
    assert!(merge("nospace").contains("two tokens"));
    assert!(merge("q q").contains("two tokens"));
    assert!(merge(&merges[6].clone()).contains("twice"));
    assert!(with("tokenizer.ggml.model", Value::Text("llama".into())).contains("gpt2"));
    assert!(with("tokenizer.ggml.pre", Value::Text("llama-bpe".into())).contains("gpt-2"));
    assert!(with("tokenizer.ggml.eos_token_id", Value::U32(1_024)).contains("below 1024"));
    assert!(
        with("tokenizer.ggml.token_type", Value::Array(Array::Texts(vec![]))).contains("an integer for each token")
    );
}

#[test]
fn limits_are_kept() {
    let (bytes, _) = real();
    for change in [
        (|limits: &mut Limits| limits.header = 1_000) as fn(&mut Limits),
        |limits| limits.entries = 3,
        |limits| limits.key = 4,
        |limits| limits.text = 3,
        |limits| limits.array = 100,
        |limits| limits.tensors = 10,
        |limits| limits.name = 5,
    ] {
        let mut limits = Limits::default();
        change(&mut limits);
        let result = GgufHeader::parse_with(&bytes, bytes.len() as u64, &limits);
        assert!(matches!(result, Err(GgufError::Limit { .. })), "{limits:?}: {result:?}");
    }
}

fn everything(bytes: &[u8], size: u64) {
    if let Ok(header) = GgufHeader::parse(bytes, size) {
        let _ = LlamaConfig::read(&header);
        let _ = BpeVocabulary::read(&header);
    }
}

proptest! {
    #[test]
    fn mutations_do_not_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        early in prop::collection::vec((0usize..600, any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let (bytes, header) = real();
        let mut front = bytes[..header.data_offset as usize].to_vec();
        for (at, byte) in &edits {
            let at = at.index(front.len());
            front[at] = *byte;
        }
        for (at, byte) in early {
            front[at] = byte;
        }
        everything(&front, bytes.len() as u64);
        everything(&front[..cut.index(front.len())], bytes.len() as u64);
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), size in any::<u64>()) {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend(bytes);
        everything(&file, size);
    }
}
