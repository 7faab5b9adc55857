//! Programs that compute a hash: what Khovratovich, Rothblum and Soukhanov (eprint 2025/118) need to break a Fiat-Shamir
//! transform is a program that computes the hash of its own commitment.
//!
//! Integer programs can compute rounds of BLAKE3: no rule refuses that, as the first test shows. What they cannot do is
//! hash as much as they commit to: every step that is not linear is committed, and a compression takes hundreds of times
//! more committed elements than it absorbs. Nor can they reach a challenge: it lies behind as many compressions, one after
//! the other, as a commitment's tree is deep, and a path of two is refused. Rules refuse the cheaper ways as well, chains of
//! products without commitments and chains of linear steps.

mod common;

use common::Builder;
use opg_integer_program::{
    derive::derive,
    interpret,
    program::{Op, Operand, Shift},
    validate::{MAX_COMMITTED_DEPTH, MAX_DEPTH, MAX_NODES},
    view::ViewMap,
};
use opg_zkml::{Context, ParameterSet, Plan, Profile, RegisteredModel, prove, verify};

/// Elements of the field that one compression of BLAKE3 absorbs, and calls of its mixing function.
const ABSORBED: usize = 64 / 4;
const MIXINGS: usize = 7 * 8;

/// Words of 32 bits are four bytes, the lowest first.
struct Words {
    b: Builder,
    /// `a ^ b` of two bytes, at `256 a + b`.
    xor: Option<u32>,
}

impl Words {
    fn sum(&mut self, terms: &[(Operand, i32)]) -> Operand {
        self.b.node(Op::Sum { terms: terms.to_vec() }, &[])
    }

    fn byte(&mut self, x: Operand) -> Operand {
        self.b.requant(x, 0, 0, 255)
    }

    fn select(&mut self, x: Operand, indices: [u32; 4]) -> Operand {
        let map = ViewMap::Select {
            axis: 1,
            indices: indices.to_vec(),
        };
        self.b.view(x, map, &[1, 4])
    }

    /// `floor(x / 2^shift)`.
    fn floor(&mut self, x: Operand, shift: u8, most: i32) -> Operand {
        let half = -(1i64 << (shift - 1));
        let half = self.b.constant(&[1, 1], half, half);
        let x = self.sum(&[(x, 1), (half, 1)]);
        let shift = Shift::Tensor(shift);
        self.b.node(
            Op::Requant {
                x,
                shift,
                lo: 0,
                hi: most,
            },
            &[],
        )
    }

    fn add(&mut self, words: &[Operand]) -> Operand {
        let terms: Vec<(Operand, i32)> = words.iter().map(|word| (*word, 1)).collect();
        let sums = self.sum(&terms);
        let mut carry = None;
        let mut sources = Vec::new();
        for at in 0..4 {
            let map = ViewMap::Slice {
                starts: vec![0, at],
                steps: vec![1, 1],
            };
            let mut own = self.b.view(sums, map, &[1, 1]);
            if let Some(carry) = carry {
                own = self.sum(&[(own, 1), (carry, 1)]);
            }
            let next = self.floor(own, 8, 2);
            let rest = self.sum(&[(own, 1), (next, -256)]);
            sources.push(self.byte(rest));
            carry = Some(next);
        }
        let map = ViewMap::Concat { axis: 1 };
        self.b.node(Op::View { sources, map }, &[1, 4])
    }

    fn xor(&mut self, x: Operand, y: Operand) -> Operand {
        let both = self.sum(&[(x, 256), (y, 1)]);
        let x = self.b.requant(both, 0, 0, 65_535);
        match self.xor {
            Some(table) => self.b.node(Op::Table { x, table }, &[]),
            None => {
                self.xor = Some(0);
                let values = (0..65_536).map(|pair| (pair >> 8) ^ (pair & 255)).collect();
                self.b.table(x, 0, values)
            }
        }
    }

    /// The upper `bits` of every byte go to the byte that `from` takes them from, the others up.
    fn rotate(&mut self, x: Operand, bits: u8, high: [u32; 4], low: [u32; 4]) -> Operand {
        let upper = self.floor(x, 8 - bits, (1 << bits) - 1);
        let lower = self.sum(&[(x, 1), (upper, -(1 << (8 - bits)))]);
        let (upper, lower) = (self.select(upper, high), self.select(lower, low));
        let joined = self.sum(&[(upper, 1), (lower, 1 << bits)]);
        self.byte(joined)
    }
}

/// BLAKE3's mixing function, `times` in a row on the same words.
fn mixing(times: usize) -> Builder {
    let mut w = Words {
        b: Builder::new(),
        xor: None,
    };
    let [a, b, c, d, x, y] = [(); 6].map(|()| w.b.input(&[1, 4], 0, 255));
    let mut state = [a, b, c, d];
    let halves = [(x, true), (y, false)].into_iter().cycle().take(2 * times);
    for (message, first) in halves {
        let [a, b, c, d] = state;
        let a = w.add(&[a, b, message]);
        let d = w.xor(d, a);
        let d = w.select(d, if first { [2, 3, 0, 1] } else { [1, 2, 3, 0] });
        let c = w.add(&[c, d]);
        let b = w.xor(b, c);
        // By 12 = 16 - 4 and by 7 = 8 - 1 to the right.
        let b = if first {
            w.rotate(b, 4, [1, 2, 3, 0], [2, 3, 0, 1])
        } else {
            w.rotate(b, 1, [0, 1, 2, 3], [1, 2, 3, 0])
        };
        state = [a, b, c, d];
    }
    state.into_iter().for_each(|word| w.b.output(word));
    w.b
}

