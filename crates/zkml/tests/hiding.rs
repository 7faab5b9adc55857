//! Hiding proofs of small programs verify, with public and with secret inputs, and nothing else does.

mod common;

use common::{Builder, attention, convolutions, mlp};
use opg_zkml::{
    Context, ParameterSet, PlanError, ProveError, VerifyError,
    hiding::{
        HidingKey, HidingModel, HidingStatement, Secret, Seed, commit_inputs, hiding_security, prove_hiding,
        verify_hiding,
    },
};
use rand::{SeedableRng, rngs::StdRng};

fn registered(builder: &Builder, slots: u32) -> HidingModel {
    builder.program.validate().unwrap();
    let seed = Seed::from_bytes([7; 32]);
    HidingModel::new(builder.program.clone(), ParameterSet::Bits100, slots, &seed).unwrap()
}

fn check(mut builder: Builder, batch: usize, secret_inputs: bool) {
    let mut model = registered(&builder, 3);
    let inputs: Vec<_> = (0..batch).map(|_| builder.inputs()).collect();
    let mut rng = StdRng::seed_from_u64(5);
    let own = Seed::random(&mut rng);
    let secret = if secret_inputs {
        Secret::WeightsAndInputs(&own)
    } else {
        Secret::Weights
    };
    let (statement, proof) =
        prove_hiding(&mut model, &inputs, secret, Context::default(), &mut rng, &mut |_| {}).unwrap();
    assert_eq!(model.used(), 1);
    // A verifier has the key's parts only.
    let key = model.verifying_key();
    let key = HidingKey::new(key.graph.clone(), key.weights, key.slots, key.parameters).unwrap();
    assert_eq!(key.root(), model.root());
    let verdict = |statement: &HidingStatement, proof: &[u8]| verify_hiding(&key, &model.root(), statement, proof);
    verdict(&statement, &proof).unwrap();
    assert!(hiding_security(&key, batch, secret_inputs).unwrap().bits() >= 100.0);
    if secret_inputs {
        assert!(
            statement
                .statement
                .requests
                .iter()
                .all(|request| request.inputs.is_empty())
        );
        assert_eq!(statement.inputs, Some(commit_inputs(&key, &inputs, &own).unwrap()));
    } else {
        assert_eq!(statement.statement.requests[0].inputs, inputs[0]);
    }
    // Another statement with the same proof.
    let mut other = statement.clone();
    let value = &mut other.statement.requests[0].outputs[0][0];
    *value += if *value > 0 { -1 } else { 1 };
    assert!(verdict(&other, &proof).is_err());
    let mut other = statement.clone();
    other.statement.context.receipt[0] = 1;
    assert!(verdict(&other, &proof).is_err());
    let mut other = statement.clone();
    match &mut other.inputs {
        Some(root) => root.0[0] ^= 1,
        None => other.statement.requests[0].inputs[0][0] ^= 1,
    }
    assert!(verdict(&other, &proof).is_err());
    let mut longer = proof.clone();
    longer.push(0);
    assert!(matches!(verdict(&statement, &longer), Err(VerifyError::Check { .. })));
    assert!(verdict(&statement, &proof[..proof.len() - 1]).is_err());
}

#[test]
fn dense_networks() {
    for secret_inputs in [false, true] {
        check(mlp(), 1, secret_inputs);
        check(mlp(), 3, secret_inputs);
    }
}

#[test]
fn convolutional_networks() {
    for secret_inputs in [false, true] {
        check(convolutions(), 1, secret_inputs);
        check(convolutions(), 2, secret_inputs);
    }
}

#[test]
fn attention_networks() {
    check(attention(), 1, false);
    check(attention(), 3, false);
}

/// Rows of a table that a secret input selects would need another argument.
#[test]
fn secret_indices_are_refused() {
    let mut builder = attention();
    let mut model = registered(&builder, 1);
    let inputs = vec![builder.inputs()];
    let mut rng = StdRng::seed_from_u64(5);
    let own = Seed::random(&mut rng);
    let secret = Secret::WeightsAndInputs(&own);
    let refused = prove_hiding(&mut model, &inputs, secret, Context::default(), &mut rng, &mut |_| {});
    assert!(
        matches!(refused, Err(ProveError::Plan(PlanError::Graph { op: "Gather", .. }))),
        "{refused:?}"
    );
}

/// A secret input outside its range: the ranges of everything after it would not hold.
#[test]
fn secret_inputs_outside_their_range_are_refused() {
    let mut builder = mlp();
    let mut model = registered(&builder, 1);
    let mut inputs = vec![builder.inputs()];
    inputs[0][0][1] = 128;
    let mut rng = StdRng::seed_from_u64(5);
    let own = Seed::random(&mut rng);
    let secret = Secret::WeightsAndInputs(&own);
    assert!(prove_hiding(&mut model, &inputs, secret, Context::default(), &mut rng, &mut |_| {}).is_err());
}

