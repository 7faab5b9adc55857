//! Tests of the tests, for hiding proofs: for each check of the verifier, a forged proof that a verifier without this one
//! check accepts. See `crate::mutation`.

use opg_integer_program::{interpret, program::Operand};
use rand::{SeedableRng, rngs::StdRng};

use crate::{
    Context, ModelRoot, ParameterSet, Request, Statement,
    checks::Checks,
    common::{self, Builder},
    error::{Check, VerifyError},
    field::P,
    hiding::{
        HidingModel, HidingStatement, InputRoot, Seed,
        forge::{Forge, Trick},
        model::{commit, weight_layout},
        prover::{HidingProving, proof_key, prove_secrets},
        random::Use,
        statement::commit_columns,
        verify_hiding_with,
    },
    plan::{Plan, Quantity},
    witness::Witness,
};

type Constants = Vec<Vec<i64>>;

/// A forger's work: the parts of a proof, honest until a test changes them.
struct Forger {
    model: HidingModel,
    plan: Plan,
    statement: HidingStatement,
    inputs: Vec<Vec<i64>>,
    nodes: Vec<Vec<i64>>,
    /// What claims are about, what rows are combined, what columns are opened.
    weights: [Constants; 3],
    /// Whether the header names the tree that is opened instead of the registered one.
    own_slot: bool,
    /// Columns of the witness to overwrite: quantity, element, value to add.
    columns: Vec<(fn(&Quantity) -> bool, usize, i64)>,
    root: Option<ModelRoot>,
    trick: Option<Trick>,
    seed: Seed,
}

impl Forger {
    fn new(builder: Builder) -> Self {
        Self::with(builder, false)
    }

    fn with(mut builder: Builder, secret_inputs: bool) -> Self {
        builder.program.validate().unwrap();
        let inputs = builder.inputs();
        let seed = Seed::from_bytes([5; 32]);
        let model = HidingModel::new(builder.program, ParameterSet::Bits100, 2, &seed).unwrap();
        let graph = &model.verifying_key().graph;
        let plan = if secret_inputs {
            Plan::with_secret_inputs(graph, 1)
        } else {
            Plan::new(graph, 1)
        };
        let mut forger = Self {
            plan: plan.unwrap(),
            statement: HidingStatement::default(),
            nodes: interpret::run(model.program(), &inputs).unwrap().nodes,
            weights: [(); 3].map(|()| model.constants.clone()),
            own_slot: false,
            columns: Vec::new(),
            root: None,
            trick: None,
            inputs: inputs.clone(),
            model,
            seed,
        };
        let request = Request {
            inputs: if secret_inputs { Vec::new() } else { inputs },
            outputs: forger.outputs(),
        };
        forger.statement.statement = Statement {
            requests: vec![request],
            context: Context::default(),
        };
        if secret_inputs {
            forger.statement.inputs = Some(forger.input_root());
        }
        forger
    }

    fn input_root(&self) -> InputRoot {
        let key = self.model.verifying_key();
        InputRoot(
            commit_columns(key, &self.plan.inputs, &self.inputs, &self.seed)
                .2
                .root(),
        )
    }

    /// The outputs of the values at hand.
    fn outputs(&self) -> Vec<Vec<i64>> {
        let value = |source: Operand| match source {
            Operand::Node(index) => self.nodes[index as usize].clone(),
            _ => panic!("outputs are nodes"),
        };
        let graph = &self.model.verifying_key().graph;
        graph.outputs.iter().map(|output| value(output.source)).collect()
    }

    fn state_outputs(&mut self) {
        self.statement.statement.requests[0].outputs = self.outputs();
    }

