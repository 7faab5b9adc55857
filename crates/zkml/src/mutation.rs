//! Tests of the tests: for each check of the verifier, a forged proof that a verifier without this one check accepts.
//!
//! A check whose removal nobody notices would be a check that protects nothing,
//! or a test suite that would not see it break.

use opg_integer_program::{interpret, program::Operand};

use crate::{
    Context, ParameterSet, Profile, RegisteredModel, Request, Statement,
    checks::Checks,
    common::{self, Builder},
    error::{Check, VerifyError},
    field::P,
    plan::{Plan, Quantity},
    prover::{Proving, prove_witness},
    verifier::verify_with,
    witness::Witness,
};

/// A forger's work: the parts of a proof, honest until a test changes them.
struct Forger {
    model: RegisteredModel,
    plan: Plan,
    statement: Statement,
    inputs: Vec<Vec<i64>>,
    nodes: Vec<Vec<i64>>,
    constants: Vec<Vec<i64>>,
    /// Columns of the witness to overwrite: quantity, element, value to add.
    columns: Vec<(fn(&Quantity) -> bool, usize, i64)>,
    root: Option<crate::ModelRoot>,
    profile: Profile,
}

impl Forger {
    fn new(mut builder: Builder, profile: Profile) -> Self {
        builder.program.validate().unwrap();
        let inputs = builder.inputs();
        let model = RegisteredModel::new(builder.program, ParameterSet::Bits100).unwrap();
        let nodes = interpret::run(model.program(), &inputs).unwrap().nodes;
        let mut forger = Self {
            plan: Plan::new(&model.verifying_key().graph, 1).unwrap(),
            statement: Statement::default(),
            constants: model.constants.clone(),
            model,
            nodes,
            columns: Vec::new(),
            root: None,
            profile,
            inputs: inputs.clone(),
        };
        let outputs = forger.outputs();
        forger.statement = Statement {
            requests: vec![Request { inputs, outputs }],
            context: Context::default(),
        };
        forger
    }

    /// The outputs of the values at hand.
    fn outputs(&self) -> Vec<Vec<i64>> {
        let graph = &self.model.verifying_key().graph;
        let value = |source: Operand| match source {
            Operand::Node(index) => self.nodes[index as usize].clone(),
            _ => panic!("outputs are nodes"),
        };
        graph.outputs.iter().map(|output| value(output.source)).collect()
    }

    /// The proof, made for a verifier without one check.
    fn prove(&self, removed: Option<Check>) -> Vec<u8> {
        self.prove_with(removed, None, &self.constants)
    }

    /// With another witness in the commitment, and other weights at the end of their reduction.
    fn prove_with(&self, removed: Option<Check>, committed: Option<&[Vec<i64>]>, weights: &[Vec<i64>]) -> Vec<u8> {
        let key = self.model.verifying_key();
        let witness = self.witness();
        let request = &self.statement.requests[0];
        let proving = Proving {
            key,
            root: self.root.unwrap_or(key.root()),
            statement: &self.statement,
            witness: &witness,
            inputs: &request.inputs,
            outputs: &request.outputs,
            committed,
            weights: (&self.model.committed, weights),
            profile: self.profile,
            checks: removed.map_or(Checks::default(), Checks::without),
            cancel: &crate::protocol::NEVER,
        };
        prove_witness(&proving, &mut |_| {}).unwrap()
    }

