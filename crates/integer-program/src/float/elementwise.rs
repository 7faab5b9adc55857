//! Operations on single elements.

use super::{Args, Reason};
use crate::{
    onnx::OnnxNode,
    shape::{Walk, broadcast, broadcast_strides, signed},
    tensor::{Data, Tensor, count},
};

/// Whether an operator maps each element by a function that its attributes fix.
pub(crate) fn is_unary(op: &str) -> bool {
    matches!(
        op,
        "Relu"
            | "LeakyRelu"
            | "Sigmoid"
            | "Tanh"
            | "Erf"
            | "Gelu"
            | "Exp"
            | "Log"
            | "Sqrt"
            | "Abs"
            | "Neg"
            | "Reciprocal"
            | "Softplus"
            | "Softsign"
            | "HardSigmoid"
            | "HardSwish"
            | "Elu"
            | "Selu"
            | "Swish"
            | "ThresholdedRelu"
            | "Mish"
    )
}

/// The error function: series below 3, continued fraction above (Abramowitz and Stegun 7.1.5 and 7.1.14).
fn erf(x: f64) -> f64 {
    let z = x.abs();
    let value = if z < 3.0 {
        let (mut term, mut sum) = (z, z);
        for n in 1..100 {
            let n = f64::from(n);
            term *= -z * z / n;
            sum += term / (2.0 * n + 1.0);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        let mut fraction = z;
        for n in (1..=60).rev() {
            fraction = z + f64::from(n) / 2.0 / fraction;
        }
        1.0 - (-z * z).exp() / fraction / std::f64::consts::PI.sqrt()
    };
    value.copysign(x)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The function of a unary operator.
pub(crate) fn unary(node: &OnnxNode) -> Option<Box<dyn Fn(f64) -> f64>> {
    let alpha = |default: f32| f64::from(node.float("alpha").unwrap_or(default));
    let beta = |default: f32| f64::from(node.float("beta").unwrap_or(default));
    Some(match node.op.as_str() {
        "Relu" => Box::new(|x| x.max(0.0)),
        "LeakyRelu" => {
            let slope = alpha(0.01);
            Box::new(move |x| if x < 0.0 { slope * x } else { x })
        }
        "Sigmoid" => Box::new(sigmoid),
        "Tanh" => Box::new(f64::tanh),
        "Erf" => Box::new(erf),
        "Gelu" => match node.text("approximate").unwrap_or("none") {
            "none" => Box::new(|x| 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))),
            "tanh" => Box::new(|x| {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
                0.5 * x * (1.0 + inner.tanh())
            }),
            _ => return None,
        },
        "Exp" => Box::new(f64::exp),
        "Log" => Box::new(f64::ln),
        "Sqrt" => Box::new(f64::sqrt),
        "Abs" => Box::new(f64::abs),
        "Neg" => Box::new(|x| -x),
        "Reciprocal" => Box::new(|x| 1.0 / x),
        "Softplus" => Box::new(softplus),
        "Softsign" => Box::new(|x| x / (1.0 + x.abs())),
        "HardSigmoid" => {
            let (alpha, beta) = (alpha(0.2), beta(0.5));
            Box::new(move |x| (alpha * x + beta).clamp(0.0, 1.0))
        }
        "HardSwish" => Box::new(|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        "Swish" => {
            let alpha = alpha(1.0);
            Box::new(move |x| x * sigmoid(alpha * x))
        }
        "Mish" => Box::new(|x| x * softplus(x).tanh()),
        "Elu" => {
            let alpha = alpha(1.0);
            Box::new(move |x| if x < 0.0 { alpha * x.exp_m1() } else { x })
        }
        "Selu" => {
            let alpha = alpha(1.673_263_2);
            let gamma = f64::from(node.float("gamma").unwrap_or(1.050_701));
            Box::new(move |x| gamma * if x < 0.0 { alpha * x.exp_m1() } else { x })
        }
        "ThresholdedRelu" => {
            let alpha = alpha(1.0);
            Box::new(move |x| if x > alpha { x } else { 0.0 })
        }
        _ => return None,
    })
}

/// `a OP b` with broadcasting, in the order of row-major positions.
fn zip<T: Copy + Default, U>(
    a: (&[usize], &[T]),
    b: (&[usize], &[T]),
    op: impl Fn(T, T) -> U,
) -> Result<(Vec<usize>, Vec<U>), Reason> {
    let shape = broadcast(a.0, b.0).ok_or_else(|| format!("shapes {:?} and {:?} do not broadcast", a.0, b.0))?;
    count(&shape).ok_or("the result has too many elements")?;
    let refuse = || format!("shapes {:?} and {:?} do not broadcast", a.0, b.0);
    let first = signed(&broadcast_strides(a.0, &shape).ok_or_else(refuse)?);
    let second = signed(&broadcast_strides(b.0, &shape).ok_or_else(refuse)?);
    let get = |values: &[T], at: i64| {
        usize::try_from(at)
            .ok()
            .and_then(|at| values.get(at))
            .copied()
            .unwrap_or_default()
    };
    let out = Walk::new(&shape, &first, 0)
        .zip(Walk::new(&shape, &second, 0))
        .map(|(i, j)| op(get(a.1, i), get(b.1, j)))
        .collect();
    Ok((shape, out))
}

/// Operators of two (or, for `Clip`, `Where`, `Min` and `Max`, other numbers of) tensors.
pub(super) fn binary(args: &Args<'_>) -> Result<Tensor, Reason> {
    match args.node.op.as_str() {
        "Clip" => return clip(args),
        "Where" => return choose(args),
        "Min" | "Max" => {
            let (shape, values) = args.floats(0)?;
            let (mut shape, mut values) = (shape.to_vec(), values.to_vec());
            for at in 1..args.tensors.len() {
                let op = if args.node.op == "Min" { f32::min } else { f32::max };
                (shape, values) = zip((&shape, &values), args.floats(at)?, op)?;
            }
            return Ok(Tensor::floats(shape, values));
        }
        _ => {}
    }
    let (a, b) = (args.need(0)?, args.need(1)?);
    if let (Data::Int(x), Data::Int(y)) = (&a.data, &b.data) {
        let op: fn(i64, i64) -> i64 = match args.node.op.as_str() {
            "Add" => i64::wrapping_add,
            "Sub" => i64::wrapping_sub,
            "Mul" => i64::wrapping_mul,
            "Div" => |x, y| x.checked_div(y).unwrap_or(0),
            "Equal" => |x, y| i64::from(x == y),
            _ => return Err("it is not defined on integers".to_owned()),
        };
        let (shape, values) = zip((&a.shape, x), (&b.shape, y), op)?;
        return Ok(Tensor::ints(shape, values));
    }
    let op: fn(f32, f32) -> f32 = match args.node.op.as_str() {
        "Add" => |x, y| x + y,
        "Sub" => |x, y| x - y,
        "Mul" => |x, y| x * y,
        "Div" => |x, y| x / y,
        "Pow" => |x, y| f64::from(x).powf(f64::from(y)) as f32,
        "PRelu" => |x, slope| if x < 0.0 { slope * x } else { x },
        _ => return Err("it is not defined on real numbers".to_owned()),
    };
    let (a_shape, x) = args.floats(0)?;
    // `Pow` accepts an integer exponent.
    let exponent: Vec<f32>;
    let (b_shape, y) = match &b.data {
        Data::Int(values) if args.node.op == "Pow" => {
            exponent = values.iter().map(|value| *value as f32).collect();
            (b.shape.as_slice(), exponent.as_slice())
        }
        _ => args.floats(1)?,
    };
    let (shape, values) = zip((a_shape, x), (b_shape, y), op)?;
    Ok(Tensor::floats(shape, values))
}

/// Bounds of `Clip`: attributes before operator set 11, inputs from then on.
fn clip(args: &Args<'_>) -> Result<Tensor, Reason> {
    let (shape, values) = args.floats(0)?;
    let bound = |name: &str, at: usize, default: f32| {
        args.node
            .float(name)
            .or_else(|| args.get(at).and_then(Tensor::single))
            .unwrap_or(default)
    };
    let (lo, hi) = (bound("min", 1, f32::NEG_INFINITY), bound("max", 2, f32::INFINITY));
    Ok(Tensor::floats(
        shape.to_vec(),
        values.iter().map(|value| value.max(lo).min(hi)).collect(),
    ))
}

fn choose(args: &Args<'_>) -> Result<Tensor, Reason> {
    let condition = args.need(0)?;
    let flags = condition.as_ints().ok_or("the condition is not boolean")?;
    let flags: Vec<f32> = flags.iter().map(|flag| if *flag == 0 { 0.0 } else { 1.0 }).collect();
    let (x, y) = (args.floats(1)?, args.floats(2)?);
    // Pairs first, so that both branches have one shape.
    let (shape, pairs) = zip(x, y, |x, y| (x, y))?;
    let full = broadcast(&condition.shape, &shape).ok_or("the shapes do not broadcast")?;
    let at = |from: &[usize]| {
        broadcast_strides(from, &full)
            .map(|steps| signed(&steps))
            .ok_or("the shapes do not broadcast")
    };
    let (first, second) = (at(&condition.shape)?, at(&shape)?);
    let values = Walk::new(&full, &first, 0)
        .zip(Walk::new(&full, &second, 0))
        .map(|(flag, pair)| {
            let flag = usize::try_from(flag)
                .ok()
                .and_then(|at| flags.get(at))
                .copied()
                .unwrap_or(0.0);
            let pair = usize::try_from(pair)
                .ok()
                .and_then(|at| pairs.get(at))
                .copied()
                .unwrap_or((0.0, 0.0));
            if flag == 0.0 { pair.1 } else { pair.0 }
        })
        .collect();
    Ok(Tensor::floats(full, values))
}