fn reference([mut a, mut b, mut c, mut d, x, y]: [u32; 6]) -> [u32; 4] {
    a = a.wrapping_add(b).wrapping_add(x);
    d = (d ^ a).rotate_right(16);
    c = c.wrapping_add(d);
    b = (b ^ c).rotate_right(12);
    a = a.wrapping_add(b).wrapping_add(y);
    d = (d ^ a).rotate_right(8);
    c = c.wrapping_add(d);
    b = (b ^ c).rotate_right(7);
    [a, b, c, d]
}

#[test]
fn a_mixing_function_costs_more_than_a_compression_absorbs() {
    let mut builder = mixing(1);
    builder.program.validate().unwrap();
    let bytes = |word: u32| word.to_le_bytes().map(i64::from).to_vec();
    let mut inputs = Vec::new();
    for _ in 0..20 {
        let words: [u32; 6] = std::array::from_fn(|_| u32::try_from(builder.numbers.next()).unwrap_or(0) << 1 | 1);
        inputs = words.map(bytes).to_vec();
        let run = interpret::run(&builder.program, &inputs).unwrap();
        for (output, word) in builder.program.graph.outputs.iter().zip(reference(words)) {
            let Operand::Node(node) = output.source else {
                panic!("outputs are nodes");
            };
            assert_eq!(run.nodes[node as usize], bytes(word));
        }
    }
    // It can be proven like any other program.
    let model = RegisteredModel::new(builder.program.clone(), ParameterSet::Bits100).unwrap();
    let (statement, proof) = prove(&model, &[inputs], Context::default(), Profile::Committed, &mut |_| {}).unwrap();
    verify(model.verifying_key(), &model.root(), &statement, &proof).unwrap();
    // But what it commits to, without the tables that all calls share, is more than a whole compression absorbs: even
    // if a program did nothing else, it could not hash a thousandth of the 4 symbols that every element becomes.
    let costs = Plan::new(&model.verifying_key().graph, 1).unwrap().costs();
    let committed: usize = costs.split_last().unwrap().1.iter().map(|cost| cost.committed).sum();
    println!(
        "{committed} committed elements for a mixing function, {} nodes",
        builder.program.graph.nodes.len()
    );
    assert!(committed > 4 * ABSORBED);
    assert!(committed * MIXINGS * 4 > 1000 * ABSORBED);
}

/// Products of products have no range that fits: each must be cut back to an activation, which is committed.
#[test]
fn chains_of_products_without_commitments_are_refused() {
    let mut b = Builder::new();
    let x = b.input(&[1, 8], -127, 127);
    let square = b.node(Op::Mul { a: x, b: x }, &[]);
    let cube = Op::Mul { a: square, b: x };
    let graph = &b.program.graph;
    assert!(derive(graph, Some(&b.program.weights), graph.nodes.len(), "cube", &cube, &[]).is_err());
}

/// Rounds `x -> x^2 / 2^7 + constant` of an arithmetic hash: as many as a path may have, no more.
#[test]
fn long_chains_are_refused() {
    let rounds = |count: usize| {
        let mut b = Builder::new();
        let mut x = b.input(&[1, 8], -127, 127);
        let constant = b.constant(&[1, 8], -64, 64);
        for _ in 0..count {
            let square = b.node(Op::Mul { a: x, b: x }, &[]);
            let sum = Op::Sum {
                terms: vec![(square, 1), (constant, 1)],
            };
            let sum = b.node(sum, &[]);
            x = b.requant(sum, 7, -127, 127);
        }
        b.output(x);
        b.program.validate()
    };
    const { assert!(3 * (MAX_COMMITTED_DEPTH + 1) < MAX_NODES && 3 * (MAX_COMMITTED_DEPTH + 1) < MAX_DEPTH) };
    rounds(MAX_COMMITTED_DEPTH).unwrap();
    let refused = rounds(MAX_COMMITTED_DEPTH + 1).unwrap_err().to_string();
    assert!(refused.contains("activations on one path"), "{refused}");
}

/// A compression is fourteen mixing functions deep: seven rounds, columns and diagonals. One fits a path; with a second one
/// behind it, which is less than the two that a single leaf of a commitment's tree takes, a path is too long.
#[test]
fn hashes_behind_each_other_are_refused() {
    const DEEP: usize = 14;
    mixing(DEEP).program.validate().unwrap();
    let refused = mixing(2 * DEEP).program.validate().unwrap_err().to_string();
    assert!(
        refused.contains("activations on one path") && refused.contains(&MAX_COMMITTED_DEPTH.to_string()),
        "{refused}"
    );
    // However cleverly it is written, a mixing function has four additions with an exclusive-or behind each, and every one
    // of the latter depends on bits of a sum: four activations, each of two elements at least for a word of 32 bits. What
    // lies between a committed element and a challenge: two compressions for its leaf, the tree above, the transcript.
    for variables in 10..=24 {
        let levels = variables - if variables > 16 { 4 } else { 3 };
        let compressions = 2 + levels + 1;
        let too_deep = compressions * DEEP * 4 > MAX_COMMITTED_DEPTH;
        let too_large = compressions * MIXINGS * 4 * 2 > 1 << variables;
        assert!(too_deep || too_large, "a commitment of 2^{variables} elements");
    }
}