    /// The proof, made for a verifier without one check.
    fn prove(&self, removed: Option<Check>) -> Vec<u8> {
        let key = self.model.verifying_key();
        let slot_key = self.model.key_material.derive(Use::Slot(0));
        let layout = weight_layout(&key.graph);
        let [values, rows, tree] = self.weights.each_ref().map(|constants| layout.stack(constants));
        let (_, registered) = commit(&key.code, &layout.stack(&self.model.constants), &slot_key);
        let (rows, _) = commit(&key.code, &rows, &slot_key);
        let (_, tree) = commit(&key.code, &tree, &slot_key);
        let slot_root = if self.own_slot { tree.root() } else { registered.root() };
        let witness = self.witness();
        let stated = &self.statement.statement.requests[0].inputs;
        let secret = self.statement.inputs.is_some();
        let own = secret.then(|| commit_columns(key, &self.plan.inputs, &self.inputs, &self.seed));
        let proving = HidingProving {
            key,
            root: self.root.unwrap_or(key.root()),
            statement: &self.statement,
            witness: &witness,
            inputs: stated,
            slot: 0,
            slot_root,
            path: self.model.list.path(0),
            weights: (&values, &rows, &tree),
            secret_inputs: own.as_ref().map(|(values, rows, tree)| (&values[..], &rows[..], tree)),
            material: &proof_key(&self.model, 0, &mut StdRng::seed_from_u64(8)),
            checks: removed.map_or(Checks::default(), Checks::without),
            forge: Forge { trick: self.trick },
        };
        prove_secrets(&proving, &mut |_| {}).unwrap()
    }

    /// The columns of the values at hand, with the changes that a test asks for.
    fn witness(&self) -> Witness<'_> {
        let graph = &self.model.verifying_key().graph;
        let (inputs, nodes) = (self.inputs.clone(), self.nodes.clone());
        let mut witness = Witness::new(graph, &self.plan, inputs, nodes, &self.weights[0]);
        for (is, element, change) in &self.columns {
            let mut columns = self.plan.columns.iter();
            let column = columns.position(|column| is(&column.recipe.quantity)).unwrap();
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
        self.state_outputs();
        element
    }

    fn verdict(&self, removed: Option<Check>, statement: &HidingStatement, proof: &[u8]) -> Result<(), VerifyError> {
        let key = self.model.verifying_key();
        let root = self.root.unwrap_or(key.root());
        let checks = removed.map_or(Checks::default(), Checks::without);
        verify_hiding_with(key, &root, statement, proof, checks, &mut |_| {})
    }

    /// The full verifier refuses, the one without the check accepts, and the one without any other check refuses too.
    fn shows(&self, check: Check) {
        self.shows_for(check, &self.statement, &self.prove(Some(check)));
    }

    fn shows_for(&self, check: Check, statement: &HidingStatement, proof: &[u8]) {
        let full = self.verdict(None, statement, proof);
        assert!(full.is_err(), "{check:?}: the full verifier accepts");
        self.verdict(Some(check), statement, proof)
            .unwrap_or_else(|error| panic!("{check:?} removed: {error}"));
        // What must be zero is a form: it is checked with all others, by the check of the wires.
        let hidden = [
            Check::Input,
            Check::Product,
            Check::Sum,
            Check::Pair,
            Check::Merge,
            Check::Lookup,
            Check::WitnessBatch,
            Check::Evaluation,
            Check::Differences,
            Check::Triples,
        ];
        let with = |other: &Check| *other != check && !(*other == Check::Wires && hidden.contains(&check));
        for other in Check::ALL.into_iter().filter(with) {
            let refused = self.verdict(Some(other), statement, proof).is_err();
            assert!(refused, "{check:?}: accepted without {other:?} as well");
        }
    }
}

/// A matrix product of the inputs: `rows` x `columns` weights.
fn product(rows: usize, columns: usize) -> Builder {
    let mut b = Builder::new();
    let x = b.input(&[1, rows], -127, 127);
    let w = b.constant(&[rows, columns], -127, 127);
    let h = b.matmul(x, w, None);
    b.output(h);
    b
}

