//! Operations that move elements, and the integer operations that compute shapes.

use super::{Args, Reason, axis};
use crate::{
    shape::{Walk, broadcast, broadcast_strides, signed, strides},
    tensor::{Data, Tensor, count},
};

/// The same elements read in the order of `index` from a tensor.
fn pick(tensor: &Tensor, shape: Vec<usize>, index: impl Iterator<Item = i64>) -> Result<Tensor, Reason> {
    fn of<T: Clone>(values: &[T], index: impl Iterator<Item = i64>) -> Result<Vec<T>, Reason> {
        index
            .map(|at| usize::try_from(at).ok().and_then(|at| values.get(at)).cloned())
            .collect::<Option<Vec<T>>>()
            .ok_or_else(|| "an index lies outside the tensor".to_owned())
    }
    count(&shape).ok_or("the result has too many elements")?;
    let data = match &tensor.data {
        Data::Float(values) => Data::Float(of(values, index)?),
        Data::Int(values) => Data::Int(of(values, index)?),
        Data::Text(values) => Data::Text(of(values, index)?),
    };
    Ok(Tensor { shape, data })
}

/// Positions of a shape in row-major order for strides, empty for an empty shape.
fn walk<'a>(shape: &'a [usize], steps: &'a [i64], offset: i64) -> Box<dyn Iterator<Item = i64> + 'a> {
    if shape.contains(&0) {
        Box::new(std::iter::empty())
    } else {
        Box::new(Walk::new(shape, steps, offset))
    }
}

pub(super) fn cast(args: &Args<'_>) -> Result<Tensor, Reason> {
    let tensor = args.need(0)?;
    let data = match (args.node.int("to").unwrap_or(1), &tensor.data) {
        (1, Data::Int(values)) => Data::Float(values.iter().map(|value| *value as f32).collect()),
        (2..=7 | 12 | 13, Data::Float(values)) => Data::Int(values.iter().map(|value| *value as i64).collect()),
        (9, Data::Int(values)) => Data::Int(values.iter().map(|value| i64::from(*value != 0)).collect()),
        (9, Data::Float(values)) => Data::Int(values.iter().map(|value| i64::from(*value != 0.0)).collect()),
        (1, Data::Float(_)) | (2..=7 | 12 | 13, Data::Int(_)) | (8, Data::Text(_)) => tensor.data.clone(),
        (11, _) => return Err("it casts to float64: export the model in float32".to_owned()),
        (code, _) => return Err(format!("the cast to element type {code} is not supported")),
    };
    Ok(Tensor {
        shape: tensor.shape.clone(),
        data,
    })
}

/// The shape that `Reshape` asks for: 0 copies a dimension, -1 takes what is left.
fn target(own: &[usize], asked: &[i64], allow_zero: bool) -> Result<Vec<usize>, Reason> {
    let total: usize = own.iter().product();
    let mut shape = Vec::with_capacity(asked.len());
    let mut open = None;
    for (at, dim) in asked.iter().enumerate() {
        shape.push(match dim {
            -1 if open.is_none() => {
                open = Some(at);
                1
            }
            0 if !allow_zero => own.get(at).copied().ok_or("dimension 0 copies one that is not there")?,
            dim => usize::try_from(*dim).map_err(|_| format!("the shape {asked:?} is none"))?,
        });
    }
    if let Some(slot) = open.and_then(|at| shape.get_mut(at)) {
        let known = asked
            .iter()
            .zip(own.iter().chain(std::iter::repeat(&1)))
            .fold(1usize, |known, (dim, own)| {
                known.saturating_mul(match dim {
                    -1 => 1,
                    0 if !allow_zero => *own,
                    dim => usize::try_from(*dim).unwrap_or(0),
                })
            });
        *slot = total.checked_div(known).ok_or("a dimension of -1 beside one of 0")?;
    }
    if count(&shape) == Some(total) {
        Ok(shape)
    } else {
        Err(format!("shape {own:?} does not reshape to {asked:?}"))
    }
}

