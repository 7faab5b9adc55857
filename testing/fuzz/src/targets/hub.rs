//! What strangers upload to a model hub: model files and their settings, xorbs and shards, cards, sign-in messages.

use super::{target, words};
use crate::Target;
use opg_hub::{
    card,
    siwe::Message,
    validate::{Look, ModelFormat, Settings, look},
    xet,
};

/// A GGUF file of version 3: a name, a context length, and one tensor of 64 floats.
fn gguf() -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend(1u64.to_le_bytes());
    file.extend(4u64.to_le_bytes());
    for (key, value) in [("general.architecture", "llama"), ("general.name", "tiny")] {
        file.extend(text(key));
        file.extend(8u32.to_le_bytes());
        file.extend(text(value));
    }
    file.extend(text("llama.context_length"));
    file.extend(4u32.to_le_bytes());
    file.extend(1024u32.to_le_bytes());
    // An array of two texts.
    file.extend(text("tokenizer.ggml.tokens"));
    file.extend(9u32.to_le_bytes());
    file.extend(8u32.to_le_bytes());
    file.extend(2u64.to_le_bytes());
    file.extend(text("a"));
    file.extend(text("b"));
    file.extend(text("token_embd.weight"));
    file.extend(2u32.to_le_bytes());
    file.extend(32u64.to_le_bytes());
    file.extend(2u64.to_le_bytes());
    file.extend(0u32.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    file.resize(file.len().next_multiple_of(32) + 64 * 4, 0);
    file
}

fn safetensors() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}}"#;
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 32]].concat()
}

/// Two chunks as they are.
fn xorb() -> Vec<u8> {
    let chunk = |content: &[u8]| {
        let n = (content.len() as u32).to_le_bytes();
        [&[0, n[0], n[1], n[2], 0, n[0], n[1], n[2]][..], content].concat()
    };
    [chunk(b"first chunk"), chunk(&[7; 100])].concat()
}

/// One file of two terms, with its verification and its SHA-256.
fn shard() -> Vec<u8> {
    let record = |hash: [u8; 32], numbers: [u32; 4]| -> Vec<u8> {
        let words = numbers.iter().flat_map(|n| n.to_le_bytes());
        hash.into_iter().chain(words).collect()
    };
    let tag = [
        72, 70, 82, 101, 112, 111, 77, 101, 116, 97, 68, 97, 116, 97, 0, 85, 105, 103, 69, 106, 123, 129, 87, 131, 165,
        189, 217, 92, 205, 209, 74, 169,
    ];
    [
        record(tag, [2, 0, 0, 0]),
        record([1; 32], [3 << 30, 2, 0, 0]),
        record([2; 32], [0, 100, 0, 3]),
        record([3; 32], [0, 50, 7, 8]),
        record([4; 32], [0; 4]),
        record([5; 32], [0; 4]),
        record([6; 32], [0; 4]),
        record([0xFF; 32], [0; 4]),
    ]
    .concat()
}

const CARD: &str = "---\nlicense: apache-2.0\ntags:\n- demo\n- \"quoted: text\"\nmodel-index:\n- name: x\n  results: [{value: 0.5}]\n---\n\
                    # Title\n\nA [link](https://example.org) and `code`.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n";

const SETTINGS: &str = r#"{"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 2048, "text_config": {"n_ctx": 512},
    "chat_template": [{"name": "default", "template": "{{ messages }}"}], "model_max_length": 1e30}"#;

const MESSAGE: &str = "hub.example wants you to sign in with your Ethereum account:\n\
    0xFCAd0B19bB29D4674531d6f115237E16AfCE377c\n\nCreate an access token for this model hub. This costs nothing and moves no money.\n\n\
    URI: https://hub.example\nVersion: 1\nChain ID: 10740\nNonce: 5f2c8a90b1d34e67\nIssued At: 2026-11-21T08:00:00Z\n\
    Expiration Time: 2026-12-21T08:00:00Z\nResources:\n- urn:opg:hub:scope:write";

