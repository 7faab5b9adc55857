//! The integer program: a directed graph of exact integer operations with static shapes and static ranges.
//!
//! [`Graph`] is everything but the weights: what a verifier holds, and what the graph digest names. [`Program`] is a
//! graph with its [`Weights`]. The meaning of every operation is written down in `docs/integer-program.md`.

use crate::{constant::Weights, constant::Width, range::Range, view::ViewMap};

/// Version of the meaning of the operations. A change of any result needs a new one.
pub const SEMANTICS_VERSION: u32 = 1;

/// Greatest absolute value of an accumulator, and of every intermediate value of an operation: `2^29`.
///
/// A prime field with more than `2^30` elements on each side of zero represents such values without wrapping, with
/// room for the rounding term of [`Op::Requant`].
pub const ACC_LIMIT: i64 = 1 << 29;

/// Most values of an activation's range, and most entries of a table.
pub const ACT_WIDTH: u64 = 1 << 16;

/// Greatest shift of [`Op::Requant`] and [`Op::Divide`].
pub const MAX_SHIFT: u8 = 28;

/// Where an operation finds a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operand {
    /// An input of the program, by position in [`Graph::inputs`].
    Input(u32),
    /// A constant, by position in [`Graph::constants`].
    Constant(u32),
    /// The result of a node, by position in [`Graph::nodes`]. Only earlier nodes can be used.
    Node(u32),
}

/// How a prover treats a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sort {
    /// Activation: at most [`ACT_WIDTH`] values between -32 768 and 65 535. Results of [`Op::Requant`], [`Op::Table`],
    /// [`Op::MaxPool`], [`Op::ReduceMax`], [`Op::Divide`] and [`Op::Gather`] are committed by a prover.
    Act,
    /// Accumulator: absolute values of at most [`ACC_LIMIT`]; never committed.
    Acc,
    /// Public indices: an input that only [`Op::Gather`] uses.
    Index,
}

/// Shape, sort and proven range of a tensor. Tensors are row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorType {
    /// Dimensions, all at least 1; empty for a scalar.
    pub shape: Vec<usize>,
    /// How a prover treats it.
    pub sort: Sort,
    /// What every element is proven to lie in.
    pub range: Range,
}

/// One step of the program: one operation, one result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name for people: the ONNX node it comes from.
    pub name: String,
    /// The operation and its operands.
    pub op: Op,
    /// The result. Sort and range are what [`Program::validate`] derives, not less and not more.
    pub ty: TensorType,
}