/// Axes of `Squeeze` or `Unsqueeze`, made non-negative and sorted.
fn axes(given: &[i64], rank: usize) -> Result<Vec<usize>, Reason> {
    let mut out = given.iter().map(|at| axis(*at, rank)).collect::<Result<Vec<_>, _>>()?;
    out.sort_unstable();
    out.dedup();
    Ok(out)
}

pub(super) fn rearrange(args: &Args<'_>) -> Result<Tensor, Reason> {
    let node = args.node;
    let x = args.need(0)?;
    let rank = x.shape.len();
    let reshaped = |shape| {
        Ok(Tensor {
            shape,
            data: x.data.clone(),
        })
    };
    match node.op.as_str() {
        "Reshape" => {
            let asked = args.list("shape", 1)?.ok_or("the shape is missing")?;
            reshaped(target(&x.shape, &asked, node.int("allowzero").unwrap_or(0) != 0)?)
        }
        "Flatten" => {
            let at = node.int("axis").unwrap_or(1);
            let at = if at == i64::try_from(rank).unwrap_or(0) {
                rank
            } else {
                axis(at, rank)?
            };
            let rows = x.shape.iter().take(at).product();
            reshaped(vec![rows, x.shape.iter().skip(at).product()])
        }
        "Squeeze" => {
            let drop = match args.list("axes", 1)? {
                Some(given) => axes(&given, rank)?,
                None => (0..rank).filter(|at| x.shape.get(*at) == Some(&1)).collect(),
            };
            if drop.iter().any(|at| x.shape.get(*at) != Some(&1)) {
                return Err("it drops a dimension that is not 1".to_owned());
            }
            reshaped(
                x.shape
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| !drop.contains(at))
                    .map(|(_, dim)| *dim)
                    .collect(),
            )
        }
        "Unsqueeze" => {
            let given = args.list("axes", 1)?.ok_or("the axes are missing")?;
            let added = axes(&given, rank + given.len())?;
            let mut own = x.shape.iter();
            let shape = (0..rank + added.len())
                .map(|at| {
                    if added.contains(&at) {
                        1
                    } else {
                        own.next().copied().unwrap_or(1)
                    }
                })
                .collect();
            reshaped(shape)
        }
        "Transpose" => {
            let perm: Vec<usize> = match node.ints("perm") {
                Some(perm) => perm.iter().map(|at| axis(*at, rank)).collect::<Result<_, _>>()?,
                None => (0..rank).rev().collect(),
            };
            let mut sorted = perm.clone();
            sorted.sort_unstable();
            if sorted != (0..rank).collect::<Vec<_>>() {
                return Err("perm is not a permutation".to_owned());
            }
            let own = signed(&strides(&x.shape));
            let get = |at: &usize| x.shape.get(*at).copied().unwrap_or(1);
            let steps: Vec<i64> = perm.iter().map(|at| own.get(*at).copied().unwrap_or(0)).collect();
            let shape: Vec<usize> = perm.iter().map(get).collect();
            pick(x, shape.clone(), walk(&shape, &steps, 0))
        }
        "Expand" => {
            let asked = args.list("shape", 1)?.ok_or("the shape is missing")?;
            let asked: Vec<usize> = asked.iter().map(|dim| usize::try_from(*dim).unwrap_or(0)).collect();
            let shape = broadcast(&x.shape, &asked).ok_or("the shapes do not broadcast")?;
            let steps = signed(&broadcast_strides(&x.shape, &shape).ok_or("the shapes do not broadcast")?);
            pick(x, shape.clone(), walk(&shape, &steps, 0))
        }
        "Slice" => slice(args, x),
        "Pad" => pad(args, x),
        "Gather" => gather(args, x),
        "Concat" => concat(args),
        "Shape" => {
            let dims: Vec<i64> = x.shape.iter().map(|dim| i64::try_from(*dim).unwrap_or(0)).collect();
            let clamp = |at: i64| {
                let rank = i64::try_from(rank).unwrap_or(0);
                usize::try_from(if at < 0 { at + rank } else { at }.clamp(0, rank)).unwrap_or(0)
            };
            let start = clamp(node.int("start").unwrap_or(0));
            let end = clamp(node.int("end").unwrap_or(i64::MAX));
            let dims = dims.get(start..end.max(start)).unwrap_or_default().to_vec();
            Ok(Tensor::ints(vec![dims.len()], dims))
        }
        "ConstantOfShape" => {
            let dims = x.as_ints().ok_or("the shape is not int64")?;
            let shape: Vec<usize> = dims.iter().map(|dim| usize::try_from(*dim).unwrap_or(0)).collect();
            let size = count(&shape).ok_or("the result has too many elements")?;
            Ok(match node.attributes.get("value") {
                Some(crate::onnx::Attribute::Tensor(Tensor {
                    data: Data::Int(values),
                    ..
                })) => Tensor::ints(shape, vec![values.first().copied().unwrap_or(0); size]),
                Some(crate::onnx::Attribute::Tensor(Tensor {
                    data: Data::Float(values),
                    ..
                })) => Tensor::floats(shape, vec![values.first().copied().unwrap_or(0.0); size]),
                _ => Tensor::floats(shape, vec![0.0; size]),
            })
        }
        "Range" => {
            let get = |at: usize| {
                args.need(at)
                    .ok()
                    .and_then(Tensor::as_ints)
                    .and_then(<[i64]>::first)
                    .copied()
            };
            let (Some(start), Some(limit), Some(step)) = (get(0), get(1), get(2)) else {
                return Err("only ranges of integers are supported".to_owned());
            };
            if step == 0 || limit.abs_diff(start) / step.unsigned_abs() > 1 << 24 {
                return Err("the range is endless or too long".to_owned());
            }
            let mut values = Vec::new();
            let mut at = start;
            while (step > 0 && at < limit) || (step < 0 && at > limit) {
                values.push(at);
                at = at.saturating_add(step);
            }
            Ok(Tensor::ints(vec![values.len()], values))
        }
        op => Err(super::unsupported(op)),
    }
}