pub(super) fn targets() -> Vec<Target> {
    let onnx = [
        include_bytes!("../../../fixtures/digits/logreg.onnx").to_vec(),
        include_bytes!("../../../fixtures/digits/digits_mlp.onnx").to_vec(),
    ];
    let mut all = Vec::new();
    for (name, format, seeds) in [
        ("hub-onnx", ModelFormat::Onnx, onnx.to_vec()),
        ("hub-gguf", ModelFormat::Gguf, vec![gguf()]),
        ("hub-safetensors", ModelFormat::Safetensors, vec![safetensors()]),
    ] {
        all.push(target(name, seeds, move |bytes| validator(format, bytes)));
    }
    all.push(target("hub-xorb", vec![xorb()], |bytes| {
        words(xet::read_xorb(bytes), |chunks| {
            let mut whole = 0;
            for chunk in &chunks {
                if let Ok(content) = xet::decode_chunk(bytes, chunk) {
                    assert_eq!(content.len(), chunk.size, "a chunk is longer than its header says");
                    whole += 1;
                }
            }
            format!("{} of {} chunks", whole, chunks.len())
        })
    }));
    all.push(target("hub-shard", vec![shard()], |bytes| {
        words(xet::read_shard(bytes), |files| {
            let terms: usize = files.iter().map(|file| file.terms.len()).sum();
            assert!(terms <= bytes.len() / 48, "more terms than records");
            format!("{} files", files.len())
        })
    }));
    all.push(target("hub-card", vec![CARD.as_bytes().to_vec()], |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let (yaml, markdown) = card::split(&text);
        let page = card::render(markdown).to_ascii_lowercase();
        for bad in ["<script", "<iframe", "href=\"javascript:", "src=\"javascript:"] {
            assert!(!page.contains(bad), "the page has {bad}");
        }
        words(card::read_yaml(yaml.unwrap_or_default()), |keys| {
            format!("{} keys", keys.len())
        })
    }));
    all.push(target("hub-settings", vec![SETTINGS.as_bytes().to_vec()], |bytes| {
        let found = Settings::read(bytes, bytes, b"");
        let texts = [&found.architecture, &found.chat_template];
        let said: usize = texts.into_iter().flatten().map(String::len).sum();
        assert!(said <= 2 * bytes.len(), "{said} bytes of settings of {}", bytes.len());
        let parts = [texts[0].is_some(), texts[1].is_some(), found.context_length.is_some()];
        format!("ok {parts:?}")
    }));
    all.push(target("hub-sign-in", vec![MESSAGE.as_bytes().to_vec()], |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return "no text".to_owned();
        };
        words(Message::parse(text), |message| {
            // One text a message: two wallets cannot be shown different words for one signature.
            assert_eq!(message.to_string(), text, "a message has two texts");
            "message".to_owned()
        })
    }));
    all
}

/// A validator ends with a verdict, asks for no bytes beyond the file, and says no more than the file can hold.
fn validator(format: ModelFormat, file: &[u8]) -> String {
    let size = file.len() as u64;
    let mut front = file.len().min(64);
    for _ in 0..64 {
        let part = file.get(..front).unwrap_or(file);
        // ONNX is read whole.
        let part = if format == ModelFormat::Onnx { file } else { part };
        match look(format, part, size) {
            Look::More(more) => {
                assert!(
                    more > front as u64 && more <= size,
                    "asks for {more} bytes of {size}, has {front}"
                );
                front = usize::try_from(more).unwrap_or(usize::MAX).min(file.len());
            }
            Look::Done(report) => {
                assert_eq!(report.servable, report.problem.is_none());
                let said = report.panel.to_string().len();
                assert!(said <= 8_192 + 64 * file.len(), "{said} bytes of description of {size}");
                return match report.problem {
                    // Its words without its numbers and names.
                    Some(problem) => problem
                        .split(|c: char| c.is_ascii_digit() || c == '"' || c == '`')
                        .next()
                        .unwrap_or_default()
                        .to_owned(),
                    None => format!("ok {} keys", report.panel.as_object().map_or(0, serde_json::Map::len)),
                };
            }
        }
    }
    panic!("no verdict after 64 looks");
}
