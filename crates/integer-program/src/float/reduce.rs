//! Operations that make few elements of many.

use super::{Args, Reason, axis, linear};
use crate::{
    shape::{Walk, broadcast_strides, signed},
    tensor::{Tensor, count},
};

/// Axes that a reduction removes, non-negative and ascending.
pub(crate) fn axes(args: &Args<'_>, rank: usize) -> Result<Vec<usize>, Reason> {
    if args.node.op.starts_with("Global") {
        return Ok((2..rank).collect());
    }
    match args.list("axes", 1)? {
        Some(given) if !given.is_empty() => {
            let mut out = given.iter().map(|at| axis(*at, rank)).collect::<Result<Vec<_>, _>>()?;
            out.sort_unstable();
            out.dedup();
            Ok(out)
        }
        _ if args.node.int("noop_with_empty_axes").unwrap_or(0) != 0 => Ok(Vec::new()),
        _ => Ok((0..rank).collect()),
    }
}

/// Whether a reduction leaves dimensions of size 1.
pub(crate) fn keeps(args: &Args<'_>) -> bool {
    args.node.op.starts_with("Global") || args.node.int("keepdims").unwrap_or(1) != 0
}

pub(super) fn reduce(args: &Args<'_>) -> Result<Tensor, Reason> {
    let (shape, values) = args.floats(0)?;
    let axes = axes(args, shape.len())?;
    let kept: Vec<usize> = shape
        .iter()
        .enumerate()
        .map(|(at, dim)| if axes.contains(&at) { 1 } else { *dim })
        .collect();
    let steps = signed(&broadcast_strides(&kept, shape).ok_or("the shapes do not broadcast")?);
    let size = count(&kept).ok_or("the result has too many elements")?;
    let is_max = args.node.op.contains("Max");
    let square = args.node.op == "ReduceSumSquare";
    let mut out = vec![if is_max { f64::NEG_INFINITY } else { 0.0 }; size];
    for (value, at) in values.iter().zip(Walk::new(shape, &steps, 0)) {
        if let Some(slot) = usize::try_from(at).ok().and_then(|at| out.get_mut(at)) {
            let value = f64::from(*value);
            *slot = if is_max {
                slot.max(value)
            } else {
                *slot + if square { value * value } else { value }
            };
        }
    }
    if args.node.op.contains("Mean") || args.node.op.contains("Average") {
        let number = (values.len() / size.max(1)) as f64;
        for value in &mut out {
            *value /= number;
        }
    }
    let shape = if keeps(args) {
        kept
    } else {
        shape
            .iter()
            .enumerate()
            .filter(|(at, _)| !axes.contains(at))
            .map(|(_, dim)| *dim)
            .collect()
    };
    Ok(Tensor::floats(
        shape,
        out.into_iter().map(|value| value as f32).collect(),
    ))
}

/// Axis, and whether everything after it counts as one dimension (operator sets before 13).
pub(crate) fn softmax_axes(args: &Args<'_>, rank: usize) -> Result<Vec<usize>, Reason> {
    let modern = args.opset >= 13;
    let first = axis(args.node.int("axis").unwrap_or(if modern { -1 } else { 1 }), rank)?;
    Ok(if modern { vec![first] } else { (first..rank).collect() })
}

pub(super) fn softmax(args: &Args<'_>) -> Result<Tensor, Reason> {
    let (shape, values) = args.floats(0)?;
    let axes = softmax_axes(args, shape.len())?;
    let kept: Vec<usize> = shape
        .iter()
        .enumerate()
        .map(|(at, dim)| if axes.contains(&at) { 1 } else { *dim })
        .collect();
    let steps = signed(&broadcast_strides(&kept, shape).ok_or("the shapes do not broadcast")?);
    let size = count(&kept).ok_or("too many elements")?;
    let mut most = vec![f64::NEG_INFINITY; size];
    let mut sums = vec![0f64; size];
    let slots: Vec<usize> = Walk::new(shape, &steps, 0)
        .map(|at| usize::try_from(at).unwrap_or(0))
        .collect();
    for (value, at) in values.iter().zip(&slots) {
        if let Some(slot) = most.get_mut(*at) {
            *slot = slot.max(f64::from(*value));
        }
    }
    let shifted: Vec<f64> = values
        .iter()
        .zip(&slots)
        .map(|(value, at)| (f64::from(*value) - most.get(*at).copied().unwrap_or(0.0)).exp())
        .collect();
    for (value, at) in shifted.iter().zip(&slots) {
        if let Some(slot) = sums.get_mut(*at) {
            *slot += value;
        }
    }
    let out = shifted
        .iter()
        .zip(&slots)
        .map(|(value, at)| (value / sums.get(*at).copied().unwrap_or(1.0)) as f32)
        .collect();
    Ok(Tensor::floats(shape.to_vec(), out))
}

pub(super) fn argmax(args: &Args<'_>) -> Result<Tensor, Reason> {
    let (shape, values) = args.floats(0)?;
    let at = axis(args.node.int("axis").unwrap_or(0), shape.len())?;
    let last = args.node.int("select_last_index").unwrap_or(0) != 0;
    let positions = crate::quantise::argmax(shape, values, at, last).ok_or("the shape is empty")?;
    let mut out = shape.to_vec();
    out.splice(at..=at, (args.node.int("keepdims").unwrap_or(1) != 0).then_some(1));
    Ok(Tensor::ints(
        out,
        positions.into_iter().map(|at| i64::try_from(at).unwrap_or(0)).collect(),
    ))
}