/// First position, step and size of a slice in every dimension.
pub(crate) type Cuts = Vec<(usize, i64, usize)>;

/// Reads the parameters of `Slice`.
pub(crate) fn cuts(args: &Args<'_>, shape: &[usize]) -> Result<Cuts, Reason> {
    let starts = args.list("starts", 1)?.ok_or("the starts are missing")?;
    let ends = args.list("ends", 2)?.ok_or("the ends are missing")?;
    let axes = args
        .list("axes", 3)?
        .unwrap_or_else(|| (0..starts.len()).map(|at| i64::try_from(at).unwrap_or(0)).collect());
    let steps = args.list("steps", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
    let mut out: Cuts = shape.iter().map(|dim| (0, 1, *dim)).collect();
    if starts.len() != ends.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err("starts, ends, axes and steps have different lengths".to_owned());
    }
    for (((start, end), at), step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
        let at = axis(*at, shape.len())?;
        let dim = i64::try_from(shape.get(at).copied().unwrap_or(0)).unwrap_or(0);
        if *step == 0 || i32::try_from(*step).is_err() {
            return Err("a step is 0 or too large".to_owned());
        }
        let absolute = |value: i64| if value < 0 { value.saturating_add(dim) } else { value };
        let (start, end) = if *step > 0 {
            (absolute(*start).clamp(0, dim), absolute(*end).clamp(0, dim))
        } else {
            (absolute(*start).clamp(-1, dim - 1), absolute(*end).clamp(-1, dim - 1))
        };
        let distance = if *step > 0 { end - start } else { start - end };
        let size = usize::try_from(distance.max(0))
            .unwrap_or(0)
            .div_ceil(usize::try_from(step.unsigned_abs()).unwrap_or(1));
        if let Some(slot) = out.get_mut(at) {
            *slot = (usize::try_from(start.max(0)).unwrap_or(0), *step, size);
        }
    }
    Ok(out)
}