    /// The columns of the values at hand, with the changes that a test asks for.
    fn witness(&self) -> Witness<'_> {
        let graph = &self.model.verifying_key().graph;
        let mut witness = Witness::new(
            graph,
            &self.plan,
            self.inputs.clone(),
            self.nodes.clone(),
            &self.constants,
        );
        for (is, element, change) in &self.columns {
            let column = self
                .plan
                .columns
                .iter()
                .position(|column| is(&column.recipe.quantity))
                .unwrap();
            witness.columns[column][*element] += change;
        }
        witness.recount();
        witness
    }

    /// Changes a result of the last node that is not at a bound, and states the outputs so. Which element it was.
    fn change_result(&mut self, change: i64) -> usize {
        let values = self.nodes.last_mut().unwrap();
        let element = values.iter().position(|value| (-100..100).contains(value)).unwrap();
        values[element] += change;
        self.statement.requests[0].outputs = self.outputs();
        element
    }

    fn verdict(&self, removed: Option<Check>, statement: &Statement, proof: &[u8]) -> Result<(), VerifyError> {
        let key = self.model.verifying_key();
        let root = self.root.unwrap_or(key.root());
        let program = (self.profile == Profile::Open).then_some(self.model.program());
        let checks = removed.map_or(Checks::default(), Checks::without);
        verify_with(key, &root, program, statement, proof, checks, &mut |_| {})
    }

    /// The full verifier refuses, the one without the check accepts, and the one without any other check refuses too.
    fn shows(&self, check: Check) {
        self.shows_for(check, &self.statement, &self.prove(Some(check)));
    }

    fn shows_for(&self, check: Check, statement: &Statement, proof: &[u8]) {
        assert!(
            self.verdict(None, statement, proof).is_err(),
            "{check:?}: the full verifier accepts"
        );
        self.verdict(Some(check), statement, proof)
            .unwrap_or_else(|error| panic!("{check:?} removed: {error}"));
        for other in Check::ALL.into_iter().filter(|other| *other != check) {
            assert!(
                self.verdict(Some(other), statement, proof).is_err(),
                "{check:?}: accepted without {other:?} as well"
            );
        }
    }
}

/// A matrix product is one output, and what is made of it is another: two claims on a value that is not committed.
fn fan_out() -> Builder {
    let mut b = Builder::new();
    let x = b.input(&[1, 4], -127, 127);
    let w = b.constant(&[4, 6], -127, 127);
    let h = b.matmul(x, w, None);
    b.output(h);
    let y = b.requant(h, 7, -127, 127);
    b.output(y);
    b
}

/// Ends with a matrix product of the inputs.
fn product() -> Builder {
    let mut b = Builder::new();
    let x = b.input(&[1, 4], -127, 127);
    let w = b.constant(&[4, 6], -127, 127);
    let h = b.matmul(x, w, None);
    b.output(h);
    b
}

#[test]
fn public_range() {
    // The same element of the field, another integer.
    let mut forger = Forger::new(common::mlp(), Profile::Committed);
    forger.statement.requests[0].outputs[0][1] += i64::from(P);
    forger.shows(Check::PublicRange);
}

#[test]
fn model_root() {
    let mut forger = Forger::new(common::mlp(), Profile::Committed);
    forger.root = Some(crate::ModelRoot([7; 32]));
    forger.shows(Check::ModelRoot);
}

#[test]
fn transcript() {
    // A proof for another receipt.
    let forger = Forger::new(common::mlp(), Profile::Committed);
    let proof = forger.prove(Some(Check::Transcript));
    let mut other = forger.statement.clone();
    other.context.receipt = [9; 32];
    forger.shows_for(Check::Transcript, &other, &proof);
    // And the same trick against the real protocol.
    let proof = forger.prove(None);
    forger.verdict(None, &forger.statement, &proof).unwrap();
    for change in [
        |context: &mut Context| context.receipt[3] ^= 1,
        |context: &mut Context| context.nonce[3] ^= 1,
        |context: &mut Context| context.prover[3] ^= 1,
    ] {
        let mut other = forger.statement.clone();
        change(&mut other.context);
        assert!(forger.verdict(None, &other, &proof).is_err());
    }
}

#[test]
fn input() {
    // Everything is right, for another input.
    let mut forger = Forger::new(product(), Profile::Committed);
    forger.inputs[0][2] ^= 1;
    forger.nodes = interpret::run(forger.model.program(), &forger.inputs).unwrap().nodes;
    forger.statement.requests[0].outputs = forger.outputs();
    forger.shows(Check::Input);
}