/// Steps and kernel of a pool. `ceil_mode` becomes padding after the image: at most what makes the last window start
/// inside image and leading padding.
pub(crate) fn pool_window(
    args: &Args<'_>,
    shape: &[usize],
) -> Result<(crate::program::Window, [usize; 2], [u32; 4]), Reason> {
    let ([_, _, height, width], flat) = linear::image(shape)?;
    let sizes = args.node.ints("kernel_shape").ok_or("kernel_shape is missing")?;
    let number = |value: &i64| usize::try_from(*value).map_err(|_| "kernel_shape is negative".to_owned());
    let kernel = match sizes {
        [x] if flat => [1, number(x)?],
        [y, x] if !flat => [number(y)?, number(x)?],
        _ => return Err("kernel_shape has not one entry per spatial dimension".to_owned()),
    };
    if args.node.int("storage_order").unwrap_or(0) != 0 || args.node.outputs.get(1).copied().flatten().is_some() {
        return Err("indices of maxima are not supported".to_owned());
    }
    let mut window = linear::window(args.node, [height, width], kernel, flat)?;
    let declared = window.pads;
    if args.node.int("ceil_mode").unwrap_or(0) != 0 {
        for (at, size) in [height, width].into_iter().enumerate() {
            let get = |values: &[u32]| values.get(at).copied().unwrap_or(0) as usize;
            let (stride, before) = (get(&window.strides), get(&window.pads));
            let reach =
                (kernel.get(at).copied().unwrap_or(1).saturating_sub(1)).saturating_mul(get(&window.dilations)) + 1;
            let after = window.pads.get(at + 2).copied().unwrap_or(0) as usize;
            let room = (size + before + after)
                .checked_sub(reach)
                .ok_or("the kernel is larger than the image")?;
            let mut steps = room.div_ceil(stride.max(1));
            if steps * stride >= size + before {
                steps = steps.saturating_sub(1);
            }
            let needed = (steps * stride + reach).saturating_sub(size + before);
            if let Some(slot) = window.pads.get_mut(at + 2) {
                // Fewer steps than the padding allows never happen: the padding only grows.
                *slot =
                    u32::try_from(needed.max(if steps * stride > room { needed } else { after })).unwrap_or(u32::MAX);
            }
        }
    }
    Ok((window, kernel, declared))
}

/// For every position of a pool's window, how many elements its mean divides by.
pub(crate) fn pool_counts(args: &Args<'_>, shape: &[usize]) -> Result<(Vec<usize>, [usize; 2]), Reason> {
    let ([_, _, height, width], _) = linear::image(shape)?;
    let (window, kernel, declared) = pool_window(args, shape)?;
    let out = window
        .output([height, width], kernel)
        .ok_or("the kernel is larger than the image")?;
    let include = args.node.int("count_include_pad").unwrap_or(0) != 0;
    let span = |at: usize, o: usize| -> usize {
        let get = |values: &[u32]| values.get(at).copied().unwrap_or(0) as usize;
        let size = if at == 0 { height } else { width };
        let (before, after) = (get(&window.pads), declared.get(at + 2).copied().unwrap_or(0) as usize);
        (0..kernel.get(at).copied().unwrap_or(1))
            .filter(|k| {
                let at = o * get(&window.strides) + k * get(&window.dilations);
                if include {
                    at < before + size + after
                } else {
                    at >= before && at < before + size
                }
            })
            .count()
    };
    let [rows, columns] = out;
    let counts = (0..rows)
        .flat_map(|i| (0..columns).map(move |j| (i, j)))
        .map(|(i, j)| span(0, i) * span(1, j))
        .collect();
    Ok((counts, out))
}

pub(super) fn pool(args: &Args<'_>) -> Result<Tensor, Reason> {
    let (x_shape, x) = args.floats(0)?;
    let ([batch, channels, height, width], flat) = linear::image(x_shape)?;
    let (window, [rows, columns], _) = pool_window(args, x_shape)?;
    let (counts, [out_height, out_width]) = pool_counts(args, x_shape)?;
    let is_max = args.node.op == "MaxPool";
    let [top, left, _, _] = window.pads.map(|pad| pad as usize);
    let [down, across] = window.strides.map(|step| step as usize);
    let [dilate_down, dilate_across] = window.dilations.map(|step| step as usize);
    let shape = if flat {
        vec![batch, channels, out_width]
    } else {
        vec![batch, channels, out_height, out_width]
    };
    let mut out = Vec::with_capacity(count(&shape).ok_or("the result has too many elements")?);
    for image in 0..batch * channels {
        for i in 0..out_height {
            for j in 0..out_width {
                let (mut most, mut sum) = (f64::NEG_INFINITY, 0f64);
                for u in 0..rows {
                    let Some(y) = (i * down + u * dilate_down).checked_sub(top).filter(|y| *y < height) else {
                        continue;
                    };
                    for v in 0..columns {
                        let z = (j * across + v * dilate_across)
                            .checked_sub(left)
                            .filter(|z| *z < width);
                        let Some(z) = z else { continue };
                        let value = x.get((image * height + y) * width + z).copied().map_or(0.0, f64::from);
                        most = most.max(value);
                        sum += value;
                    }
                }
                let number = counts.get(i * out_width + j).copied().unwrap_or(1).max(1);
                out.push(if is_max { most } else { sum / number as f64 } as f32);
            }
        }
    }
    Ok(Tensor::floats(shape, out))
}