fn slice(args: &Args<'_>, x: &Tensor) -> Result<Tensor, Reason> {
    let cuts = cuts(args, &x.shape)?;
    let own = signed(&strides(&x.shape));
    let shape: Vec<usize> = cuts.iter().map(|(_, _, size)| *size).collect();
    let offset = cuts
        .iter()
        .zip(&own)
        .map(|((start, _, _), stride)| i64::try_from(*start).unwrap_or(0) * stride)
        .sum();
    let steps: Vec<i64> = cuts
        .iter()
        .zip(&own)
        .map(|((_, step, _), stride)| step * stride)
        .collect();
    pick(x, shape.clone(), walk(&shape, &steps, offset))
}

/// Elements before and after every dimension.
pub(crate) fn margins(args: &Args<'_>, rank: usize) -> Result<Vec<(usize, usize)>, Reason> {
    if args.node.text("mode").unwrap_or("constant") != "constant" {
        return Err("only padding with a constant is supported".to_owned());
    }
    let pads = args.list("pads", 1)?.ok_or("the pads are missing")?;
    let chosen: Vec<i64> = match args.get(3) {
        Some(tensor) => tensor.as_ints().ok_or("the axes are not int64")?.to_vec(),
        None => (0..rank).map(|at| i64::try_from(at).unwrap_or(0)).collect(),
    };
    if pads.len() != 2 * chosen.len() {
        return Err("the pads have not two entries per dimension".to_owned());
    }
    let mut out = vec![(0, 0); rank];
    let (before, after) = pads.split_at(chosen.len());
    for ((at, before), after) in chosen.iter().zip(before).zip(after) {
        let size =
            |value: &i64| usize::try_from(*value).map_err(|_| "negative pads are not supported: use Slice".to_owned());
        if let Some(slot) = out.get_mut(axis(*at, rank)?) {
            *slot = (size(before)?, size(after)?);
        }
    }
    Ok(out)
}

/// The value that `Pad` writes.
pub(crate) fn filler(args: &Args<'_>) -> f32 {
    args.node
        .float("value")
        .or_else(|| args.get(2).and_then(Tensor::single))
        .unwrap_or(0.0)
}

fn pad(args: &Args<'_>, x: &Tensor) -> Result<Tensor, Reason> {
    let values = x.as_floats().ok_or("only float32 is supported")?;
    let margins = margins(args, x.shape.len())?;
    let shape: Vec<usize> = x
        .shape
        .iter()
        .zip(&margins)
        .map(|(dim, (before, after))| dim.saturating_add(*before).saturating_add(*after))
        .collect();
    let mut out = vec![filler(args); count(&shape).ok_or("the result has too many elements")?];
    let to = signed(&strides(&shape));
    let offset = margins
        .iter()
        .zip(&to)
        .map(|((before, _), stride)| i64::try_from(*before).unwrap_or(0).saturating_mul(*stride))
        .sum();
    for (value, at) in values.iter().zip(walk(&x.shape, &to, offset)) {
        if let Some(slot) = usize::try_from(at).ok().and_then(|at| out.get_mut(at)) {
            *slot = *value;
        }
    }
    Ok(Tensor::floats(shape, out))
}