/// Everything is right, for other weights than the registered ones.
fn other_weights() -> (Forger, Constants) {
    let mut forger = Forger::new(common::mlp());
    let mut other = forger.model.program().clone();
    let mut values = other.weights.constants[2].to_i64();
    values[0] += if values[0] > 0 { -1 } else { 1 };
    other.weights.constants[2] = opg_integer_program::constant::ConstantData::pack(&values).unwrap();
    forger.nodes = interpret::run(&other, &forger.inputs).unwrap().nodes;
    forger.state_outputs();
    let mut constants = forger.model.constants.clone();
    constants[2] = values;
    forger.weights[0].clone_from(&constants);
    (forger, constants)
}

#[test]
fn public_range() {
    let mut forger = Forger::new(common::mlp());
    forger.statement.statement.requests[0].outputs[0][1] += i64::from(P);
    forger.shows(Check::PublicRange);
}

#[test]
fn model_root() {
    let mut forger = Forger::new(common::mlp());
    forger.root = Some(ModelRoot([7; 32]));
    forger.shows(Check::ModelRoot);
}

#[test]
fn transcript() {
    for secret_inputs in [false, true] {
        let forger = Forger::with(common::mlp(), secret_inputs);
        let proof = forger.prove(Some(Check::Transcript));
        let mut other = forger.statement.clone();
        other.statement.context.receipt = [9; 32];
        forger.shows_for(Check::Transcript, &other, &proof);
        let proof = forger.prove(None);
        forger.verdict(None, &forger.statement, &proof).unwrap();
        for change in [
            |context: &mut Context| context.receipt[3] ^= 1,
            |context: &mut Context| context.nonce[3] ^= 1,
            |context: &mut Context| context.prover[3] ^= 1,
        ] {
            let mut other = forger.statement.clone();
            change(&mut other.statement.context);
            assert!(forger.verdict(None, &other, &proof).is_err());
        }
    }
}

#[test]
fn input() {
    let mut forger = Forger::new(product(4, 6));
    forger.inputs[0][2] ^= 1;
    forger.nodes = interpret::run(forger.model.program(), &forger.inputs).unwrap().nodes;
    forger.state_outputs();
    forger.shows(Check::Input);
}

#[test]
fn product_of_matrices() {
    let mut forger = Forger::new(product(4, 6));
    forger.nodes[0][3] += 1;
    forger.state_outputs();
    forger.shows(Check::Product);
}

#[test]
fn sum() {
    let mut b = Builder::new();
    let (x, y) = (b.input(&[1, 4], -127, 127), b.input(&[1, 4], -127, 127));
    let terms = vec![(x, 3), (y, -2)];
    let s = b.node(opg_integer_program::program::Op::Sum { terms }, &[]);
    b.output(s);
    let mut forger = Forger::new(b);
    forger.nodes[0][1] += 1;
    forger.state_outputs();
    forger.shows(Check::Sum);
}

#[test]
fn pair() {
    let mut forger = Forger::new(common::mlp());
    let element = forger.change_result(1);
    let below: fn(&Quantity) -> bool = |quantity| matches!(quantity, Quantity::Below(3));
    forger.columns.push((below, element, 1));
    forger.shows(Check::Pair);
}

#[test]
fn merge() {
    let mut b = product(4, 6);
    let y = b.requant(Operand::Node(0), 7, -127, 127);
    b.output(y);
    let mut forger = Forger::new(b);
    forger.statement.statement.requests[0].outputs[0][2] += 1;
    forger.shows(Check::Merge);
}

#[test]
fn lookup() {
    let mut forger = Forger::new(common::mlp());
    let element = forger.change_result(-1);
    let remainder: fn(&Quantity) -> bool = |quantity| matches!(quantity, Quantity::Remainder(3));
    forger.columns.push((remainder, element, 1 << 6));
    forger.shows(Check::Lookup);
}

