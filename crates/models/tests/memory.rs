//! Hostile files must not make a reader allocate more than a small multiple of their size.

mod common;

use common::{Gguf, Proto, fixture, identity_graph, model, node};
use opg_models::{Manifest, gguf::GgufHeader, onnx::OnnxHeader, tokenizer::BpeVocabulary};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; counting does not touch the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most bytes that were allocated at once during a call, beyond what was before it.
fn peak(run: impl FnOnce()) -> usize {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    run();
    PEAK.load(Relaxed) - before
}

fn check(what: &str, bytes: &[u8], factor: usize, run: impl FnOnce(&[u8])) {
    let peak = peak(|| run(bytes));
    let limit = factor * bytes.len() + 65_536;
    println!("{what}: {} bytes in, {peak} bytes allocated", bytes.len());
    assert!(
        peak <= limit,
        "{what}: {peak} bytes for {} bytes of input, more than {limit}",
        bytes.len()
    );
}

fn gguf(bytes: &[u8]) {
    if let Ok(header) = GgufHeader::parse(bytes, bytes.len() as u64) {
        let _ = BpeVocabulary::read(&header);
    }
}

fn onnx(bytes: &[u8]) {
    let _ = OnnxHeader::parse(bytes);
}

/// One test: the counters are of the whole process.
#[test]
fn memory_is_bounded_by_the_input() {
    // Counts and lengths that promise far more than the file has.
    for (code, count) in [
        (0u32, 1u64 << 22),
        (8, 1 << 22),
        (12, 1 << 21),
        (8, u64::MAX),
        (4, u64::MAX / 4),
    ] {
        let mut array = code.to_le_bytes().to_vec();
        array.extend(count.to_le_bytes());
        check("GGUF array", &Gguf::new().entry("a", 9, array).build(1_000), 8, gguf);
    }
    let mut counts = b"GGUF\x03\0\0\0".to_vec();
    counts.extend(60_000u64.to_le_bytes());
    counts.extend(4_000u64.to_le_bytes());
    check("GGUF counts", &counts, 8, gguf);
    let mut text = u64::MAX.to_le_bytes().to_vec();
    text.extend(b"x");
    check("GGUF text", &Gguf::new().entry("a", 8, text).build(0), 8, gguf);

    // The worst honest ratio: many empty texts, 8 bytes each in the file.
    let mut empty = 8u32.to_le_bytes().to_vec();
    empty.extend(50_000u64.to_le_bytes());
    empty.extend(vec![0; 8 * 50_000]);
    check("GGUF empty texts", &Gguf::new().entry("a", 9, empty).build(0), 8, gguf);
    let many = (0..30_000).fold(Gguf::new(), |file, at| file.tensor(&format!("t{at}"), &[8], 0, at * 32));
    check("GGUF tensors", &many.build(30_000 * 32), 8, gguf);
    check("GGUF real", &fixture("tiny-llama/trained-Q8_0.gguf"), 1, gguf);

    let outputs = vec!["a"; 100_000];
    check(
        "ONNX repeated outputs",
        &model(identity_graph().message(1, node("Split", "", &["X"], &outputs))).0,
        24,
        onnx,
    );
    let names: Vec<String> = (0..100_000).map(|at| format!("{at:x}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    check(
        "ONNX short names",
        &model(identity_graph().message(1, node("Split", "", &["X"], &names))).0,
        24,
        onnx,
    );
    let nodes = (0..50_000).fold(identity_graph(), |graph, _| graph.message(1, Proto::new()));
    check("ONNX empty nodes", &model(nodes).0, 24, onnx);
    let dims = Proto::new()
        .int(2, 1)
        .bytes(8, "w")
        .bytes(1, vec![1; 200_000])
        .bytes(9, [0; 4]);
    check("ONNX dimensions", &model(identity_graph().message(5, dims)).0, 4, onnx);
    check("ONNX real", &fixture("digits/gbc.onnx"), 4, onnx);

    check("CBOR", &[0x9a, 0x7f, 0xff, 0xff, 0xff], 8, |bytes| {
        drop(Manifest::decode(bytes))
    });
}