/// An operation. Unless said otherwise operands are of any sort but [`Sort::Index`], and no broadcasting happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// `y[b.., m, n] = sum_k x[b.., m, k] * w[b.., k, n] + bias[n]`, an accumulator.
    MatMul {
        /// Activation `[B.., M, K]`.
        x: Operand,
        /// Constant or activation, `[K, N]` or `[B.., K, N]` with the same `B..` as `x`.
        w: Operand,
        /// Constant `[N]`.
        bias: Option<Operand>,
    },
    /// Two-dimensional cross-correlation with zero padding, an accumulator `[N, O, H', W']`.
    Conv {
        /// Activation `[N, C, H, W]`.
        x: Operand,
        /// Constant `[O, C / groups, KH, KW]`.
        w: Operand,
        /// Constant `[O]`.
        bias: Option<Operand>,
        /// Where the kernel goes; `groups` divides `C` and `O`.
        window: Window,
        /// Number of groups: output channel `o` reads the input channels of group `o / (O / groups)`.
        groups: u32,
    },
    /// `y = sum_i multiplier_i * broadcast(x_i)`, an accumulator. At least one term; every partial sum is bounded.
    Sum {
        /// Operands with their multipliers.
        terms: Vec<(Operand, i32)>,
    },
    /// `y = broadcast(a) * broadcast(b)`, an accumulator.
    Mul {
        /// Activation.
        a: Operand,
        /// Activation or constant.
        b: Operand,
    },
    /// Sum over some dimensions, which stay with size 1; an accumulator.
    ReduceSum {
        /// Activation or accumulator.
        x: Operand,
        /// Dimensions, ascending.
        axes: Vec<u8>,
    },
    /// `y = clamp(floor((x + half) / 2^shift), lo, hi)` with `half = 2^(shift - 1)`, 0 for shift 0; an activation.
    Requant {
        /// Accumulator or activation.
        x: Operand,
        /// Shift.
        shift: Shift,
        /// Least result.
        lo: i32,
        /// Greatest result.
        hi: i32,
    },
    /// `y = table[x - x.range.lo]`, an activation. The table has exactly one entry for each value of `x`'s range.
    Table {
        /// Activation.
        x: Operand,
        /// Position in [`Graph::tables`].
        table: u32,
    },
    /// Maximum over windows of the last two dimensions, padding ignored; an activation `[N, C, H', W']`.
    MaxPool {
        /// Activation `[N, C, H, W]`.
        x: Operand,
        /// Where the window goes. Every position of it covers at least one element of `x`.
        window: Window,
        /// Height and width of the window.
        kernel: [u32; 2],
    },
    /// Maximum over some dimensions, which stay with size 1; an activation.
    ReduceMax {
        /// Activation.
        x: Operand,
        /// Dimensions, ascending.
        axes: Vec<u8>,
    },
    /// `y = floor((num * 2^shift + floor(den / 2)) / den)`, an activation. `den >= 1` is proven by its range. The
    /// quotient must lie in `lo..=hi`: for an input where it does not, the program has no result.
    Divide {
        /// Activation or accumulator.
        num: Operand,
        /// Activation or accumulator, broadcast to the shape of `num`.
        den: Operand,
        /// Factor `2^shift` of the numerator.
        shift: u8,
        /// Least quotient.
        lo: i32,
        /// Greatest quotient.
        hi: i32,
    },
    /// Elements in another order: `y[o] = source[map(o)]`. The sort is the greatest sort of the sources, constants
    /// aside; at least one source is no constant.
    View {
        /// Sources; one unless the map is a concatenation.
        sources: Vec<Operand>,
        /// Which element goes where.
        map: ViewMap,
    },
    /// Rows of a table by public indices: `y[i.., d..] = table[indices[i..], d..]`, an activation.
    Gather {
        /// Constant `[R, D..]` whose range is one of an activation.
        table: Operand,
        /// Input of sort [`Sort::Index`], all values below `R`.
        indices: Operand,
    },
}

/// Steps of a two-dimensional window. Output size is `floor((size + pads - dilation * (kernel - 1) - 1) / stride) + 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Vertical and horizontal step.
    pub strides: [u32; 2],
    /// Padding: top, left, bottom, right.
    pub pads: [u32; 4],
    /// Vertical and horizontal distance of the kernel's elements.
    pub dilations: [u32; 2],
}

/// Shift of a requantisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shift {
    /// One for the whole tensor, at most [`MAX_SHIFT`].
    Tensor(u8),
    /// One per position along a dimension.
    Axis {
        /// The dimension.
        axis: u8,
        /// As many as the dimension's size.
        shifts: Vec<u8>,
    },
}

/// A public lookup table, used by [`Op::Table`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Name for people: the function it tabulates.
    pub name: String,
    /// The argument of the first entry; entry `i` belongs to `first + i`.
    pub first: i32,
    /// The values, all in an activation's range.
    pub values: Vec<i32>,
}

/// What a constant is, without its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConstantType {
    /// Name for people: the ONNX initializer it comes from.
    pub name: String,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Bytes of one element.
    pub width: Width,
    /// Least and greatest element.
    pub range: Range,
}

/// An input of the program and the step from the request's floats to integers.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Name that the ONNX file gives it.
    pub name: String,
    /// Shape: the one that the ONNX file declares, batch dimension included.
    pub shape: Vec<usize>,
    /// How a request's numbers become integers.
    pub encoding: InputEncoding,
}