#[test]
fn the_higher_parameter_set() {
    let mut builder = mlp();
    let seed = Seed::from_bytes([7; 32]);
    let mut model = HidingModel::new(builder.program.clone(), ParameterSet::Bits128, 1, &seed).unwrap();
    let inputs = vec![builder.inputs()];
    let mut rng = StdRng::seed_from_u64(5);
    let context = Context::default();
    let (statement, proof) =
        prove_hiding(&mut model, &inputs, Secret::Weights, context, &mut rng, &mut |_| {}).unwrap();
    let (key, root) = (model.verifying_key(), model.root());
    verify_hiding(key, &root, &statement, &proof).unwrap();
    assert!(hiding_security(key, 1, false).unwrap().bits() >= 128.0);
    assert!(HidingModel::is_root_of(&root, builder.program.clone(), ParameterSet::Bits128, 1, &seed).unwrap());
    assert!(!HidingModel::is_root_of(&root, builder.program, ParameterSet::Bits100, 1, &seed).unwrap());
}

#[test]
fn every_slot_is_used_once() {
    let mut builder = mlp();
    let mut model = registered(&builder, 3);
    let inputs = vec![builder.inputs()];
    let mut rng = StdRng::seed_from_u64(5);
    model.skip(1);
    model.skip(0);
    for _ in 1..3 {
        let (statement, proof) = prove_hiding(
            &mut model,
            &inputs,
            Secret::Weights,
            Context::default(),
            &mut rng,
            &mut |_| {},
        )
        .unwrap();
        verify_hiding(model.verifying_key(), &model.root(), &statement, &proof).unwrap();
    }
    let refused = prove_hiding(
        &mut model,
        &inputs,
        Secret::Weights,
        Context::default(),
        &mut rng,
        &mut |_| {},
    );
    assert!(matches!(refused, Err(ProveError::Slots { limit: 3 })));
}

#[test]
fn roots_of_equal_weights_differ() {
    let builder = mlp();
    let root = |seed: u8| {
        let seed = Seed::from_bytes([seed; 32]);
        let model = HidingModel::new(builder.program.clone(), ParameterSet::Bits100, 2, &seed).unwrap();
        (model.root(), model.verifying_key().weights)
    };
    assert_eq!(root(1), root(1));
    assert_ne!(root(1).0, root(2).0);
    assert_ne!(root(1).1, root(2).1);
}

/// Proofs and statements with changes at random places, `PROPTEST_CASES` of them: every one is refused, none panics.
#[test]
fn mutations() {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(600);
    for (mut builder, secret_inputs) in [(mlp(), true), (convolutions(), false), (attention(), false)] {
        let mut model = registered(&builder, 2);
        let inputs = vec![builder.inputs()];
        let mut rng = StdRng::seed_from_u64(5);
        let own = Seed::random(&mut rng);
        let secret = if secret_inputs {
            Secret::WeightsAndInputs(&own)
        } else {
            Secret::Weights
        };
        let (statement, proof) =
            prove_hiding(&mut model, &inputs, secret, Context::default(), &mut rng, &mut |_| {}).unwrap();
        let (key, root) = (model.verifying_key(), model.root());
        let verdict = |statement: &HidingStatement, proof: &[u8]| verify_hiding(key, &root, statement, proof);
        verdict(&statement, &proof).unwrap();
        let numbers = &mut builder.numbers;
        let mut below = |limit: usize| usize::try_from(numbers.next()).unwrap() % limit;
        for case in 0..cases / 3 {
            let mut bytes = proof.clone();
            let mut stated = statement.clone();
            match case % 6 {
                0 | 1 => bytes[below(proof.len())] ^= 1 << below(8),
                2 => {
                    let at = 10 + 4 * below((proof.len() - 10) / 4);
                    for byte in &mut bytes[at..at + 4] {
                        *byte = u8::try_from(below(256)).unwrap();
                    }
                }
                3 => {
                    let (from, to) = (below(proof.len()), below(proof.len()));
                    let count = (1 + below(64)).min(proof.len() - from.max(to));
                    let piece = bytes[from..from + count].to_vec();
                    bytes[to..to + count].copy_from_slice(&piece);
                }
                4 => match below(2) {
                    0 => bytes.truncate(below(proof.len())),
                    _ => bytes.extend(vec![0; 1 + below(40)]),
                },
                _ => {
                    let request = &mut stated.statement.requests[0];
                    let tensor = below(request.outputs.len());
                    let element = below(request.outputs[tensor].len());
                    request.outputs[tensor][element] += if below(2) == 0 { 1 } else { -1 };
                }
            }
            if bytes == proof && stated == statement {
                continue;
            }
            assert!(verdict(&stated, &bytes).is_err(), "case {case}");
        }
    }
}
