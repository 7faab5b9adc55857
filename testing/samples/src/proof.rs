//! A receipt of mode zk: the digits model's answer to one image, with its proof.

use alloy_primitives::B256;
use opg_artefact::{ZkArtefact, answer, inputs, statement};
use opg_integer_program::{interpret, program::Program};
use opg_primitives::mode::{Grade, Mode};
use opg_receipt::{
    Core, Evidence, LeafKind, ModeRecord, Times,
    commit::{request, response, response_leaf},
};
use opg_zkml::{ParameterSet, RegisteredModel};
use std::sync::{OnceLock, atomic::AtomicBool};

/// Salt of the commitments of [`zk`].
pub const SALT: B256 = B256::repeat_byte(0x5a);

/// The exact integer program of the digits model, registered.
///
/// # Panics
/// If the fixture is damaged.
pub fn program() -> &'static RegisteredModel {
    static PROGRAM: OnceLock<RegisteredModel> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let bytes = include_bytes!("../../fixtures/digits/digits_mlp.program");
        let program = Program::decode(bytes).expect("a program");
        RegisteredModel::new(program, ParameterSet::Bits100).expect("a small program")
    })
}

/// Root that the program is registered under.
#[must_use]
pub fn program_root() -> B256 {
    program().root().0.into()
}

/// Body of a request of mode zk: an image whose pixels follow from `seed`.
#[must_use]
pub fn body(seed: u64) -> Vec<u8> {
    let pixels: Vec<String> = (0..64u64).map(|i| ((seed + 7 * i) % 17).to_string()).collect();
    let pixels = pixels.join(",");
    format!("{{\"model\":\"demo/digits-mlp\",\"inputs\":{{\"X\":[[{pixels}]]}},\"mode\":\"zk\"}}").into_bytes()
}

/// Makes a core that of the answer to [`body`], given at `done` (Unix seconds) with ten minutes for the proof. Gives the
/// bytes of the answer.
///
/// # Panics
/// If the fixture is damaged.
pub fn zk(core: &mut Core, seed: u64, done: u64) -> Vec<u8> {
    let (program, body) = (program().program(), body(seed));
    let inputs = inputs(&program.graph, &body).expect("a request");
    let trace = interpret::run(program, &inputs).expect("a result");
    let answer = answer(&program.graph, &trace.outputs(program).expect("outputs"));
    core.request.body = request(&SALT, &body);
    core.response.leaves = 1;
    core.response.commitment = response(&[response_leaf(&SALT, LeafKind::Tensors, 0, &answer)]).expect("one part");
    core.times = Times {
        received: done * 1_000,
        first_output: done * 1_000,
        done: done * 1_000,
    };
    core.mode = ModeRecord {
        asked: Mode::Zk,
        min_grade: Grade::Hardware,
        served: Mode::Zk,
        grade: Grade::Hardware,
    };
    core.evidence = Some(Evidence {
        statement_hash: Some(statement(core, &program_root())),
        proof_deadline: Some(done + 600),
        ..Evidence::default()
    });
    answer
}

/// The artefact of a core made by [`zk`].
///
/// # Panics
/// If the core is another one.
#[must_use]
pub fn artefact(core: &Core, seed: u64, answer: &[u8]) -> Vec<u8> {
    ZkArtefact::prove(
        &AtomicBool::new(false),
        program(),
        core,
        SALT,
        &body(seed),
        answer,
        &mut |_| {},
    )
    .expect("a provable answer")
    .encode()
}