/// How a request's numbers become integers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum InputEncoding {
    /// `q = clamp(round_half_even(x / scale) + zero_point, lo, hi)` in IEEE 754 binary64, `x` a finite binary32 number.
    Quantised {
        /// Real value of one step; positive, finite.
        scale: f64,
        /// Integer of the real value 0.
        zero_point: i32,
        /// Least and greatest integer.
        range: Range,
    },
    /// Integers `0..count`; anything else is refused.
    Index {
        /// Number of rows of the table.
        count: u32,
    },
}

/// A public tensor of the program and the step from integers to floats: `y = q * scale` in binary64.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Name: the one of the ONNX output, or of the ONNX value that a [`Post`] needs.
    pub name: String,
    /// The tensor: a node.
    pub source: Operand,
    /// Real value of one step; positive, finite.
    pub scale: f64,
}

/// Something computed in the clear from public tensors, not part of what is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Post {
    /// `labels[position of the maximum]` along one dimension of an output.
    ArgMax {
        /// Name that the ONNX file gives the result.
        name: String,
        /// Position in [`Graph::outputs`].
        output: u32,
        /// Dimension that is searched.
        axis: u8,
        /// Whether the dimension stays, with size 1.
        keep: bool,
        /// Whether the last of several maxima counts; otherwise the first.
        last: bool,
        /// What the positions are called.
        labels: Labels,
    },
}

/// Names of classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Labels {
    /// The position itself.
    Position,
    /// Integers, one per class.
    Integers(Vec<i64>),
    /// Texts, one per class.
    Texts(Vec<String>),
}

/// Where a program comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Name and version of the compiler that chose scales and rounding.
    pub quantiser: String,
    /// Precision profile: `int8` or `int16`.
    pub profile: String,
    /// SHA-256 of the ONNX file.
    pub source: [u8; 32],
}

/// A program without its weights: what a verifier holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// Where it comes from.
    pub metadata: Metadata,
    /// Inputs, in the order of the ONNX file.
    pub inputs: Vec<Input>,
    /// Types of the constants.
    pub constants: Vec<ConstantType>,
    /// Public lookup tables.
    pub tables: Vec<Table>,
    /// Nodes in topological order.
    pub nodes: Vec<Node>,
    /// Public results.
    pub outputs: Vec<Output>,
    /// What is computed in the clear from the results.
    pub posts: Vec<Post>,
}

/// A graph with its weights. Only [`Program::validate`] says whether the two belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// Everything but the weights.
    pub graph: Graph,
    /// One entry per constant of the graph.
    pub weights: Weights,
}

/// Borrowed shape, sort and range of any operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperandType<'a> {
    /// Dimensions.
    pub shape: &'a [usize],
    /// Sort; `None` for a constant.
    pub sort: Option<Sort>,
    /// Proven range.
    pub range: Range,
}

impl Input {
    /// Sort and range of the integers.
    #[must_use]
    pub fn integer_type(&self) -> (Sort, Range) {
        match self.encoding {
            InputEncoding::Quantised { range, .. } => (Sort::Act, range),
            InputEncoding::Index { count } => (Sort::Index, Range::new(0, i64::from(count) - 1)),
        }
    }
}

impl Graph {
    /// Shape, sort and range of an operand, or `None` if there is no such operand.
    #[must_use]
    pub fn operand(&self, operand: Operand) -> Option<OperandType<'_>> {
        match operand {
            Operand::Input(i) => self.inputs.get(i as usize).map(|input| {
                let (sort, range) = input.integer_type();
                OperandType {
                    shape: &input.shape,
                    sort: Some(sort),
                    range,
                }
            }),
            Operand::Constant(i) => self.constants.get(i as usize).map(|constant| OperandType {
                shape: &constant.shape,
                sort: None,
                range: constant.range,
            }),
            Operand::Node(i) => self.nodes.get(i as usize).map(|node| OperandType {
                shape: &node.ty.shape,
                sort: Some(node.ty.sort),
                range: node.ty.range,
            }),
        }
    }
}

