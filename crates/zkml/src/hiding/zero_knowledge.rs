//! What the messages of hiding proofs look like: uniform, whatever they hide, and never twice the same.
//!
//! That they hide anything is proven in `docs/specs/zk-proof.md`; here it is looked at. Two models with the same graph and
//! the same outputs, but other weights and inputs, are proven many times each.

use opg_primitives::domain::Tag;
use std::collections::{BTreeSet, HashSet};

use opg_integer_program::{constant::ConstantData, program::Program};
use p3_field::PrimeCharacteristicRing;
use rand::{CryptoRng, RngCore, SeedableRng, rngs::StdRng};

use crate::{
    Context, ParameterSet,
    checks::Checks,
    common,
    error::{Check, VerifyError},
    field::{EF, F, P},
    hiding::{
        HidingModel, Secret, Seed,
        argument::{Closed, close, columns, fresh_rows, join, split, wire_rows},
        channel::{End, HidingChannel},
        model::commit,
        prove_hiding,
        random::Use,
        stack::Stack,
        tree::Tree,
        verify_hiding,
    },
    plan::Plan,
    proof::{Reader, Writer},
    protocol::Protocol,
    security::walk,
    witness::Witness,
};

/// Two programs with the same graph: the hidden units change places. And inputs that give the same outputs: all inputs
/// are used with weights that change places as well.
fn twins() -> [(Program, Vec<Vec<i64>>); 2] {
    let mut b = common::mlp();
    let inputs = b.inputs();
    let first = b.program;
    let mut second = first.clone();
    let rows = |program: &Program, index: usize| program.weights.constants[index].to_i64();
    // Inputs 5, hidden units 7, outputs 3; both orders are reversed.
    let (w, bias, v) = (rows(&first, 0), rows(&first, 1), rows(&first, 2));
    let w = (0..35).map(|i| w[(4 - i / 7) * 7 + 6 - i % 7]).collect::<Vec<_>>();
    let bias = (0..7).map(|i| bias[6 - i]).collect::<Vec<_>>();
    let v = (0..21).map(|i| v[(6 - i / 3) * 3 + i % 3]).collect::<Vec<_>>();
    for (index, values) in [w, bias, v].iter().enumerate() {
        second.weights.constants[index] = ConstantData::pack(values).unwrap();
    }
    let reversed = vec![inputs[0].iter().rev().copied().collect()];
    [(first, inputs), (second, reversed)]
}

/// The numbers of the proof's elements before the queries, and of the first column after them.
fn words(model: &HidingModel, plan: &Plan, proof: &[u8]) -> (Vec<u32>, Vec<u32>) {
    let key = model.verifying_key();
    let code = key.code();
    let stack = Stack::new(&code, plan).unwrap();
    let wires = walk(&key.graph, plan, Checks::default())
        .unwrap()
        .wires(stack.layout.variables);
    let header = 8 + 2 + 4 + 32 * (2 + crate::hiding::tree::depth(key.slots));
    let elements = wires.messages + 4 * wires.products + code.dimension() * (1 + wire_rows(&code, wires)) + 1;
    let all: Vec<u32> = proof[header..]
        .chunks_exact(4)
        .map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    let column = fresh_rows(&code, wires, stack.rows()[0]);
    (all[..5 * elements].to_vec(), all[5 * elements + 1..][..column].to_vec())
}

const BINS: usize = 16;

/// How often each part of the field is met, for every position of a message.
struct Histogram(Vec<[u32; BINS]>);

impl Histogram {
    fn new(samples: &[Vec<u32>]) -> Self {
        let mut counts = vec![[0; BINS]; samples[0].len()];
        for sample in samples {
            assert_eq!(sample.len(), counts.len());
            for (bins, word) in counts.iter_mut().zip(sample) {
                assert!(*word < P);
                bins[usize::try_from(u64::from(*word) * BINS as u64 / u64::from(P)).unwrap()] += 1;
            }
        }
        Self(counts)
    }