/// A secret input outside its range, and the outputs that follow from it.
#[test]
fn lookup_of_a_secret_input() {
    let mut forger = Forger::with(product(4, 6), true);
    let honest = forger.nodes[0].clone();
    let weights: Vec<i64> = forger.model.constants[0][6..12].to_vec();
    forger.inputs[0][1] += 1000;
    forger.nodes[0] = honest.iter().zip(weights).map(|(y, w)| y + 1000 * w).collect();
    forger.state_outputs();
    // Outputs outside their range would be refused for that alone.
    let range = forger.model.verifying_key().graph.nodes[0].ty.range;
    if forger.nodes[0].iter().any(|value| !range.contains(*value)) {
        forger.inputs[0][1] -= 1000;
        let step = if forger.inputs[0][1] > 0 { 128 } else { -128 };
        let change = step - forger.inputs[0][1];
        forger.inputs[0][1] = step;
        let weights: Vec<i64> = forger.model.constants[0][6..12].to_vec();
        forger.nodes[0] = honest.iter().zip(weights).map(|(y, w)| y + change * w).collect();
        forger.state_outputs();
    }
    forger.statement.inputs = Some(forger.input_root());
    forger.shows(Check::Lookup);
}

#[test]
fn witness_batch() {
    let mut forger = Forger::new(common::mlp());
    forger.change_result(1);
    forger.shows(Check::WitnessBatch);
}

#[test]
fn witness_opening() {
    let mut forger = Forger::new(common::mlp());
    forger.trick = Some(Trick::Root);
    forger.shows(Check::WitnessOpening);
}

#[test]
fn weight_opening() {
    // Claims, rows and columns are those of other weights; the header names the registered ones.
    let (mut forger, other) = other_weights();
    forger.weights = [other.clone(), other.clone(), other];
    forger.shows(Check::WeightOpening);
}

#[test]
fn slot() {
    // The same with a header that names the other weights, which are not on the list.
    let (mut forger, other) = other_weights();
    forger.weights = [other.clone(), other.clone(), other];
    forger.own_slot = true;
    forger.shows(Check::Slot);
}

#[test]
fn columns() {
    // Claims and rows are those of other weights, the columns are registered.
    let (mut forger, other) = other_weights();
    forger.weights[1] = other;
    forger.shows(Check::Columns);
}

#[test]
fn evaluation() {
    // Claims are about other weights, rows and columns are registered.
    let (forger, _) = other_weights();
    forger.shows(Check::Evaluation);
}

#[test]
fn input_opening() {
    // Everything is right, for other inputs than the committed ones.
    let mut forger = Forger::with(common::mlp(), true);
    forger.inputs[0][2] ^= 1;
    forger.nodes = interpret::run(forger.model.program(), &forger.inputs).unwrap().nodes;
    forger.state_outputs();
    forger.shows(Check::InputOpening);
}

#[test]
fn wires() {
    // A wrong output: something that must be zero is not.
    let mut forger = Forger::new(common::mlp());
    forger.change_result(1);
    let proof = forger.prove(None);
    forger.shows_for(Check::Wires, &forger.statement, &proof);
}

#[test]
fn wire_columns() {
    let mut forger = Forger::new(common::mlp());
    forger.trick = Some(Trick::Wire);
    forger.shows(Check::WireColumns);
}

#[test]
fn differences() {
    // A wrong output of a product, and a difference that makes up for it.
    let mut forger = Forger::new(product(4, 6));
    forger.nodes[0][3] += 1;
    forger.state_outputs();
    forger.trick = Some(Trick::Difference);
    forger.shows(Check::Differences);
}

#[test]
fn triples() {
    // One product of wires is too large by one. Over two rounds, a claim that is too large by four makes up for it: all
    // four outputs are.
    let mut forger = Forger::new(product(4, 4));
    forger.nodes[0].iter_mut().for_each(|value| *value += 4);
    forger.state_outputs();
    forger.trick = Some(Trick::Triple);
    forger.shows(Check::Triples);
}

#[test]
fn grinding() {
    let mut forger = Forger::new(common::mlp());
    forger.trick = Some(Trick::Nonce);
    forger.shows(Check::Grinding);
}

#[test]
fn trailing() {
    let forger = Forger::new(common::mlp());
    let mut proof = forger.prove(None);
    proof.push(0);
    forger.shows_for(Check::Trailing, &forger.statement, &proof);
}
