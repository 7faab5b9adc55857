//! Bit equality with a second implementation, written in numpy from the specification: every tensor of every program
//! of `fixtures/programs.json` (made by `fixtures/check_programs.py`).

use opg_integer_program::{interpret, program::Program};
use sha2::{Digest, Sha256};

#[test]
fn every_tensor_is_the_same() {
    let path = format!("{}/tests/fixtures/programs.json", env!("CARGO_MANIFEST_DIR"));
    let cases: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut used = std::collections::BTreeSet::new();
    for case in cases.as_array().unwrap() {
        let hex = case["program"].as_str().unwrap();
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        let program = Program::decode(&bytes).unwrap_or_else(|error| panic!("{}: {error}", case["name"]));
        let input: Vec<i64> = case["input"]
            .as_array()
            .unwrap()
            .iter()
            .map(|q| q.as_i64().unwrap())
            .collect();
        let mut digest = Sha256::new();
        for tensor in interpret::run(&program, &[input]).unwrap().nodes {
            digest.update((tensor.len() as u64).to_le_bytes());
            for value in tensor {
                digest.update(value.to_le_bytes());
            }
        }
        let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, case["trace"].as_str().unwrap(), "{}", case["name"]);
        used.extend(program.graph.nodes.iter().map(|node| node.op.name()));
    }
    // Every operation took part.
    assert_eq!(used.len(), 12, "{used:?}");
}