    /// Chi-square statistics against uniformity, with 15 degrees of freedom.
    fn against_uniform(&self) -> Vec<f64> {
        let statistic = |bins: &[u32; BINS]| {
            let expected = f64::from(bins.iter().sum::<u32>()) / BINS as f64;
            bins.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum()
        };
        self.0.iter().map(statistic).collect()
    }

    /// Chi-square statistics of two samples of one size against each other, with 15 degrees of freedom.
    fn against(&self, other: &Self) -> Vec<f64> {
        let statistic = |(a, b): (&[u32; BINS], &[u32; BINS])| {
            let both = a.iter().zip(b).filter(|(a, b)| **a + **b > 0);
            both.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2) / f64::from(a + b))
                .sum()
        };
        self.0.iter().zip(&other.0).map(statistic).collect()
    }
}

/// No position beyond 85 (probability 10^-11 each), and on average 15: standard deviation sqrt(30 / positions).
fn looks_uniform(statistics: &[f64]) -> bool {
    let mean = statistics.iter().sum::<f64>() / statistics.len() as f64;
    let deviation = (30.0 / statistics.len() as f64).sqrt();
    statistics.iter().all(|value| *value < 85.0) && (mean - 15.0).abs() < 6.0 * deviation
}

const PROOFS: usize = 300;

#[test]
fn messages_are_uniform_and_independent_of_the_secrets() {
    let mut outputs = HashSet::new();
    let histograms = twins().map(|(program, inputs)| {
        program.validate().unwrap();
        let slots = u32::try_from(PROOFS).unwrap();
        let mut model = HidingModel::new(program, ParameterSet::Bits100, slots, &Seed::from_bytes([1; 32])).unwrap();
        let plan = Plan::with_secret_inputs(&model.verifying_key().graph, 1).unwrap();
        let mut rng = StdRng::seed_from_u64(11);
        let (mut messages, mut columns) = (Vec::new(), Vec::new());
        for _ in 0..PROOFS {
            let own = Seed::random(&mut rng);
            let secret = Secret::WeightsAndInputs(&own);
            let inputs = std::slice::from_ref(&inputs);
            let (statement, proof) =
                prove_hiding(&mut model, inputs, secret, Context::default(), &mut rng, &mut |_| {}).unwrap();
            outputs.insert(statement.statement.requests[0].outputs.clone());
            if messages.is_empty() {
                verify_hiding(model.verifying_key(), &model.root(), &statement, &proof).unwrap();
            }
            let (message, column) = words(&model, &plan, &proof);
            messages.push(message);
            columns.push(column);
        }
        [Histogram::new(&messages), Histogram::new(&columns)]
    });
    assert_eq!(outputs.len(), 1, "both programs give the same outputs");
    let [first, second] = &histograms;
    for (first, second) in first.iter().zip(second) {
        assert!(looks_uniform(&first.against_uniform()));
        assert!(looks_uniform(&second.against_uniform()));
        assert!(looks_uniform(&first.against(second)));
    }
}

/// The test above can fail: without a tail, the symbols of two sets of weights are told apart at once.
#[test]
fn symbols_of_weights_are_uniform_because_of_their_tails() {
    let [(program, _), (other, _)] = twins();
    let model = HidingModel::new(program.clone(), ParameterSet::Bits100, 1, &Seed::from_bytes([1; 32])).unwrap();
    let code = model.verifying_key().code();
    let layout = crate::hiding::model::weight_layout(&program.graph);
    let sample = |program: &Program, run: u8, with_tail: bool| {
        let constants: Vec<Vec<i64>> = program.weights.constants.iter().map(|values| values.to_i64()).collect();
        let values = layout.stack(&constants);
        let samples: Vec<Vec<u32>> = (0..PROOFS)
            .map(|slot| {
                let key =
                    Seed::from_bytes([4; 32]).key(Tag::HidingProof, [[run].as_slice(), slot.to_le_bytes().as_slice()]);
                let (mut rows, _) = commit(&code, &values, &key);
                if !with_tail {
                    rows.iter_mut().for_each(|row| row.truncate(code.message()));
                }
                let symbols = code.encode(&rows);
                symbols
                    .iter()
                    .take(100 * rows.len())
                    .map(p3_field::PrimeField32::as_canonical_u32)
                    .collect()
            })
            .collect();
        Histogram::new(&samples)
    };
    let (first, second) = (sample(&program, 0, true), sample(&other, 1, true));
    assert!(looks_uniform(&first.against_uniform()));
    assert!(looks_uniform(&first.against(&second)));
    let (first, second) = (sample(&program, 0, false), sample(&other, 1, false));
    assert!(!looks_uniform(&first.against_uniform()));
    assert!(!looks_uniform(&first.against(&second)));
}