#[test]
fn product_of_matrices() {
    let mut forger = Forger::new(product(), Profile::Committed);
    forger.nodes[0][3] += 1;
    forger.statement.requests[0].outputs = forger.outputs();
    forger.shows(Check::Product);
}

#[test]
fn sum() {
    let mut b = Builder::new();
    let x = b.input(&[1, 4], -127, 127);
    let y = b.input(&[1, 4], -127, 127);
    let s = b.node(
        opg_integer_program::program::Op::Sum {
            terms: vec![(x, 3), (y, -2)],
        },
        &[],
    );
    b.output(s);
    // The protocol needs something to commit to: another output.
    let z = b.requant(x, 3, -127, 127);
    b.output(z);
    let mut forger = Forger::new(b, Profile::Committed);
    forger.nodes[0][1] += 1;
    forger.statement.requests[0].outputs = forger.outputs();
    forger.shows(Check::Sum);
}

#[test]
fn pair() {
    // A result that is clamped although its quotient lies inside: below the bound by one, above it by one.
    let mut forger = Forger::new(common::mlp(), Profile::Committed);
    let element = forger.change_result(1);
    forger
        .columns
        .push((|quantity| matches!(quantity, Quantity::Below(3)), element, 1));
    forger.shows(Check::Pair);
}

#[test]
fn merge() {
    let mut forger = Forger::new(fan_out(), Profile::Committed);
    forger.statement.requests[0].outputs[0][2] += 1;
    forger.shows(Check::Merge);
}

#[test]
fn lookup() {
    // The result is one less, the remainder 2^shift more.
    let mut forger = Forger::new(common::mlp(), Profile::Committed);
    let element = forger.change_result(-1);
    forger
        .columns
        .push((|quantity| matches!(quantity, Quantity::Remainder(3)), element, 1 << 6));
    forger.shows(Check::Lookup);
}

#[test]
fn witness_batch() {
    // A remainder that breaks its relation, but lies in its range.
    let mut forger = Forger::new(common::mlp(), Profile::Committed);
    forger.change_result(1);
    forger.shows(Check::WitnessBatch);
}

#[test]
fn witness_opening() {
    // Commit to one witness, prove another. (Open profile: nothing follows that the aborted opening would derail.)
    let forger = Forger::new(common::mlp(), Profile::Open);
    let mut other = forger.witness().columns;
    other[0][0] += 1;
    let proof = forger.prove_with(Some(Check::WitnessOpening), Some(&other), &forger.constants);
    forger.shows_for(Check::WitnessOpening, &forger.statement, &proof);
}

/// Everything is right, for other weights than the registered ones.
fn other_weights(profile: Profile) -> Forger {
    let mut builder = common::mlp();
    let inputs = builder.inputs();
    let mut other = builder.program.clone();
    let mut values = other.weights.constants[2].to_i64();
    values[0] += if values[0] > 0 { -1 } else { 1 };
    other.weights.constants[2] = opg_integer_program::constant::ConstantData::pack(&values).unwrap();
    let mut forger = Forger::new(common::mlp(), profile);
    forger.inputs = inputs.clone();
    forger.nodes = interpret::run(&other, &inputs).unwrap().nodes;
    forger.constants[2] = values;
    let outputs = forger.outputs();
    forger.statement.requests[0] = Request { inputs, outputs };
    forger
}

#[test]
fn weight_batch() {
    // The claims are about other weights, the reduction ends with the registered ones.
    let forger = other_weights(Profile::Committed);
    let proof = forger.prove_with(Some(Check::WeightBatch), None, &forger.model.constants);
    forger.shows_for(Check::WeightBatch, &forger.statement, &proof);
}

#[test]
fn weight_opening() {
    other_weights(Profile::Committed).shows(Check::WeightOpening);
}

#[test]
fn open_weights() {
    other_weights(Profile::Open).shows(Check::OpenWeights);
}

#[test]
fn trailing() {
    let forger = Forger::new(common::mlp(), Profile::Committed);
    let mut proof = forger.prove(None);
    proof.push(0);
    forger.shows_for(Check::Trailing, &forger.statement, &proof);
}
