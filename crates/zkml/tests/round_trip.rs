//! Proofs of small programs verify, in both profiles and in batches, and nothing else does.

mod common;

use common::{Builder, attention, convolutions, mlp};
use opg_integer_program::program::Op;
use opg_zkml::{
    Context, ParameterSet, Profile, RegisteredModel, Statement, VerifyError, prove, prove_trace, verify, verify_open,
};

fn registered(builder: &Builder) -> RegisteredModel {
    builder.program.validate().unwrap();
    RegisteredModel::new(builder.program.clone(), ParameterSet::Bits100).unwrap()
}

fn check(mut builder: Builder, batch: usize) {
    let model = registered(&builder);
    let inputs: Vec<_> = (0..batch).map(|_| builder.inputs()).collect();
    for profile in [Profile::Committed, Profile::Open] {
        let (statement, proof) = prove(&model, &inputs, Context::default(), profile, &mut |_| {}).unwrap();
        let verdict = |statement: &Statement, proof: &[u8]| match profile {
            Profile::Committed => verify(model.verifying_key(), &model.root(), statement, proof),
            Profile::Open => verify_open(model.verifying_key(), &model.root(), model.program(), statement, proof),
        };
        verdict(&statement, &proof).unwrap();
        // Another statement with the same proof.
        let mut other = statement.clone();
        other.requests[0].outputs[0][0] += if other.requests[0].outputs[0][0] > 0 { -1 } else { 1 };
        assert!(verdict(&other, &proof).is_err());
        let mut other = statement.clone();
        other.context.receipt[0] = 1;
        assert!(verdict(&other, &proof).is_err());
        let mut longer = proof.clone();
        longer.push(0);
        assert!(matches!(verdict(&statement, &longer), Err(VerifyError::Check { .. })));
        assert!(verdict(&statement, &proof[..proof.len() - 1]).is_err());
    }
}

#[test]
fn dense_networks() {
    check(mlp(), 1);
    check(mlp(), 3);
}

#[test]
fn convolutional_networks() {
    check(convolutions(), 1);
    check(convolutions(), 2);
}

#[test]
fn attention_networks() {
    check(attention(), 1);
    check(attention(), 3);
}

/// One value of one node is changed, everything after it is honest about the change, and the outputs are stated as
/// they come out: a verifier must refuse.
#[test]
fn forged_results_of_every_node() {
    for mut builder in [mlp(), convolutions(), attention()] {
        let model = registered(&builder);
        let inputs = builder.inputs();
        let honest = opg_integer_program::interpret::run(model.program(), &inputs)
            .unwrap()
            .nodes;
        let (statement, _) = prove(&model, &[inputs], Context::default(), Profile::Open, &mut |_| {}).unwrap();
        let outputs = statement.requests[0].outputs.clone();
        for (number, node) in model.program().graph.nodes.iter().enumerate() {
            for delta in [1, -1] {
                let mut nodes = honest.clone();
                nodes[number][0] += delta;
                let mut statement = statement.clone();
                for (output, values) in model
                    .program()
                    .graph
                    .outputs
                    .iter()
                    .zip(&mut statement.requests[0].outputs)
                {
                    if let opg_integer_program::program::Operand::Node(index) = output.source {
                        values.clone_from(&nodes[index as usize]);
                    }
                }
                // The library's lookup prover refuses fractions that do not add up: a forger cannot even start.
                let attempt = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    prove_trace(&model, &statement, nodes, Profile::Open, &mut |_| {})
                }));
                if let Ok(Ok(proof)) = attempt {
                    let verdict = verify_open(
                        model.verifying_key(),
                        &model.root(),
                        model.program(),
                        &statement,
                        &proof,
                    );
                    // What is not committed is a claim on its operands: where nothing reads the forged element, what
                    // is stated is still true.
                    let committed = matches!(
                        node.op,
                        Op::Requant { .. }
                            | Op::Table { .. }
                            | Op::MaxPool { .. }
                            | Op::ReduceMax { .. }
                            | Op::Divide { .. }
                    );
                    let harmless = statement.requests[0].outputs == outputs && !committed;
                    assert!(harmless || verdict.is_err(), "{} {}", node.op.name(), node.name);
                }
            }
        }
    }
}

/// Proofs and statements with changes at random places, `PROPTEST_CASES` of them: every one is refused, none panics.
#[test]
fn mutations() {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(4_000);
    for (mut builder, profile) in [
        (mlp(), Profile::Committed),
        (convolutions(), Profile::Open),
        (attention(), Profile::Open),
    ] {
        let model = registered(&builder);
        let inputs = vec![builder.inputs()];
        let (statement, proof) = prove(&model, &inputs, Context::default(), profile, &mut |_| {}).unwrap();
        let key = model.verifying_key();
        let verdict = |statement: &Statement, proof: &[u8]| match profile {
            Profile::Committed => verify(key, &model.root(), statement, proof),
            Profile::Open => verify_open(key, &model.root(), model.program(), statement, proof),
        };
        verdict(&statement, &proof).unwrap();
        let numbers = &mut builder.numbers;
        let mut below = |limit: usize| usize::try_from(numbers.next()).unwrap() % limit;
        for case in 0..cases / 3 {
            let mut bytes = proof.clone();
            let mut stated = statement.clone();
            match case % 6 {
                // One bit.
                0 | 1 => bytes[below(proof.len())] ^= 1 << below(8),
                // A number of the field, sometimes not below p.
                2 => {
                    let at = 10 + 4 * below((proof.len() - 10) / 4);
                    for byte in &mut bytes[at..at + 4] {
                        *byte = u8::try_from(below(256)).unwrap();
                    }
                }
                // A piece of the proof at another place.
                3 => {
                    let (from, to) = (below(proof.len()), below(proof.len()));
                    let count = (1 + below(64)).min(proof.len() - from.max(to));
                    let piece = bytes[from..from + count].to_vec();
                    bytes[to..to + count].copy_from_slice(&piece);
                }
                // Cut off, or longer.
                4 => match below(2) {
                    0 => bytes.truncate(below(proof.len())),
                    _ => bytes.extend(vec![0; 1 + below(40)]),
                },
                // Another statement.
                _ => {
                    let request = &mut stated.requests[0];
                    let side = if below(2) == 0 {
                        &mut request.inputs
                    } else {
                        &mut request.outputs
                    };
                    let tensor = below(side.len());
                    let element = below(side[tensor].len());
                    side[tensor][element] += if below(2) == 0 { 1 } else { -1 };
                }
            }
            if bytes == proof && stated == statement {
                continue;
            }
            assert!(verdict(&stated, &bytes).is_err(), "case {case}");
        }
    }
}