/// A generator that always gives the same.
struct Broken;

impl RngCore for Broken {
    fn next_u32(&mut self) -> u32 {
        0
    }

    fn next_u64(&mut self) -> u64 {
        0
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

impl CryptoRng for Broken {}

/// The same request 1,000 times: no element of any message is met twice. Also not with a generator that is broken: the
/// slots are others.
#[test]
fn no_mask_is_used_twice() {
    let [(program, inputs), _] = twins();
    let slots = 1050;
    let mut model = HidingModel::new(program, ParameterSet::Bits100, slots, &Seed::from_bytes([1; 32])).unwrap();
    let plan = Plan::new(&model.verifying_key().graph, 1).unwrap();
    let mut seen: HashSet<Vec<u32>> = HashSet::new();
    let mut look = |model: &mut HidingModel, rng: &mut dyn FnMut(&mut HidingModel) -> Vec<u8>| {
        let proof = rng(model);
        for element in words(model, &plan, &proof).0.chunks_exact(5) {
            assert!(seen.insert(element.to_vec()), "an element is met twice");
        }
    };
    let inputs = std::slice::from_ref(&inputs);
    let mut good = StdRng::seed_from_u64(2);
    for round in 0..slots {
        look(&mut model, &mut |model| {
            let context = Context::default();
            let proven = if round < 1000 {
                prove_hiding(model, inputs, Secret::Weights, context, &mut good, &mut |_| {})
            } else {
                prove_hiding(model, inputs, Secret::Weights, context, &mut Broken, &mut |_| {})
            };
            proven.unwrap().1
        });
    }
    assert!(seen.len() > 1_000_000);
}

/// An end without secrets: messages and challenges come from tapes.
struct Simulated<'a> {
    messages: &'a [EF],
    challenges: &'a [EF],
    sent: usize,
    drawn: usize,
}

impl End for Simulated<'_> {
    fn sample(&mut self) -> EF {
        self.drawn += 1;
        self.challenges[self.drawn - 1]
    }

    fn exchange(&mut self, _: EF) -> Result<EF, VerifyError> {
        self.sent += 1;
        Ok(self.messages[self.sent - 1])
    }

    fn witness(&self) -> Option<&Witness<'_>> {
        None
    }

    fn wire(&self, _: usize) -> EF {
        EF::ZERO
    }
}

