//! Hostile bytes: nothing panics, nothing runs away, and what is accepted is canonical.

use opg_integer_program::{
    compile::{Options, compile},
    interpret,
    program::{Graph, Program},
};

fn read(path: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A small deterministic generator (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }
}

/// Flips, replaces, removes, inserts or copies a few bytes.
fn mutate(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(out.len());
        match random.below(5) {
            0 => out[at] ^= 1 << random.below(8),
            1 => out[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            2 => {
                let end = (at + random.below(16)).min(out.len());
                out.drain(at..end);
            }
            3 => out.insert(at, random.below(256) as u8),
            _ => {
                let length = random.below(16).min(out.len() - at);
                let from = random.below(out.len() - length + 1);
                out.copy_within(from..from + length, at);
            }
        }
        if out.is_empty() {
            out.push(0);
        }
    }
    out
}

fn program() -> Program {
    let options = Options {
        random_samples: 2,
        ..Options::default()
    };
    compile(&read("digits80.onnx"), None, &options).unwrap().program
}

#[test]
fn mutated_programs_never_panic_and_stay_canonical() {
    let original = program();
    // Small weights keep one round fast: the graph is most of the bytes that matter.
    let bytes = original.encode();
    let graph = original.graph.encode();
    let mut random = Random(7);
    let mut accepted = 0;
    for _ in 0..4_000 {
        let mutated = mutate(&graph, &mut random);
        if let Ok(graph) = Graph::decode(&mutated) {
            assert_eq!(graph.encode(), mutated, "an accepted graph has another encoding");
            accepted += 1;
        }
    }
    for _ in 0..300 {
        let mutated = mutate(&bytes, &mut random);
        if let Ok(program) = Program::decode(&mutated) {
            assert_eq!(program.encode(), mutated, "an accepted program has another encoding");
            let zeros: Vec<Vec<i64>> = program
                .graph
                .inputs
                .iter()
                .map(|input| vec![input.integer_type().1.lo.max(0); input.shape.iter().product()])
                .collect();
            // A valid program has a result, or says that a quotient is not provable.
            if let Err(error) = interpret::run(&program, &zeros) {
                assert!(
                    matches!(error, opg_integer_program::error::RunError::Quotient { .. }),
                    "{error}"
                );
            }
        }
    }
    println!("{accepted} mutated graphs were accepted (names, scales and labels may change)");
}

#[test]
fn cut_programs_are_refused() {
    let bytes = program().graph.encode();
    for length in 0..bytes.len().min(3_000) {
        assert!(Graph::decode(&bytes[..length]).is_err());
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(Graph::decode(&longer).is_err());
}

#[test]
fn mutated_models_never_panic() {
    let options = Options {
        random_samples: 2,
        ..Options::default()
    };
    let text = String::from_utf8(read("ops.json")).unwrap();
    let cases: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut random = Random(3);
    for case in cases.as_array().unwrap() {
        let hex = case["onnx"].as_str().unwrap();
        let onnx: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        for length in (0..onnx.len()).step_by(7) {
            let _ = compile(&onnx[..length], None, &options);
        }
        for _ in 0..40 {
            let _ = compile(&mutate(&onnx, &mut random), None, &options);
        }
    }
}