impl Op {
    /// ONNX-like name of the operation.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::MatMul { .. } => "MatMul",
            Self::Conv { .. } => "Conv",
            Self::Sum { .. } => "Sum",
            Self::Mul { .. } => "Mul",
            Self::ReduceSum { .. } => "ReduceSum",
            Self::Requant { .. } => "Requant",
            Self::Table { .. } => "Table",
            Self::MaxPool { .. } => "MaxPool",
            Self::ReduceMax { .. } => "ReduceMax",
            Self::Divide { .. } => "Divide",
            Self::View { .. } => "View",
            Self::Gather { .. } => "Gather",
        }
    }

    /// All operands, in the order of the fields.
    #[must_use]
    pub fn operands(&self) -> Vec<Operand> {
        match self {
            Self::MatMul { x, w, bias } | Self::Conv { x, w, bias, .. } => {
                [Some(*x), Some(*w), *bias].into_iter().flatten().collect()
            }
            Self::Sum { terms } => terms.iter().map(|(operand, _)| *operand).collect(),
            Self::Mul { a, b } => vec![*a, *b],
            Self::ReduceSum { x, .. }
            | Self::Requant { x, .. }
            | Self::Table { x, .. }
            | Self::MaxPool { x, .. }
            | Self::ReduceMax { x, .. } => vec![*x],
            Self::Divide { num, den, .. } => vec![*num, *den],
            Self::View { sources, .. } => sources.clone(),
            Self::Gather { table, indices } => vec![*table, *indices],
        }
    }
}

impl Shift {
    /// The shift at a position of the dimension, or the one of the tensor.
    #[must_use]
    pub fn at(&self, position: usize) -> Option<u8> {
        match self {
            Self::Tensor(shift) => Some(*shift),
            Self::Axis { shifts, .. } => shifts.get(position).copied(),
        }
    }

    /// Least and greatest shift.
    #[must_use]
    pub fn bounds(&self) -> (u8, u8) {
        match self {
            Self::Tensor(shift) => (*shift, *shift),
            Self::Axis { shifts, .. } => {
                let least = shifts.iter().copied().min().unwrap_or(0);
                (least, shifts.iter().copied().max().unwrap_or(0))
            }
        }
    }
}

/// `floor((x + half) / 2^shift)` with `half = 2^(shift - 1)`, 0 for shift 0: the rounding of [`Op::Requant`].
///
/// ```
/// use opg_integer_program::program::round_shift;
/// assert_eq!([round_shift(3, 1), round_shift(-3, 1), round_shift(-1, 1)], [2, -1, 0]);
/// ```
#[must_use]
pub const fn round_shift(x: i64, shift: u8) -> i64 {
    let shift = if shift > 62 { 62 } else { shift };
    let half = if shift == 0 { 0 } else { 1i64 << (shift - 1) };
    x.saturating_add(half) >> shift
}

impl Window {
    /// Steps of 1 without padding.
    pub const UNIT: Self = Self {
        strides: [1, 1],
        pads: [0; 4],
        dilations: [1, 1],
    };

    /// Height and width of the result for an image of `size` and a `kernel`, or `None` if the kernel does not fit.
    #[must_use]
    pub fn output(&self, size: [usize; 2], kernel: [usize; 2]) -> Option<[usize; 2]> {
        let [top, left, bottom, right] = self.pads.map(|pad| pad as usize);
        let one = |size: usize, pads: usize, kernel: usize, dilation: u32, stride: u32| -> Option<usize> {
            let reach = kernel.checked_sub(1)?.checked_mul(dilation as usize)?.checked_add(1)?;
            let room = size.checked_add(pads)?.checked_sub(reach)?;
            room.checked_div(stride as usize)?.checked_add(1)
        };
        let [height, width] = size;
        let [rows, columns] = kernel;
        let [down, across] = self.strides;
        let [dilate_down, dilate_across] = self.dilations;
        Some([
            one(height, top.checked_add(bottom)?, rows, dilate_down, down)?,
            one(width, left.checked_add(right)?, columns, dilate_across, across)?,
        ])
    }
}