/// The simulator of the specification: without weights, inputs and activations, and for outputs that the program may not
/// even have, it makes what an honest verifier accepts, if it knows the challenges first. (Whoever does not know them
/// first must ask BLAKE3: `tests/hiding.rs`.)
#[test]
fn transcripts_are_simulated_without_secrets() {
    let [(program, _), _] = twins();
    let model = HidingModel::new(program, ParameterSet::Bits100, 1, &Seed::from_bytes([1; 32])).unwrap();
    let key = model.verifying_key();
    let (graph, code, checks) = (&key.graph, key.code(), Checks::default());
    let plan = Plan::with_secret_inputs(graph, 1).unwrap();
    let stack = Stack::new(&code, &plan).unwrap();
    let wires = walk(graph, &plan, checks).unwrap().wires(stack.layout.variables);
    let mut stream = Seed::from_bytes([6; 32]).key(Tag::HidingProof, []).stream(Use::Wires);
    let sent = wires.messages + 4 * wires.products + code.dimension() * (1 + wire_rows(&code, wires)) + 1;
    let mut messages: Vec<EF> = (0..sent).map(|_| stream.ext()).collect();
    let challenges: Vec<EF> = (0..wires.messages + 100).map(|_| stream.ext()).collect();
    let outputs = vec![vec![1, -2, 3]];
    let run = |messages: &[EF]| {
        let end = Simulated {
            messages,
            challenges: &challenges,
            sent: 0,
            drawn: 0,
        };
        let mut protocol = Protocol {
            graph,
            plan: &plan,
            inputs: &[],
            channel: HidingChannel::new(end, checks, wires),
            open: vec![Vec::new(); graph.nodes.len()],
            witness: Vec::new(),
            weights: Vec::new(),
            secrets: Vec::new(),
            progress: &mut |_| {},
            cancel: &crate::protocol::NEVER,
        };
        protocol.run(&outputs).unwrap();
        let claims = stack.claims([protocol.witness, protocol.weights, protocol.secrets]);
        let mut channel = protocol.channel;
        let closed = close(&mut channel, &code, &stack, &claims, None).unwrap();
        assert_eq!(channel.end.sent, sent);
        closed
    };
    // The value on the mask of the wires is chosen last.
    let before = run(&messages);
    let mask = sent - 1 - code.dimension() * wire_rows(&code, wires);
    messages[mask] += before.residue;
    let closed = run(&messages);

    // Columns: uniform where anything is secret, the masks from the equations.
    let positions: Vec<usize> = (0..code.tail)
        .map(|i| i * 31 % code.length())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let rows = stack.rows();
    let fresh = fresh_rows(&code, wires, rows[0]);
    let mut symbols = [fresh, rows[1], rows[2]].map(|width| stream.bases(width * code.length()));
    let lines: Vec<Vec<F>> = std::iter::once(&closed.opening)
        .chain(&closed.wires)
        .flat_map(|row| split(row))
        .collect();
    let sent = code.encode(&lines);
    let [opening, wire] = closed.challenges;
    for position in &positions {
        let sent = join(&sent[position * lines.len()..][..lines.len()]);
        let mut combined = EF::ZERO;
        for ((weights, symbols), width) in closed.weights.iter().zip(&symbols).zip([fresh, rows[1], rows[2]]) {
            let column = symbols[position * width..].iter();
            combined += weights.iter().zip(column).map(|(w, value)| *w * *value).sum::<EF>();
        }
        let column = &mut symbols[0][position * fresh + rows[0]..(position + 1) * fresh];
        let count = closed.wires.len();
        let own = join(column);
        let masks = own
            .iter()
            .zip(&sent[1..])
            .take(count)
            .map(|(own, sent)| *sent - wire * *own);
        let masks: Vec<EF> = masks.chain([sent[0] - opening * combined]).collect();
        for (slots, mask) in column[5 * count..].chunks_mut(5).zip(&masks) {
            slots.copy_from_slice(crate::channel::coefficients(mask));
        }
    }
    let salts = Seed::from_bytes([8; 32]).key(Tag::HidingProof, []);
    let trees = [(0, fresh), (1, rows[1]), (2, rows[2])]
        .map(|(part, width)| (Tree::new(symbols[part].clone(), width, &salts), width));
    let mut writer = Writer::default();
    trees.iter().for_each(|(tree, _)| tree.open(&positions, &mut writer));
    let names = [Check::WitnessOpening, Check::WeightOpening, Check::InputOpening];
    let expected: Vec<_> = names
        .into_iter()
        .zip(&trees)
        .map(|(name, (tree, width))| (name, tree.root(), *width))
        .collect();
    let verdict = |closed: &Closed| {
        let mut reader = Reader::new(&writer.bytes);
        columns(&mut reader, &code, closed, &expected, &positions, checks)
    };
    verdict(&closed).unwrap();
    assert!(matches!(
        verdict(&before),
        Err(VerifyError::Check {
            check: Check::Wires,
            ..
        })
    ));
}