fn gather(args: &Args<'_>, x: &Tensor) -> Result<Tensor, Reason> {
    let at = axis(args.node.int("axis").unwrap_or(0), x.shape.len())?;
    let indices = args.need(1)?;
    let list = indices.as_ints().ok_or("the indices are not int64")?;
    let dim = x.shape.get(at).copied().unwrap_or(1);
    let outer: usize = x.shape.iter().take(at).product();
    let inner: usize = x.shape.iter().skip(at + 1).product();
    let list: Vec<usize> = list
        .iter()
        .map(|index| axis(*index, dim))
        .collect::<Result<_, _>>()
        .map_err(|_| "an index lies outside the tensor")?;
    let mut shape = x.shape.get(..at).unwrap_or_default().to_vec();
    shape.extend(&indices.shape);
    shape.extend(x.shape.get(at + 1..).unwrap_or_default());
    count(&shape).ok_or("the result has too many elements")?;
    let index = (0..outer).flat_map(|o| {
        list.iter()
            .flat_map(move |index| (0..inner).map(move |i| i64::try_from((o * dim + index) * inner + i).unwrap_or(-1)))
    });
    pick(x, shape, index)
}

fn concat(args: &Args<'_>) -> Result<Tensor, Reason> {
    let first = args.need(0)?;
    let at = axis(args.node.int("axis").unwrap_or(0), first.shape.len())?;
    let mut shape = first.shape.clone();
    let mut total = 0usize;
    for number in 0..args.tensors.len() {
        let tensor = args.need(number)?;
        let same = tensor.shape.len() == shape.len()
            && tensor
                .shape
                .iter()
                .zip(&shape)
                .enumerate()
                .all(|(i, (a, b))| i == at || a == b);
        if !same {
            return Err(format!(
                "shapes {:?} and {:?} do not concatenate",
                first.shape, tensor.shape
            ));
        }
        total = total.saturating_add(tensor.shape.get(at).copied().unwrap_or(0));
    }
    if let Some(slot) = shape.get_mut(at) {
        *slot = total;
    }
    count(&shape).ok_or("the result has too many elements")?;
    let outer: usize = shape.iter().take(at).product();
    let mut floats = Vec::new();
    let mut ints = Vec::new();
    for o in 0..outer {
        for number in 0..args.tensors.len() {
            let tensor = args.need(number)?;
            let block: usize = tensor.shape.iter().skip(at).product();
            let range = o * block..(o + 1) * block;
            match &tensor.data {
                Data::Float(values) => floats.extend(values.get(range).unwrap_or_default()),
                Data::Int(values) => ints.extend(values.get(range).unwrap_or_default()),
                Data::Text(_) => return Err("texts do not concatenate".to_owned()),
            }
        }
    }
    match &first.data {
        Data::Float(_) => Ok(Tensor::floats(shape, floats)),
        _ => Ok(Tensor::ints(shape, ints)),
    }
}

/// Sizes of the parts of `Split`.
pub(crate) fn parts(args: &Args<'_>, dim: usize) -> Result<Vec<usize>, Reason> {
    if let Some(sizes) = args.list("split", 1)? {
        let sizes: Vec<usize> = sizes.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect();
        return if sizes.iter().sum::<usize>() == dim {
            Ok(sizes)
        } else {
            Err("the parts do not add up".to_owned())
        };
    }
    let number = args.node.outputs.len().max(1);
    let size = dim.div_ceil(number);
    Ok((0..number).map(|at| dim.saturating_sub(at * size).min(size)).collect())
}

pub(super) fn split(args: &Args<'_>) -> Result<Vec<Tensor>, Reason> {
    let x = args.need(0)?;
    let at = axis(args.node.int("axis").unwrap_or(0), x.shape.len())?;
    let own = signed(&strides(&x.shape));
    let mut start = 0usize;
    let mut out = Vec::new();
    for size in parts(args, x.shape.get(at).copied().unwrap_or(0))? {
        let mut shape = x.shape.clone();
        if let Some(slot) = shape.get_mut(at) {
            *slot = size;
        }
        let offset = i64::try_from(start).unwrap_or(0) * own.get(at).copied().unwrap_or(0);
        out.push(pick(x, shape.clone(), walk(&shape, &own, offset))?);
        start += size;
    }
    Ok(out)
}
